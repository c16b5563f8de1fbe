// A GGUF file of another width with the same numbers, for programs that read nothing else: metadata as they are, matrices as F16 or Q8_0.
import { closeSync, openSync, readSync } from "node:fs";
import { Gguf, type GgufTensor } from "../../tests/real/gguf.ts";
import { encode } from "../../tests/real/safetensors.ts";
import { GgufBytes, padded, writeAll } from "./gguf_bytes.ts";

export type Width = "F16" | "Q8_0";

/** The numbers of the types in the format. */
const kinds: Record<Width | "F32", number> = { F32: 0, F16: 1, Q8_0: 8 };

/** Writes `from`, whose blocks are of the types that {@link Gguf} reads, to `to`. */
export function writeGguf(from: string, to: string, width: Width): void {
  const source = new Gguf(from);
  const kindOf = ({ shape }: GgufTensor): Width | "F32" => (shape.length > 1 ? width : "F32");
  const parts = source.tensors.map((tensor) => ({ tensor, data: bytesOf(source.values(tensor), kindOf(tensor)) }));
  const out = new GgufBytes().raw(headOf(from, source.metadataEnd));
  let at = 0;
  for (const { tensor, data } of parts) {
    out.tensor(tensor.name, tensor.shape.toReversed(), kinds[kindOf(tensor)], at);
    at += padded(data.length);
  }
  const file = openSync(to, "w");
  try {
    for (const data of [out.all(), ...parts.map(({ data }) => data)]) writeAll(file, data, padded(data.length));
  } finally {
    closeSync(file);
    source.close();
  }
}

/** From the start to the end of the metadata. */
function headOf(path: string, end: number): Uint8Array {
  const bytes = new Uint8Array(end);
  const file = openSync(path, "r");
  try {
    readSync(file, bytes, 0, end, 0);
  } finally {
    closeSync(file);
  }
  return bytes;
}

function bytesOf(values: Float32Array, kind: Width | "F32"): Uint8Array {
  if (kind !== "Q8_0") return encode(values, kind === "F32" ? "f32" : "f16");
  const scales = new Float32Array(values.length / 32);
  const out = new DataView(new ArrayBuffer(scales.length * 34));
  for (const block of scales.keys()) {
    const of = values.subarray(block * 32, block * 32 + 32);
    const scale = of.reduce((most, value) => Math.max(most, Math.abs(value)), 0) / 127;
    scales[block] = scale;
    // As llama.cpp does: steps of the scale before it is rounded, halves away from zero.
    for (const [index, value] of of.entries()) {
      const level = scale === 0 ? 0 : Math.sign(value) * Math.round(Math.abs(value) / scale);
      out.setInt8(block * 34 + 2 + index, level);
    }
  }
  const halves = encode(scales, "f16");
  for (const block of scales.keys()) {
    out.setUint8(block * 34, halves[2 * block] ?? 0);
    out.setUint8(block * 34 + 1, halves[2 * block + 1] ?? 0);
  }
  return new Uint8Array(out.buffer);
}
