// How long a long prompt holds up a request that generates, whole and in pieces: bench/results/<machine>-pieces.json and .md.
import { custom, load, type Model } from "../ts/index.ts";
import { heading, keep, type Origin, origin } from "./machine.ts";
import { mixedPrompt } from "./prompts.ts";
import { randomModel, type Shape, smol } from "./random_model.ts";
import { Running } from "./running.ts";
import { digits, paired, type Summary, spread, summarise, table } from "./stats.ts";

export interface Run {
  /** Milliseconds of the longest time between two tokens of the request that generates. */
  gap: number;
  /** Milliseconds until the prompt has its first token, with the steps of the other in between. */
  first: number;
  /** Milliseconds between two tokens with nothing beside them. */
  step: number;
  /** Milliseconds of reading the prompt while the other stands still. */
  reading: number;
  /** Milliseconds of processor time that this takes, of all threads. */
  cpu: number;
}

export interface Series {
  model: string;
  weights: string;
  /** By `prefillChunk`, 0 for whole prompts; runs of the same index are of the same round. */
  chunks: { chunk: number; runs: Run[] }[];
}

export interface Report {
  origin: Origin;
  rounds: number;
  prompt: number;
  series: Series[];
}

const threads = 2;

/** A prompt beside a request that generates. */
async function beside(model: Model, prompt: string): Promise<Omit<Run, "reading" | "cpu">> {
  const running = new Running(model, mixedPrompt(64));
  try {
    const steps = 8;
    const start = await running.token(4);
    const step = ((await running.token(4 + steps)) - start) / steps;
    const from = running.times.length - 1;
    const { timings } = await model.generate({ prompt, maxTokens: 1, ignoreEos: true });
    await running.token(running.times.length + 1);
    const gaps = running.times.slice(from + 1).map((time, index) => time - (running.times[from + index] as number));
    return { gap: Math.max(...gaps), first: timings.firstToken, step };
  } finally {
    await running.stop();
  }
}

/** A prompt beside a request that stands still: it waits for a plan. */
async function alone(model: Model, prompt: string): Promise<Pick<Run, "reading" | "cpu">> {
  const { promise: asked, resolve: ask } = Promise.withResolvers<void>();
  const { promise: planned, resolve: answer } = Promise.withResolvers<void>();
  const cache = custom({
    needs: {},
    plan: async ({ lanes }) => {
      ask();
      await planned;
      return lanes.map(() => null);
    },
  });
  // It is asked for a plan when somebody reads its stream.
  const waits = Array.fromAsync(model.generate({ prompt: "a", maxTokens: 1, cache }));
  await asked;
  const before = process.cpuUsage();
  const { timings } = await model.generate({ prompt, maxTokens: 1, ignoreEos: true });
  const { user, system } = process.cpuUsage(before);
  answer();
  await waits;
  return { reading: timings.prefill, cpu: (user + system) / 1000 };
}

async function measure(
  name: string,
  shape: Shape,
  weights: "f32" | "q8_0",
  chunks: number[],
  rounds: number,
  length: number,
): Promise<Series> {
  const folder = await randomModel(name, shape);
  const models: Model[] = [];
  try {
    for (const prefillChunk of chunks) models.push(await load(folder, { weights, threads, batch: 2, prefillChunk }));
    const found: Run[][] = chunks.map(() => []);
    const prompt = mixedPrompt(length);
    for (const model of models) await alone(model, mixedPrompt(600));
    for (let round = 0; round < rounds; round += 1) {
      process.stderr.write(`\r\x1b[K${name} ${weights}, round ${round + 1} of ${rounds}`);
      const order = [...models.keys()];
      for (const index of round % 2 ? order.reverse() : order) {
        const model = models[index] as Model;
        found[index]?.push({ ...(await alone(model, prompt)), ...(await beside(model, prompt)) });
      }
    }
    process.stderr.write("\n");
    return { model: name, weights, chunks: chunks.map((chunk, index) => ({ chunk, runs: found[index] as Run[] })) };
  } finally {
    // Node 22 reads this file in the tests and has no `await using`.
    await Promise.all(models.map((model) => model.dispose()));
  }
}

function row(series: Series, chunk: number, runs: Run[]): string[] {
  const whole = series.chunks.find((one) => one.chunk === 0);
  if (!whole) throw new Error("there are no whole prompts");
  const of = (of: Run[], key: keyof Run): number[] => of.map((run) => run[key]);
  const ratio = (key: keyof Run): Summary => summarise(paired(of(runs, key), of(whole.runs, key)));
  const time = (key: keyof Run): string => {
    const all = summarise(of(runs, key));
    return `${digits(all.median)} ms ${spread(all)}`;
  };
  const toWhole = (key: keyof Run): string => {
    const { median, low, high } = ratio(key);
    return `${digits(median)} (${digits(low)} to ${digits(high)})`;
  };
  return [
    series.model,
    series.weights,
    chunk === 0 ? "whole" : String(chunk),
    time("gap"),
    time("step"),
    toWhole("first"),
    time("reading"),
    toWhole("reading"),
    toWhole("cpu"),
  ];
}

export function markdown(report: Report): string {
  const head = [
    "model",
    "weights",
    "pieces",
    "longest gap",
    "a step",
    "first token",
    "reading",
    "to whole",
    "processor",
  ];
  const rows = report.series.flatMap((series) => series.chunks.map(({ chunk, runs }) => row(series, chunk, runs)));
  return `${heading("How long a long prompt holds up others", report.origin)}

One request generates; a prompt of ${report.prompt} tokens comes. *longest gap*: between two tokens of the first, until the second has its first
token. *a step*: between two tokens with nothing beside them. *first token*: of the prompt, over a whole prompt's in the same round; it waits for
the steps in between. *reading*: the prompt while the other request stands still; *to whole* and *processor*: time, and time of all threads on a
processor, over those of a whole prompt in the same round. ${report.rounds} rounds; medians, ± half the distance of the quartiles, with
quartiles in brackets.

${table([head, ...rows])}

The shape is \`smol\` in bench/random_model.ts.
`;
}

async function main(): Promise<void> {
  const quick = process.argv.includes("--quick");
  const [rounds, prompt] = quick ? [1, 300] : [5, 2000];
  const chunks = quick ? [0, 128] : [0, 1024, 512, 256];
  const series: Series[] = [];
  for (const weights of quick ? (["f32"] as const) : (["f32", "q8_0"] as const))
    series.push(await measure("135m", smol, weights, chunks, rounds, prompt));
  const report: Report = { origin: await origin(), rounds, prompt, series };
  await keep("pieces", quick, report, markdown(report));
}

if (import.meta.main) await main();
