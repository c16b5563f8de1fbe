// PrefixKV beside SnapKV, AdaKV and PyramidKV at equal bytes, on data that chose nothing, as docs/design/prefixkv.md registered it:
// bench/results/prefixkv-report.json and .md. Option: --quick. One thread; `npm run real -- --fetch` first.
import { mkdir, writeFile } from "node:fs/promises";
import { folder } from "../tests/real/goldens.ts";
import { bootstrap, type Interval, ratio } from "../ts/eval/bootstrap.ts";
import { openData } from "../ts/eval/data/open.ts";
import { describes } from "../ts/eval/data/scenes.ts";
import { inOrder } from "../ts/eval/in_order.ts";
import { promptOf } from "../ts/eval/samples.ts";
import { BudgetError, type CacheOption, load, type Model, type PromptInput } from "../ts/index.ts";
import { plainQuestions } from "./grids/run.ts";
import { origin, resultsFolder } from "./machine.ts";
import { type Asked, followUps, whole } from "./prefixkv_data.ts";
import { table } from "./stats.ts";
import { passage } from "./stores_text.ts";

const quick = process.argv.includes("--quick");
const keeps = [0.8, 0.5, 0.3, 0.2, 0.1];
const others = ["snapkv", "adakv", "pyramidkv"] as const;
/** Most prompts at once. */
const batch = 16;

/** A row of a table. */
interface Row {
  name: string;
  /** `equal` is the share of the prompt that leaves as many entries at the end as `prefixkv` has; undefined where there is none. */
  cache(keep: number, equal: number | undefined): CacheOption | undefined;
}

const rows: Row[] = [
  { name: "prefixkv", cache: (keep) => ({ method: "prefixkv", keep }) },
  ...others.map((method) => ({
    name: `${method}, evicting`,
    cache: (keep: number): CacheOption => ({ method, keep, decode: "lowest-score" }),
  })),
  ...others.map((method) => ({
    name: `${method} as published`,
    cache: (_: number, equal?: number): CacheOption | undefined =>
      equal === undefined ? undefined : { method, keep: equal },
  })),
  // Not registered as rivals: what the searches came from, and no search at all.
  {
    name: "prefixkv before the searches",
    cache: (keep) => ({ method: "prefixkv", keep, score: "question", objective: "least", floor: 0 }),
  },
  { name: "prefixkv before the second", cache: (keep) => ({ method: "prefixkv", keep, score: "question" }) },
  { name: "prefixkv, all layers alike", cache: (keep) => ({ method: "prefixkv", keep, floor: 1 }) },
];

/** A sample, or a token where there is one sample: these are resampled. */
interface Item {
  nll: number;
  tokens: number;
  right?: number;
  objects?: number;
}

/** A sample with a cache. */
interface Outcome {
  items: Item[];
  /** Bytes at the end over those of the full cache. */
  resident: number;
  /** The share of the prompt that one which keeps all it generates keeps for as many entries at the end; undefined where there is none. */
  equal: number | undefined;
}

interface DataSet {
  name: string;
  model: Model;
  asked: { prompt: PromptInput; answer: string; counted: Asked["counted"]; sample?: Asked["sample"] }[];
  /** Whether tokens are resampled, and not samples. */
  byToken: boolean;
}

const from = await origin();
await using tiny = await load(undefined, { threads: 1, batch, prefillChunk: 0 });
await using smol = await load(folder("f32"), { weights: "f32", threads: 1 });
const scenes = (await openData()).samples.filter((_, index) => index % 2 === 0);
const questions = (await plainQuestions()).samples;
const text = await passage(quick);
const ask = (asked: readonly Asked[]): DataSet["asked"] =>
  asked
    .slice(0, quick ? 2 : undefined)
    .map(({ sample, counted }) => ({ prompt: promptOf(sample), answer: sample.answer, counted, sample }));
const sets: DataSet[] = [
  { name: "Scenes with even numbers", model: tiny, asked: ask(whole(scenes)), byToken: false },
  {
    name: "Follow-up questions, test pictures",
    model: tiny,
    asked: ask(await followUps(tiny, "test", 20)),
    byToken: false,
  },
  { name: "Single questions, test pictures", model: tiny, asked: ask(whole(questions)), byToken: false },
  {
    name: "Text, SmolLM2-135M",
    model: smol,
    asked: [{ prompt: { prompt: text.prompt }, answer: text.answer, counted: (tokens) => tokens.map(() => true) }],
    byToken: true,
  },
];

async function measure(
  { model, byToken }: DataSet,
  asked: DataSet["asked"][number],
  cache: CacheOption,
): Promise<Outcome> {
  const { prompt, answer, counted, sample } = asked;
  const { tokens, logprobs, memory, usage } = await model.score({ ...prompt, answer, cache });
  const which = counted(tokens);
  const items = logprobs.filter((_, index) => which[index]).map((logprob): Item => ({ nll: -logprob, tokens: 1 }));
  const { layers, kvBytesPerToken } = model.info;
  const read = memory.full / kvBytesPerToken - usage.promptTokens;
  const kept = memory.keptPerLayer.reduce((sum, count) => sum + count, 0) / layers;
  const equal = (kept - read) / usage.promptTokens;
  const outcome = { resident: memory.resident / memory.full, equal: equal > 0 && equal <= 1 ? equal : undefined };
  if (byToken) return { ...outcome, items };
  const sum = items.reduce<Item>((all, { nll }) => ({ nll: all.nll + nll, tokens: all.tokens + 1 }), {
    nll: 0,
    tokens: 0,
  });
  const objects = sample?.objects;
  if (!objects) return { ...outcome, items: [sum] };
  const { text } = await model.generate({ ...prompt, cache, maxTokens: 256 });
  const right = objects.filter((object) => describes(text, object)).length;
  return { ...outcome, items: [{ ...sum, right, objects: objects.length }] };
}

