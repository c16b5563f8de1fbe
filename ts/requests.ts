import { type CacheOption, wireCache } from "./cache.ts";
import { abortError, disposedError, MediaError } from "./errors.ts";
import { type PromptInput, wirePrompt } from "./messages.ts";
import type { EngineRequest, NativeEngine, NativeTicket } from "./native/contract.ts";
import { errorFromThrown } from "./native/errors.ts";
import { lastEvent } from "./native/ticket.ts";

/** A prompt with whatever else its request has. */
export interface Asked extends PromptInput {
  cache?: CacheOption;
  signal?: AbortSignal;
}

/** The way to a model's engine, which the model shares with its chats. */
export class Requests {
  readonly #engine: NativeEngine;
  #closing: Promise<void> | undefined;

  constructor(engine: NativeEngine) {
    this.#engine = engine;
  }

  /**
   * Reads the images and the calibration of a request, then submits it once `ready` resolves. Unknown fields go through: the engine
   * refuses them with a suggestion.
   */
  async ask<Fields extends Asked>(
    op: "generate" | "score" | "profile" | "trace",
    asked: Fields,
    ready?: () => Promise<void>,
  ): Promise<NativeTicket> {
    const { messages, prompt, images: extra, cache, signal, ...rest } = asked;
    const given = Object.entries({ messages, prompt, images: extra }).filter(([, value]) => value !== undefined);
    const { fields, images } = wirePrompt(Object.fromEntries(given));
    const [wire, bytes] = await Promise.all([
      cache === undefined ? undefined : wireCache(cache, signal),
      Promise.all(
        images.map((image, index) =>
          image.bytes(signal).catch((error: unknown) => {
            if (!(error instanceof MediaError)) throw error;
            throw new MediaError(error.code, error.message, { ...error.details, index }, { cause: error.cause });
          }),
        ),
      ),
    ]);
    await ready?.();
    // Cancelled after it is submitted, a turn of a chat could have text before the engine hears of it.
    if (signal?.aborted) throw abortError(signal);
    return this.submit({ op, ...rest, ...(wire && { cache: wire }), ...fields } as EngineRequest, bytes);
  }

  /** Submits a request as it is. */
  submit(request: EngineRequest, images: Uint8Array[] = []): NativeTicket {
    if (this.#closing) throw disposedError();
    try {
      return this.#engine.submit(JSON.stringify(request), images);
    } catch (error) {
      throw errorFromThrown(error);
    }
  }

  /** Cancels what runs and frees the model, once. */
  close(): Promise<void> {
    this.#closing ??= lastEvent(this.#engine.close(), "closed").then(() => {});
    return this.#closing;
  }

  /** Whether {@link Requests.close} has been called. */
  get closed(): boolean {
    return this.#closing !== undefined;
  }
}
