// Layers that share (KVSharer): resident bytes, prompts and decoding of a random model against the plain cache, in alternating pairs,
// beside the share of the work that is left out; and what sharing costs the embedded model on the scenes:
// bench/results/<machine>-sharing.json and .md. Options: --quick.
import { describes, scenes } from "../ts/eval/data/scenes.ts";
import type { EvalSample } from "../ts/eval/samples.ts";
import {
  type CacheOption,
  full,
  type GenerationResult,
  image,
  kvsharer,
  load,
  type Model,
  type PromptInput,
} from "../ts/index.ts";
import { heading, keep, origin } from "./machine.ts";
import { mixedPrompt } from "./prompts.ts";
import { grouped, randomModel, type Shape } from "./random_model.ts";
import { summarise, table } from "./stats.ts";

const quick = process.argv.includes("--quick");
const rounds = quick ? 2 : 9;
const contexts = quick ? [128] : [512];
const steps = quick ? 8 : 32;

/** Twelve layers, of which a quarter shares. */
const wide: Shape = { ...grouped, hidden: 1024, intermediate: 2816, layers: 12, heads: 16, kvHeads: 16 };
const shapes: [name: string, shape: Shape][] = [
  ["16 KV heads", wide],
  ["4 KV heads", { ...wide, kvHeads: 4 }],
];
const maps: Record<string, Record<number, number>> = { "3 of 12": { 6: 2, 8: 4, 10: 5 } };

type Ran = Pick<GenerationResult, "timings" | "memory"> & { prompt: number; steps: number };

/** Microseconds that the threads of this process have been on a processor. */
function processor(): number {
  const { user, system } = process.cpuUsage();
  return user + system;
}

interface Series {
  model: string;
  weights: string;
  context: number;
  shared: string;
  resident: number;
  /** Shared over plain in the same round. */
  prefill: number[];
  decode: number[];
  /** The same of the time of all threads on a processor, which others on the machine disturb less. */
  promptWork: number[];
  stepWork: number[];
  /** The share of a prompt's multiplications that is left, and of the bytes that a step reads. */
  work: number;
  bytes: number;
}

/** Multiplications of a prompt of `n` positions, the output layer's one row left out. */
function work({ hidden, intermediate, layers, heads, kvHeads, headDim }: Shape, n: number, shared: number): number {
  const queries = 2 * heads * headDim * hidden;
  const own = 2 * kvHeads * headDim * hidden;
  // Each position attends to half of the others on average.
  const attention = heads * headDim * n;
  return n * (layers * (queries + 3 * hidden * intermediate + attention) + (layers - shared) * own);
}

/** Bytes of a step at `n` positions: the weights that it reads, and keys and values of every layer, shared ones once for each reader. */
function bytes(shape: Shape, weights: number, n: number, shared: number): number {
  const { hidden, intermediate, layers, heads, kvHeads, headDim, vocabulary } = shape;
  const own = 2 * kvHeads * headDim * hidden * (layers - shared);
  const rest = layers * (2 * heads * headDim * hidden + 3 * hidden * intermediate) + vocabulary * hidden;
  return weights * (own + rest) + 2 * kvHeads * headDim * layers * n * (weights < 4 ? 2 : 4);
}

async function speed(): Promise<Series[]> {
  const found: Series[] = [];
  for (const [name, shape] of shapes) {
    const folder = await randomModel(`sharing-${shape.kvHeads}`, shape);
    for (const weights of ["f32", "q8_0"] as const) {
      await using model = await load(folder, { weights, threads: 2 });
      for (const context of contexts) {
        const prompt = mixedPrompt(context);
        const run = async (cache: CacheOption): Promise<Ran> => {
          const [start, generation] = [
            processor(),
            model.generate({ prompt, maxTokens: steps + 1, ignoreEos: true, cache }),
          ];
          let first: number | undefined;
          for await (const _ of generation) first ??= processor();
          const { timings, memory } = await generation;
          const read = first ?? start;
          return { timings, memory, prompt: read - start, steps: processor() - read };
        };
        await run(full());
        for (const [shared, sources] of Object.entries(maps)) {
          const series: Series = {
            model: name,
            weights,
            context,
            shared,
            resident: 0,
            prefill: [],
            promptWork: [],
            stepWork: [],
            decode: [],
            work: 0,
            bytes: 0,
          };
          for (let round = 0; round < rounds; round += 1) {
            process.stderr.write(`\r\x1b[K${name}, ${weights}, ${context} tokens, ${shared}, round ${round + 1}`);
            const map = kvsharer({ sources });
            const both = round % 2 === 0 ? [full(), map] : [map, full()];
            const ran = [await run(both[0] as CacheOption), await run(both[1] as CacheOption)];
            const [plain, small] = round % 2 === 0 ? ran : ran.reverse();
            if (!plain || !small) continue;
            series.resident = small.memory.resident / plain.memory.resident;
            series.prefill.push(small.timings.prefill / plain.timings.prefill);
            series.decode.push(small.timings.decode / plain.timings.decode);
            series.promptWork.push(small.prompt / plain.prompt);
            series.stepWork.push(small.steps / plain.steps);
          }
          const count = Object.keys(sources).length;
          const per = weights === "f32" ? 4 : 34 / 32;
          const [n, mid] = [context, context + steps / 2];
          series.work = work(shape, n, count) / work(shape, n, 0);
          series.bytes = bytes(shape, per, mid, count) / bytes(shape, per, mid, 0);
          found.push(series);
        }
      }
    }
  }
  process.stderr.write("\n");
  return found;
}

