import { abortError, PrefixKvError } from "../errors.ts";
import { until } from "../stop.ts";
import { answerError, networkError, type Subject, statusError, Transient } from "./failures.ts";
import type { System } from "./system.ts";

/** State shared by all requests of one load. */
export interface Session {
  endpoint: string;
  token: string | undefined;
  signal: AbortSignal;
  system: System;
}

export interface Ask {
  url: string;
  subject: Subject;
  method?: "GET" | "HEAD";
  headers?: Record<string, string>;
  /** Headers that only the hub itself may see, beside the token. */
  hubHeaders?: Record<string, string>;
  /** Statuses that the caller treats itself. */
  accept: readonly number[];
}

const maxRedirects = 10;
const stalled = "stalled";

/**
 * One request with its redirects. They are followed by hand, because the hub describes a file in the headers of its redirect, and
 * because the token must never reach another server.
 */
export async function ask(session: Session, { url: first, subject, method = "GET", ...given }: Ask): Promise<Answer> {
  const stall = new Stall(session);
  const home = new URL(session.endpoint).origin;
  let url = new URL(first);
  let foreign = false;
  const described = new Headers();
  try {
    for (let hop = 0; hop <= maxRedirects; hop++) {
      foreign ||= url.origin !== home;
      const response = await stall.watch(
        session.system.fetch(url.href, {
          method,
          redirect: "manual",
          signal: stall.signal,
          // Sizes and ranges refer to the file itself, not to a compressed form.
          headers: { "accept-encoding": "identity", ...given.headers, ...(!foreign && hubHeaders(session, given)) },
        }),
      );
      if (!foreign) describe(described, response.headers);
      const location = response.headers.get("location");
      if (response.status >= 300 && response.status < 400 && location !== null) {
        await response.body?.cancel();
        if (method === "HEAD" && described.has("x-linked-etag")) return new Answer(response, url, described, stall);
        url = follow(url, location, subject);
        continue;
      }
      if (!given.accept.includes(response.status)) {
        await response.body?.cancel();
        throw statusError(response, shown(url), subject, foreign);
      }
      return new Answer(response, url, described, stall);
    }
    throw answerError("hub-response", subject, shown(url), "too many redirects");
  } catch (error) {
    stall.end();
    throw stall.explain(error, shown(url), subject);
  }
}

function hubHeaders({ token }: Session, { hubHeaders }: Pick<Ask, "hubHeaders">): Record<string, string> {
  return { ...hubHeaders, ...(token !== undefined && { authorization: `Bearer ${token}` }) };
}

function describe(described: Headers, headers: Headers): void {
  for (const name of ["x-repo-commit", "x-linked-etag", "x-linked-size"]) {
    const value = headers.get(name);
    if (value !== null && !described.has(name)) described.set(name, value);
  }
}

function follow(from: URL, location: string, subject: Subject): URL {
  const to = URL.canParse(location, from.href) ? new URL(location, from) : undefined;
  if (to && (to.protocol === "https:" || (to.protocol === "http:" && from.protocol === "http:"))) return to;
  throw answerError("hub-response", subject, shown(from), "the server redirects to an address that is not followed");
}

/** An address as errors show it: signed ones carry secrets in the query. */
function shown(url: URL): string {
  return `${url.origin}${url.pathname}`;
}

/** An answer that has begun; its body is read once, or discarded. */
export class Answer {
  readonly status: number;
  readonly headers: Headers;
  /** Where the answer came from in the end, without its query. */
  readonly url: string;
  /** The hub's own headers for the file, even when another server sends it. */
  readonly described: Headers;
  readonly #response: Response;
  readonly #stall: Stall;

  constructor(response: Response, url: URL, described: Headers, stall: Stall) {
    this.status = response.status;
    this.headers = response.headers;
    this.url = shown(url);
    this.described = described;
    this.#response = response;
    this.#stall = stall;
  }

  /** The body in pieces; a cut connection ends it with a Transient. */
  async *chunks(subject: Subject): AsyncGenerator<Uint8Array, void, void> {
    const reader = this.#response.body?.getReader();
    try {
      while (reader) {
        const { done, value } = await this.#read(reader, subject);
        if (done) return;
        yield value;
      }
    } finally {
      this.#stall.end();
      await reader?.cancel().catch(() => {});
    }
  }

  async #read(reader: ReadableStreamDefaultReader<Uint8Array>, subject: Subject) {
    try {
      return await this.#stall.watch(reader.read());
    } catch (error) {
      throw this.#stall.explain(error, this.url, subject);
    }
  }

  /** The whole body as text; refuses more than `limit` bytes. */
  async text(limit: number, subject: Subject): Promise<string> {
    const chunks: Uint8Array[] = [];
    let length = 0;
    for await (const chunk of this.chunks(subject)) {
      length += chunk.length;
      if (length > limit)
        throw answerError("hub-response", subject, this.url, `the answer has more than ${limit} bytes`);
      chunks.push(chunk);
    }
    return Buffer.concat(chunks).toString("utf8");
  }

  async discard(): Promise<void> {
    this.#stall.end();
    await this.#response.body?.cancel().catch(() => {});
  }
}

/** Ends a request that brings nothing for too long, or that nobody wants any more, and says why it has ended. */
class Stall {
  readonly #session: Session;
  readonly #controller = new AbortController();
  readonly #stop = (): void => this.#controller.abort(this.#session.signal.reason);

  constructor(session: Session) {
    this.#session = session;
    if (session.signal.aborted) this.#stop();
    else session.signal.addEventListener("abort", this.#stop);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /**
   * Waits for a step until the request ends. A fetch of Node loses sight of its signal once its Request has been collected
   * (nodejs/node#55428), so that what it promised might be waited for without end.
   */
  async watch<T>(step: Promise<T>): Promise<T> {
    const timer = setTimeout(() => this.#controller.abort(stalled), this.#session.system.stall);
    try {
      return await until(step, this.signal);
    } finally {
      clearTimeout(timer);
    }
  }

  end(): void {
    this.#session.signal.removeEventListener("abort", this.#stop);
    this.#controller.abort();
  }

  explain(error: unknown, url: string, subject: Subject): unknown {
    const { signal, system } = this.#session;
    if (this.signal.reason === stalled)
      return new Transient(networkError(url, subject, `nothing came for ${system.stall / 1000} s`));
    if (error instanceof PrefixKvError || error instanceof Transient) return error;
    if (signal.aborted) return abortError(signal);
    return new Transient(networkError(url, subject, reason(error), error));
  }
}

function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? `${error.message} (${error.cause.message})` : error.message;
}