/** All samples of a set; undefined where one of them is refused or has no such cache. */
async function all(set: DataSet, caches: readonly (CacheOption | undefined)[]): Promise<Outcome[] | undefined> {
  if (caches.some((cache) => cache === undefined)) return undefined;
  const steps = set.asked.map((asked, index) => ({ asked, cache: caches[index] as CacheOption }));
  const found: Outcome[] = [];
  try {
    for await (const [, outcome] of inOrder(steps, batch, ({ asked, cache }) => measure(set, asked, cache)))
      found.push(await outcome);
  } catch (error) {
    if (error instanceof BudgetError) return undefined;
    throw error;
  }
  return found;
}

interface Cell {
  row: string;
  keep: number;
  resident: number;
  ppl: Interval;
  right?: Interval;
  /** Nats per token more than `prefixkv` of the same size, resampled together. */
  behind?: Interval;
}

const mean = (numbers: readonly number[]): number => numbers.reduce((sum, number) => sum + number, 0) / numbers.length;
const perToken = ratio<Item>(
  ({ nll }) => nll,
  ({ tokens }) => tokens,
);
const perObject = ratio<Item>(
  ({ right = 0 }) => right,
  ({ objects = 0 }) => objects,
);

function cellOf(row: string, keep: number, outcomes: readonly Outcome[], first?: readonly Outcome[]): Cell {
  const items = outcomes.flatMap(({ items }) => items);
  const exp = ({ value, low, high }: Interval): Interval => ({
    value: Math.exp(value),
    low: Math.exp(low),
    high: Math.exp(high),
  });
  const pairs = first
    ?.flatMap(({ items }) => items)
    .map((item, index): Item => ({ ...item, nll: (items[index]?.nll ?? 0) - item.nll }));
  return {
    row,
    keep,
    resident: mean(outcomes.map(({ resident }) => resident)),
    ppl: exp(bootstrap(items, perToken)),
    ...(items[0]?.objects !== undefined && { right: bootstrap(items, perObject) }),
    ...(pairs && { behind: bootstrap(pairs, perToken) }),
  };
}

const cells: Record<string, Cell[]> = {};
for (const set of sets) {
  const found: Cell[] = [];
  cells[set.name] = found;
  const full = await all(
    set,
    set.asked.map(() => ({ method: "full" })),
  );
  if (full) found.push(cellOf("full", 1, full));
  for (const keep of keeps) {
    let first: Outcome[] | undefined;
    for (const { name, cache } of rows) {
      const outcomes = await all(
        set,
        set.asked.map((_, index) => cache(keep, first?.[index]?.equal)),
      );
      first ??= outcomes;
      process.stderr.write(`${set.name}, ${name}, ${keep}: ${outcomes ? "measured" : "none"}\n`);
      if (outcomes) found.push(cellOf(name, keep, outcomes, outcomes === first ? undefined : first));
    }
  }
}

const number = (value: number): string => value.toFixed(value < 10 ? 3 : 1);
const shown = ({ value, low, high }: Interval, text = number): string =>
  `${text(value)} (${text(low)} to ${text(high)})`;
const percent = (value: number): string => `${(100 * value).toFixed(0)} %`;

function page(name: string): string {
  const found = cells[name] ?? [];
  const ours = (keep: number): Cell | undefined => found.find((cell) => cell.keep === keep && cell.row === "prefixkv");
  const isApart = (cell: Cell): string => {
    const own = ours(cell.keep);
    if (!own || own === cell || cell.row === "full") return "";
    return own.ppl.high < cell.ppl.low ? "better" : own.ppl.low > cell.ppl.high ? "worse" : "";
  };
  const hasObjects = found.some(({ right }) => right);
  return `## ${name}

${table([
  [
    "keep",
    "method",
    "bytes at the end",
    "perplexity",
    ...(hasObjects ? ["objects right"] : []),
    "nats behind prefixkv",
    "prefixkv is, intervals apart",
  ],
  ...found.map((cell) => [
    String(cell.keep),
    cell.row,
    cell.resident.toFixed(3),
    shown(cell.ppl),
    ...(hasObjects ? [cell.right ? shown(cell.right, percent) : ""] : []),
    cell.behind ? shown(cell.behind, (value) => value.toFixed(3)) : "",
    isApart(cell),
  ]),
])}`;
}

const commit = `${from.commit}${from.changed ? " with changes" : ""}`;
const document = `# PrefixKV beside SnapKV, AdaKV and PyramidKV at equal bytes

As [docs/design/prefixkv.md](../../docs/design/prefixkv.md) registered it. ${from.date}, commit ${commit}. *Bytes at the end*: resident, over those of the full cache. *As published*: keeps all it
generates, with the share of the prompt that leaves as many entries at the end of the answer as \`prefixkv\` has; missing where the answer alone is longer. The intervals hold
the middle 95 % of 2000 resamples of samples, for the text of tokens. *Nats behind*: resampled in pairs. A row that is missing was refused.

${sets.map(({ name }) => page(name)).join("\n\n")}
`;
const out = resultsFolder(quick);
await mkdir(out, { recursive: true });
await writeFile(new URL("prefixkv-report.json", out), `${JSON.stringify({ origin: from, cells }, null, 1)}\n`);
await writeFile(new URL("prefixkv-report.md", out), document);
process.stdout.write(document);
