import { type CacheOption, readCache } from "../cache.ts";
import type { ChatOptions, TurnOptions } from "../chat.ts";
import { type PromptInput, type WirePrompt, wirePrompt } from "../messages.ts";
import type { GenerateOptions, ScoreOptions } from "../model.ts";
import { Place } from "./place.ts";
import { anything, fields, flag, list, number, oneOf, type Rules, signal, text, whole } from "./rules.ts";

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
