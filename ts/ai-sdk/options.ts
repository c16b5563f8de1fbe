import { type LanguageModelV4CallOptions, type SharedV4Warning, UnsupportedFunctionalityError } from "@ai-sdk/provider";
import { type CacheOption, readCache } from "../cache.ts";
import type { WireTool } from "../generated/wire.ts";
import { Place } from "../options/place.ts";
import type { GenerateOptions } from "../options/requests.ts";
import { fields, flag, number, type Rules } from "../options/rules.ts";
import { messagesOf } from "./prompt.ts";

/**
 * What `providerOptions.prefixkv` of a call takes.
 *
 * @example
 * ```ts
 * import type { PrefixkvCallOptions } from "prefixkv/ai-sdk";
 *
 * const options = { cache: { method: "prefixkv", keep: 0.5 }, minP: 0.05 } satisfies PrefixkvCallOptions;
 * console.log({ providerOptions: { prefixkv: options } });
 * ```
 */
export interface PrefixkvCallOptions {
  /** The method that shrinks the cache; without one, every entry is kept. */
  cache?: CacheOption;
  /** As in `generate`. */
  minP?: number;
  /** As in `generate`. */
  repetitionPenalty?: number;
  /** As in `generate`. */
  ignoreEos?: boolean;
}

const readOwn = fields({
  cache: readCache,
  minP: number,
  repetitionPenalty: number,
  ignoreEos: flag,
} satisfies Rules<PrefixkvCallOptions>);

/** A call of the SDK as the library has it. */
export interface Call {
  generate: GenerateOptions;
  warnings: SharedV4Warning[];
}

/** Reads a call; throws an UnsupportedFunctionalityError for what would change the answer and cannot be had. */
export function readCall(options: LanguageModelV4CallOptions): Call {
  const warnings: SharedV4Warning[] = [];
  const warn = (feature: string, details?: string): void => {
    if (warnings.some((warning) => warning.type === "unsupported" && warning.feature === feature)) return;
    warnings.push({ type: "unsupported", feature, ...(details !== undefined && { details }) });
  };
  if (options.responseFormat?.type === "json") {
    throw new UnsupportedFunctionalityError({ functionality: "JSON output: answers cannot be held to a grammar yet" });
  }
  if (options.reasoning !== undefined && options.reasoning !== "provider-default") {
    warn("reasoning", "the model's template decides whether it thinks");
  }
  const own = options.providerOptions?.prefixkv;
  const generate: GenerateOptions = {
    messages: messagesOf(options.prompt, (feature) => warn(feature, "it is left out")),
    ...some("maxTokens", options.maxOutputTokens),
    ...some("temperature", options.temperature),
    ...some("topP", options.topP),
    ...some("topK", options.topK),
    ...some("frequencyPenalty", options.frequencyPenalty),
    ...some("presencePenalty", options.presencePenalty),
    ...some("stop", options.stopSequences),
    ...some("seed", options.seed),
    ...some("signal", options.abortSignal),
    ...some("tools", toolsOf(options, warn)),
    ...(own !== undefined && readOwn(own, new Place("providerOptions.prefixkv"))),
  };
  return { generate, warnings };
}

function toolsOf(
  { tools = [], toolChoice = { type: "auto" } }: LanguageModelV4CallOptions,
  warn: (feature: string, details?: string) => void,
): WireTool[] | undefined {
  if (toolChoice.type === "none" || tools.length === 0) return undefined;
  if (toolChoice.type !== "auto") {
    throw new UnsupportedFunctionalityError({ functionality: "toolChoice other than auto and none" });
  }
  const read = tools.flatMap((tool): WireTool[] => {
    if (tool.type === "provider") {
      warn(`the tool ${tool.id}`, "it is another provider's own");
      return [];
    }
    const { name, description, inputSchema: parameters, strict } = tool;
    if (strict === true) warn("strict tools", "arguments are not held to their schema");
    return [{ type: "function", function: { name, ...(description !== undefined && { description }), parameters } }];
  });
  return read.length === 0 ? undefined : read;
}

function some<K extends string, V>(name: K, value: V | undefined): { [k in K]?: V } {
  return value === undefined ? {} : ({ [name]: value } as { [k in K]?: V });
}
