import { abortError, NativeError, PrefixKvError } from "./errors.ts";
import type { GenerationResult, TokenLogprobs, WireEvent } from "./generated/wire.ts";
import type { NativeTicket } from "./native/contract.ts";
import { errorFromThrown, errorFromWire } from "./native/errors.ts";
import { nextEvents } from "./native/ticket.ts";

/**
 * One step of a generation: a token and the text it completed, which is empty while a character is incomplete or could
 * still belong to a stop string. Text that was held back until the end comes as a last part whose token is null.
 *
 * @example
 * ```ts
 * import { load, type Part } from "prefixkv";
 *
 * const model = await load();
 * const parts: Part[] = await Array.fromAsync(model.generate({ prompt: "USER: Hello ASSISTANT:", maxTokens: 4 }));
 * console.log(parts.map((part) => part.token));
 * await model.dispose();
 * ```
 */
export interface Part {
  /** The text completed by this step; may be empty. */
  text: string;
  /** The id of the token; null for text that was held back until the end. */
  token: number | null;
  /** The token's probability; with `logprobs`. */
  logprobs?: TokenLogprobs;
}

/** The parts a generation is built from. */
interface Started {
  ticket: Promise<NativeTicket>;
  signal?: AbortSignal | undefined;
  onDone?: (result: GenerationResult) => void;
}

/** Takes the listeners of collected generations from signals that live on. */
const listeners = new FinalizationRegistry<() => void>((unlisten) => unlisten());

/** Calls `abort` when the signal fires, without keeping a generation alive that nobody reads. */
function listen(generation: Generation, signal: AbortSignal, abort: (generation: Generation) => void): () => void {
  const reference = new WeakRef(generation);
  const listener = (): void => {
    const alive = reference.deref();
    if (alive) abort(alive);
  };
  const unlisten = (): void => signal.removeEventListener("abort", listener);
  signal.addEventListener("abort", listener, { once: true });
  listeners.register(generation, unlisten);
  return unlisten;
}

/**
 * A running generation: iterate it for the parts as they come, await it for the result, or both. It can be iterated once;
 * leaving the loop early cancels the rest, and awaiting it then gives the result so far, with finish `"aborted"`. When its signal
 * fires, both end with an AbortError.
 *
 * It is a promise: an `async` function that returns it returns its result instead.
 *
 * @example
 * ```ts
 * import { image, load } from "prefixkv";
 *
 * const model = await load();
 * const out = model.generate({ messages: [{ role: "user", content: [image("scene.png"), "Describe the image in detail."] }] });
 * for await (const part of out) process.stdout.write(part.text);
 * const { usage, timings } = await out;
 * console.log(usage.completionTokens, timings.firstToken);
 * await model.dispose();
 * ```
 */
export class Generation implements AsyncIterable<Part>, Promise<GenerationResult> {
  // Not an arrow of the constructor, which would hold what the others there hold: the generation.
  static readonly #onAbort = (generation: Generation): void => generation.#abort();
  readonly [Symbol.toStringTag]: string = "Generation";
  readonly #result = Promise.withResolvers<GenerationResult>();
  readonly #settled: Promise<void>;
  readonly #ticket: Promise<NativeTicket>;
  readonly #signal: AbortSignal | undefined;
  #unlisten: (() => void) | undefined;
  readonly #onDone: ((result: GenerationResult) => void) | undefined;
  #aborted = false;
  #parts: Part[] = [];
  #text = "";
  #reading: Promise<void> | undefined;
  #failure: unknown;
  #state: "running" | "done" | "failed" = "running";
  #ended = false;
  #iterated = false;

  /** @internal What `start` gives, or a generation that fails with what it throws. */
  static of(start: () => Started): Generation {
    try {
      const { ticket, signal, onDone } = start();
      return new Generation(ticket, signal, onDone);
    } catch (error) {
      return new Generation(Promise.reject(error));
    }
  }

  /**
   * @internal Made by `model.generate` and `chat.send`. `onDone` hears of the engine's result. Where there is one, an abort is told
   * when the engine has ended, so that whoever sees the AbortError finds done what `onDone` does.
   */
  constructor(ticket: Promise<NativeTicket>, signal?: AbortSignal, onDone?: (result: GenerationResult) => void) {
    this.#ticket = ticket;
    this.#signal = signal;
    this.#onDone = onDone;
    this.#settled = this.#result.promise.then(
      () => {},
      () => {},
    );
    // Whoever awaits or iterates sees the failure; a generation that nobody looks at must not end the process.
    ticket.catch((error: unknown) => this.#end(error));
    if (signal?.aborted) this.#abort();
    else if (signal) this.#unlisten = listen(this, signal, Generation.#onAbort);
  }

