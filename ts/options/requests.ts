import { type CacheOption, readCache } from "../cache.ts";

import { type PromptInput, type WirePrompt, wirePrompt } from "../messages.ts";

import { Place } from "./place.ts";
import { anything, fields, flag, list, number, oneOf, type Rules, signal, text, whole } from "./rules.ts";

/**
 * Options of `generate`. Without a temperature the most likely token is taken each time. The sampling options apply in the order
 * of transformers: `repetitionPenalty`, `temperature`, `topK`, `topP`, `minP`, then a draw with `seed`.
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
export interface GenerateOptions extends PromptInput {
  /** The method that shrinks the cache; without one, every entry is kept. */
  cache?: CacheOption;
  /** The most tokens to generate. */
  maxTokens?: number;
  /** 0 takes the most likely token, and top-k, top-p, min-p and the seed do nothing; higher values spread the choice. */
  temperature?: number;
  /** Choose among this many likeliest tokens, and those as likely as the last of them. */
  topK?: number;
  /** Choose among the likeliest tokens that together have this probability, of what `topK` has left. */
  topP?: number;
  /** Choose among tokens at least this share as likely as the likeliest. */
  minP?: number;
  /** Above 1, tokens that have already occurred, in the prompt or the answer, become less likely. Applied first, also at temperature 0. */
  repetitionPenalty?: number;
  /** The same seed and request give the same text. */
  seed?: number;
  /** Texts that end the generation; they are not part of the result. */
  stop?: readonly string[];
  /** Goes on after the model's end token, up to `maxTokens`. */
  ignoreEos?: boolean;
  /** Stops the work; see AbortError. */
  signal?: AbortSignal;
}

/**
 * Which answer to score after which prompt.
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
export interface ScoreOptions extends PromptInput {
  /** The text whose probability is asked for. */
  answer: string;
  /** The method that shrinks the cache; without one, every entry is kept. */
  cache?: CacheOption;
  /** Also says which positions are kept after the prompt. */
  kept?: boolean;
  /**
   * Also reports each token's divergence from the full cache, which reads the answer alongside the method: it
   * takes another prefill, as many steps and the memory of a full cache.
   */
  kl?: boolean;
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
export type TurnOptions = Omit<GenerateOptions, "messages" | "prompt" | "images" | "cache">;

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
  maxTokens: whole,
  temperature: number,
  topK: whole,
  topP: number,
  minP: number,
  repetitionPenalty: number,
  seed: whole,
  stop: list(text, "an array of strings"),
  ignoreEos: flag,
  signal,
} satisfies Rules<TurnOptions>;

const generateRules = { ...promptRules, ...turnRules, cache: readCache } satisfies Rules<GenerateOptions>;

const scoreRules = {
  ...promptRules,
  answer: text,
  cache: readCache,
  kept: flag,
  kl: flag,
  signal,
} satisfies Rules<ScoreOptions>;

const { signal: _, ...chatTurnRules } = turnRules;
const chatRules = { ...chatTurnRules, cache: readCache } satisfies Rules<ChatOptions>;

const [readGenerateFields, readScoreFields] = [fields(generateRules), fields(scoreRules)];
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
