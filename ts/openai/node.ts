import type { OpenaiServer } from "./handler.ts";

/**
 * The needed part of the `IncomingMessage` of `node:http`, so that these types need none of Node's.
 *
 * @example
 * ```ts
 * import type { IncomingMessage } from "node:http";
 * import type { NodeRequest } from "prefixkv/openai";
 *
 * const pathOf = (request: NodeRequest): string => request.url ?? "/";
 * console.log(typeof (pathOf satisfies (request: IncomingMessage) => string));
 * ```
 */
export interface NodeRequest extends AsyncIterable<Uint8Array> {
  /** The method, such as `GET`. */
  readonly method?: string | undefined;
  /** The target as it came: a path with its query. */
  readonly url?: string | undefined;
  /** Names and values in turn. */
  readonly rawHeaders: readonly string[];
}

/**
 * The needed part of the `ServerResponse` of `node:http`, so that these types need none of Node's.
 *
 * @example
 * ```ts
 * import type { ServerResponse } from "node:http";
 * import type { NodeResponse } from "prefixkv/openai";
 *
 * const isOver = (response: NodeResponse): boolean => response.writableFinished || response.destroyed;
 * console.log(typeof (isOver satisfies (response: ServerResponse) => boolean));
 * ```
 */
export interface NodeResponse {
  /** Whether all of it has been sent. */
  readonly writableFinished: boolean;
  /** Whether the connection has gone. */
  readonly destroyed: boolean;
  /** Sends the status and the headers. */
  writeHead(status: number, headers: Record<string, string>): unknown;
  /** Sends bytes; false asks to wait for `drain`. */
  write(chunk: Uint8Array): boolean;
  /** Ends the answer. */
  end(): unknown;
  /** Calls a listener at the next event. */
  once(event: "close" | "drain", listener: () => void): unknown;
  /** Takes a listener away. */
  off(event: "close" | "drain", listener: () => void): unknown;
}

/**
 * A listener for `createServer` of `node:http`. A connection that closes aborts what it has asked for.
 *
 * @example
 * ```ts
 * import { createServer } from "node:http";
 * import { load } from "prefixkv";
 * import { nodeListener, openai } from "prefixkv/openai";
 *
 * await using model = await load();
 * const handler = openai(model);
 * const server = createServer(nodeListener(handler));
 * await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
 * await handler.close();
 * server.close();
 * ```
 */
export function nodeListener(server: OpenaiServer): (request: NodeRequest, response: NodeResponse) => void {
  return (request, response) => {
    void answer(server, request, response);
  };
}

async function answer(server: OpenaiServer, from: NodeRequest, to: NodeResponse): Promise<void> {
  const control = new AbortController();
  const gone = (): void => {
    if (!to.writableFinished) control.abort();
  };
  to.once("close", gone);
  const request = requestOf(from, control.signal);
  if (request === undefined) {
    to.writeHead(400, { "content-type": "text/plain" });
    to.end();
    return;
  }
  const response = await server.fetch(request);
  if (to.destroyed) {
    await response.body?.cancel();
    return;
  }
  to.writeHead(response.status, Object.fromEntries(response.headers));
  const reader = response.body?.getReader();
  const stop = (): void => void reader?.cancel().catch(() => {});
  to.once("close", stop);
  try {
    for (let read = await reader?.read(); read !== undefined && !read.done; read = await reader?.read()) {
      if (to.destroyed) return;
      if (!to.write(read.value)) await drained(to);
    }
  } catch {
    // The stream was cut; so is the answer.
  } finally {
    to.end();
  }
}

/** The request, or undefined for one that is none. Its host is not looked at, so that no path can be made a host's. */
function requestOf(from: NodeRequest, signal: AbortSignal): Request | undefined {
  const { method = "GET", url = "" } = from;
  if (!url.startsWith("/")) return undefined;
  try {
    const headers = new Headers();
    for (let at = 0; at + 1 < from.rawHeaders.length; at += 2) {
      headers.append(from.rawHeaders[at] ?? "", from.rawHeaders[at + 1] ?? "");
    }
    const bare = method === "GET" || method === "HEAD";
    const body = bare ? {} : { body: streamOf(from), duplex: "half" };
    return new Request(`http://localhost${url}`, { method, headers, signal, ...body } as RequestInit);
  } catch {
    return undefined;
  }
}

function streamOf(from: NodeRequest): ReadableStream<Uint8Array> {
  const chunks = from[Symbol.asyncIterator]();
  return new ReadableStream({
    async pull(controller) {
      const { done, value } = await chunks.next();
      if (done) controller.close();
      else controller.enqueue(new Uint8Array(value));
    },
  });
}

function drained(to: NodeResponse): Promise<void> {
  return new Promise((resolve) => {
    const over = (): void => {
      to.off("close", over);
      to.off("drain", over);
      resolve();
    };
    to.once("close", over);
    to.once("drain", over);
  });
}
