// The search for the defaults of `prefixkv` as docs/design/prefixkv.md says it before anything was measured: bench/results/prefixkv-search.json
// and .md. It goes on where it was interrupted. Options: --quick. One thread.
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { openData } from "../ts/eval/data/open.ts";
import { type EvalSample, promptOf } from "../ts/eval/samples.ts";
import { BudgetError, type CacheOption, load } from "../ts/index.ts";
import { origin, resultsFolder } from "./machine.ts";
import { table } from "./stats.ts";

/** Options of `custom` beside `keep`. */
type Recipe = Record<string, string | number | boolean>;

const quick = process.argv.includes("--quick");
const keeps = [0.8, 0.5, 0.3, 0.2, 0.1];
/** A candidate must be better by this share of the criterion to take the place of the one before it. */
const margin = 0.01;

/** The defaults before the search. */
const before: Recipe = {
  score: "question",
  window: 32,
  pool: "max",
  poolSize: 7,
  budget: "prefix",
  lanes: "layer",
  objective: "least",
  floor: 0,
  values: false,
  fade: 0,
  sinks: 1,
  excludeSink: false,
  recent: 8,
  recentShare: 0.5,
  decode: "lowest-score",
  protectText: false,
};

const split: Recipe[] = ["layer", "head"].flatMap((lanes) =>
  ["least", "sum", "squares"].flatMap((objective) => [0, 0.2, 0.5].map((floor) => ({ lanes, objective, floor }))),
);
const axes: [name: string, candidates: Recipe[]][] = [
  ["split", split],
  [
    "who asks",
    [
      ...[8, 16, 32, 64].map((window) => ({ score: "question", window })),
      ...[8, 16, 32].map((window) => ({ score: "window", window })),
      { score: "text" },
    ],
  ],
  ["values", [{ values: false }, { values: true }]],
  [
    "neighbours",
    [{ pool: "none" }, ...[3, 5, 7].map((poolSize) => ({ pool: "max", poolSize })), ...[3, 7].map((poolSize) => ({ pool: "mean", poolSize }))],
  ],
  ["sinks", [1, 4].flatMap((sinks) => [false, true].map((excludeSink) => ({ sinks, excludeSink })))],
  [
    "while generating",
    [
      ...[4, 8, 16, 32].flatMap((recent) => [0.25, 0.5, 0.75].map((recentShare) => ({ recent, recentShare, decode: "lowest-score" }))),
      { recent: 8, recentShare: 0.5, decode: "oldest" },
    ],
  ],
  ["fading", [0, 0.02, 0.1, 0.3].map((fade) => ({ fade }))],
  ["text", [{ protectText: false }, { protectText: true }]],
  ["split, once more", split],
];

/** The mean divergence from the full cache, per data set and size; null where a size is refused. */
type Found = Record<string, (number | null)[]>;

const folder = new URL("../.cache/data/easy-vqa/easy_vqa/data/train/", import.meta.url);
const questions = JSON.parse(await readFile(new URL("questions.json", folder), "utf8")) as [string, string, number][];
const every = Math.floor(questions.length / 60);
const data: Record<string, EvalSample[]> = {
  scenes: (await openData()).samples.filter((_, index) => index % 2 === 1),
  "easy-vqa": questions
    .map(([question, answer, number], index) => ({
      id: `train-${index}`,
      image: new URL(`images/${number}.png`, folder),
      question,
      answer,
    }))
    .filter((_, index) => index % every === 0)
    .slice(0, 60),
};
if (quick) for (const [name, samples] of Object.entries(data)) data[name] = samples.slice(0, 2);

const work = new URL("../.cache/bench/prefixkv-search/", import.meta.url);
await mkdir(work, { recursive: true });
const notes = new URL(quick ? "quick.json" : "measured.json", work);
const measured: Record<string, Found> = JSON.parse(await readFile(notes, "utf8").catch(() => "{}"));
const from = await origin();
await using model = await load(undefined, { threads: 1 });