  [Symbol.asyncIterator](): AsyncGenerator<Part, void, undefined> {
    if (this.#iterated)
      throw new PrefixKvError("consumed", "a generation can be iterated once; keep its parts instead");
    this.#iterated = true;
    return this.#cancelling(this.#iterate());
  }

  /** A generator that has not been started runs nothing when it is ended, not even its `finally`. */
  #cancelling(parts: AsyncGenerator<Part, void, undefined>): AsyncGenerator<Part, void, undefined> {
    const cancel = (): void => {
      if (this.#state === "running") this.#cancel();
    };
    return Object.assign(Object.create(Object.getPrototypeOf(parts)), {
      next: () => parts.next(),
      return: (value: undefined) => {
        cancel();
        return parts.return(value);
      },
      throw: (error: unknown) => {
        cancel();
        return parts.throw(error);
      },
      [Symbol.asyncIterator]() {
        return this;
      },
      [Symbol.asyncDispose]: async () => {
        cancel();
        await parts.return();
      },
    });
  }

  // biome-ignore lint/suspicious/noThenProperty: a generation is awaitable by design
  then<A = GenerationResult, B = never>(
    onResult?: ((result: GenerationResult) => A | PromiseLike<A>) | null,
    onError?: ((error: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    void this.#drain();
    return this.#result.promise.then(onResult, onError);
  }

  catch<B = never>(onError?: ((error: unknown) => B | PromiseLike<B>) | null): Promise<GenerationResult | B> {
    return this.then(undefined, onError);
  }

  finally(onEnd?: (() => void) | null): Promise<GenerationResult> {
    return this.then().finally(onEnd);
  }

  async *#iterate(): AsyncGenerator<Part, void, undefined> {
    try {
      for (;;) {
        for (let part = this.#parts.shift(); part !== undefined; part = this.#parts.shift()) yield part;
        if (this.#state === "failed") throw this.#failure;
        if (this.#state === "done") return;
        await Promise.race([this.#pump(), this.#settled]);
      }
    } finally {
      if (this.#state === "running") this.#cancel();
    }
  }

  /** Reads on without a consumer until the ticket has ended. */
  async #drain(): Promise<void> {
    while (!this.#ended) await this.#pump();
  }

  /** Takes the next events in; the iterator and {@link #drain} share one call. */
  #pump(): Promise<void> {
    this.#reading ??= this.#read().finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  }

  async #read(): Promise<void> {
    try {
      const events = await nextEvents(await this.#ticket);
      if (events === null)
        this.#end(new NativeError("internal", "the engine ended without a result; please report it"));
      else for (const event of events) this.#take(event);
    } catch (error) {
      this.#end(error);
    }
  }

  #take(event: WireEvent): void {
    if (event.type === "done") {
      const { type: _, ...result } = event;
      this.#onDone?.(result);
    }
    if (this.#state !== "running") return;
    if (this.#aborted) {
      if (event.type === "done") this.#fail(abortError(this.#signal, event.text));
      else if (event.type === "error") this.#fail(abortError(this.#signal, this.#text));
    } else if (event.type === "token") {
      this.#text += event.text;
      const { text, id: token, logprobs } = event;
      this.#parts.push({ text, token, ...(logprobs && { logprobs }) });
    } else if (event.type === "done") {
      const { type: _, ...result } = event;
      const held = result.text.slice(this.#text.length);
      if (held !== "") this.#parts.push({ text: held, token: null });
      this.#state = "done";
      this.#unlisten?.();
      this.#result.resolve(result);
    } else if (event.type === "error") {
      this.#fail(errorFromWire(event.error, event.error.code === "aborted" ? { partial: this.#text } : {}));
    }
  }

  #end(error: unknown): void {
    this.#ended = true;
    this.#fail(this.#aborted ? abortError(this.#signal, this.#text) : errorFromThrown(error));
  }

  #fail(error: PrefixKvError): void {
    if (this.#state !== "running") return;
    this.#state = "failed";
    this.#failure = error;
    this.#unlisten?.();
    this.#result.reject(error);
  }

  #abort(): void {
    this.#parts = [];
    this.#aborted = true;
    if (this.#onDone === undefined) this.#fail(abortError(this.#signal, this.#text));
    this.#cancel();
  }

  #cancel(): void {
    void this.#drain();
    this.#ticket.then(
      (ticket) => ticket.cancel(),
      () => {},
    );
  }
}
