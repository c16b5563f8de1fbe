// Measures what several requests gain by running together instead of one after the other. Run through `npm run bench:batch`,
// which measures the limits before and after.
import { mkdir, writeFile } from "node:fs/promises";
import { load, type Model } from "../ts/index.ts";
import { mixedPrompt } from "./prompts.ts";
import { even, randomModel, type Shape, smol } from "./random_model.ts";
import { Running } from "./running.ts";
import { stepWeightBytes } from "./work.ts";

export interface Series {
  model: string;
  weights: string;
  weightFormats: Record<string, number>;
  /** Weights that a step reads, in bytes, however many requests it is for. */
  weightBytes: number;
  /** Bytes that one entry takes in the caches of all layers. */
  entryBytes: number;
  /** Milliseconds of a step by the number of requests; samples of the same index are of the same round. */
  steps: { requests: number; times: number[] }[];
}

export interface BatchSuite {
  quick: boolean;
  rounds: number;
  steps: number;
  context: number;
  series: Series[];
}

const quick = process.argv.includes("--quick");
export const raw: URL = new URL("../.cache/bench/batch.json", import.meta.url);
const threads = 2;
const rounds = quick ? 1 : 3;
const steps = quick ? 6 : 16;
const context = quick ? 64 : 512;
const counts = quick ? [1, 2] : [1, 2, 4, 8, 16];
const most = Math.max(...counts);
// q4_k holds rows in blocks of 256 and the first shape has rows of 576, hence the second.
const models: [name: string, shape: Shape, weights: ("f32" | "f16" | "q8_0" | "q4_k")[]][] = [
  ["135m", smol, quick ? ["f32"] : ["f32", "f16", "q8_0"]],
  ["122m-even", even, quick ? [] : ["q4_k"]],
];

/** Milliseconds of a step with each of the numbers of requests, which join one by one. */
async function round(model: Model, prompt: string): Promise<number[]> {
  const running: Running[] = [];
  const found: number[] = [];
  try {
    for (const count of counts) {
      while (running.length < count) {
        const joined = new Running(model, prompt);
        running.push(joined);
        await joined.token(1);
      }
      const first = running[0] as Running;
      // The step in which the last one joined may still be under way.
      const from = first.times.length + 2;
      const start = await first.token(from);
      found.push(((await first.token(from + steps)) - start) / steps);
    }
  } finally {
    await Promise.all(running.map((one) => one.stop()));
  }
  return found;
}

async function series(model: Model, name: string): Promise<Series> {
  const prompt = mixedPrompt(context);
  const times = new Map<number, number[]>(counts.map((count) => [count, []]));
  for (let index = 0; index < rounds; index += 1) {
    process.stderr.write(`\r\x1b[K${name} ${model.info.weights}, round ${index + 1} of ${rounds}`);
    for (const [at, time] of (await round(model, prompt)).entries()) times.get(counts[at] as number)?.push(time);
  }
  process.stderr.write("\n");
  const { info } = model;
  return {
    model: name,
    weights: info.weights,
    weightFormats: info.weightFormats,
    weightBytes: stepWeightBytes(info),
    entryBytes: info.kvBytesPerToken,
    steps: [...times].map(([requests, samples]) => ({ requests, times: samples })),
  };
}

async function main(): Promise<void> {
  const found: Series[] = [];
  for (const [name, shape, formats] of models) {
    const folder = await randomModel(name, shape);
    for (const weights of formats) {
      const model = await load(folder, { weights, threads, batch: most });
      try {
        found.push(await series(model, name));
      } finally {
        // Node 22 reads this file in the tests and has no `await using`.
        await model.dispose();
      }
    }
  }
  const suite: BatchSuite = { quick, rounds, steps, context, series: found };
  await mkdir(new URL("./", raw), { recursive: true });
  await writeFile(raw, `${JSON.stringify(suite)}\n`);
}

if (import.meta.main) await main();
