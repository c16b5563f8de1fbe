import {
  type Body,
  flag,
  harmless,
  isRecord,
  mostTokens,
  nameOf,
  never,
  no,
  number,
  readCacheField,
  readModel,
  readSampling,
  sampling,
  some,
  sort,
  type Table,
} from "../fields.ts";
import type { Asked } from "../form.ts";
import type { Settings } from "../options.ts";
import { invalid } from "../refusal.ts";
import { offersTools, readTools, type ToolFields } from "../tools.ts";
import { readInput } from "./input.ts";

/** A request for a response, read. */
export interface ResponseAsked extends Asked {
  /** Fields that the response repeats. */
  echoed: Readonly<Record<string, unknown>>;
}

const isDisabled = (value: unknown): boolean => value === "disabled";
const isText = (value: unknown): boolean =>
  isRecord(value) && ((value.format ?? null) === null || (isRecord(value.format) && value.format.type === "text"));

const table: Table = {
  honoured: new Set([...sampling, "input", "instructions", "max_output_tokens", "tools", "tool_choice"]),
  harmless: new Set([...harmless, "include", "reasoning", "stream_options", "client_metadata", "max_tool_calls"]),
  refused: new Map([
    ["previous_response_id", { neutral: never, reason: "no answer is kept here; send the whole conversation" }],
    ["conversation", { neutral: never, reason: "no conversation is kept here; send the whole of it" }],
    ["background", { neutral: no, reason: "answers are not kept, so they must be waited for" }],
    ["prompt", { neutral: never, reason: "no prompts are kept here" }],
    ["text", { neutral: isText, reason: "only the format `text` can be had" }],
    ["truncation", { neutral: isDisabled, reason: "nothing is left out of a conversation" }],
    ["top_logprobs", { neutral: (value) => value === 0, reason: "probabilities come with chat completions" }],
  ]),
};

/** Reads a request's body. `positions` is what the model has. Throws a Refusal. */
export function readResponse(body: Body, settings: Settings, positions: number): ResponseAsked {
  const ignored = sort(body, table, settings.strict);
  const model = readModel(body, settings);
  const stream = flag(body, "stream") ?? false;
  const instructions = body.instructions ?? undefined;
  if (instructions !== undefined && typeof instructions !== "string") throw invalid("instructions", "must be a string");
  const most = number(body, "max_output_tokens", 1, mostTokens(settings, positions), true);
  const cache = readCacheField(body, settings);
  const offered = toolsOf(body.tools);
  const tools = offersTools(body.tool_choice) ? readTools(offered.functions) : [];
  const sampling = readSampling(body, settings);
  const generate = {
    messages: readInput(body.input, instructions, settings),
    ...sampling,
    ...some("maxTokens", most ?? settings.maxTokens),
    ...some("tools", tools.length > 0 ? tools : undefined),
    ...some("cache", cache),
  };
  const echoed = {
    instructions: instructions ?? null,
    max_output_tokens: most ?? null,
    metadata: isRecord(body.metadata) ? body.metadata : {},
    parallel_tool_calls: body.parallel_tool_calls !== false,
    previous_response_id: null,
    store: false,
    temperature: sampling.temperature ?? null,
    text: { format: { type: "text" } },
    tool_choice: body.tool_choice ?? "auto",
    tools: offered.functions.map(({ fields }) => fields),
    top_p: sampling.topP ?? 1,
    truncation: "disabled",
  };
  const named = offered.others.map((name) => `tools.${name}`);
  const read = { generate, n: 1, stream, model, method: nameOf(cache), tools: tools.length > 0 };
  return { ...read, ignored: [...ignored, ...named], echoed };
}

/** The functions among the tools; those of a server's own, such as a search, are not there, and are left out. */
function toolsOf(value: unknown): { functions: { fields: ToolFields; param: string }[]; others: string[] } {
  const tools = value ?? [];
  if (!Array.isArray(tools)) throw invalid("tools", "must be an array of tools");
  const functions: { fields: ToolFields; param: string }[] = [];
  const others: string[] = [];
  for (const [index, tool] of tools.entries()) {
    if (!isRecord(tool) || typeof tool.type !== "string")
      throw invalid(`tools[${index}]`, "must be an object with a type");
    if (tool.type === "function") functions.push({ fields: tool, param: `tools[${index}]` });
    else others.push(tool.type);
  }
  return { functions, others };
}
