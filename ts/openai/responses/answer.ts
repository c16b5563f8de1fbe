import { randomUUID } from "node:crypto";
import type { GenerationResult } from "../../generated/wire.ts";
import { CallReader, type Piece, type ToolCall } from "../../tool_calls.ts";
import type { Facts } from "../facts.ts";
import { event, type Form, type Step } from "../form.ts";
import type { Refusal } from "../refusal.ts";
import type { ResponseAsked } from "./fields.ts";

/** An item of the output: a message, or a call. */
type Item = Record<string, unknown> & { id: string };

const idOf = (kind: string): string => `${kind}_${randomUUID().replaceAll("-", "")}`;

/** A response of OpenAI's newer interface, which is kept nowhere. */
export class ResponseAnswer implements Form {
  readonly #asked: ResponseAsked;
  readonly #facts: Facts;
  readonly #id = idOf("resp");
  readonly #created = Math.floor(Date.now() / 1000);
  readonly #calls: CallReader | undefined;
  readonly #output: Item[] = [];
  #number = 0;
  /** The message that is being written. */
  #message: { id: string; text: string } | undefined;
  #result: GenerationResult | undefined;

  constructor(asked: ResponseAsked, facts: Facts) {
    this.#asked = asked;
    this.#facts = facts;
    this.#calls = asked.tools ? new CallReader() : undefined;
  }

  step(step: Step): string {
    let events = this.#number === 0 ? this.#begin() : "";
    if ("result" in step) this.#result = step.result;
    for (const piece of this.#pieces(step)) {
      events += "text" in piece ? this.#say(piece.text) : this.#close() + this.#call(piece.call);
    }
    return events;
  }

  end(): string {
    const events = this.#close();
    const kind = this.#status === "incomplete" ? "response.incomplete" : "response.completed";
    return events + this.#event(kind, { response: this.whole() });
  }

  fail({ body }: Refusal): string {
    const { code, message } = body.error;
    const begun = this.#number === 0 ? this.#begin() : "";
    const response = { ...this.#response("failed"), error: { code: code ?? "server_error", message } };
    return begun + this.#event("response.failed", { response });
  }

  whole(): Record<string, unknown> {
    // A stream has closed it already.
    this.#close();
    const { prompt, cached, completion } = this.#facts.tokens;
    return {
      ...this.#response(this.#status),
      usage: {
        input_tokens: prompt,
        input_tokens_details: { cached_tokens: cached },
        output_tokens: completion,
        output_tokens_details: { reasoning_tokens: 0 },
        total_tokens: prompt + completion,
      },
      prefixkv: { ...this.#facts.cache, image_tokens: this.#facts.tokens.image },
    };
  }

  get #status(): "completed" | "incomplete" {
    return this.#result?.finish === "length" ? "incomplete" : "completed";
  }

  #pieces(step: Step): Piece[] {
    if ("result" in step) return this.#calls?.finish() ?? [];
    if (this.#calls !== undefined) return this.#calls.push(step.text);
    return step.text === "" ? [] : [{ text: step.text }];
  }

  #begin(): string {
    const response = this.#response("in_progress");
    return this.#event("response.created", { response }) + this.#event("response.in_progress", { response });
  }

  #say(text: string): string {
    let events = "";
    if (this.#message === undefined) {
      this.#message = { id: idOf("msg"), text: "" };
      const item = messageOf(this.#message.id, "in_progress", []);
      events += this.#event("response.output_item.added", { output_index: this.#output.length, item });
      events += this.#event("response.content_part.added", { ...this.#place(this.#message.id), part: partOf("") });
    }
    this.#message.text += text;
    const delta = { ...this.#place(this.#message.id), delta: text, logprobs: [] };
    return events + this.#event("response.output_text.delta", delta);
  }

  /** Ends the message that is being written, if there is one. */
  #close(): string {
    if (this.#message === undefined) return "";
    const { id, text } = this.#message;
    this.#message = undefined;
    const place = this.#place(id);
    const item = messageOf(id, this.#status, [partOf(text)]);
    const events =
      this.#event("response.output_text.done", { ...place, text, logprobs: [] }) +
      this.#event("response.content_part.done", { ...place, part: partOf(text) }) +
      this.#event("response.output_item.done", { output_index: this.#output.length, item });
    this.#output.push(item);
    return events;
  }

  #call({ id, name, arguments: given }: ToolCall): string {
    const item = { id: idOf("fc"), type: "function_call", call_id: id, name };
    const place = { output_index: this.#output.length, item_id: item.id };
    const done = { ...item, arguments: given, status: "completed" };
    this.#output.push(done);
    return (
      this.#event("response.output_item.added", {
        output_index: place.output_index,
        item: { ...item, arguments: "", status: "in_progress" },
      }) +
      this.#event("response.function_call_arguments.delta", { ...place, delta: given }) +
      this.#event("response.function_call_arguments.done", { ...place, name, arguments: given }) +
      this.#event("response.output_item.done", { output_index: place.output_index, item: done })
    );
  }

  #place(item: string): Record<string, unknown> {
    return { item_id: item, output_index: this.#output.length, content_index: 0 };
  }

  #response(status: string): Record<string, unknown> {
    return {
      id: this.#id,
      object: "response",
      created_at: this.#created,
      status,
      error: null,
      incomplete_details: status === "incomplete" ? { reason: "max_output_tokens" } : null,
      model: this.#asked.model,
      output: [...this.#output],
      usage: null,
      ...this.#asked.echoed,
    };
  }

  #event(type: string, fields: object): string {
    const data = { type, sequence_number: this.#number, ...fields };
    this.#number += 1;
    return event(data, type);
  }
}

function messageOf(id: string, status: string, content: object[]): Item {
  return { id, type: "message", status, role: "assistant", content };
}

function partOf(text: string): object {
  return { type: "output_text", text, annotations: [], logprobs: [] };
}
