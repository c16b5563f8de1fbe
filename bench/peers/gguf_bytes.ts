// The beginning of a GGUF file, written: little-endian values one behind the other.
import { writeSync } from "node:fs";
import type { GgufValue } from "../../tests/real/gguf.ts";

/** Tensors begin at multiples of it. */
const alignment = 32;

/** `length`, up to where the next tensor may begin. */
export const padded = (length: number): number => Math.ceil(length / alignment) * alignment;

/** Writes `data`, and zeros up to `length`. */
export function writeAll(file: number, data: Uint8Array, length: number): void {
  for (let done = 0; done < data.length; ) done += writeSync(file, data, done);
  if (length > data.length) writeSync(file, new Uint8Array(length - data.length));
}

export class GgufBytes {
  readonly #parts: Uint8Array[] = [];

  #put(length: number, write: (view: DataView) => void): this {
    const view = new DataView(new ArrayBuffer(length));
    write(view);
    this.#parts.push(new Uint8Array(view.buffer));
    return this;
  }

  raw(bytes: Uint8Array): this {
    this.#parts.push(bytes);
    return this;
  }

  u32(value: number): this {
    return this.#put(4, (view) => view.setUint32(0, value, true));
  }

  u64(value: number): this {
    return this.#put(8, (view) => view.setBigUint64(0, BigInt(value), true));
  }

  text(value: string): this {
    const text = new TextEncoder().encode(value);
    return this.u64(text.length).raw(text);
  }

  /** The entry of a tensor: its shape with the row's length first, the number of its type, and where it begins behind the header. */
  tensor(name: string, shape: readonly number[], kind: number, at: number): this {
    this.text(name).u32(shape.length);
    for (const length of shape) this.u64(length);
    return this.u32(kind).u64(at);
  }

  /** A value of the metadata with its type. */
  value(kind: ValueKind, value: GgufValue): this {
    if (kind === "u32") return this.u32(4).u32(value as number);
    if (kind === "f32") return this.u32(6).#put(4, (view) => view.setFloat32(0, value as number, true));
    if (kind === "bool") return this.u32(7).#put(1, (view) => view.setUint8(0, value === true ? 1 : 0));
    if (kind === "text") return this.u32(8).text(value as string);
    const items = value as GgufValue[];
    this.u32(9)
      .u32(kind === "texts" ? 8 : 5)
      .u64(items.length);
    for (const item of items) {
      if (kind === "texts") this.text(item as string);
      else this.#put(4, (view) => view.setInt32(0, item as number, true));
    }
    return this;
  }

  all(): Uint8Array {
    return Buffer.concat(this.#parts);
  }
}

/** The types of metadata that are written here. */
export type ValueKind = "u32" | "f32" | "text" | "texts" | "i32s" | "bool";