interface Quality {
  shared: string;
  /** Of the last hidden states, on the scenes of the search. */
  similarity?: number;
  ppl: number;
  /** The share of the objects that are described right. */
  objects: number;
  resident: number;
}

const ask = (sample: EvalSample): Pick<PromptInput, "messages"> => ({
  messages: [{ role: "user", content: [image(sample.image), sample.question] }],
});

async function quality(): Promise<Quality[]> {
  const all = (await scenes()).samples;
  // Searched on some scenes, measured on the others.
  const [seen, held] = quick ? [all.slice(0, 2), all.slice(2, 4)] : [all.slice(0, 8), all.slice(8)];
  await using model = await load();
  const { pairs } = await model.calibrateSharing({ samples: seen.map(ask), layers: 2 });
  const cases: [name: string, sources: Record<number, number>, similarity?: number | undefined][] = [["none", {}]];
  for (const count of [1, 2]) {
    const taken = pairs.slice(0, count);
    const sources = Object.fromEntries(taken.map(({ layer, source }) => [layer, source]));
    cases.push([
      taken.map(({ layer, source }) => `${layer} reads ${source}`).join(", "),
      sources,
      taken.at(-1)?.similarity,
    ]);
  }
  // Early layers, whose keys and values are nearest to each other: the search would try them last.
  cases.push(["2 reads 1", { 2: 1 }]);
  const found: Quality[] = [];
  for (const [shared, sources, similarity] of cases) {
    found.push({ shared, ...(similarity !== undefined && { similarity }), ...(await measure(model, held, sources)) });
    process.stderr.write(".");
  }
  process.stderr.write("\n");
  return found;
}

/** Sums over the scenes. */
async function measure(
  model: Model,
  held: readonly EvalSample[],
  sources: Record<number, number>,
): Promise<Omit<Quality, "shared" | "similarity">> {
  const cache = Object.keys(sources).length === 0 ? full() : kvsharer({ sources });
  const sum = { nll: 0, tokens: 0, right: 0, objects: 0, resident: 0, full: 0 };
  for (const sample of held) {
    const { answer = "", objects = [] } = sample;
    const { logprobs } = await model.score({ ...ask(sample), answer, cache });
    sum.nll -= logprobs.reduce((total, logprob) => total + logprob, 0);
    sum.tokens += logprobs.length;
    const { text, memory } = await model.generate({ ...ask(sample), cache, maxTokens: 256 });
    sum.right += objects.filter((object) => describes(text, object)).length;
    sum.objects += objects.length;
    sum.resident += memory.resident;
    sum.full += memory.full;
  }
  return { ppl: Math.exp(sum.nll / sum.tokens), objects: sum.right / sum.objects, resident: sum.resident / sum.full };
}

const ratio = (values: readonly number[]): string => {
  const { low, median, high } = summarise(values);
  return `${median.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)})`;
};

const [series, found, from] = [await speed(), await quality(), await origin()];
const page = `${heading("Layers that share", from)}

A random Llama of 12 layers, hidden size 1024, 16 heads of 64, MLP 2816, with as many KV heads and with four; every figure is shared over
plain in the same round, ${rounds} rounds, every other one backwards; medians with quartiles. *processor*: time of all threads on a processor. *work*: multiplications of the prompt that are
left; *bytes*: of a step, weights and cache, which a shared layer reads all the same.

${table([
  [
    "model",
    "weights",
    "prompt",
    "layers that share",
    "resident",
    "prompt time",
    "processor",
    "work",
    "token time",
    "processor",
    "bytes",
  ],
  ...series.map(
    ({ model, weights, context, shared, resident, prefill, decode, promptWork, stepWork, work: left, bytes: read }) => [
      model,
      weights,
      String(context),
      shared,
      resident.toFixed(3),
      ratio(prefill),
      ratio(promptWork),
      left.toFixed(2),
      ratio(decode),
      ratio(stepWork),
      read.toFixed(2),
    ],
  ),
])}

The embedded model of 10 layers on scenes that the search has not seen: perplexity of the reference descriptions, and the share of
the objects whose place, colour and shape a greedy description gives. *cosine*: of the last hidden states, as the search saw it.

${table([
  ["layers that share", "cosine", "perplexity", "objects right", "resident over full"],
  ...found.map(({ shared, similarity, ppl, objects, resident }) => [
    shared,
    similarity?.toFixed(3) ?? "",
    ppl.toFixed(3),
    `${(100 * objects).toFixed(1)} %`,
    resident.toFixed(3),
  ]),
])}
`;
const report = { origin: from, rounds, series, scenes: found };
await keep("sharing", quick, report, page);
