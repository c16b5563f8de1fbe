// The data of bench/prefixkv_search.ts and bench/prefixkv_report.ts: prompts, what is read behind them, and which tokens of that count.
import { readFile } from "node:fs/promises";
import { type EvalSample, promptOf } from "../ts/eval/samples.ts";
import type { CacheOption, Model } from "../ts/index.ts";

/** A prompt with what is read behind it, of which some tokens count. */
export interface Asked {
  sample: EvalSample;
  /** Those that count, given all. */
  counted(tokens: readonly number[]): boolean[];
}

/** Samples whose whole answers count. */
export const whole = (samples: readonly EvalSample[]): Asked[] =>
  samples.map((sample) => ({ sample, counted: (tokens) => tokens.map(() => true) }));

/**
 * Pictures of a split of easy-VQA, evenly spread, each with four of its questions: the first is the prompt, and the others are asked once its cache
 * is small. The answers to these count, each with its end.
 */
export async function followUps(model: Model, split: "train" | "test", pictures: number): Promise<Asked[]> {
  const folder = new URL(`../.cache/data/easy-vqa/easy_vqa/data/${split}/`, import.meta.url);
  const all = JSON.parse(await readFile(new URL("questions.json", folder), "utf8")) as [string, string, number][];
  const most = Math.max(...all.map(([, , number]) => number));
  const [end] = await model.tokenize("</s>", { addSpecialTokens: false });
  return Promise.all(
    Array.from({ length: pictures }, async (_, picture) => {
      const number = Math.floor((picture * most) / pictures);
      const own = all.filter(([, , of]) => of === number);
      const nth = [0, 1, 2, 3].map((part) => Math.floor((part * own.length) / 4));
      const asked = nth.map((at): [string, string] => [own[at]?.[0] ?? "", own[at]?.[1] ?? ""]);
      const [[question, answer] = ["", ""]] = asked;
      const later = asked.slice(1).map(([question, answer]) => `</s>USER: ${question} ASSISTANT: ${answer}`);
      const lengths = await Promise.all(
        asked.map(async ([, answer]) => (await model.tokenize(` ${answer}`, { addSpecialTokens: false })).length),
      );
      return {
        sample: {
          id: `${split}-${number}`,
          image: new URL(`images/${number}.png`, folder),
          question,
          answer: `${answer}${later.join("")}`,
        },
        counted: (tokens) => {
          const ends = tokens.flatMap((token, index) => (token === end ? [index] : []));
          return tokens.map((_, index) =>
            ends.some((at, nth) => nth > 0 && index <= at && index >= at - (lengths[nth] ?? 0)),
          );
        },
      };
    }),
  );
}

/** The log-probabilities of the tokens that count. */
export async function logprobs(model: Model, { sample, counted }: Asked, cache: CacheOption): Promise<number[]> {
  const { tokens, logprobs } = await model.score({ ...promptOf(sample), answer: sample.answer, cache });
  const which = counted(tokens);
  return logprobs.filter((_, index) => which[index]);
}
