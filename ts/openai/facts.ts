import type { GenerationResult } from "../generated/wire.ts";
import type { Asked } from "./form.ts";

/** The facts of an answer, as its choices end. */
export class Facts {
  readonly results: GenerationResult[] = [];
  /** Milliseconds in the queue and to the first token, from the arrival on. */
  queued = 0;
  firstToken: number | undefined;
  readonly #method: string | null;
  readonly #kvBytes: number;

  /** `kvBytes` is what one position takes in the full cache. */
  constructor({ method }: Pick<Asked, "method">, kvBytes: number) {
    this.#method = method;
    this.#kvBytes = kvBytes;
  }

  /** Tokens of the prompt, which counts once, and of all choices. */
  get tokens(): { prompt: number; cached: number; image: number; completion: number } {
    const first = this.results[0]?.usage;
    return {
      prompt: first?.promptTokens ?? 0,
      cached: first?.cachedTokens ?? 0,
      image: first?.imageTokens ?? 0,
      completion: this.results.reduce((sum, { usage }) => sum + usage.completionTokens, 0),
    };
  }

  /** Bytes of the caches of all choices together, and the share of entries that they kept. */
  get cache(): Record<string, unknown> {
    const sum = (pick: (result: GenerationResult) => number): number =>
      this.results.reduce((total, result) => total + pick(result), 0);
    const entries = sum(({ memory }) => memory.keptPerLayer.reduce((total, kept) => total + kept, 0));
    const all = sum(({ memory }) => (memory.full / this.#kvBytes) * memory.keptPerLayer.length);
    return {
      method: this.#method,
      resident_bytes: sum(({ memory }) => memory.resident),
      full_bytes: sum(({ memory }) => memory.full),
      kept: all === 0 ? 1 : entries / all,
      queued_ms: this.queued,
      ttft_ms: this.firstToken ?? null,
    };
  }
}
