import type { CacheOption } from "../cache.ts";
import { methods } from "../generated/method_table.ts";
import type { GenerateOptions } from "../options/requests.ts";
import { isRecord, readMessages } from "./messages.ts";
import type { Settings } from "./options.ts";
import { invalid, Refusal, unsupported } from "./refusal.ts";

/** A request for a chat completion, read. */
export interface Asked {
  /** The options of every choice, but for its seed. */
  generate: GenerateOptions;
  /** Choices. */
  n: number;
  stream: boolean;
  includeUsage: boolean;
  /** The name that the answer gives the model. */
  model: string;
  /** The method of the cache, or null for the full one. */
  method: string | null;
  /** Fields that had no effect. */
  ignored: string[];
}

type Body = Readonly<Record<string, unknown>>;
type Neutral = (value: unknown) => boolean;

const never: Neutral = () => false;
const zero: Neutral = (value) => value === 0;
const no: Neutral = (value) => value === false;
const empty: Neutral = (value) => typeof value === "object" && Object.keys(value as object).length === 0;

/** Fields that would change the answer and that nothing here can honour; values that ask for nothing pass. */
const refused = new Map<string, { neutral: Neutral; reason: string }>([
  ["frequency_penalty", { neutral: zero, reason: "the sampler has no such penalty; `repetition_penalty` is there" }],
  ["presence_penalty", { neutral: zero, reason: "the sampler has no such penalty; `repetition_penalty` is there" }],
  ["logit_bias", { neutral: empty, reason: "the sampler takes no bias" }],
  ["logprobs", { neutral: no, reason: "probabilities of generated tokens are not reported" }],
  ["top_logprobs", { neutral: zero, reason: "probabilities of generated tokens are not reported" }],
  ["tools", { neutral: empty, reason: "tools are not offered to the model" }],
  ["tool_choice", { neutral: (value) => value === "none" || value === "auto", reason: "there are no tools" }],
  ["functions", { neutral: empty, reason: "tools are not offered to the model" }],
  ["function_call", { neutral: (value) => value === "none" || value === "auto", reason: "there are no tools" }],
  [
    "response_format",
    { neutral: (value) => isRecord(value) && value.type === "text", reason: "only the format `text` can be had" },
  ],
  [
    "modalities",
    {
      neutral: (value) => Array.isArray(value) && value.every((item) => item === "text"),
      reason: "answers are text only",
    },
  ],
  ["audio", { neutral: never, reason: "answers are text only" }],
  ["web_search_options", { neutral: never, reason: "this server searches nothing" }],
  ["moderation", { neutral: never, reason: "this server moderates nothing" }],
  ["chat_template", { neutral: never, reason: "the template is the model's own" }],
  ["chat_template_kwargs", { neutral: empty, reason: "the template is the model's own" }],
  ["structured_outputs", { neutral: never, reason: "answers cannot be held to a grammar" }],
  ["guided_json", { neutral: never, reason: "answers cannot be held to a grammar" }],
  ["guided_regex", { neutral: never, reason: "answers cannot be held to a grammar" }],
  ["guided_choice", { neutral: never, reason: "answers cannot be held to a grammar" }],
  ["guided_grammar", { neutral: never, reason: "answers cannot be held to a grammar" }],
]);

/** Known fields that change nothing here. */
const harmless = new Set([
  ...["user", "safety_identifier", "metadata", "store", "service_tier", "prompt_cache_key", "prompt_cache_options"],
  ...["prompt_cache_retention", "parallel_tool_calls", "prediction", "verbosity", "reasoning_effort"],
]);

const honoured = new Set([
  ...["model", "messages", "max_completion_tokens", "max_tokens", "temperature", "top_p", "top_k", "min_p", "stop"],
  ...["repetition_penalty", "seed", "stream", "stream_options", "n", "ignore_eos", "prefixkv"],
]);

