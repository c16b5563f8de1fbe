// The search for the defaults of `prefixkv` as docs/design/prefixkv.md says it before anything was measured: bench/results/prefixkv-search.json
// and .md; with --second the second one, prefixkv-search-2. It goes on where it was interrupted. Another option: --quick. One thread.
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { openData } from "../ts/eval/data/open.ts";
import { inOrder } from "../ts/eval/in_order.ts";
import { BudgetError, type CacheOption, load } from "../ts/index.ts";
import { origin, resultsFolder } from "./machine.ts";
import { type Asked, followUps, logprobs, whole } from "./prefixkv_data.ts";
import { table } from "./stats.ts";

/** Options of `custom` beside `keep`. */
type Recipe = Record<string, string | number | boolean>;

const quick = process.argv.includes("--quick");
const second = process.argv.includes("--second");
const outcome = second ? "prefixkv-search-2" : "prefixkv-search";
/** Most prompts at once. */
const batch = 16;
const keeps = [0.5, 0.3, 0.2, 0.1];
/** A candidate must be better by this share of the criterion to take the place of the one before it. */
const margin = 0.01;

/** The defaults before the first search. */
const published: Recipe = {
  score: "question",
  window: 32,
  pool: "max",
  poolSize: 7,
  budget: "prefix",
  lanes: "layer",
  objective: "least",
  floor: 0,
  sinks: 1,
  excludeSink: false,
  recent: 8,
  recentShare: 0.5,
  decode: "lowest-score",
  protectText: false,
};

/** The defaults before this search. */
const before: Recipe = second ? { ...published, objective: "sum", floor: 0.5 } : published;

const split: Recipe[] = ["layer", "head"].flatMap((lanes) =>
  ["least", "sum", "squares"].flatMap((objective) => [0, 0.2, 0.5].map((floor) => ({ lanes, objective, floor }))),
);
type Axis = [name: string, candidates: Recipe[]];

const first: Axis[] = [
  ["split", split],
  [
    "who asks",
    [
      ...[8, 16, 32, 64].map((window) => ({ score: "question", window })),
      ...[8, 16, 32].map((window) => ({ score: "window", window })),
      { score: "text" },
    ],
  ],
  [
    "neighbours",
    [
      { pool: "none" },
      ...[3, 5, 7].map((poolSize) => ({ pool: "max", poolSize })),
      ...[3, 7].map((poolSize) => ({ pool: "mean", poolSize })),
    ],
  ],
  ["sinks", [1, 4].flatMap((sinks) => [false, true].map((excludeSink) => ({ sinks, excludeSink })))],
  [
    "while generating",
    [
      ...[4, 8, 16, 32].flatMap((recent) =>
        [0.25, 0.5, 0.75].map((recentShare) => ({ recent, recentShare, decode: "lowest-score" })),
      ),
      { recent: 8, recentShare: 0.5, decode: "oldest" },
    ],
  ],
  ["text", [{ protectText: false }, { protectText: true }]],
  ["split, once more", split],
];

const mixed: Recipe[] = ["layer", "head"].flatMap((lanes) =>
  ["least", "sum"].flatMap((objective) => [0, 0.5, 1].map((floor) => ({ score: "mix", lanes, objective, floor }))),
);
const again: Axis[] = [
  ["mixture", [{ score: "question" }, ...mixed]],
  ["who asks", [8, 16, 32].map((window) => ({ window }))],
  [
    "neighbours",
    [
      { pool: "none" },
      ...[3, 7].map((poolSize) => ({ pool: "max", poolSize })),
      ...[3, 5].map((poolSize) => ({ pool: "mean", poolSize })),
    ],
  ],
  ["sinks", [1, 4].flatMap((sinks) => [false, true].map((excludeSink) => ({ sinks, excludeSink })))],
  ["while generating", [4, 8, 16].map((recent) => ({ recent }))],
];
const axes = second ? again : first;

/** How much is lost against the full cache, in nats per token, per data set and size; null where a size is refused. */
type Found = Record<string, (number | null)[]>;

const from = await origin();
await using model = await load(undefined, { threads: 1, batch, prefillChunk: 0 });
const descriptions = (await openData()).samples.filter((_, index) => index % 4 === 1);
const data: Record<string, Asked[]> = {
  scenes: whole(descriptions),
  "follow-up questions": await followUps(model, "train", 20),
};
if (quick) for (const [name, asked] of Object.entries(data)) data[name] = asked.slice(0, 2);

/** Of the full cache. */
const known = new Map<Asked, number[]>();
const work = new URL(`../.cache/bench/${outcome}/`, import.meta.url);
await mkdir(work, { recursive: true });
const notes = new URL(quick ? "quick.json" : "measured.json", work);
const measured: Record<string, Found> = JSON.parse(await readFile(notes, "utf8").catch(() => "{}"));

async function measure(recipe: Recipe): Promise<Found> {
  const key = JSON.stringify(recipe);
  const before = measured[key];
  if (before) return before;
  const found: Found = {};
  for (const [name, asked] of Object.entries(data)) {
    found[name] = [];
    for (const keep of keeps) found[name].push(await mean(asked, { method: "custom", keep, ...recipe } as CacheOption));
  }
  measured[key] = found;
  await writeFile(notes, JSON.stringify(measured));
  return found;
}

/** The mean over the tokens that count of what a cache loses. */
async function mean(all: readonly Asked[], cache: CacheOption): Promise<number | null> {
  let [sum, count] = [0, 0];
  const lost = async (asked: Asked): Promise<number[]> => {
    const full = known.get(asked) ?? (await logprobs(model, asked, { method: "full" }));
    known.set(asked, full);
    const found = await logprobs(model, asked, cache);
    return found.map((logprob, index) => (full[index] ?? 0) - logprob);
  };
  try {
    for await (const [, losses] of inOrder(all, batch, lost)) {
      sum += (await losses).reduce((total, loss) => total + loss, 0);
      count += (await losses).length;
    }
  } catch (error) {
    if (error instanceof BudgetError) return null;
    throw error;
  }
  return sum / count;
}

const base = await measure(before);

/** The criterion: 1 for the defaults before the search; the lower the better. */
function criterion(found: Found): number {
  const roots = (values: (number | null)[] = []): number =>
    values.reduce<number>((sum, value) => sum + Math.sqrt(Math.max(0, value ?? Number.POSITIVE_INFINITY)), 0);
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

const shown = (values: (number | null)[] = []): string[] =>
  values.map((value) => (value === null ? "refused" : value.toFixed(4)));
const page = `# The ${second ? "second " : ""}search for the defaults of PrefixKV

As docs/design/prefixkv.md says it. ${from.date}, commit ${from.commit}${from.changed ? " with changes" : ""}; the embedded model. Lost against the full cache, nats per token, with
${keeps.join(", ")} of the entries.

Before: \`${JSON.stringify(before)}\`

After: \`${JSON.stringify(best)}\`, criterion ${criterion(await measure(best)).toFixed(4)}

${table([
  [
    "axis",
    "candidate",
    "criterion",
    "",
    ...Object.keys(base).flatMap((name) => keeps.map((keep) => `${name} ${keep}`)),
  ],
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
await writeFile(new URL(`${outcome}.json`, out), `${JSON.stringify({ origin: from, before, best, rows }, null, 1)}\n`);
await writeFile(new URL(`${outcome}.md`, out), page);
process.stdout.write(page);
