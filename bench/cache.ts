// Measures the cost of a smaller cache while the prompt is read, and its gain while tokens are generated. Run through
// `npm run bench:cache`, which measures the limits before and after.
import { mkdir, writeFile } from "node:fs/promises";
import { type CacheMethod, full, load, type Memory, type Model } from "../ts/index.ts";
import { mixedPrompt } from "./prompts.ts";
import { grouped, plain, randomModel, type Shape } from "./random_model.ts";
import { stepWeightBytes } from "./work.ts";

export interface Variant {
  name: string;
  cache: CacheMethod;
}

/** A variant at one context; samples of the same index are of the same round. */
export interface Measured {
  name: string;
  /** Milliseconds of the whole prompt. */
  prefill: number[];
  /** Milliseconds per token. */
  decode: number[];
  /** After the last token; the same in every round. */
  memory: Memory;
}

export interface Series {
  model: string;
  shape: Shape;
  context: number;
  /** Weights that a decode step reads, in bytes. */
  weightBytes: number;
  measured: Measured[];
}

export interface CacheSuite {
  quick: boolean;
  rounds: number;
  steps: number;
  series: Series[];
}

const quick = process.argv.includes("--quick");
export const raw: URL = new URL("../.cache/bench/cache.json", import.meta.url);
const threads = 2;
const rounds = quick ? 2 : 9;
const steps = quick ? 8 : 64;
const contexts = quick ? [128, 256] : [2048, 4096];

/** The baseline of all comparisons. */
export const whole = "full cache";
const prefixkv = (keep: number, decode?: "none"): Variant => ({
  name: `prefixkv ${keep}${decode ? ", decode none" : ""}`,
  cache: { method: "prefixkv", variant: "paper", keep, ...(decode && { decode }) },
});
const overhead: Variant[] = [
  { name: whole, cache: { method: "full" } },
  prefixkv(0.5),
  prefixkv(0.2),
  { name: "h2o 0.5", cache: { method: "h2o", keep: 0.5 } },
  { name: "snapkv 0.5", cache: { method: "snapkv", keep: 0.5 } },
];
const decoding: Variant[] = [
  prefixkv(1),
  prefixkv(0.1),
  prefixkv(0.5, "none"),
  prefixkv(0.2, "none"),
  prefixkv(0.1, "none"),
];

/** The variants in the order of a round: every other one runs backwards, so that nobody always comes first. */
export function order<T>(variants: readonly T[], round: number): T[] {
  return round % 2 === 0 ? [...variants] : [...variants].reverse();
}

async function series(model: Model, name: string, shape: Shape, context: number, all: Variant[]): Promise<Series> {
  const prompt = mixedPrompt(context);
  const measured = new Map<string, Measured>();
  // The very first run pays for what is set up once.
  await model.generate({ prompt, maxTokens: steps + 1, ignoreEos: true, cache: full() });
  for (let round = 0; round < rounds; round += 1) {
    for (const { name: variant, cache } of order(all, round)) {
      process.stderr.write(`\r\x1b[K${name}, ${context} tokens, round ${round + 1} of ${rounds}: ${variant}`);
      const ran = await model.generate({ prompt, maxTokens: steps + 1, ignoreEos: true, cache });
      if (ran.usage.promptTokens !== context || ran.usage.completionTokens !== steps + 1)
        throw new Error(
          `${ran.usage.promptTokens} + ${ran.usage.completionTokens} tokens, not ${context} + ${steps + 1}`,
        );
      const of = measured.get(variant) ?? { name: variant, prefill: [], decode: [], memory: ran.memory };
      of.prefill.push(ran.timings.prefill);
      of.decode.push(ran.timings.decode / steps);
      measured.set(variant, of);
    }
  }
  process.stderr.write("\n");
  const inOrder = all.map(({ name: variant }) => measured.get(variant)).filter((one) => one !== undefined);
  return { model: name, shape, context, weightBytes: stepWeightBytes(model.info), measured: inOrder };
}

async function main(): Promise<void> {
  const found: Series[] = [];
  const shapes: [name: string, shape: Shape][] = [
    ["plain", plain],
    ["grouped", grouped],
  ];
  for (const [name, shape] of shapes) {
    const folder = await randomModel(name, shape, { dtype: "f32" });
    const model = await load(folder, { weights: "f32", threads });
    const last = contexts.at(-1);
    try {
      for (const context of contexts)
        found.push(await series(model, name, shape, context, [...overhead, ...(context === last ? decoding : [])]));
    } finally {
      // Node 22 reads this file in the tests and has no `await using`.
      await model.dispose();
    }
  }
  const suite: CacheSuite = { quick, rounds, steps, series: found };
  await mkdir(new URL("./", raw), { recursive: true });
  await writeFile(raw, `${JSON.stringify(suite)}\n`);
}

if (import.meta.main) await main();
