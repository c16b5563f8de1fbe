import { type CacheOption, readCache } from "../cache.ts";
import { Place } from "../options/place.ts";
import { flag, list, number, own, type Rule, text, whole } from "../options/rules.ts";

/**
 * How a model is served. Times are milliseconds.
 *
 * @example
 * ```ts
 * import { load, prefixkv } from "prefixkv";
 * import { openai, type OpenaiOptions } from "prefixkv/openai";
 *
 * await using model = await load();
 * const options: OpenaiOptions = { id: "tiny", cache: prefixkv({ keep: 0.5 }), methods: ["prefixkv"], maxTokens: 256 };
 * const server = openai(model, options);
 * console.log((await server.fetch(new Request("http://localhost/health"))).status);
 * await server.close();
 * ```
 */
export interface OpenaiOptions {
  /** The name of the model in requests and lists. Default: `"prefixkv"`. */
  id?: string;
  /** Answer whatever model a request names. Default: false. */
  anyModel?: boolean;
  /**
   * Also serve a page at `/`, without a key: drop a picture, ask, watch the stream, see the memory and the kept patches. It asks as any client does,
   * and `POST /v1/kept` for the patches. Default: false.
   */
  page?: boolean;
  /** API keys; a request needs one of them on every route but `/health`. Default: none, so that nobody needs a key. */
  keys?: readonly string[];
  /**
   * Names that the header `host` of a request may have, with a port or without; others are refused with 403. Give those of this machine where it
   * answers without a key: a web page can make its own name lead here (DNS rebinding). Default: every name.
   */
  hosts?: readonly string[];
  /** Origins such as `https://example.com` whose web pages may ask (CORS). Default: none. */
  origins?: readonly string[];
  /** The method of requests that name none. Default: every entry is kept. */
  cache?: CacheOption;
  /** Names of the methods that a request may ask for in `prefixkv`. Default: every method that loads no file. */
  methods?: readonly string[];
  /** Refuse request fields that are not known instead of ignoring them. Default: false. */
  strict?: boolean;
  /** Requests that the model answers at once: the `batch` of load. Default: 1. */
  concurrency?: number;
  /** Requests that wait for their turn; those beyond are refused with 429. Default: 64. */
  queue?: number;
  /** The most choices of a request (`n`). Default: 8. */
  choices?: number;
  /** The most pictures of a request. Default: 8. */
  images?: number;
  /**
   * Hosts whose https pictures may be fetched for a request: names, or `*.example.com` for all below one. Names must lead to the public internet,
   * and so must every redirect. Default: none; pictures come as data URLs.
   */
  imageHosts?: readonly string[];
  /** The most tokens of a choice. Default: what the model has positions for. */
  maxTokens?: number;
  /** The temperature of requests that give none. Default: 0, the likeliest token. */
  temperature?: number;
  /** The most bytes of a request's body. Default: 20 MiB. */
  bodyBytes?: number;
  /** Time in which a body must have come. Default: 30,000. */
  bodyTime?: number;
  /** Time that a request may take altogether, its waiting included. Default: 600,000, after which OpenAI's clients have gone. */
  answerTime?: number;
  /** Time after which a stream that waits is opened, so that later errors come as events. Default: 2,000. */
  openTime?: number;
  /** Time between the comments of a stream that waits. Default: 5,000. */
  heartbeat?: number;
  /** Time after which a stream that nobody reads is ended. Default: 60,000. */
  stallTime?: number;
  /** Time that `close` gives requests to finish. Default: 30,000. */
  drainTime?: number;
}

/** The options with their defaults. */
export interface Settings extends Required<Omit<OpenaiOptions, "cache" | "hosts" | "methods" | "maxTokens">> {
  cache: CacheOption | undefined;
  hosts: readonly string[] | undefined;
  methods: readonly string[] | undefined;
  maxTokens: number | undefined;
}

const atLeast =
  (least: number): Rule<number> =>
  (value, place) => {
    const found = whole(value, place);
    if (found < least) throw place.invalid(`is ${found}; it must be at least ${least}`);
    return found;
  };
const time: Rule<number> = (value, place) => {
  const found = number(value, place);
  // The longest delay of a timer.
  if (found <= 0 || found > 2 ** 31 - 1) throw place.invalid(`is ${found}; give milliseconds above 0 and below 2^31`);
  return found;
};
const filled: Rule<string> = (value, place) => {
  const found = text(value, place);
  if (found === "") throw place.invalid("is empty");
  return found;
};

const origin: Rule<string> = (value, place) => {
  const found = filled(value, place);
  if (!found.includes("*") && URL.canParse(found) && new URL(found).origin === found) return found;
  throw place.invalid(`is ${JSON.stringify(found)}; write the origin alone, such as https://example.com, and never *`);
};

const host: Rule<string> = (value, place) => {
  const found = filled(value, place);
  if (/^(?:\*\.)?[a-z\d-]+(?:\.[a-z\d-]+)+$/i.test(found)) return found;
  throw place.invalid(`is ${JSON.stringify(found)}; write a host such as images.example.com or *.example.com`);
};

const rules: { readonly [K in keyof OpenaiOptions]-?: Rule<unknown> } = {
  id: filled,
  anyModel: flag,
  page: flag,
  keys: list(filled),
  hosts: list(filled),
  origins: list(origin),
  cache: readCache,
  methods: list(filled),
  strict: flag,
  concurrency: atLeast(1),
  queue: atLeast(0),
  choices: atLeast(1),
  images: atLeast(0),
  imageHosts: list(host),
  maxTokens: atLeast(1),
  temperature: (value, place) => {
    const found = number(value, place);
    if (found < 0 || found > 100) throw place.invalid(`is ${found}; it must be from 0 to 100`);
    return found;
  },
  bodyBytes: atLeast(1),
  bodyTime: time,
  answerTime: time,
  openTime: time,
  heartbeat: time,
  stallTime: time,
  drainTime: time,
};

/** The options of `openai`, read into a copy. Throws an OptionError. */
export function readSettings(options: OpenaiOptions): Settings {
  const place = new Place("openai");
  const read: Record<string, unknown> = {};
  for (const [name, value] of own(options, place)) {
    const rule = Object.hasOwn(rules, name) ? rules[name as keyof OpenaiOptions] : undefined;
    if (rule === undefined) throw place.field(name).invalid(`is unknown; there are ${Object.keys(rules).join(", ")}`);
    read[name] = rule(value, place.field(name));
  }
  return { ...defaults, ...(read as OpenaiOptions) };
}

const defaults: Settings = {
  id: "prefixkv",
  anyModel: false,
  page: false,
  keys: [],
  hosts: undefined,
  origins: [],
  cache: undefined,
  methods: undefined,
  strict: false,
  concurrency: 1,
  queue: 64,
  choices: 8,
  images: 8,
  imageHosts: [],
  maxTokens: undefined,
  temperature: 0,
  bodyBytes: 20 * 2 ** 20,
  bodyTime: 30_000,
  answerTime: 600_000,
  openTime: 2_000,
  heartbeat: 5_000,
  stallTime: 60_000,
  drainTime: 30_000,
};