async function measure(recipe: Recipe): Promise<Found> {
  const key = JSON.stringify(recipe);
  const known = measured[key];
  if (known) return known;
  const found: Found = {};
  for (const [name, samples] of Object.entries(data)) {
    found[name] = [];
    for (const keep of keeps) found[name].push(await mean(samples, { method: "custom", keep, ...recipe } as CacheOption));
  }
  measured[key] = found;
  await writeFile(notes, JSON.stringify(measured));
  return found;
}

/** The mean over samples of the mean divergence over an answer's tokens. */
async function mean(samples: readonly EvalSample[], cache: CacheOption): Promise<number | null> {
  let sum = 0;
  for (const sample of samples) {
    try {
      const { kl = [] } = await model.score({ ...promptOf(sample), answer: sample.answer, cache, kl: true });
      sum += kl.reduce((a, b) => a + b, 0) / kl.length;
    } catch (error) {
      if (error instanceof BudgetError) return null;
      throw error;
    }
  }
  return sum / samples.length;
}

const base = await measure(before);

/** The criterion: 1 for the defaults before the search; the lower the better. */
function criterion(found: Found): number {
  const roots = (values: (number | null)[] = []): number =>
    values.reduce<number>((sum, value) => sum + Math.sqrt(value ?? Number.POSITIVE_INFINITY), 0);
  const parts = Object.keys(base).map((name) => roots(found[name]) / roots(base[name]));
  return parts.reduce((sum, part) => sum + part, 0) / parts.length;
}

interface Row {
  axis: string;
  candidate: Recipe;
  criterion: number;
  found: Found;
  taken: boolean;
}
const rows: Row[] = [];
let best: Recipe = before;
for (const [axis, candidates] of axes) {
  const tried: Row[] = [];
  for (const candidate of candidates) {
    const recipe = { ...best, ...candidate };
    const found = await measure(recipe);
    tried.push({ axis, candidate, criterion: criterion(found), found, taken: false });
    process.stderr.write(`${axis} ${JSON.stringify(candidate)} ${criterion(found).toFixed(4)}\n`);
  }
  const now = criterion(await measure(best));
  const least = tried.reduce((a, b) => (b.criterion < a.criterion ? b : a));
  const changes = least.criterion < now * (1 - margin);
  if (changes) {
    least.taken = true;
    best = { ...best, ...least.candidate };
  }
  rows.push(...tried);
}

const shown = (values: (number | null)[] = []): string[] => values.map((value) => (value === null ? "refused" : value.toFixed(4)));
const page = `# The search for the defaults of PrefixKV

As docs/design/prefixkv.md says it. ${from.date}, commit ${from.commit}${from.changed ? " with changes" : ""}; the embedded model, ${data.scenes?.length} scenes with odd numbers and ${data["easy-vqa"]?.length} train
questions of easy-VQA. Divergence KL from the full cache, nats, at ${keeps.join(", ")} of the entries.

Before: \`${JSON.stringify(before)}\`

After: \`${JSON.stringify(best)}\`, criterion ${criterion(await measure(best)).toFixed(4)}

${table([
  ["axis", "candidate", "criterion", "", ...Object.keys(base).flatMap((name) => keeps.map((keep) => `${name} ${keep}`))],
  ...rows.map(({ axis, candidate, criterion, found, taken }) => [
    axis,
    Object.values(candidate).join(", "),
    criterion.toFixed(4),
    taken ? "taken" : "",
    ...Object.keys(base).flatMap((name) => shown(found[name])),
  ]),
])}
`;
const out = resultsFolder(quick);
await mkdir(out, { recursive: true });
await writeFile(new URL("prefixkv-search.json", out), `${JSON.stringify({ origin: from, before, best, rows }, null, 1)}\n`);
await writeFile(new URL("prefixkv-search.md", out), page);
process.stdout.write(page);
