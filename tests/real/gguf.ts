// Reads GGUF files: the metadata, the list of tensors, and the values of a tensor. For the tests with real weights only.
import { closeSync, fstatSync, openSync, readSync } from "node:fs";

export type GgufValue = string | number | boolean | GgufValue[];

export interface GgufTensor {
  name: string;
  /** Rows first, as in safetensors; the file has them the other way round. */
  shape: number[];
  type: string;
  /** Where the tensor starts, in bytes from the start of the file. */
  offset: number;
}

interface Block {
  name: string;
  /** Values in a block. */
  values: number;
  bytes: number;
  decode: (data: DataView, at: number, out: Float32Array, to: number) => void;
}

const f16 = (view: DataView, at: number): number => halfToNumber(view.getUint16(at, true));

/** The formats of the one file that is read, by their numbers in GGUF. */
const blocks = new Map<number, Block>([
  [0, { name: "F32", values: 1, bytes: 4, decode: decodeF32 }],
  [3, { name: "Q4_1", values: 32, bytes: 20, decode: decodeQ4 }],
  [8, { name: "Q8_0", values: 32, bytes: 34, decode: decodeQ8 }],
]);

function decodeF32(data: DataView, at: number, out: Float32Array, to: number): void {
  out[to] = data.getFloat32(at, true);
}

/** 32 numbers of 4 bits: `d * q + m`, the low halves of the bytes first. */
function decodeQ4(data: DataView, at: number, out: Float32Array, to: number): void {
  const scale = f16(data, at);
  const least = f16(data, at + 2);
  for (let i = 0; i < 16; i++) {
    const byte = data.getUint8(at + 4 + i);
    // The product is exact in 32 bits, so only the sum rounds, when it is stored.
    out[to + i] = scale * (byte & 15) + least;
    out[to + 16 + i] = scale * (byte >> 4) + least;
  }
}

/** 32 numbers of 8 bits: `d * q`. */
function decodeQ8(data: DataView, at: number, out: Float32Array, to: number): void {
  const scale = f16(data, at);
  for (let i = 0; i < 32; i++) out[to + i] = scale * data.getInt8(at + 2 + i);
}

function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}

/** Walks over the start of the file. */
class Cursor {
  readonly #view: DataView;
  readonly #bytes: Uint8Array;
  at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  u32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }

  u64(): number {
    const value = this.#view.getBigUint64(this.#take(8), true);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new Error(`GGUF: ${value} is no size`);
    return Number(value);
  }

  text(): string {
    const length = this.u64();
    const start = this.#take(length);
    return new TextDecoder("utf-8", { fatal: true }).decode(this.#bytes.subarray(start, start + length));
  }

  value(type: number): GgufValue {
    const view = this.#view;
    const readers: Record<number, () => GgufValue> = {
      0: () => view.getUint8(this.#take(1)),
      1: () => view.getInt8(this.#take(1)),
      2: () => view.getUint16(this.#take(2), true),
      3: () => view.getInt16(this.#take(2), true),
      4: () => this.u32(),
      5: () => view.getInt32(this.#take(4), true),
      6: () => view.getFloat32(this.#take(4), true),
      7: () => view.getUint8(this.#take(1)) !== 0,
      8: () => this.text(),
      9: () => this.#array(),
      10: () => this.u64(),
      12: () => view.getFloat64(this.#take(8), true),
    };
    const read = readers[type];
    if (!read) throw new Error(`GGUF: no value has the type ${type}`);
    return read();
  }

  #array(): GgufValue[] {
    const type = this.u32();
    const length = this.u64();
    const values: GgufValue[] = [];
    for (let i = 0; i < length; i++) values.push(this.value(type));
    return values;
  }

  #take(bytes: number): number {
    const start = this.at;
    if (start + bytes > this.#bytes.length) throw new Error("GGUF: the file ends inside its header");
    this.at += bytes;
    return start;
  }
}

/** A GGUF file, version 3. Values are read when they are asked for. */
export class Gguf {
  readonly metadata: Map<string, GgufValue> = new Map();
  readonly tensors: GgufTensor[] = [];
  /** Bytes from the start of the file to the end of the metadata. */
  readonly metadataEnd: number;
  readonly #file: number;

  constructor(path: string) {
    this.#file = openSync(path, "r");
    const size = fstatSync(this.#file).size;
    // The names of the vocabulary make up nearly all of a header.
    const cursor = new Cursor(this.#read(0, Math.min(size, 64 * 2 ** 20)));
    if (cursor.u32() !== 0x46554747) throw new Error(`${path} is not a GGUF file`);
    const version = cursor.u32();
    if (version !== 3) throw new Error(`${path} is GGUF version ${version}, not 3`);
    const tensors = cursor.u64();
    for (let left = cursor.u64(); left > 0; left--) {
      const key = cursor.text();
      this.metadata.set(key, cursor.value(cursor.u32()));
    }
    this.metadataEnd = cursor.at;
    for (let i = 0; i < tensors; i++) {
      const name = cursor.text();
      const shape = Array.from({ length: cursor.u32() }, () => cursor.u64()).reverse();
      const type = cursor.u32();
      const block = blocks.get(type);
      if (!block) throw new Error(`${path}: tensor ${name} has the format ${type}, which is not read here`);
      this.tensors.push({ name, shape, type: block.name, offset: cursor.u64() });
    }
    const alignment = Number(this.metadata.get("general.alignment") ?? 32);
    const start = Math.ceil(cursor.at / alignment) * alignment;
    for (const tensor of this.tensors) tensor.offset += start;
  }

  /** All values of a tensor, row by row. */
  values(tensor: GgufTensor): Float32Array {
    const block = [...blocks.values()].find(({ name }) => name === tensor.type);
    if (!block) throw new Error(`GGUF: format ${tensor.type}`);
    const count = tensor.shape.reduce((product, length) => product * length, 1);
    const bytes = this.#read(tensor.offset, (count / block.values) * block.bytes);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const values = new Float32Array(count);
    for (let i = 0; i * block.values < count; i++) block.decode(view, i * block.bytes, values, i * block.values);
    return values;
  }

  close(): void {
    closeSync(this.#file);
  }

  #read(offset: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    for (let done = 0; done < length; ) {
      const read = readSync(this.#file, bytes, done, length - done, offset + done);
      if (read === 0) throw new Error("GGUF: the file is shorter than its header says");
      done += read;
    }
    return bytes;
  }
}
