import { tooLarge } from "../regular_file.ts";

/** No encoded image may be larger. */
export const maxImageBytes: number = 64 * 1024 * 1024;

/** Collects what is read piece by piece, up to the limit. */
export class Collected {
  readonly #chunks: Uint8Array[] = [];
  #length = 0;

  add(chunk: Uint8Array): void {
    this.#length += chunk.length;
    if (this.#length > maxImageBytes) throw tooLarge(maxImageBytes);
    this.#chunks.push(chunk);
  }

  bytes(): Uint8Array {
    const bytes = new Uint8Array(this.#length);
    let at = 0;
    for (const chunk of this.#chunks) {
      bytes.set(chunk, at);
      at += chunk.length;
    }
    return bytes;
  }
}
