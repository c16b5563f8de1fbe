import type { Progress } from "../generated/wire.ts";

/** Adds up the bytes of all files of a load and tells them, not too often and never less than before. */
export class DownloadProgress {
  readonly #tell: ((progress: Progress) => void) | undefined;
  readonly #have = new Map<string, number>();
  #total = 0;
  #done = 0;
  #told = -1;
  #last = 0;

  constructor(tell: ((progress: Progress) => void) | undefined) {
    this.#tell = tell;
  }

  /** Bytes that have yet to come; undefined as long as no file is expected. */
  get remaining(): number | undefined {
    return this.#have.size > 0 ? this.#total - this.#done : undefined;
  }

  expect(name: string, size: number, have: number): void {
    this.#total += size;
    this.#done += have;
    this.#have.set(name, have);
  }

  set(name: string, have: number): void {
    this.#done += have - (this.#have.get(name) ?? 0);
    this.#have.set(name, have);
    if (performance.now() - this.#last >= 50) this.#say();
  }

  end(): void {
    this.#say();
  }

  #say(): void {
    this.#last = performance.now();
    if (this.#done <= this.#told) return;
    this.#told = this.#done;
    this.#tell?.({ stage: "download", done: this.#done, total: this.#total });
  }
}
