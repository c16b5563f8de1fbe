// Written by `cargo xtask gen` from the specifications of the engine; edit those instead.
import { flag, list, number, oneOf, type Rule, type RulesFor, size, text, whole } from "../options/rules.ts";
import type { Device, EngineOptions, LogprobOptions, SamplingOptions, ScoreFields, StoppingOptions } from "./wire.ts";

export const stoppingRules: RulesFor<StoppingOptions> = {
  maxTokens: whole,
  stop: list(text, "an array of strings"),
  ignoreEos: flag,
};

export const samplingRules: RulesFor<SamplingOptions> = {
  temperature: number,
  topK: whole,
  topP: number,
  minP: number,
  repetitionPenalty: number,
  frequencyPenalty: number,
  presencePenalty: number,
  seed: whole,
};

export const logprobRules: RulesFor<LogprobOptions> = {
  logprobs: whole,
};

export const scoreRules: RulesFor<ScoreFields> = {
  answer: text,
  kept: flag,
  kl: flag,
};

export const engineRules: RulesFor<EngineOptions> = {
  device: text as Rule<Device>,
  weights: oneOf("f32", "f16", "q8_0", "q4_k"),
  map: flag,
  threads: whole,
  batch: whole,
  prefillChunk: whole,
  cacheLimit: size,
  prefixCache: size,
  rotateValues: flag,
};
