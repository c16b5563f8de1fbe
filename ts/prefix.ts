/// <reference lib="esnext.disposable" preserve="true" />
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { abortError, disposedError } from "./errors.ts";
import type { Memory, Timings, Usage } from "./generated/wire.ts";
import { Generation } from "./generation.ts";
import type { NativeTicket } from "./native/contract.ts";
import { type EventOf, lastEvent } from "./native/ticket.ts";
import { Place } from "./options/place.ts";
import { type Asked, type QuestionOptions, readQuestion } from "./options/requests.ts";
import type { Requests } from "./requests.ts";

/**
 * A prompt that was read once, with what its method has kept of it: ask questions about it, one after the other or together, and save it to a
 * file from which the same model goes on in another process. A question leaves it as it is. Dispose it when done; disposing of the model ends its
 * prefixes too.
 *
 * @example
 * ```ts
 * import { image, kvzip, load } from "prefixkv";
 *
 * await using model = await load();
 * const messages = [{ role: "user", content: [image("scene.png")] }];
 * await using prefix = await model.prefill({ messages, cache: kvzip({ keep: 0.5 }) });
 * for (const prompt of ["How many objects are there?", "What color is the star?"]) {
 *   const { text, usage } = await prefix.generate({ prompt, maxTokens: 32 });
 *   console.log(text, usage.cachedTokens);
 * }
 * await prefix.save("scene.prefix");
 * await using again = await model.restore("scene.prefix");
 * console.log((await again.generate({ prompt: "What color is the star?", maxTokens: 32 })).text);
 * ```
 */
export class Prefix implements AsyncDisposable {
  /** Tokens of the prompt that was read, and of its images. */
  readonly usage: Usage;
  /** How long reading it took, or restoring it. */
  readonly timings: Timings;
  /** Bytes of its cache. */
  readonly memory: Memory;
  /**
   * Whether its method chooses by the question: all of the prefix is kept then, and each question frees entries of a copy. Otherwise the method
   * has acted when the prefix was read.
   */
  readonly waits: boolean;
  readonly #requests: Requests;
  readonly #name: string;
  #closing: Promise<void> | undefined;

  private constructor(requests: Requests, { prefix, usage, timings, memory, waits }: EventOf<"prefilled">) {
    this.#requests = requests;
    this.#name = prefix;
    this.usage = usage;
    this.timings = timings;
    this.memory = memory;
    this.waits = waits;
  }

  /** @internal Made by `model.prefill`. */
  static async read(requests: Requests, asked: Asked): Promise<Prefix> {
    return Prefix.#opened(requests, await requests.ask("prefill", asked), asked.signal);
  }

  /** @internal Made by `model.restore`. */
  static async restore(requests: Requests, path: string | URL, signal: AbortSignal | undefined): Promise<Prefix> {
    const ticket = requests.submit({ op: "restore-prefix", path: pathOf(path, new Place("restore")) });
    return Prefix.#opened(requests, ticket, signal);
  }

  /** A prefix that nobody waits for any more, because the signal has fired, is closed. */
  static async #opened(requests: Requests, ticket: NativeTicket, signal: AbortSignal | undefined): Promise<Prefix> {
    let late = false;
    const opened = lastEvent(ticket, "prefilled", {}).then((event) => {
      const prefix = new Prefix(requests, event);
      if (late) void prefix.dispose();
      return prefix;
    });
    if (signal === undefined) return opened;
    const cancel = (): void => {
      late = true;
      ticket.cancel();
    };
    if (signal.aborted) cancel();
    signal.addEventListener("abort", cancel, { once: true });
    try {
      const prefix = await opened;
      if (late) throw abortError(signal);
      return prefix;
    } catch (error) {
      throw late ? abortError(signal) : error;
    } finally {
      signal.removeEventListener("abort", cancel);
    }
  }

  /**
   * Answers a question, on top of what is there. The text of `prompt` follows the prefix: behind its last message if that is the user's, else as a
   * message of the user's own, or behind its raw `prompt`.
   */
  generate(options: QuestionOptions): Generation {
    return Generation.of(() => {
      const { signal, ...rest } = readQuestion(options);
      if (this.#closing) throw prefixDisposed();
      const { prompt: question, ...others } = rest;
      return { ticket: this.#ask({ ...others, question }), signal };
    });
  }

  /**
   * Writes the prefix to a file, in the place of what is there, and resolves with its bytes when it is on the disk. Only a model of the same
   * weights, tokenizer and options can `restore` it. It holds what the messages say and what the model has seen of their pictures, but no pictures.
   */
  async save(path: string | URL): Promise<number> {
    if (this.#closing) throw prefixDisposed();
    const request = { op: "save-prefix", prefix: this.#name, path: pathOf(path, new Place("save")) } as const;
    return (await lastEvent(this.#requests.submit(request), "saved")).bytes;
  }

  /** Frees the cache. Questions that run go on; later ones are rejected. A second disposal waits for the first. */
  dispose(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  async #ask(rest: { question: string }): Promise<NativeTicket> {
    return this.#requests.submit({ op: "ask", prefix: this.#name, ...rest });
  }

  async #close(): Promise<void> {
    try {
      if (this.#requests.closed) return;
      await lastEvent(this.#requests.submit({ op: "close-prefix", prefix: this.#name }), "forgotten");
    } catch {
      // It has gone with its model.
    }
  }
}

function prefixDisposed(): Error {
  return disposedError("the prefix is disposed; read it again with model.prefill() or model.restore()");
}

function pathOf(path: unknown, place: Place): string {
  if (path instanceof URL && path.protocol === "file:") return fileURLToPath(path);
  if (typeof path === "string" && path !== "") return resolve(path);
  throw place.field("path").invalid("must be a path or a file: URL");
}
