import { randomUUID } from "node:crypto";
import { DisposedError } from "../errors.ts";
import { type MethodFacts, methods } from "../generated/method_table.ts";
import type { Model } from "../model.ts";
import { readBody } from "./body.ts";
import { ChatAnswer } from "./chat/answer.ts";
import { readChat } from "./chat/fields.ts";
import { Facts } from "./facts.ts";
import type { Asked, Form } from "./form.ts";
import { gatewayRoutes } from "./gateway.ts";
import { Guard } from "./guard.ts";
import { closing, gone, Job, late, work } from "./job.ts";
import { Keys } from "./keys.ts";
import { Metrics } from "./metrics.ts";
import { type OpenaiOptions, readSettings, type Settings } from "./options.ts";
import { pageResponse } from "./page/html.ts";
import { keptOf } from "./page/kept.ts";
import { Refusal, refusalOf } from "./refusal.ts";
import { ResponseAnswer } from "./responses/answer.ts";
import { readResponse } from "./responses/fields.ts";
import { streamed } from "./stream.ts";
import { full, Turns } from "./turns.ts";

/**
 * A handler of web requests: its `fetch` is what `Bun.serve` and `Deno.serve` take, and `nodeListener` brings it to `node:http`.
 *
 * @example
 * ```ts
 * import { load } from "prefixkv";
 * import { openai, type OpenaiServer } from "prefixkv/openai";
 *
 * await using model = await load();
 * const server: OpenaiServer = openai(model);
 * console.log(await (await server.fetch(new Request("http://localhost/v1/models"))).json());
 * await server.close();
 * ```
 */
export interface OpenaiServer {
  /** Answers a request. It never rejects; what goes wrong is a status. */
  readonly fetch: (request: Request) => Promise<Response>;
  /**
   * Refuses new completions and resolves when those that run have ended; after `drainTime` it ends them. The model stays, for its owner to
   * dispose.
   */
  close(): Promise<void>;
}

/** The reading of a route's bodies, and the writing of its answers. */
type Dialect = (
  body: Record<string, unknown>,
  settings: Settings,
  positions: number,
) => { asked: Asked; begin: (facts: Facts) => Form };

const chat: Dialect = (body, settings, positions) => {
  const asked = readChat(body, settings, positions);
  return { asked, begin: (facts) => new ChatAnswer(asked, facts) };
};

const responses: Dialect = (body, settings, positions) => {
  const asked = readResponse(body, settings, positions);
  return { asked, begin: (facts) => new ResponseAnswer(asked, facts) };
};

/** The methods that the page offers: those that have a size, of those that a request may ask for. */
const offered = (settings: Settings): MethodFacts[] =>
  methods.filter(
    ({ name, role, budget }) =>
      (settings.methods?.includes(name) ?? true) && role === "chooses" && budget !== "outcome",
  );

type Route = { readonly [method: string]: (request: Request, path: string) => Response | Promise<Response> };

/**
 * Serves a model over the chat completions of OpenAI's HTTP interface: plain and streamed answers about text and pictures, models,
 * health and metrics. Throws an OptionError. The fields that it takes and refuses: docs/openai.md.
 *
 * @example
 * ```ts
 * import { load } from "prefixkv";
 * import { openai } from "prefixkv/openai";
 *
 * await using model = await load();
 * const server = openai(model, { id: "tiny" });
 * const body = JSON.stringify({ model: "tiny", messages: [{ role: "user", content: "Hello" }], max_tokens: 8 });
 * const headers = { "content-type": "application/json" };
 * const response = await server.fetch(new Request("http://localhost/v1/chat/completions", { method: "POST", headers, body }));
 * console.log(response.status, await response.json());
 * await server.close();
 * ```
 */
export function openai(model: Model, options: OpenaiOptions = {}): OpenaiServer {
  const handler = new Handler(model, readSettings(options));
  return { fetch: (request) => handler.fetch(request), close: () => handler.close() };
}

