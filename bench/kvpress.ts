// NVIDIA's kvpress with torch on the CPU and the same methods here, press by press and round by round, on SmolLM2-135M-Instruct
// (docs/design/real.md): bench/results/<machine>-kvpress.json and .md. `npm run bench:kvpress`; docs/kvpress.md. Options: --quick, and --rounds N.
import { loadavg } from "node:os";
import { fileURLToPath } from "node:url";
import { folder } from "../tests/real/goldens.ts";
import { adakv, type CacheOption, full, keydiff, knorm, pyramidkv, snapkv, streaming } from "../ts/index.ts";
import { order } from "./cache.ts";
import { heading, keep as keepReport, type Origin, origin } from "./machine.ts";
import { Child, type Ran } from "./peers/child.ts";
import { promptOfText } from "./prompts.ts";
import { digits, paired, type Summary, spread, summarise, table } from "./stats.ts";

const quick = process.argv.includes("--quick");
const threads = "2";
const asked = process.argv.indexOf("--rounds");
const rounds = asked < 0 ? (quick ? 2 : 7) : Number(process.argv[asked + 1]);
const steps = quick ? 8 : 32;
const context = quick ? 256 : 2048;
const keep = 0.5;

interface Pair {
  name: string;
  cache: CacheOption;
  /** Python; empty for the plain cache. */
  press: string;
}

const window = { window: 64, pool: "mean", poolSize: 5 } as const;
const pairs: readonly Pair[] = [
  { name: "full", cache: full(), press: "" },
  { name: "knorm", cache: knorm({ keep }), press: "KnormPress(0.5)" },
  { name: "keydiff", cache: keydiff({ keep }), press: "KeyDiffPress(0.5)" },
  { name: "streaming", cache: streaming({ keep, decode: "none" }), press: "StreamingLLMPress(0.5)" },
  { name: "snapkv", cache: snapkv({ keep, ...window }), press: "SnapKVPress(0.5)" },
  { name: "pyramidkv", cache: pyramidkv({ keep, ...window }), press: "PyramidKVPress(0.5)" },
  { name: "adakv", cache: adakv({ keep, ...window }), press: "AdaKVPress(SnapKVPress(0.5))" },
];

export interface Samples {
  /** Milliseconds of the whole prompt. */
  prefill: number[];
  /** Milliseconds per token. */
  decode: number[];
  /** Bytes of the cache after the last token. */
  resident: number;
}

/** One method on both sides; samples of the same index are of the same round. */
export interface Beside {
  name: string;
  press: string;
  ours: Samples;
  theirs: Samples;
}

interface KvpressReport {
  origin: Origin;
  threads: string;
  rounds: number;
  steps: number;
  context: number;
  /** The faster of theirs, which decodes. */
  attention: string;
  /** Processes that wanted a core on average over the last minute, before and after. */
  load: number[];
  measured: Beside[];
}

/** AdaKV masks entries, which only sdpa does. */
const attentionFor = (press: string, fastest: string): string => (press.startsWith("AdaKV") ? "sdpa" : fastest);

function add(samples: Samples, ran: Ran): void {
  if (ran.promptTokens !== context || ran.tokens.length !== steps + 1)
    throw new Error(`${ran.promptTokens} + ${ran.tokens.length} tokens, not ${context} + ${steps + 1}`);
  samples.prefill.push(ran.prefill);
  samples.decode.push(ran.decode / steps);
  samples.resident = ran.resident ?? Number.NaN;
}

const samples = (): Samples => ({ prefill: [], decode: [], resident: Number.NaN });

async function measure(us: Child, them: Child, prompt: string, attention: string): Promise<Beside[]> {
  const found = pairs.map(({ name, press }) => ({ name, press, ours: samples(), theirs: samples() }));
  const todo = pairs.map((pair, index) => ({ pair, beside: found[index] as Beside }));
  for (let round = 0; round < rounds; round += 1) {
    for (const { pair, beside } of order(todo, round)) {
      process.stderr.write(`\r\x1b[Kround ${round + 1} of ${rounds}: ${pair.name}`);
      const { cache, press } = pair;
      const sides = [
        async () => add(beside.ours, await us.run({ prompt, steps, cache })),
        async () =>
          add(beside.theirs, await them.run({ prompt, steps, press, attention: attentionFor(press, attention) })),
      ];
      // One right after the other, and every other round theirs first.
      for (const side of order(sides, round)) await side();
    }
  }
  process.stderr.write("\n");
  return found;
}

