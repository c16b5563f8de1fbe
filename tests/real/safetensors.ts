// Writes safetensors files in f32, f16 and bf16.
import { closeSync, openSync, writeSync } from "node:fs";

export const fileTypes = ["f32", "f16", "bf16"] as const;
export type FileType = (typeof fileTypes)[number];

const names = { f32: "F32", f16: "F16", bf16: "BF16" } satisfies Record<FileType, string>;

/** A tensor that is computed when its turn comes, so that one at a time is in memory. */
export interface Source {
  name: string;
  shape: number[];
  values: () => Float32Array;
}

export function writeSafetensors(path: string, type: FileType, tensors: readonly Source[]): void {
  const width = type === "f32" ? 4 : 2;
  const header: Record<string, unknown> = { __metadata__: { format: "pt" } };
  let offset = 0;
  for (const { name, shape } of tensors) {
    const bytes = width * shape.reduce((product, length) => product * length, 1);
    header[name] = { dtype: names[type], shape, data_offsets: [offset, offset + bytes] };
    offset += bytes;
  }
  const json = new TextEncoder().encode(JSON.stringify(header));
  // The format wants the data to start at a multiple of eight; spaces fill up.
  const start = new Uint8Array(8 + Math.ceil(json.length / 8) * 8).fill(0x20);
  new DataView(start.buffer).setBigUint64(0, BigInt(start.length - 8), true);
  start.set(json, 8);

  const file = openSync(path, "w");
  try {
    write(file, start);
    for (const { values } of tensors) write(file, encode(values(), type));
  } finally {
    closeSync(file);
  }
}

function write(file: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length; ) done += writeSync(file, bytes, done);
}

/** The values in little-endian bytes, rounded to the nearest, halves to even. */
export function encode(values: Float32Array, type: FileType): Uint8Array {
  if (type === "f32") return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const out = new Uint16Array(values.length);
  const round = type === "f16" ? half : brain;
  for (let i = 0; i < bits.length; i++) out[i] = round(bits[i] ?? 0);
  return new Uint8Array(out.buffer);
}

/** The upper half of an f32. */
function brain(bits: number): number {
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

function half(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const exponent = ((bits >>> 23) & 255) - 112;
  const fraction = bits & 0x7fffff;
  if (exponent >= 31) throw new Error("a weight does not fit f16");
  if (exponent > 0) return sign | nearest((exponent << 23) | fraction, 13);
  // Below 2^-14 the steps are 2^-24 wide.
  return exponent < -11 ? sign : sign | nearest(fraction | 0x800000, 14 - exponent);
}

/** `value` without its last `drop` bits; a carry may raise the exponent, which is right. */
function nearest(value: number, drop: number): number {
  const kept = value >>> drop;
  const rest = value & ((1 << drop) - 1);
  const middle = 1 << (drop - 1);
  return kept + (rest > middle || (rest === middle && (kept & 1) === 1) ? 1 : 0);
}
