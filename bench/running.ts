// A request without an end whose tokens are read as they come.
import type { Model } from "../ts/index.ts";

export class Running {
  /** When each token came. */
  readonly times: number[] = [];
  readonly #stop = new AbortController();
  readonly #read: Promise<void>;
  #wake: () => void = () => {};

  constructor(model: Model, prompt: string) {
    this.#read = this.#all(model, prompt).finally(() => this.#wake());
    // Nobody waits for it before the end.
    this.#read.catch(() => {});
  }

  async #all(model: Model, prompt: string): Promise<void> {
    const request = { prompt, maxTokens: 4096, ignoreEos: true, signal: this.#stop.signal };
    for await (const _ of model.generate(request)) {
      this.times.push(performance.now());
      this.#wake();
    }
    if (!this.#stop.signal.aborted) throw new Error("a request ended before it was measured");
  }

  /** When token `n` came, counted from 1. */
  async token(n: number): Promise<number> {
    while (this.times.length < n) {
      const more = new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      await Promise.race([more, this.#read]);
      if (this.times.length < n && this.#stop.signal.aborted) throw new Error("a request was stopped");
    }
    return this.times[n - 1] as number;
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#read.catch((error) => {
      if (!this.#stop.signal.aborted) throw error;
    });
  }
}
