import { type CacheOption, readCache } from "../cache.ts";
import { logprobRules, samplingRules, scoreRules, stoppingRules } from "../generated/rules.ts";
import type { LogprobOptions, SamplingOptions, ScoreFields, StoppingOptions, WireTool } from "../generated/wire.ts";
import { type PromptInput, type WirePrompt, wirePrompt } from "../messages.ts";

import { json } from "./json.ts";
import { Place } from "./place.ts";
import { anything, fields, oneOf, type Rule, type Rules, signal, text } from "./rules.ts";

/**
 * Options of `generate`. Without a temperature the most likely token is taken each time. The sampling options apply in the order
 * of transformers: `repetitionPenalty`, then `frequencyPenalty` and `presencePenalty`, which it lacks, `temperature`, `topK`, `topP`,
 * `minP`, and a draw with `seed`.
 *
 * @example
 * ```ts
 * import { type GenerateOptions, load } from "prefixkv";
 *
 * const options: GenerateOptions = { prompt: "USER: Hello ASSISTANT:", maxTokens: 8, temperature: 0.7, topP: 0.9, seed: 1 };
 * const model = await load();
 * console.log((await model.generate(options)).text);
 * await model.dispose();
 * ```
 */
export interface GenerateOptions extends PromptInput, StoppingOptions, SamplingOptions, LogprobOptions {
  /**
   * Tools that the model may call, as OpenAI writes them, with `messages`. The chat template must know tools and write calls as Hermes and
   * Qwen do; the answer has them as text, `<tool_call>` around a JSON object with `name` and `arguments`. Not for `trace`.
   */
  tools?: readonly WireTool[];
  /** The method that shrinks the cache; without one, every entry is kept. */
  cache?: CacheOption;
  /** Stops the work; see AbortError. */
  signal?: AbortSignal;
}

/**
 * Options of `score`: an answer and the prompt before it.
 *
 * @example
 * ```ts
 * import { image, load, type ScoreOptions } from "prefixkv";
 *
 * const options: ScoreOptions = { prompt: "USER: <image>\nWhat color is the star? ASSISTANT:", images: [image("scene.png")], answer: " green" };
 * const model = await load();
 * console.log((await model.score(options)).ppl);
 * await model.dispose();
 * ```
 */
export interface ScoreOptions extends PromptInput, ScoreFields {
  /** The method that shrinks the cache; without one, every entry is kept. */
  cache?: CacheOption;
  /** Stops the work; see AbortError. */
  signal?: AbortSignal;
}

/**
 * How one turn of a chat is answered.
 *
 * @example
 * ```ts
 * import { load, type TurnOptions } from "prefixkv";
 *
 * await using model = await load();
 * await using chat = model.chat();
 * const options: TurnOptions = { maxTokens: 8, signal: AbortSignal.timeout(60_000) };
 * console.log((await chat.send("Which shapes are there?", options)).text);
 * ```
 */
export type TurnOptions = Omit<GenerateOptions, "messages" | "prompt" | "images" | "cache" | "tools">;

/**
 * Options of `prefill`: a prompt that questions will follow, and the method that shrinks what is kept of it.
 *
 * @example
 * ```ts
 * import { image, load, type PrefillOptions } from "prefixkv";
 *
 * await using model = await load();
 * const options: PrefillOptions = { messages: [{ role: "user", content: [image("scene.png")] }] };
 * await using prefix = await model.prefill(options);
 * console.log(prefix.usage.promptTokens);
 * ```
 */
export interface PrefillOptions extends PromptInput {
  /** The method that shrinks the cache; without one, every entry is kept. */
  cache?: CacheOption;
  /** Stops the work; see AbortError. */
  signal?: AbortSignal;
}

/**
 * A question about a prefix, and how it is answered.
 *
 * @example
 * ```ts
 * import { load, type QuestionOptions } from "prefixkv";
 *
 * await using model = await load();
 * await using prefix = await model.prefill({ prompt: "USER: There is a red circle." });
 * const options: QuestionOptions = { prompt: " What color is it? ASSISTANT:", maxTokens: 8 };
 * console.log((await prefix.generate(options)).text);
 * ```
 */
export interface QuestionOptions extends Omit<TurnOptions, "specialTokens" | "logprobs"> {
  /** The text that follows the prefix. */
  prompt: string;
}

