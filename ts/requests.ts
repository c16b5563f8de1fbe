import { type CacheOption, planOf, wireCache } from "./cache.ts";
import type { PlannedMethod } from "./custom_plan.ts";
import { disposedError, MediaError } from "./errors.ts";
import type { EngineRequest, WireEvent, WireMethod } from "./generated/wire.ts";
import type { ReadPolicy } from "./images/policy.ts";
import { type ImageInput, maxImageBytes, readImage } from "./media.ts";
import type { WirePrompt } from "./messages.ts";
import type { NativeEngine, NativeTicket } from "./native/contract.ts";
import { wire } from "./native/errors.ts";
import { lastEvent } from "./native/ticket.ts";
import type { Asked } from "./options/requests.ts";
import { answering } from "./planning.ts";
import { Stop, until } from "./stop.ts";
import { maxVideoBytes, tooLong } from "./video.ts";

/** Images that are read at the same time: as many as a request may have beside the frames of videos. */
const atOnce = 64;

/** A turn of a chat, as only the chat says it. */
export interface Turn {
  /** The conversation that the request continues, by the name that nobody else knows. */
  session: string;
  /** Resolves when the turn may be submitted. */
  ready: () => Promise<void>;
  /** The plan of the chat's method, where that is code. */
  plan: PlannedMethod["plan"] | undefined;
}

/** The way to a model's engine, which the model shares with its chats. */
export class Requests {
  readonly #engine: NativeEngine;
  readonly #images: ReadPolicy;
  readonly #fingerprint: string;
  /** The requests whose images and calibrations are being read. */
  readonly #preparing = new Set<Stop>();
  #closing: Promise<void> | undefined;

  /** `fingerprint` is the model's. */
  constructor(engine: NativeEngine, images: ReadPolicy = {}, fingerprint = "") {
    this.#engine = engine;
    this.#fingerprint = fingerprint;
    this.#images = images;
  }

  /** Reads the images and the calibration of a request, then submits it. Its signal, or the end of the model, stops that at once. */
  async ask(
    op: "generate" | "prefill" | "score" | "profile" | "trace" | "similarity" | "sensitivity",
    { prompt: { fields, images }, cache, signal, rest }: Asked,
    turn?: Turn,
  ): Promise<NativeTicket> {
    if (this.#closing) throw disposedError();
    const stop = new Stop(signal);
    this.#preparing.add(stop);
    try {
      const work = Promise.all([
        cache === undefined ? undefined : this.wire(cache, stop.signal),
        this.#read(images, stop.signal),
      ]);
      const [wire, bytes] = await until(work, stop.signal);
      if (turn) await until(turn.ready(), stop.signal);
      // Cancelled after it is submitted, a turn of a chat could have text before the engine hears of it.
      const request = {
        ...rest,
        ...fields,
        ...(wire && { cache: wire }),
        ...(turn ? { op: "turn", session: turn.session } : { op }),
      };
      const submitted = this.submit(request as unknown as EngineRequest, bytes);
      const plan = turn ? turn.plan : planOf(cache);
      const ticket = plan === undefined ? submitted : answering(submitted, plan, (request) => this.submit(request));
      return images.length === 0 ? ticket : naming(ticket, images);
    } finally {
      stop.done();
      this.#preparing.delete(stop);
    }
  }

  /** Reads the images of several prompts, then submits all as one request that looks at all of them; otherwise as {@link Requests.ask}. */
  async compare(
    op: "distances" | "channels" | "codebooks" | "directions" | "heads",
    prompts: readonly WirePrompt[],
    rest: Readonly<Record<string, unknown>>,
    signal: AbortSignal | undefined,
  ): Promise<NativeTicket> {
    const images = prompts.flatMap((prompt) => prompt.images);
    const bytes = await this.images(images, signal);
    const wired = prompts.map((prompt) => ({ ...prompt.fields, images: prompt.images.length }));
    const request = { op, ...rest, prompts: wired };
    const ticket = this.submit(request as unknown as EngineRequest, bytes);
    return images.length === 0 ? ticket : naming(ticket, images);
  }

  /** The bytes of images; the signal, or the end of the model, stops that at once. */
  async images(images: readonly ImageInput[], signal?: AbortSignal): Promise<Uint8Array[]> {
    if (this.#closing) throw disposedError();
    const stop = new Stop(signal);
    this.#preparing.add(stop);
    try {
      return await until(this.#read(images, stop.signal), stop.signal);
    } finally {
      stop.done();
      this.#preparing.delete(stop);
    }
  }

  async #read(images: readonly ImageInput[], stop: AbortSignal): Promise<Uint8Array[]> {
    const read = (image: ImageInput, index: number): Promise<Uint8Array> =>
      readImage(image, this.#images, stop).catch((error: unknown) => {
        if (!(error instanceof MediaError)) throw error;
        throw new MediaError(error.code, error.message, { ...error.details, index });
      });
    // A video may have more frames than files may be open at once.
    const found: Uint8Array[] = [];
    for (let first = 0; first < images.length; first += atOnce) {
      const some = images.slice(first, first + atOnce);
      found.push(...(await Promise.all(some.map((image, index) => read(image, first + index)))));
      const bytes = found.reduce((sum, image) => sum + image.length, 0);
      // As many images by themselves are let through; what is more has frames among it.
      if (images.length > atOnce && bytes > atOnce * maxImageBytes + maxVideoBytes) throw tooLong(bytes);
    }
    return found;
  }

  /** The cache option as it crosses the door to this model. */
  wire(cache: CacheOption, signal?: AbortSignal): Promise<WireMethod | WireMethod[]> {
    return wireCache(cache, signal, this.#fingerprint);
  }

  /** Submits a request as it is. */
  submit(request: EngineRequest, images: Uint8Array[] = []): NativeTicket {
    if (this.#closing) throw disposedError();
    return wire(() => this.#engine.submit(JSON.stringify(request), images));
  }

  /** Cancels what runs or is being read and frees the model, once. */
  close(): Promise<void> {
    if (this.#closing === undefined) {
      this.#closing = lastEvent(this.#engine.close(), "closed").then(() => {});
      for (const stop of this.#preparing) stop.end(disposedError());
    }
    return this.#closing;
  }

  /** Whether {@link Requests.close} has been called. */
  get closed(): boolean {
    return this.#closing !== undefined;
  }
}

/** A ticket whose errors about an image, which the engine knows by number, also say its name. */
function naming(ticket: NativeTicket, images: readonly ImageInput[]): NativeTicket {
  const name = (event: WireEvent): WireEvent => {
    if (event.type !== "error" || event.error.code !== "image") return event;
    const { message, details } = event.error;
    const source = images[Number(details.index)]?.name;
    if (source === undefined) return event;
    const label = source.startsWith("(") ? source : `(${source})`;
    const named = message.replace(/^cannot use image \d+/, (start) => `${start} ${label}`);
    return { type: "error", error: { ...event.error, message: named, details: { ...details, source } } };
  };
  return {
    next: async () => {
      const events = await ticket.next();
      if (events === null || !events.includes('"error"')) return events;
      return JSON.stringify((JSON.parse(events) as WireEvent[]).map(name));
    },
    cancel: () => ticket.cancel(),
  };
}
