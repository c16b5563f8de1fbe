// The cost of choosing entries while a prompt is read, method by method: `npm run bench:overhead`, bench/results/<machine>-overhead.json and .md.
// Every round reads the prompt with each method once, in an order that turns around, and compares within the round. Options: --quick, and
// --only NAMES for these methods and the full cache; the others stay as they were found.
import { readFile } from "node:fs/promises";
import { type CacheOption, type HeadsCalibration, load } from "../ts/index.ts";
import { order } from "./cache.ts";
import { heading, keep as keepReport, origin, resultsFolder } from "./machine.ts";
import { mixedPrompt } from "./prompts.ts";
import { plain, randomModel } from "./random_model.ts";
import { paired, type Summary, summarise, table } from "./stats.ts";

const quick = process.argv.includes("--quick");
const rounds = quick ? 2 : 9;
const contexts = quick ? [256] : [2048, 4096];
const keep = 0.5;

/** The attention that a method gathers, and how much longer than without a method a prompt may take at most; one that reads it twice has no goal. */
const kinds = { none: 1.03, window: 1.02, columns: 1.05, twice: Number.POSITIVE_INFINITY } as const;
type Kind = keyof typeof kinds;

/** Scores of heads that differ, as a calibration finds them. */
const scored: HeadsCalibration = {
  format: "prefixkv-heads",
  version: 1,
  model: { layers: plain.layers, kvHeads: plain.kvHeads },
  measure: "image-hits",
  scores: Array.from({ length: plain.layers }, (_, layer) =>
    Array.from({ length: plain.heads }, (_, head) => (layer * 7 + head * 5 + 3) % 11),
  ),
};

const methods: [name: string, kind: Kind, cache?: CacheOption][] = [
  ["prefixkv", "window"],
  ["prefixkv as published", "columns", { method: "prefixkv", variant: "paper", keep }],
  ["h2o", "columns"],
  ["snapkv", "window"],
  ["pyramidkv", "window"],
  ["adakv", "window"],
  ["headKv", "window", { method: "headKv", calibration: scored, keep }],
  ["sparseMm", "window", { method: "sparseMm", calibration: scored, keep }],
  ["streaming", "none"],
  ["knorm", "none"],
  ["keydiff", "none"],
  ["tova", "window"],
  ["observedAttention", "columns"],
  ["lagkv", "none"],
  ["expectedAttention", "none"],
  ["rkv", "none"],
  ["chunkkv", "window"],
  ["cake", "window"],
  ["vlCache", "window"],
  ["tgvKv", "window"],
  ["airCache", "window"],
  ["kvzip", "twice"],
  ["mixkv", "window"],
  ["elastic", "columns"],
  ["lookM", "columns"],
  ["random", "none"],
];
const full = "full";
const asked = process.argv.indexOf("--only");
const only = asked < 0 ? undefined : (process.argv[asked + 1] ?? "").split(",");
const unknown = only?.find((name) => !methods.some(([known]) => known === name));
if (unknown !== undefined) throw new Error(`--only: there is no \`${unknown}\``);
const wanted = (name: string): boolean => only?.includes(name) ?? true;
const all: [name: string, cache: CacheOption][] = [
  [full, { method: full }],
  ...methods
    .filter(([name]) => wanted(name))
    .map(([name, , cache]): [string, CacheOption] => [name, cache ?? ({ method: name, keep } as CacheOption)]),
];

interface Series {
  context: number;
  /** Of the code that was measured. */
  commit: string;
  /** Milliseconds of the prompt, round by round; a method that refuses the prompt is missing. */
  prefill: Record<string, number[]>;
}

async function measure(commit: string): Promise<Series[]> {
  // Room for the longest prompt and its repetition.
  const shape = { ...plain, maxPositions: 3 * Math.max(...contexts) };
  await using model = await load(await randomModel("plain-twice", shape, { dtype: "f32" }), {
    weights: "f32",
    threads: 2,
  });
  const found: Series[] = [];
  for (const context of contexts) {
    const prompt = mixedPrompt(context);
    const prefill: Record<string, number[]> = {};
    // The first run pays for what is set up once.
    await model.generate({ prompt, maxTokens: 1, cache: { method: full } });
    for (let round = 0; round < rounds; round += 1) {
      for (const [name, cache] of order(all, round)) {
        process.stderr.write(`\r\x1b[K${context} tokens, round ${round + 1} of ${rounds}: ${name}`);
        const { timings } = await model.generate({ prompt, maxTokens: 1, ignoreEos: true, cache });
        prefill[name] = [...(prefill[name] ?? []), timings.prefill];
      }
    }
    found.push({ context, commit, prefill });
  }
  process.stderr.write("\n");
  return found;
}

/** Those of the last report, without the methods that are measured again. */
async function kept(): Promise<Series[]> {
  if (only === undefined) return [];
  const from = await origin();
  const file = new URL(`${from.machine.slug}-overhead.json`, resultsFolder(quick));
  const last = JSON.parse(await readFile(file, "utf8")) as { origin: { commit: string }; series: Series[] };
  return last.series.map((one) => ({
    ...one,
    commit: one.commit ?? last.origin.commit,
    prefill: Object.fromEntries(Object.entries(one.prefill).filter(([name]) => name === full || !wanted(name))),
  }));
}

const from = await origin();
const series = [...(await kept()), ...(await measure(`${from.commit}${from.changed ? " with changes" : ""}`))];
/** The run of a method at a length: rounds are compared with the full cache's of the same run. */
const runOf = (context: number, name: string): Series | undefined =>
  series.find((one) => one.context === context && one.prefill[name] !== undefined);
const ratios = (context: number, name: string): Summary => {
  const prefill = runOf(context, name)?.prefill ?? {};
  return summarise(paired(prefill[name] ?? [], prefill[full] ?? []));
};
const shown = ({ median, low, high }: Summary): string =>
  `${median.toFixed(3)} (${low.toFixed(3)} to ${high.toFixed(3)})`;
const missed = (name: string, kind: Kind): string =>
  contexts
    .filter((context) => ratios(context, name).median > kinds[kind])
    .map((context) => `missed at ${context}`)
    .join(", ");
const page = `${heading("Overhead of methods on a prompt", from)}

The time of a prompt with a method at keep ${keep} over its time with the full cache in the same round: medians of ${rounds} rounds and quartiles, so what gathering
attention, ranking, splitting and compacting cost. A random model of ${plain.layers} layers, ${plain.heads} heads of ${plain.headDim}, f32, two threads, text without an image (methods that look at the
text behind an image look at the last queries or at all of the text there). The JSON beside this page says the commit at which each method was measured. Goals: ${Object.entries(
  kinds,
)
  .filter(([, most]) => Number.isFinite(most))
  .map(([kind, most]) => `${kind} ${most}`)
  .join(", ")}.

${table([
  ["method", "attention", ...contexts.map((context) => `${context} tokens`), "goal"],
  ...methods.map(([name, kind]) => [
    name,
    kind,
    ...contexts.map((context) => shown(ratios(context, name))),
    kind === "twice" ? "none" : missed(name, kind) || "met",
  ]),
])}
`;
const report = { origin: from, series };
await keepReport("overhead", quick, report, page);