/**
 * Options of a chat: the method that shrinks its cache, and the defaults for its turns.
 *
 * @example
 * ```ts
 * import { type ChatOptions, load, prefixkv } from "prefixkv";
 *
 * await using model = await load();
 * const options: ChatOptions = { cache: prefixkv({ keep: 0.5 }), maxTokens: 64 };
 * await using chat = model.chat(options);
 * console.log(chat.messages.length);
 * ```
 */
export interface ChatOptions extends Omit<TurnOptions, "signal"> {
  /** The method that shrinks the cache over all turns; without one, every entry is kept. */
  cache?: CacheOption;
}

/** A request as it was asked, in copies: nothing in it comes from elsewhere, or changes. */
export interface Asked {
  prompt: WirePrompt;
  cache: CacheOption | undefined;
  signal: AbortSignal | undefined;
  /** The other fields as the engine takes them. */
  rest: Readonly<Record<string, unknown>>;
}

const specialTokens = oneOf("parse", "text");

/** The prompt is read as a whole, because its images stand in both. */
const promptRules = {
  messages: anything,
  specialTokens,
  prompt: anything,
  images: anything,
} satisfies Rules<PromptInput>;

const turnRules = {
  specialTokens,
  ...stoppingRules,
  ...samplingRules,
  ...logprobRules,
  signal,
} satisfies Rules<TurnOptions>;

const tools: Rule<WireTool[]> = (value, place) => {
  if (!place.read(() => Array.isArray(value))) throw place.refuse("an array of tools", value);
  return json(value, place) as WireTool[];
};

const generateRules = { ...promptRules, ...turnRules, tools, cache: readCache } satisfies Rules<GenerateOptions>;

const readScoreRules = { ...promptRules, ...scoreRules, cache: readCache, signal } satisfies Rules<ScoreOptions>;

const { signal: _, ...chatTurnRules } = turnRules;
const chatRules = { ...chatTurnRules, cache: readCache } satisfies Rules<ChatOptions>;

const readPrefillFields = fields({ ...promptRules, cache: readCache, signal } satisfies Rules<PrefillOptions>);
const { specialTokens: __, logprobs: ___, ...questionTurnRules } = turnRules;
const questionRules = { prompt: text, ...questionTurnRules } satisfies Rules<QuestionOptions>;
const readQuestionFields = fields(questionRules);

const [readGenerateFields, readScoreFields] = [fields(generateRules), fields(readScoreRules)];
const [readPromptFields, readTurnFields, readChatFields] = [fields(promptRules), fields(turnRules), fields(chatRules)];

/** The options of `generate` and `trace`. */
export function readGenerate(options: unknown, call: "generate" | "trace"): Asked {
  const place = new Place(call);
  return asked(readGenerateFields(options, place), place);
}

/** The options of `score`. */
export function readScore(options: unknown): Asked {
  const place = new Place("score");
  return asked(readScoreFields(options, place), place);
}

/** The options of `prefill`. */
export function readPrefill(options: unknown): Asked {
  const place = new Place("prefill");
  return asked(readPrefillFields(options, place), place);
}

/** The options of a question about a prefix. */
export function readQuestion(options: unknown): QuestionOptions {
  const place = new Place("generate");
  const { prompt, ...read } = readQuestionFields(options, place);
  if (prompt === undefined) throw place.field("prompt").invalid("is missing");
  return { prompt, ...read };
}

/** A prompt on its own, such as a sample of a calibration. */
export function readPrompt(prompt: unknown, place: Place): WirePrompt {
  const { specialTokens, ...read } = readPromptFields(prompt, place);
  const { fields, images } = wirePrompt(read, place);
  return { fields: { ...fields, ...(specialTokens && { specialTokens }) }, images };
}

/** The options of one turn of a chat. */
export function readTurn(options: unknown, place: Place): Omit<Asked, "prompt" | "cache"> {
  const { signal, ...rest } = readTurnFields(options, place);
  return { signal, rest };
}

/** The options of a chat. */
export function readChat(options: unknown): Omit<Asked, "prompt" | "signal"> {
  const { cache, ...rest } = readChatFields(options, new Place("chat"));
  return { cache, rest };
}

interface Fields {
  messages?: unknown;
  prompt?: unknown;
  images?: unknown;
  cache?: CacheOption;
  signal?: AbortSignal;
}

function asked({ messages, prompt, images, cache, signal, ...rest }: Fields, place: Place): Asked {
  return { prompt: wirePrompt({ messages, prompt, images }, place), cache, signal, rest };
}
