import { randomUUID } from "node:crypto";
import type { GenerationResult, TokenLogprobs } from "../../generated/wire.ts";
import { CallReader, type Piece, type ToolCall } from "../../tool_calls.ts";
import type { Facts } from "../facts.ts";
import { event, type Form, type Step } from "../form.ts";
import type { Refusal } from "../refusal.ts";
import type { ChatAsked } from "./fields.ts";
import { logprobsOf } from "./logprobs.ts";

/** One choice as it grows. */
class Choice {
  readonly #calls: CallReader | undefined;
  readonly calls: ToolCall[] = [];
  readonly logprobs: TokenLogprobs[] = [];
  text = "";
  result: GenerationResult | undefined;

  constructor(tools: boolean) {
    this.#calls = tools ? new CallReader() : undefined;
  }

  /** The pieces that a text, or the end, makes certain. */
  take(text: string | undefined): Piece[] {
    const reader = this.#calls;
    const pieces = reader === undefined ? said(text) : text === undefined ? reader.finish() : reader.push(text);
    for (const piece of pieces) {
      if ("call" in piece) this.calls.push(piece.call);
      else this.text += piece.text;
    }
    return pieces;
  }

  get reason(): string | null {
    if (this.result === undefined) return null;
    if (this.result.finish === "length") return "length";
    return this.calls.length > 0 ? "tool_calls" : "stop";
  }
}

const said = (text: string | undefined): Piece[] => (text === undefined || text === "" ? [] : [{ text }]);

/** A chat completion. */
export class ChatAnswer implements Form {
  readonly #asked: ChatAsked;
  readonly #facts: Facts;
  readonly #choices: Choice[] = [];
  readonly #id = `chatcmpl-${randomUUID().replaceAll("-", "")}`;
  readonly #created = Math.floor(Date.now() / 1000);

  constructor(asked: ChatAsked, facts: Facts) {
    this.#asked = asked;
    this.#facts = facts;
  }

  step(step: Step): string {
    const { index } = step;
    let events = "";
    let choice = this.#choices[index];
    if (choice === undefined) {
      choice = new Choice(this.#asked.tools);
      this.#choices[index] = choice;
      events = this.#delta(index, { role: "assistant", content: "" });
    }
    const ended = "result" in step;
    if (ended) choice.result = step.result;
    const logprobs = ended || step.logprobs === undefined ? [] : [step.logprobs];
    choice.logprobs.push(...logprobs);
    let shown = this.#asked.logprobs && logprobs.length > 0 ? logprobsOf(logprobs) : null;
    for (const piece of choice.take(ended ? undefined : step.text)) {
      events += this.#delta(index, deltaOf(piece, choice.calls), shown);
      shown = null;
    }
    // A token without text of its own, as a part of a character.
    if (shown !== null) events += this.#delta(index, { content: "" }, shown);
    return ended ? events + this.#last(index, choice) : events;
  }

  end(): string {
    const { includeUsage } = this.#asked;
    const usage = { ...this.#chunk([]), usage: this.#usage(), prefixkv: this.#facts.cache };
    return `${includeUsage ? event(usage) : ""}data: [DONE]\n\n`;
  }

  fail(refusal: Refusal): string {
    return event(refusal.body, "error");
  }

  whole(): Record<string, unknown> {
    const choices = this.#choices.map((choice, index) => {
      const calls = choice.calls.map(callOf);
      const content = choice.text === "" && calls.length > 0 ? null : choice.text;
      return {
        index,
        message: { role: "assistant", content, refusal: null, ...(calls.length > 0 && { tool_calls: calls }) },
        logprobs: this.#asked.logprobs ? logprobsOf(choice.logprobs) : null,
        finish_reason: choice.reason,
      };
    });
    return { ...this.#head("chat.completion"), choices, usage: this.#usage(), prefixkv: this.#facts.cache };
  }

  #delta(index: number, delta: object, logprobs: unknown = null): string {
    return event(this.#chunk([{ index, delta, logprobs, finish_reason: null }]));
  }

  /** The chunk that ends a choice; the last one has the facts of the cache unless another follows with the usage. */
  #last(index: number, choice: Choice): string {
    const chunk = this.#chunk([{ index, delta: {}, logprobs: null, finish_reason: choice.reason }]);
    const last = index === this.#asked.n - 1 && !this.#asked.includeUsage;
    return event(last ? { ...chunk, prefixkv: this.#facts.cache } : chunk);
  }

  #chunk(choices: unknown[]): Record<string, unknown> {
    return { ...this.#head("chat.completion.chunk"), choices, ...(this.#asked.includeUsage && { usage: null }) };
  }

  #head(object: string): Record<string, unknown> {
    return { id: this.#id, object, created: this.#created, model: this.#asked.model };
  }

  #usage(): Record<string, unknown> {
    const { prompt, cached, image, completion } = this.#facts.tokens;
    return {
      prompt_tokens: prompt,
      completion_tokens: completion,
      total_tokens: prompt + completion,
      prompt_tokens_details: { cached_tokens: cached, image_tokens: image, text_tokens: prompt - image },
    };
  }
}

function deltaOf(piece: Piece, calls: readonly ToolCall[]): object {
  if ("text" in piece) return { content: piece.text };
  return { tool_calls: [{ index: calls.indexOf(piece.call), ...callOf(piece.call) }] };
}

function callOf({ id, name, arguments: given }: ToolCall): object {
  return { id, type: "function", function: { name, arguments: given } };
}
