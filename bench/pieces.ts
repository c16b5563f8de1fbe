// How long a long prompt holds up a request that generates, whole and in pieces: bench/results/<machine>-pieces.json and .md.
import { load, type Model } from "../ts/index.ts";
import { heading, keep, type Origin, origin } from "./machine.ts";
import { mixedPrompt } from "./prompts.ts";
import { randomModel, type Shape, smol } from "./random_model.ts";
import { Running } from "./running.ts";
import { digits, paired, type Summary, spread, summarise, table } from "./stats.ts";

export interface Run {
  /** Milliseconds of the longest time between two tokens of the request that generates. */
  gap: number;
  /** Milliseconds of reading the prompt, without the steps in between. */
  reading: number;
  /** Milliseconds until the prompt has its first token. */
  first: number;
  /** Milliseconds between two tokens with nothing beside them. */
  step: number;
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

async function run(model: Model, length: number): Promise<Run> {
  const running = new Running(model, mixedPrompt(64));
  try {
    const steps = 8;
    const start = await running.token(4);
    const step = ((await running.token(4 + steps)) - start) / steps;
    const from = running.times.length - 1;
    const prompt = mixedPrompt(length);
    const { timings } = await model.generate({ prompt, maxTokens: 1, ignoreEos: true });
    await running.token(running.times.length + 1);
    const gaps = running.times.slice(from + 1).map((time, index) => time - (running.times[from + index] as number));
    return { gap: Math.max(...gaps), reading: timings.prefill, first: timings.firstToken, step };
  } finally {
    await running.stop();
  }
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
    for (const model of models) await run(model, 600);
    for (let round = 0; round < rounds; round += 1) {
      process.stderr.write(`\r\x1b[K${name} ${weights}, round ${round + 1} of ${rounds}`);
      const order = [...models.keys()];
      for (const index of round % 2 ? order.reverse() : order)
        found[index]?.push(await run(models[index] as Model, length));
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
  const cost = ratio("reading");
  return [
    series.model,
    series.weights,
    chunk === 0 ? "whole" : String(chunk),
    time("gap"),
    time("reading"),
    `${digits(cost.median)} (${digits(cost.low)} to ${digits(cost.high)})`,
    digits(ratio("first").median),
    time("step"),
  ];
}

export function markdown(report: Report): string {
  const head = ["model", "weights", "pieces", "longest gap", "reading", "to whole", "first token to whole", "a step"];
  const rows = report.series.flatMap((series) => series.chunks.map(({ chunk, runs }) => row(series, chunk, runs)));
  return `${heading("How long a long prompt holds up others", report.origin)}

One request generates; a prompt of ${report.prompt} tokens comes. *longest gap*: between two tokens of the first, until the second has its first
token. *reading*: the prompt's own time, without the steps in between; *to whole*: over that of a whole prompt in the same round. *a step*:
between two tokens with nothing beside them. ${report.rounds} rounds; medians, ± half the distance of the quartiles, with quartiles in brackets.

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