class Handler {
  readonly #model: Model;
  readonly #settings: Settings;
  readonly #keys: Keys;
  readonly #guard: Guard;
  readonly #turns: Turns;
  readonly #metrics: Metrics;
  readonly #jobs = new Set<Job>();
  readonly #created = Math.floor(Date.now() / 1000);
  readonly #routes: Map<string, Route>;
  #draining = false;
  #unloaded = false;
  #closed: Promise<void> | undefined;

  constructor(model: Model, settings: Settings) {
    this.#model = model;
    this.#settings = settings;
    this.#keys = new Keys(settings.keys);
    this.#guard = new Guard(settings.hosts, settings.origins);
    this.#turns = new Turns(settings.concurrency);
    this.#metrics = new Metrics(this.#turns, model.info.kvBytesPerToken);
    this.#routes = new Map<string, Route>([
      ["/health", { GET: () => Response.json({ status: "ok" }) }],
      ["/ready", { GET: () => this.#ready() }],
      ["/metrics", { GET: () => this.#counted() }],
      ["/v1/models", { GET: () => Response.json({ object: "list", data: [this.#about()] }) }],
      [
        "/v1/chat/completions",
        { POST: (request) => this.#complete(request, (job) => this.#answer(request, job, chat)) },
      ],
      ["/v1/responses", { POST: (request) => this.#complete(request, (job) => this.#answer(request, job, responses)) }],
    ]);
    for (const [path, GET] of gatewayRoutes(model.info, settings)) this.#routes.set(path, { GET });
    if (!settings.page) return;
    this.#routes.set("/", { GET: () => pageResponse(offered(settings)) });
    this.#routes.set("/v1/kept", { POST: (request) => this.#complete(request, (job) => this.#kept(request, job)) });
  }

  async fetch(request: Request): Promise<Response> {
    const given = request.headers.get("x-request-id") ?? "";
    const id = /^[A-Za-z0-9._-]{1,128}$/.test(given) ? given : randomUUID();
    let response: Response;
    try {
      response = await this.#route(request);
    } catch (error) {
      const refusal = refusalOf(error);
      response = Response.json(refusal.body, { status: refusal.status, headers: refusal.headers });
    }
    response.headers.set("x-request-id", id);
    this.#guard.open(request, response);
    return response;
  }

  close(): Promise<void> {
    this.#draining = true;
    this.#closed ??= this.#drain();
    return this.#closed;
  }

  async #drain(): Promise<void> {
    const { promise: late, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, this.#settings.drainTime);
    const all = (): Promise<unknown> => Promise.all([...this.#jobs].map(({ done }) => done));
    await Promise.race([all(), late]);
    clearTimeout(timer);
    for (const job of this.#jobs) job.stop(closing());
    await all();
  }

  /** The path that is checked is the one that is answered: both are this one text. */
  async #route(request: Request): Promise<Response> {
    this.#guard.check(request.headers);
    const preflight = this.#guard.preflight(request);
    if (preflight !== undefined) return preflight;
    const path = new URL(request.url).pathname;
    if (path !== "/health" && !(path === "/" && this.#settings.page)) this.#keys.check(request.headers);
    const route = path.startsWith("/v1/models/")
      ? { GET: () => this.#one(path.slice("/v1/models/".length)) }
      : this.#routes.get(path);
    if (route === undefined) {
      const paths = [...this.#routes.keys()].join(", ");
      throw new Refusal(404, "not_found", `there is nothing at this path; there are ${paths}`);
    }
    const answer = Object.hasOwn(route, request.method) ? (route as Route)[request.method] : undefined;
    if (answer !== undefined) return answer(request, path);
    const allow = Object.keys(route).join(", ");
    throw new Refusal(405, "method_not_allowed", `this path takes ${allow}`, { headers: { allow } });
  }

  #ready(): Response {
    if (this.#draining) throw closing();
    if (this.#unloaded) throw new DisposedError("disposed", "the model is disposed");
    return Response.json({ status: "ready" });
  }

  #counted(): Response {
    const headers = { "content-type": "text/plain; version=0.0.4; charset=utf-8" };
    return new Response(this.#metrics.text(this.#settings.id), { headers });
  }

  #about(): Record<string, unknown> {
    const { maxPositions, image } = this.#model.info;
    return {
      id: this.#settings.id,
      object: "model",
      created: this.#created,
      owned_by: "prefixkv",
      max_model_len: maxPositions,
      modalities: image === null ? ["text"] : ["text", "image"],
    };
  }

  #one(name: string): Response {
    let id: string | undefined;
    try {
      id = decodeURIComponent(name);
    } catch {
      // A broken escape names no model.
    }
    if (id === this.#settings.id) return Response.json(this.#about());
    throw new Refusal(404, "model_not_found", "there is no model of that name here", { param: "model" });
  }

  async #complete(request: Request, answer: (job: Job) => Promise<Response>): Promise<Response> {
    if (this.#draining) throw closing();
    // Counted before a body is read: those that are being read take memory too.
    if (this.#jobs.size >= this.#settings.concurrency + this.#settings.queue) {
      this.#metrics.rejected += 1;
      throw full(this.#jobs.size);
    }
    const job = new Job();
    const leave = (): void => {
      // Some runtimes also tell of it after an answer that has ended well.
      if (job.stop(gone())) this.#metrics.disconnects += 1;
    };
    this.#jobs.add(job);
    const deadline = setTimeout(() => job.stop(late()), this.#settings.answerTime);
    void job.done.then(() => {
      clearTimeout(deadline);
      this.#jobs.delete(job);
      request.signal.removeEventListener("abort", leave);
    });
    if (request.signal.aborted) leave();
    else request.signal.addEventListener("abort", leave, { once: true });
    try {
      return await answer(job);
    } catch (error) {
      job.finish();
      const refusal = job.refusal(error);
      if (refusal.code === "model_unloaded") this.#unloaded = true;
      throw refusal;
    }
  }

  #body(request: Request, { signal }: Job): Promise<Record<string, unknown>> {
    return readBody(request, { bytes: this.#settings.bodyBytes, time: this.#settings.bodyTime, signal });
  }

  /** Generates anew, and says which parts of the pictures each layer has kept. */
  async #kept(request: Request, job: Job): Promise<Response> {
    const body = await this.#body(request, job);
    const { asked } = chat(body, this.#settings, this.#model.info.maxPositions);
    const leave = await this.#turns.take(job.signal);
    try {
      const trace = await this.#model.trace({ ...asked.generate, signal: job.signal });
      return Response.json(keptOf(trace));
    } finally {
      leave();
      job.finish();
    }
  }

  async #answer(request: Request, job: Job, dialect: Dialect): Promise<Response> {
    const { kvBytesPerToken, maxPositions } = this.#model.info;
    const body = await this.#body(request, job);
    const { asked, begin } = dialect(body, this.#settings, maxPositions);
    const facts = new Facts(asked, kvBytesPerToken);
    const form = begin(facts);
    const metrics = this.#metrics;
    const steps = work(job, { model: this.#model, turns: this.#turns, metrics }, asked, facts);
    let response: Response;
    if (asked.stream) {
      response = await streamed({ job, form, steps, settings: this.#settings, metrics });
    } else {
      for await (const step of steps) {
        form.step(step);
        if ("result" in step) metrics.choice(step.result);
      }
      response = Response.json(form.whole());
      metrics.answered(job.age);
      job.finish();
    }
    const ignored = asked.ignored.map((name) => (/^[\w.-]{1,64}$/.test(name) ? name : "(an odd name)"));
    if (ignored.length > 0) response.headers.set("x-prefixkv-ignored", ignored.slice(0, 32).join(", "));
    return response;
  }
}