/** Threads that wait for each other lose more than their share of a machine that others use, and theirs are such. */
function busy({ load, origin }: Omit<KvpressReport, "attention">): string {
  const [before = 0] = load;
  if (before < origin.machine.cores / 2) return "";
  return `

**Other programs ran on this machine meanwhile** (load ${load.map(digits).join(" before and ")} after). torch's threads wait for each other
and lose more by that than ours: these figures flatter us, and only the bytes are exact. Each side beside its own plain cache is less
affected.`;
}

export function markdown(report: Omit<KvpressReport, "attention">): string {
  const [whole] = report.measured;
  if (!whole) throw new Error("nothing was measured");
  const ratio = (a: readonly number[], b: readonly number[]): string => {
    const summary: Summary = summarise(paired(a, b));
    return `${digits(summary.median)} ${spread(summary)}`;
  };
  const mebibytes = (bytes: number): string => digits(bytes / (1 << 20));
  const times = report.measured.map(({ name, press, ours, theirs }) => [
    name,
    press ? `\`${press}\`` : "no press",
    ratio(ours.prefill, theirs.prefill),
    ratio(ours.decode, theirs.decode),
    mebibytes(ours.resident),
    mebibytes(theirs.resident),
  ]);
  const own = report.measured
    .slice(1)
    .map(({ name, ours, theirs }) => [
      name,
      ratio(ours.prefill, whole.ours.prefill),
      ratio(theirs.prefill, whole.theirs.prefill),
      ratio(ours.decode, whole.ours.decode),
      ratio(theirs.decode, whole.theirs.decode),
    ]);
  return `${heading("Time and memory beside kvpress", report.origin)}

SmolLM2-135M-Instruct in f32, ${report.threads} threads, a prompt of ${report.context} tokens, half of the entries kept, ${report.steps} steps. In a round each method runs
on both sides, one right after the other; medians of ${report.rounds} rounds, and half the distance of the quartiles behind ±. Theirs is torch on the
CPU: the prompt under the press with sdpa, then a bare greedy loop with the faster of sdpa and eager (AdaKV: sdpa).${busy(report)}

Our time over theirs: below 1 we are faster. MiB of keys and values after the last token: all that our pool holds, bookkeeping
included, and the storage of their tensors. Their AdaKV masks entries and frees none.

${table([["ours", "theirs", "prompt", "token", "our MiB", "their MiB"], ...times])}

Each side over its own plain cache, in the same round:

${table([["", "our prompt", "their prompt", "our token", "their token"], ...own])}
`;
}

/** The attention that they decode faster with. */
async function faster(them: Child, prompt: string): Promise<string> {
  const trial: [string, number][] = [];
  // The very first run pays for what is set up once.
  for (const attention of ["sdpa", "sdpa", "eager", "eager"])
    trial.push([attention, (await them.run({ prompt, steps: 8, press: "", attention })).decode]);
  return trial.slice(1).sort(([, a], [, b]) => a - b)[0]?.[0] ?? "sdpa";
}

async function main(): Promise<void> {
  const { prompt } = await promptOfText(folder("f32"), context);
  const local = (name: string): string => fileURLToPath(new URL(name, import.meta.url));
  const us = new Child("ours", process.execPath, [local("peers/ours.ts"), folder("f32"), "f32", threads]);
  const python = process.env.PREFIXKV_PYTHON ?? "python3";
  const them = new Child("kvpress", python, [local("peers/kvpress.py"), folder("f32"), threads]);
  try {
    const { versions } = await them.ready.catch((error: Error) => {
      throw new Error(`${error.message}\nPREFIXKV_PYTHON names the Python to run; it needs kvpress and torch.`);
    });
    await us.ready;
    await us.run({ prompt, steps: 4 });
    const load = [loadavg()[0] ?? 0];
    const attention = await faster(them, prompt);
    const measured = await measure(us, them, prompt, attention);
    load.push(loadavg()[0] ?? 0);
    const report = { origin: await origin(versions), threads, rounds, steps, context, attention, load, measured };
    await keepReport("kvpress", quick, report, markdown(report));
  } finally {
    for (const child of [us, them]) await child[Symbol.asyncDispose]();
  }
}

if (import.meta.main) {
  await main().catch((error: Error) => {
    process.stderr.write(`${error.message}\n`);
    process.exit(1);
  });
}
