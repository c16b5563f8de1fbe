"""Writes data/blocks.bin: random blocks of each format of ggml, and the numbers that they stand for.

Run: python tests/golden/blocks.py   (needs numpy and gguf; the file was made with gguf 0.19.0, whose `dequantize` is the reference)

Per type two little-endian u32 (the type's number in GGUF files, how many blocks), the blocks, then their numbers in f32. All bits of a
block are random but those of its f16 scales, which are finite and of both signs.
"""

from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize

# Where the f16 numbers of a block lie.
HALVES = {
    Type.Q4_0: [0],
    Type.Q4_1: [0, 2],
    Type.Q5_0: [0],
    Type.Q5_1: [0, 2],
    Type.Q8_0: [0],
    Type.Q2_K: [80, 82],
    Type.Q3_K: [108],
    Type.Q4_K: [0, 2],
    Type.Q5_K: [0, 2],
    Type.Q6_K: [208],
    Type.IQ4_NL: [0],
    Type.IQ4_XS: [0],
}

if __name__ == "__main__":
    random = np.random.default_rng(20)
    data = bytearray()
    for kind, halves in HALVES.items():
        weights, size = GGML_QUANT_SIZES[kind]
        n = 4 if weights == 32 else 2
        blocks = random.integers(0, 256, (n, size), dtype=np.uint8)
        for at in halves:
            scale = random.standard_normal(n) * 10.0 ** random.uniform(-4, 1, n)
            blocks[:, at : at + 2] = scale.astype("<f2")[:, None].view(np.uint8)
        numbers = dequantize(blocks.reshape(n * size), kind)
        assert numbers.shape == (n * weights,) and np.isfinite(numbers).all()
        data += np.array([kind, n], dtype="<u4").tobytes() + blocks.tobytes() + numbers.astype("<f4").tobytes()
    target = Path(__file__).parent / "data" / "blocks.bin"
    target.write_bytes(data)
    print(f"{target}: {len(HALVES)} types, {len(data)} bytes")
