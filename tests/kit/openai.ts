// Requests to the handler of `prefixkv/openai`, and what comes back.

import type { Model } from "../../ts/model.ts";
import { type OpenaiOptions, type OpenaiServer, openai } from "../../ts/openai/index.ts";

export const base = "http://localhost";
export const hello: { model: string; messages: { role: string; content: string }[] } = {
  model: "prefixkv",
  messages: [{ role: "user", content: "Hello" }],
};

/** The body of an error. */
export interface Failure {
  error: { message: string; type: string; param: string | null; code: string | null };
}

/** A server over a model that is there. */
export const serving = (model: Model, options: OpenaiOptions = {}): OpenaiServer => openai(model, options);

/** Asks for a completion; a text goes as it is. */
export function post(
  server: OpenaiServer,
  body: unknown,
  { headers = {}, path = "/v1/chat/completions", signal }: Extra = {},
): Promise<Response> {
  const all = { "content-type": "application/json", ...headers };
  const text = typeof body === "string" ? body : JSON.stringify(body);
  return server.fetch(
    new Request(base + path, { method: "POST", headers: all, body: text, ...(signal && { signal }) }),
  );
}

interface Extra {
  headers?: Record<string, string>;
  path?: string;
  signal?: AbortSignal;
}

export const get = (server: OpenaiServer, path: string, headers: Record<string, string> = {}): Promise<Response> =>
  server.fetch(new Request(base + path, { headers }));

/** Status, code and field of a refusal. */
export async function refusal(response: Promise<Response>): Promise<[number, string | null, string | null]> {
  const found = await response;
  const { error } = (await found.json()) as Failure;
  return [found.status, error.code, error.param];
}

/** The data of the events in a stream's text. */
export const dataOf = (text: string): string[] => [...text.matchAll(/^data: (.*)$/gm)].map(([, data = ""]) => data);
