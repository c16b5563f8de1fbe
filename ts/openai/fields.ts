import type { CacheOption } from "../cache.ts";
import { methods } from "../generated/method_table.ts";
import type { GenerateOptions } from "../options/requests.ts";
import type { Settings } from "./options.ts";
import { invalid, Refusal, unsupported } from "./refusal.ts";

/** A request's body. */
export type Body = Readonly<Record<string, unknown>>;

/** Whether a value asks for nothing. */
type Neutral = (value: unknown) => boolean;
export const never: Neutral = () => false;
export const zero: Neutral = (value) => value === 0;
export const no: Neutral = (value) => value === false;
export const empty: Neutral = (value) => typeof value === "object" && Object.keys(value as object).length === 0;

/** The fields that a route knows. */
export interface Table {
  honoured: ReadonlySet<string>;
  /** Known fields that change nothing here. */
  harmless: ReadonlySet<string>;
  /** Fields that would change the answer and that nothing here can honour; values that ask for nothing pass. */
  refused: ReadonlyMap<string, { neutral: Neutral; reason: string }>;
}

/** Known fields that change nothing, on every route. */
export const harmless: readonly string[] = [
  ...["user", "safety_identifier", "metadata", "store", "service_tier", "prompt_cache_key", "prompt_cache_options"],
  ...["prompt_cache_retention", "parallel_tool_calls"],
];

/** Fields that are read by {@link readSampling}, {@link readModel} and {@link readCacheField}. */
export const sampling: readonly string[] = [
  ...["model", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "frequency_penalty"],
  ...["presence_penalty", "seed", "ignore_eos", "stream", "prefixkv"],
];

/** Refuses what would change the answer; gives the names of what is ignored. */
export function sort(body: Body, table: Table, strict: boolean): string[] {
  const ignored: string[] = [];
  for (const [name, value] of Object.entries(body)) {
    if (table.honoured.has(name) || value === null) continue;
    const rule = table.refused.get(name);
    if (rule !== undefined && !rule.neutral(value)) throw unsupported(name, `\`${short(name)}\`: ${rule.reason}`);
    if (rule === undefined && !table.harmless.has(name) && strict) {
      throw unsupported(short(name), `\`${short(name)}\` is no field that this server knows`);
    }
    ignored.push(name);
  }
  return ignored;
}

const short = (name: string): string => name.slice(0, 64);

export function readModel(body: Body, { id, anyModel }: Settings): string {
  const { model } = body;
  if (typeof model !== "string" || model === "") throw invalid("model", "must be the name of a model");
  if (model === id || anyModel) return model;
  const message = `there is no model of that name here; this server has ${JSON.stringify(id)}`;
  throw new Refusal(404, "model_not_found", message, { param: "model" });
}

/** How the tokens are chosen. */
export function readSampling(body: Body, settings: Settings): Partial<GenerateOptions> {
  const topK = number(body, "top_k", -1, 2 ** 31, true);
  return {
    temperature: number(body, "temperature", 0, 100) ?? settings.temperature,
    ...some("topP", number(body, "top_p", 0, 1)),
    ...some("topK", topK === -1 ? 0 : topK),
    ...some("minP", number(body, "min_p", 0, 1)),
    ...some("repetitionPenalty", number(body, "repetition_penalty", 0, 100)),
    ...some("frequencyPenalty", number(body, "frequency_penalty", -2, 2)),
    ...some("presencePenalty", number(body, "presence_penalty", -2, 2)),
    ...some("seed", number(body, "seed", 0, Number.MAX_SAFE_INTEGER - settings.choices, true)),
    ...some("ignoreEos", flag(body, "ignore_eos")),
  };
}

/** The most tokens that a request may ask for. */
export function mostTokens(settings: Settings, positions: number): number {
  return Math.min(settings.maxTokens ?? positions, positions);
}

/** The method of the request, or the server's. */
export function readCacheField(body: Body, settings: Settings): CacheOption | undefined {
  const value = body.prefixkv ?? undefined;
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

/** The methods as an answer names them, or null for the full cache. */
export function nameOf(cache: CacheOption | undefined): string | null {
  if (cache === undefined) return null;
  if (typeof cache === "string" || cache instanceof URL) return "fit";
  const stages: readonly { method?: string }[] = Array.isArray(cache) ? cache : [cache];
  return stages.map(({ method = "custom" }) => method).join("+");
}

export function flag(from: Body, name: string, before = ""): boolean | undefined {
  const value = from[name] ?? undefined;
  if (value !== undefined && typeof value !== "boolean") throw invalid(before + name, "must be true or false");
  return value;
}

export function number(from: Body, name: string, least: number, most: number, isWhole = false): number | undefined {
  const value = from[name] ?? undefined;
  if (value === undefined) return undefined;
  const right = typeof value === "number" && (isWhole ? Number.isSafeInteger(value) : Number.isFinite(value));
  if (!right || value < least || value > most) {
    throw invalid(name, `must be a ${isWhole ? "whole" : "finite"} number from ${least} to ${most}`);
  }
  // JSON has a -0, and options have none.
  return value + 0;
}

export function some<K extends string, V>(name: K, value: V | undefined): { [k in K]?: V } {
  return value === undefined ? {} : ({ [name]: value } as { [k in K]?: V });
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
