// The benches that need the library. Run through `npm run bench`, which measures the limits before and after.
import { mkdir, writeFile } from "node:fs/promises";
import { Bench } from "tinybench";
import { about, image, load, type Model, type ModelInfo } from "../ts/index.ts";
import { promptOf } from "./prompts.ts";
import { even, randomModel, type Shape, smol } from "./random_model.ts";
import { type Summary, summarise } from "./stats.ts";
import { decodeBytes, prefillFlops } from "./work.ts";

export interface Speed {
  model: string;
  weights: string;
  weightFormats: Record<string, number>;
  weightBytes: number;
  context: number;
  /** Milliseconds of the whole prompt. */
  prefill: Summary;
  prefillFlops: number;
  /** Milliseconds per token. */
  decode: Summary;
  decodeBytes: number;
}

export interface Call {
  name: string;
  unit: "ms" | "µs";
  summary: Summary;
}

export interface Suite {
  quick: boolean;
  speeds: Speed[];
  calls: Call[];
}

type Weights = "f32" | "f16" | "q8_0" | "q4_k";

const quick = process.argv.includes("--quick");
export const raw: URL = new URL("../.cache/bench/suite.json", import.meta.url);
const threads = 2;
const rounds = quick ? 1 : 5;
const steps = quick ? 8 : 48;
const contexts = quick ? [128] : [512, 2048];
// q4_k holds rows in blocks of 256 and the first shape has rows of 576, hence the second.
const models: [name: string, shape: Shape, weights: Weights[]][] = [
  ["135m", smol, quick ? ["f32", "q8_0"] : ["f32", "f16", "q8_0"]],
  ["122m-even", even, quick ? [] : ["f16", "q8_0", "q4_k"]],
];

/** Samples of a task in milliseconds, after one unmeasured call. */
async function sample(
  iterations: number,
  task: () => Promise<number | undefined> | number | undefined,
): Promise<number[]> {
  const bench = new Bench({
    iterations,
    time: 0,
    warmupIterations: 1,
    warmupTime: 0,
    retainSamples: true,
    throws: true,
  });
  bench.add("task", async () => {
    const duration = await task();
    return duration === undefined ? undefined : { overriddenDuration: duration };
  });
  const [ran] = await bench.run();
  const result = ran?.result;
  if (!result || !("latency" in result) || !result.latency.samples) throw new Error(`no samples: ${result?.state}`);
  return [...result.latency.samples];
}

/** One request gives both: the engine times the prompt and the steps after it. */
async function speed(model: Model, name: string, shape: Shape, context: number): Promise<Speed> {
  const decode: number[] = [];
  const prefill = await sample(rounds, async () => {
    const request = { prompt: promptOf(context), maxTokens: steps + 1, ignoreEos: true };
    const { timings, usage } = await model.generate(request);
    if (usage.promptTokens !== context || usage.completionTokens !== steps + 1)
      throw new Error(`${usage.promptTokens} + ${usage.completionTokens} tokens instead of ${context} + ${steps + 1}`);
    decode.push(timings.decode / steps);
    return timings.prefill;
  });
  const info: ModelInfo = model.info;
  return {
    model: name,
    weights: info.weights,
    weightFormats: info.weightFormats,
    weightBytes: info.weightBytes,
    context,
    prefill: summarise(prefill),
    prefillFlops: prefillFlops(shape, context),
    decode: summarise(decode.slice(-prefill.length)),
    decodeBytes: decodeBytes(info, context + steps / 2),
  };
}

async function speeds(): Promise<Speed[]> {
  const found: Speed[] = [];
  for (const [name, shape, formats] of models) {
    const folder = await randomModel(name, shape);
    for (const weights of formats) {
      await using model = await load(folder, { weights, threads });
      for (const context of contexts) {
        process.stderr.write(`${name} ${weights}, ${context} tokens\n`);
        found.push(await speed(model, name, shape, context));
      }
    }
  }
  return found;
}

async function calls(): Promise<Call[]> {
  const found: Call[] = [];
  const add = (name: string, unit: Call["unit"], samples: number[]): void => {
    const factor = unit === "µs" ? 1000 : 1;
    found.push({ name, unit, summary: summarise(samples.map((value) => value * factor)) });
  };
  process.stderr.write("embedded model\n");
  const loads = await sample(quick ? 2 : 20, async () => {
    const start = performance.now();
    const loaded = await load(undefined, { threads });
    const duration = performance.now() - start;
    await loaded.dispose();
    return duration;
  });
  add("load the embedded model", "ms", loads);

  await using model = await load(undefined, { threads });
  const picture = image(new URL("../data/scenes/scene-000.png", import.meta.url));
  const messages = [{ role: "user" as const, content: [picture, "Describe the image in detail."] }];
  const stages = { images: [] as number[], vision: [] as number[], firstToken: [] as number[] };
  const described = await sample(quick ? 2 : 20, async () => {
    const start = performance.now();
    const { timings } = await model.generate({ messages, maxTokens: 128 });
    for (const [stage, samples] of Object.entries(stages)) samples.push(timings[stage as keyof typeof stages]);
    return performance.now() - start;
  });
  add("describe a picture", "ms", described);
  add("of it decoding and resizing the picture", "ms", stages.images.slice(1));
  add("of it vision tower and projector", "ms", stages.vision.slice(1));
  add("of it until the first token", "ms", stages.firstToken.slice(1));

  const many = quick ? 50 : 2000;
  add("about()", "µs", await sample(many, async () => void (await about())));
  const [token = 5] = await model.tokenize("a", { addSpecialTokens: false });
  add("tokenize() of one token", "µs", await sample(many, async () => void (await model.tokenize("a"))));
  add("detokenize() of one token", "µs", await sample(many, async () => void (await model.detokenize([token]))));

  // All of a request that the engine did not spend, while each part is awaited on its own.
  const tokens = 256;
  const perToken = await sample(quick ? 2 : 20, async () => {
    const start = performance.now();
    const running = model.generate({ prompt: "USER: Hello ASSISTANT:", maxTokens: tokens, ignoreEos: true });
    let parts = 0;
    for await (const _ of running) parts += 1;
    const wall = performance.now() - start;
    if (parts !== tokens) throw new Error(`${parts} parts instead of ${tokens}`);
    return Math.max(0, wall - (await running).timings.total) / tokens;
  });
  add("per streamed token beside the engine", "µs", perToken);
  return found;
}

if (import.meta.main) {
  const suite: Suite = { quick, speeds: await speeds(), calls: await calls() };
  await mkdir(new URL("./", raw), { recursive: true });
  await writeFile(raw, `${JSON.stringify(suite)}\n`);
}
