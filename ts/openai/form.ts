import type { GenerationResult, TokenLogprobs } from "../generated/wire.ts";
import type { GenerateOptions } from "../options/requests.ts";
import type { Refusal } from "./refusal.ts";

/** A request for an answer, read: what every route has. */
export interface Asked {
  /** The options of every choice, but for its seed. */
  generate: GenerateOptions;
  /** Choices. */
  n: number;
  stream: boolean;
  /** The name that the answer gives the model. */
  model: string;
  /** The method of the cache, or null for the full one. */
  method: string | null;
  /** Whether the answer is searched for calls of tools. */
  tools: boolean;
  /** Fields that had no effect. */
  ignored: string[];
}

/** One step of an answer: text of a choice with the token that it came with, or the choice's end. */
export type Step =
  | { index: number; text: string; logprobs?: TokenLogprobs }
  | { index: number; result: GenerationResult };

/** An answer as one of the routes writes it: in one piece, or as server-sent events step by step. */
export interface Form {
  /** Takes a step in; gives its events, which may be none. */
  step(step: Step): string;
  /** The events at the end of a stream. */
  end(): string;
  /** The events that end a stream early. */
  fail(refusal: Refusal): string;
  /** The body of an answer in one piece, once all steps are in. */
  whole(): Record<string, unknown>;
}

/** An event of a stream. */
export function event(data: unknown, name?: string): string {
  return `${name === undefined ? "" : `event: ${name}\n`}data: ${JSON.stringify(data)}\n\n`;
}
