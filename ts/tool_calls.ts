import { randomUUID } from "node:crypto";

/** A call that an answer makes. */
export interface ToolCall {
  id: string;
  name: string;
  /** JSON, as the clients of OpenAI take it. */
  arguments: string;
}

/** A piece of an answer: text, or a call. */
export type Piece = { text: string } | { call: ToolCall };

const [opening, closing] = ["<tool_call>", "</tool_call>"];

/**
 * Finds the calls in an answer as it comes: `<tool_call>` around a JSON object with `name` and `arguments`, as Hermes and Qwen write
 * them. A block that is no such object stays text: nothing is mended.
 */
export class CallReader {
  /** Text that may be the beginning of a block, or a block without its end. */
  #held = "";
  #inside = false;
  #called = false;
  /** White space behind a call, which is text only where text follows. */
  #blank = "";

  /** Whether there was a call. */
  get called(): boolean {
    return this.#called;
  }

  push(text: string): Piece[] {
    this.#held += text;
    const pieces: Piece[] = [];
    for (;;) {
      if (!this.#inside) {
        const at = this.#held.indexOf(opening);
        const end = at < 0 ? this.#held.length - unfinished(this.#held) : at;
        pieces.push(...this.#say(this.#held.slice(0, end)));
        this.#held = this.#held.slice(end);
        if (at < 0) return pieces;
        this.#inside = true;
      }
      const end = this.#held.indexOf(closing);
      if (end < 0) return pieces;
      const block = this.#held.slice(0, end + closing.length);
      const call = this.#read(block.slice(opening.length, end));
      pieces.push(...(call === undefined ? this.#say(block) : [call]));
      this.#held = this.#held.slice(block.length);
      this.#inside = false;
    }
  }

  /** The rest, at the end of the answer. Some models end at once behind the object. */
  finish(): Piece[] {
    const held = this.#held;
    this.#held = "";
    const call = this.#inside ? this.#read(held.slice(opening.length)) : undefined;
    return call === undefined ? this.#say(held) : [call];
  }

  #say(text: string): Piece[] {
    this.#blank += text;
    if (this.#blank === "" || (this.#called && this.#blank.trim() === "")) return [];
    const said = this.#blank;
    this.#blank = "";
    return [{ text: said }];
  }

  #read(body: string): Piece | undefined {
    let value: unknown;
    try {
      value = JSON.parse(body);
    } catch {
      return undefined;
    }
    const { name, arguments: given = {} } = (value ?? {}) as { name?: unknown; arguments?: unknown };
    if (typeof name !== "string" || name === "" || typeof given !== "object" || given === null) return undefined;
    [this.#called, this.#blank] = [true, ""];
    const id = `call_${randomUUID().replaceAll("-", "").slice(0, 24)}`;
    return { call: { id, name, arguments: JSON.stringify(given) } };
  }
}

/** How many characters at the end may be the beginning of a block. */
function unfinished(text: string): number {
  for (let length = Math.min(opening.length - 1, text.length); length > 0; length--) {
    if (opening.startsWith(text.slice(-length))) return length;
  }
  return 0;
}
