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
const keeps = [0.5, 0.3, 0.2, 0.1];
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
  ["fading", [0, 0.02, 0.1, 0.3].map((fade) => ({ fade }))],
  ["text", [{ protectText: false }, { protectText: true }]],
  ["split, once more", split],
];

/** How much is lost against the full cache, in nats per token, per data set and size; null where a size is refused. */
type Found = Record<string, (number | null)[]>;

/** A prompt with what is read behind it, of which some tokens count. */
interface Asked {
  sample: EvalSample;
  /** Those that count, given all. */
  counted(tokens: readonly number[]): boolean[];
  /** What the full cache gives them. */
  full?: number[];
}

const from = await origin();
await using model = await load(undefined, { threads: 1 });
const descriptions = (await openData()).samples.filter((_, index) => index % 4 === 1);
const data: Record<string, Asked[]> = {
  scenes: descriptions.map((sample) => ({ sample, counted: (tokens) => tokens.map(() => true) })),
  "follow-up questions": await followUps(20),
};
if (quick) for (const [name, asked] of Object.entries(data)) data[name] = asked.slice(0, 2);

/**
 * Pictures of easy-VQA's train split, evenly spread, each with four of its questions: the first is the prompt, and the others are asked once its cache
 * is small. The answers to these count, each with its end.
 */
async function followUps(pictures: number): Promise<Asked[]> {
  const folder = new URL("../.cache/data/easy-vqa/easy_vqa/data/train/", import.meta.url);
  const all = JSON.parse(await readFile(new URL("questions.json", folder), "utf8")) as [string, string, number][];
  const most = Math.max(...all.map(([, , number]) => number));
  const [end] = await model.tokenize("</s>", { addSpecialTokens: false });
  return Promise.all(
    Array.from({ length: pictures }, async (_, picture) => {
      const number = Math.floor((picture * most) / pictures);
      const own = all.filter(([, , of]) => of === number);
      const nth = [0, 1, 2, 3].map((part) => Math.floor((part * own.length) / 4));
      const asked = nth.map((at): [string, string] => [own[at]?.[0] ?? "", own[at]?.[1] ?? ""]);
      const [[question, answer] = ["", ""]] = asked;
      const later = asked.slice(1).map(([question, answer]) => `</s>USER: ${question} ASSISTANT: ${answer}`);
      const lengths = await Promise.all(
        asked.map(async ([, answer]) => (await model.tokenize(` ${answer}`, { addSpecialTokens: false })).length),
      );
      return {
        sample: {
          id: `train-${number}`,
          image: new URL(`images/${number}.png`, folder),
          question,
          answer: `${answer}${later.join("")}`,
        },
        counted: (tokens) => {
          const ends = tokens.flatMap((token, index) => (token === end ? [index] : []));
          return tokens.map((_, index) =>
            ends.some((at, nth) => nth > 0 && index <= at && index >= at - (lengths[nth] ?? 0)),
          );
        },
      };
    }),
  );
}

const work = new URL("../.cache/bench/prefixkv-search/", import.meta.url);
await mkdir(work, { recursive: true });
const notes = new URL(quick ? "quick.json" : "measured.json", work);
const measured: Record<string, Found> = JSON.parse(await readFile(notes, "utf8").catch(() => "{}"));

async function measure(recipe: Recipe): Promise<Found> {
  const key = JSON.stringify(recipe);
  const known = measured[key];
  if (known) return known;
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
  for (const asked of all) {
    asked.full ??= await logprobs(asked, { method: "full" });
    try {
      const found = await logprobs(asked, cache);
      sum += found.reduce((lost, logprob, index) => lost + (asked.full?.[index] ?? 0) - logprob, 0);
      count += found.length;
    } catch (error) {
      if (error instanceof BudgetError) return null;
      throw error;
    }
  }
  return sum / count;
}

async function logprobs({ sample, counted }: Asked, cache: CacheOption): Promise<number[]> {
  const { tokens, logprobs } = await model.score({ ...promptOf(sample), answer: sample.answer, cache });
  const which = counted(tokens);
  return logprobs.filter((_, index) => which[index]);
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
const page = `# The search for the defaults of PrefixKV

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
await writeFile(
  new URL("prefixkv-search.json", out),
  `${JSON.stringify({ origin: from, before, best, rows }, null, 1)}\n`,
);
await writeFile(new URL("prefixkv-search.md", out), page);
process.stdout.write(page);
