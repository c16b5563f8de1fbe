import {
  type Body,
  empty,
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
import { readMessages } from "./messages.ts";

/** A request for a chat completion, read. */
export interface ChatAsked extends Asked {
  includeUsage: boolean;
  /** Whether the answer has the probabilities of its tokens. */
  logprobs: boolean;
}

const auto = (value: unknown): boolean => value === "none" || value === "auto";
const isText = (value: unknown): boolean => isRecord(value) && value.type === "text";
const textAlone = (value: unknown): boolean => Array.isArray(value) && value.every((item) => item === "text");

const table: Table = {
  honoured: new Set([
    ...sampling,
    ...["messages", "max_completion_tokens", "max_tokens", "stop", "stream_options", "n", "logprobs", "top_logprobs"],
    ...["tools", "tool_choice"],
  ]),
  harmless: new Set([...harmless, "prediction", "verbosity", "reasoning_effort"]),
  refused: new Map([
    ["logit_bias", { neutral: empty, reason: "the sampler takes no bias" }],
    ["functions", { neutral: empty, reason: "this is the older way; write `tools`" }],
    ["function_call", { neutral: auto, reason: "this is the older way; write `tool_choice`" }],
    ["response_format", { neutral: isText, reason: "only the format `text` can be had" }],
    ["modalities", { neutral: textAlone, reason: "answers are text only" }],
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
    ["echo", { neutral: no, reason: "only the answer is given" }],
  ]),
};

/** Reads a request's body. `positions` is what the model has. Throws a Refusal. */
export function readChat(body: Body, settings: Settings, positions: number): ChatAsked {
  const ignored = sort(body, table, settings.strict);
  const model = readModel(body, settings);
  const stream = flag(body, "stream") ?? false;
  const options = body.stream_options ?? undefined;
  if (options !== undefined && !isRecord(options)) throw invalid("stream_options", "must be an object");
  if (options !== undefined && !stream) throw invalid("stream_options", "needs `stream: true`");
  const includeUsage = options !== undefined && (flag(options, "include_usage", "stream_options.") ?? false);
  const n = number(body, "n", 1, settings.choices, true) ?? 1;
  const most = mostTokens(settings, positions);
  const asked = number(body, "max_completion_tokens", 1, most, true);
  const older = number(body, "max_tokens", 1, most, true);
  const cache = readCacheField(body, settings);
  const tools = offersTools(body.tool_choice) ? readTools(toolsOf(body.tools)) : [];
  const top = readTop(body);
  const generate = {
    messages: readMessages(body.messages, settings),
    ...readSampling(body, settings),
    ...some("maxTokens", asked ?? older ?? settings.maxTokens),
    ...some("stop", readStop(body.stop ?? undefined)),
    ...some("logprobs", top),
    ...some("tools", tools.length > 0 ? tools : undefined),
    ...some("cache", cache),
  };
  const read = { generate, n, stream, model, method: nameOf(cache), tools: tools.length > 0, ignored };
  return { ...read, includeUsage, logprobs: top !== undefined };
}

/** How many likeliest tokens each token comes with, if any. */
function readTop(body: Body): number | undefined {
  const wanted = flag(body, "logprobs") ?? false;
  const top = number(body, "top_logprobs", 0, 20, true) ?? 0;
  if (top > 0 && !wanted) throw invalid("top_logprobs", "needs `logprobs: true`");
  return wanted ? top : undefined;
}

function toolsOf(value: unknown): { fields: ToolFields; param: string }[] {
  const tools = value ?? [];
  if (!Array.isArray(tools)) throw invalid("tools", "must be an array of tools");
  return tools.map((tool: unknown, index) => {
    const param = `tools[${index}]`;
    if (!isRecord(tool) || tool.type !== "function" || !isRecord(tool.function)) {
      throw invalid(param, "must be { type: function, function: { name, description, parameters } }");
    }
    return { fields: tool.function, param: `${param}.function` };
  });
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
