import { randomUUID } from "node:crypto";
import type { GenerationResult } from "../generated/wire.ts";
import type { Asked } from "./fields.ts";

/** One step of an answer: text of a choice, or its end. */
export type Step = { index: number; text: string } | { index: number; result: GenerationResult };

/** Why a choice ended, as OpenAI says it. */
export function reasonOf(result: GenerationResult): "stop" | "length" {
  return result.finish === "length" ? "length" : "stop";
}

/** Puts an answer together from the choices that have ended. */
export class Answer {
  readonly #asked: Asked;
  readonly #kvBytes: number;
  readonly #results: GenerationResult[] = [];
  readonly #id = `chatcmpl-${randomUUID().replaceAll("-", "")}`;
  readonly #created = Math.floor(Date.now() / 1000);
  /** Milliseconds in the queue and to the first token, from the arrival on. */
  queued = 0;
  firstToken: number | undefined;

  /** `kvBytes` is what one position takes in the full cache. */
  constructor(asked: Asked, kvBytes: number) {
    this.#asked = asked;
    this.#kvBytes = kvBytes;
  }

  add(result: GenerationResult): void {
    this.#results.push(result);
  }

  /** The body of an answer in one piece. */
  whole(): Record<string, unknown> {
    const choices = this.#results.map((result, index) => ({
      index,
      message: { role: "assistant", content: result.text, refusal: null },
      logprobs: null,
      finish_reason: reasonOf(result),
    }));
    return { ...this.#head("chat.completion"), choices, usage: this.#usage(), prefixkv: this.#facts() };
  }

  /** The chunk that begins a choice. */
  role(index: number): Record<string, unknown> {
    return this.#chunk([{ index, delta: { role: "assistant", content: "" }, logprobs: null, finish_reason: null }]);
  }

  /** A chunk with text of a choice. */
  text(index: number, content: string): Record<string, unknown> {
    return this.#chunk([{ index, delta: { content }, logprobs: null, finish_reason: null }]);
  }

  /** The chunk that ends a choice; the last one has the facts of the cache unless another follows with the usage. */
  end(index: number, result: GenerationResult): Record<string, unknown> {
    const chunk = this.#chunk([{ index, delta: {}, logprobs: null, finish_reason: reasonOf(result) }]);
    const last = index === this.#asked.n - 1 && !this.#asked.includeUsage;
    return last ? { ...chunk, prefixkv: this.#facts() } : chunk;
  }

  /** The last chunk, where the usage was asked for. */
  usage(): Record<string, unknown> {
    return { ...this.#chunk([]), usage: this.#usage(), prefixkv: this.#facts() };
  }

  #chunk(choices: unknown[]): Record<string, unknown> {
    return { ...this.#head("chat.completion.chunk"), choices, ...(this.#asked.includeUsage && { usage: null }) };
  }

  #head(object: string): Record<string, unknown> {
    return { id: this.#id, object, created: this.#created, model: this.#asked.model };
  }

  #usage(): Record<string, unknown> {
    const first = this.#results[0]?.usage;
    const prompt = first?.promptTokens ?? 0;
    const image = first?.imageTokens ?? 0;
    const completion = this.#results.reduce((sum, { usage }) => sum + usage.completionTokens, 0);
    return {
      prompt_tokens: prompt,
      completion_tokens: completion,
      total_tokens: prompt + completion,
      prompt_tokens_details: {
        cached_tokens: first?.cachedTokens ?? 0,
        image_tokens: image,
        text_tokens: prompt - image,
      },
    };
  }

  /** Bytes of the caches of all choices together, and the share of entries that they kept. */
  #facts(): Record<string, unknown> {
    const sum = (pick: (result: GenerationResult) => number): number =>
      this.#results.reduce((total, result) => total + pick(result), 0);
    const entries = sum(({ memory }) => memory.keptPerLayer.reduce((total, kept) => total + kept, 0));
    const all = sum(({ memory }) => (memory.full / this.#kvBytes) * memory.keptPerLayer.length);
    return {
      method: this.#asked.method,
      resident_bytes: sum(({ memory }) => memory.resident),
      full_bytes: sum(({ memory }) => memory.full),
      kept: all === 0 ? 1 : entries / all,
      queued_ms: this.queued,
      ttft_ms: this.firstToken ?? null,
    };
  }
}