/** Reads a request's body. `positions` is what the model has. Throws a Refusal. */
export function readAsked(body: Body, settings: Settings, positions: number): Asked {
  const ignored = sort(body, settings.strict);
  const model = readModel(body, settings);
  const stream = flag(body, "stream") ?? false;
  const options = body.stream_options ?? undefined;
  if (options !== undefined && !isRecord(options)) throw invalid("stream_options", "must be an object");
  if (options !== undefined && !stream) throw invalid("stream_options", "needs `stream: true`");
  const includeUsage = options !== undefined && (flag(options, "include_usage", "stream_options.") ?? false);
  const n = number(body, "n", 1, settings.choices, true) ?? 1;
  const most = Math.min(settings.maxTokens ?? positions, positions);
  const asked = number(body, "max_completion_tokens", 1, most, true);
  const older = number(body, "max_tokens", 1, most, true);
  const maxTokens = asked ?? older ?? settings.maxTokens;
  const cache = readCacheField(body.prefixkv ?? undefined, settings);
  const topK = number(body, "top_k", -1, 2 ** 31, true);
  const generate: GenerateOptions = {
    messages: readMessages(body.messages, settings.images),
    temperature: number(body, "temperature", 0, 100) ?? settings.temperature,
    ...some("maxTokens", maxTokens),
    ...some("stop", readStop(body.stop ?? undefined)),
    ...some("topP", number(body, "top_p", 0, 1)),
    ...some("topK", topK === -1 ? 0 : topK),
    ...some("minP", number(body, "min_p", 0, 1)),
    ...some("repetitionPenalty", number(body, "repetition_penalty", 0, 100)),
    ...some("seed", number(body, "seed", 0, Number.MAX_SAFE_INTEGER - settings.choices, true)),
    ...some("ignoreEos", flag(body, "ignore_eos")),
    ...some("cache", cache),
  };
  return { generate, n, stream, includeUsage, model, method: nameOf(cache), ignored };
}

/** Refuses what would change the answer; gives the names of what is ignored. */
function sort(body: Body, strict: boolean): string[] {
  const ignored: string[] = [];
  for (const [name, value] of Object.entries(body)) {
    if (honoured.has(name) || value === null) continue;
    const rule = refused.get(name);
    if (rule !== undefined && !rule.neutral(value)) throw unsupported(name, `\`${short(name)}\`: ${rule.reason}`);
    if (rule === undefined && !harmless.has(name) && strict) {
      throw unsupported(short(name), `\`${short(name)}\` is no field that this server knows`);
    }
    ignored.push(name);
  }
  return ignored;
}

const short = (name: string): string => name.slice(0, 64);

function readModel(body: Body, { id, anyModel }: Settings): string {
  const { model } = body;
  if (typeof model !== "string" || model === "") throw invalid("model", "must be the name of a model");
  if (model === id || anyModel) return model;
  const message = `there is no model of that name here; this server has ${JSON.stringify(id)}`;
  throw new Refusal(404, "model_not_found", message, { param: "model" });
}

function readStop(value: unknown): string[] | undefined {
  if (value === undefined) return undefined;
  const list = Array.isArray(value) ? value : [value];
  if (list.length > 4) throw invalid("stop", `has ${list.length} texts; it may have 4`);
  for (const text of list) {
    if (typeof text !== "string" || text === "" || text.length > 256) {
      throw invalid("stop", "must be a text of 1 to 256 characters, or an array of at most 4 such texts");
    }
  }
  return list.length === 0 ? undefined : (list as string[]);
}

/** The method of the request, or the server's. */
function readCacheField(value: unknown, settings: Settings): CacheOption | undefined {
  if (value === undefined) return settings.cache;
  const stages = Array.isArray(value) ? value : [value];
  const allowed = settings.methods ?? methods.map(({ name }) => name);
  for (const stage of stages) {
    if (!isRecord(stage) || typeof stage.method !== "string") {
      throw invalid("prefixkv", 'must be a method such as { "method": "prefixkv", "keep": 0.5 }, or an array of them');
    }
    if (!allowed.includes(stage.method)) {
      throw invalid("prefixkv", `names a method that this server does not allow; there are ${allowed.join(", ")}`);
    }
    if (typeof stage.calibration === "string") {
      throw invalid("prefixkv", "has a calibration by name; files are not read for a request, so give its content");
    }
  }
  if (stages.length === 0) throw invalid("prefixkv", "is empty");
  return value as CacheOption;
}

function nameOf(cache: CacheOption | undefined): string | null {
  if (cache === undefined) return null;
  if (typeof cache === "string" || cache instanceof URL) return "fit";
  const stages: readonly { method?: string }[] = Array.isArray(cache) ? cache : [cache];
  return stages.map(({ method = "custom" }) => method).join("+");
}

function flag(from: Body, name: string, before = ""): boolean | undefined {
  const value = from[name] ?? undefined;
  if (value !== undefined && typeof value !== "boolean") throw invalid(before + name, "must be true or false");
  return value;
}

function number(from: Body, name: string, least: number, most: number, isWhole = false): number | undefined {
  const value = from[name] ?? undefined;
  if (value === undefined) return undefined;
  const right = typeof value === "number" && (isWhole ? Number.isSafeInteger(value) : Number.isFinite(value));
  if (!right || value < least || value > most) {
    throw invalid(name, `must be a ${isWhole ? "whole" : "finite"} number from ${least} to ${most}`);
  }
  // JSON has a -0, and options have none.
  return value + 0;
}

function some<K extends string, V>(name: K, value: V | undefined): { [k in K]?: V } {
  return value === undefined ? {} : ({ [name]: value } as { [k in K]?: V });
}
