/// <reference lib="esnext.disposable" preserve="true" />
import { type CacheOption, planOf } from "./cache.ts";
import type { PlannedMethod } from "./custom_plan.ts";
import { disposedError } from "./errors.ts";
import { Generation } from "./generation.ts";
import { type Message, type MessageContent, readContent, wirePrompt } from "./messages.ts";
import type { NativeTicket } from "./native/contract.ts";
import { lastEvent } from "./native/ticket.ts";
import { Place } from "./options/place.ts";
import { type Asked, type ChatOptions, readChat, readTurn, type TurnOptions } from "./options/requests.ts";
import type { Requests } from "./requests.ts";
import { until } from "./stop.ts";

/**
 * A conversation that keeps its cache from turn to turn: only what is new is read. Turns that are sent before earlier ones have
 * ended wait for them. A turn that fails, or is aborted before it has text, leaves the conversation as it was; one that is
 * aborted later keeps the text that was there. Dispose it when done; disposing of the model ends its chats too.
 *
 * @example
 * ```ts
 * import { image, load, prefixkv } from "prefixkv";
 *
 * await using model = await load();
 * await using chat = model.chat({ cache: prefixkv({ keep: 0.5 }) });
 * for await (const part of chat.send([image("scene.png"), "How many objects are there?"])) process.stdout.write(part.text);
 * const { text, usage, memory } = await chat.send("What color is the star?");
 * console.log(text, usage.cachedTokens, memory.resident / memory.full);
 * ```
 */
export class Chat implements AsyncDisposable {
  readonly #requests: Requests;
  readonly #defaults: Readonly<Record<string, unknown>>;
  readonly #session: Promise<string>;
  readonly #plan: PlannedMethod["plan"] | undefined;
  readonly #messages: Message[];
  /** The messages to which the turns that have not ended yet are added: the messages of this chat, and of forks that come after them. */
  readonly #turns = new Set<Message[][]>();
  readonly #running = new Set<NativeTicket>();
  /** Resolves once every turn so far has been submitted or has failed, so that turns reach the engine in order. */
  #submitted: Promise<void>;
  #closing: Promise<void> | undefined;

  private constructor(
    requests: Requests,
    defaults: Readonly<Record<string, unknown>>,
    plan: PlannedMethod["plan"] | undefined,
    session: Promise<string>,
    messages: Message[],
  ) {
    this.#requests = requests;
    this.#defaults = defaults;
    this.#plan = plan;
    this.#session = session;
    this.#messages = messages;
    this.#submitted = settled(session);
  }

  /** @internal Made by `model.chat`. */
  static open(requests: Requests, options: ChatOptions): Chat {
    const { cache, rest } = readChat(options);
    return new Chat(requests, rest, planOf(cache), openSession(requests, cache), []);
  }

  /** The messages of the turns that have ended. */
  get messages(): readonly Message[] {
    return [...this.#messages];
  }

  /**
   * Sends a message, with images or without, and starts to answer it. The result is both iterable and awaitable. When its signal
   * ends it, it rejects once the engine has stopped, within a step, so that `messages` then agrees with the engine.
   */
  send(content: MessageContent, options: TurnOptions = {}): Generation {
    let ended = (): unknown => undefined;
    const turn = Generation.of(() => {
      const place = new Place("send");
      const { signal, rest } = readTurn(options, place);
      const message: Message = { role: "user", content: readContent(content, 0, place.field("content")) };
      const before = this.#submitted;
      const ticket = this.#turn(message, signal, { ...this.#defaults, ...rest }, before);
      // A turn that fails early, say over its image, must not let later ones overtake those before it.
      this.#submitted = settled(ticket).then(() => before);
      const said = [this.#messages];
      this.#turns.add(said);
      const onDone = ({ text }: { text: string }): void => {
        for (const messages of said) messages.push(message, { role: "assistant", content: text });
      };
      ended = () => this.#turns.delete(said);
      return { ticket, signal, onDone };
    });
    // Read to its end even if nobody looks, so that the messages agree with the engine's.
    settled(turn).then(() => ended());
    return turn;
  }

  /**
   * A second chat that goes on from here: it has the messages of all turns sent so far, and shares what they have left in the cache
   * until one of the two changes it (`memory.shared` says how much that is). The two then know nothing of each other; dispose of both.
   * Ask many questions about one picture without reading it again:
   *
   * @example
   * ```ts
   * import { image, load } from "prefixkv";
   *
   * await using model = await load();
   * await using chat = model.chat({ maxTokens: 32 });
   * await chat.send([image("scene.png"), "How many objects are there?"]);
   * for (const question of ["What color is the star?", "Describe the image in detail."]) {
   *   await using fork = chat.fork();
   *   const { text, memory } = await fork.send(question);
   *   console.log(text, memory.shared / memory.resident);
   * }
   * ```
   */
  fork(): Chat {
    const before = this.#submitted;
    const session = this.#fork(before);
    // Turns that are sent from now on come after the fork.
    this.#submitted = settled(session);
    const messages = [...this.#messages];
    for (const said of this.#turns) said.push(messages);
    return new Chat(this.#requests, this.#defaults, this.#plan, session, messages);
  }

  /** Cancels the running turn and frees the cache. Later turns are rejected; a second disposal waits for the first. */
  dispose(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  async #fork(before: Promise<void>): Promise<string> {
    if (this.#closing) throw chatDisposed();
    const session = await this.#session;
    await before;
    const ticket = this.#requests.submit({ op: "fork-session", session });
    return (await lastEvent(ticket, "session")).session;
  }

  async #turn(
    message: Message,
    signal: AbortSignal | undefined,
    rest: Asked["rest"],
    before: Promise<void>,
  ): Promise<NativeTicket> {
    if (this.#closing) throw chatDisposed();
    const session = await until(this.#session, signal);
    const ready = async (): Promise<void> => {
      await before;
      if (this.#closing) throw chatDisposed();
    };
    const prompt = wirePrompt({ messages: [message] }, new Place("send"));
    const ticket = await this.#requests.ask(
      "generate",
      { prompt, cache: undefined, signal, rest },
      { session, ready, plan: this.#plan },
    );
    this.#running.add(ticket);
    return {
      next: async () => {
        const events = await ticket.next().catch((error: unknown) => {
          this.#running.delete(ticket);
          throw error;
        });
        if (events === null) this.#running.delete(ticket);
        return events;
      },
      cancel: () => ticket.cancel(),
    };
  }

  async #close(): Promise<void> {
    for (const ticket of this.#running) ticket.cancel();
    try {
      const session = await this.#session;
      await this.#submitted;
      if (this.#requests.closed) return;
      await lastEvent(this.#requests.submit({ op: "close-session", session }), "session");
    } catch {
      // The session was never opened, or has gone with its model.
    }
  }
}

async function openSession(requests: Requests, cache: CacheOption | undefined): Promise<string> {
  const wire = cache === undefined ? undefined : await requests.wire(cache);
  const ticket = requests.submit({ op: "open-session", ...(wire && { cache: wire }) });
  return (await lastEvent(ticket, "session")).session;
}

function chatDisposed(): Error {
  return disposedError("the chat is disposed; start another with model.chat()");
}

function settled(promise: Promise<unknown>): Promise<void> {
  return promise.then(
    () => {},
    () => {},
  );
}
