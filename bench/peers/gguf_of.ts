// A GGUF file of another width with the same numbers, for programs that read nothing else: metadata as they are, matrices as F16 or Q8_0.
import { closeSync, openSync, readSync, writeSync } from "node:fs";
import { Gguf, type GgufTensor } from "../../tests/real/gguf.ts";
import { encode } from "../../tests/real/safetensors.ts";

export type Width = "F16" | "Q8_0";

/** The numbers of the types in the format. */
const kinds: Record<Width | "F32", number> = { F32: 0, F16: 1, Q8_0: 8 };
const alignment = 32;

/** Writes `from`, whose blocks are of the types that {@link Gguf} reads, to `to`. */
export function writeGguf(from: string, to: string, width: Width): void {
  const source = new Gguf(from);
  const kindOf = ({ shape }: GgufTensor): Width | "F32" => (shape.length > 1 ? width : "F32");
  const parts = source.tensors.map((tensor) => ({ tensor, data: bytesOf(source.values(tensor), kindOf(tensor)) }));
  const infos: Uint8Array[] = [];
  let at = 0;
  for (const { tensor, data } of parts) {
    infos.push(info(tensor, kinds[kindOf(tensor)], at));
    at += padded(data.length);
  }
  const head = Buffer.concat([headOf(from, source.metadataEnd), ...infos]);
  const file = openSync(to, "w");
  try {
    const write = (data: Uint8Array): void => {
      writeSync(file, data);
      writeSync(file, new Uint8Array(padded(data.length) - data.length));
    };
    write(head);
    for (const { data } of parts) write(data);
  } finally {
    closeSync(file);
    source.close();
  }
}

const padded = (bytes: number): number => Math.ceil(bytes / alignment) * alignment;

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

function info({ name, shape }: GgufTensor, kind: number, offset: number): Uint8Array {
  const text = new TextEncoder().encode(name);
  const view = new DataView(new ArrayBuffer(8 + text.length + 4 + 8 * shape.length + 4 + 8));
  let at = 0;
  const u64 = (value: number): void => {
    view.setBigUint64(at, BigInt(value), true);
    at += 8;
  };
  const u32 = (value: number): void => {
    view.setUint32(at, value, true);
    at += 4;
  };
  u64(text.length);
  new Uint8Array(view.buffer).set(text, at);
  at += text.length;
  u32(shape.length);
  for (const length of shape.toReversed()) u64(length);
  u32(kind);
  u64(offset);
  return new Uint8Array(view.buffer);
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
