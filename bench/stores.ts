// Stores in few bits on real weights: perplexity, divergence from the full cache, bits and bytes on a text of about 1,400 tokens, read by
// SmolLM2-135M-Instruct (docs/design/real.md): bench/results/<machine>-stores.json and .md. The parts of AKVQ-VL come in the order of the
// paper's ablation. Options: --quick, and --only NAMES for the rows whose names begin with one of these; the others stay as they were found.
import { readFile } from "node:fs/promises";
import { folder } from "../tests/real/goldens.ts";
import { bootstrap } from "../ts/eval/bootstrap.ts";
import { rougeL } from "../ts/eval/rouge.ts";
import {
  akvqVl,
  bf16,
  type CacheOption,
  fp8,
  full,
  int2,
  int4,
  int8,
  kvtuner,
  load,
  lorc,
  minicache,
  type Score,
  skvq,
  snapkv,
  streaming,
  think,
  turboquant,
  zipvl,
} from "../ts/index.ts";
import { blockTokens, ofTokens } from "./blocks.ts";
import { order } from "./cache.ts";
import { heading, keep, origin, resultsFolder } from "./machine.ts";
import { summarise } from "./stats.ts";
import { calibrated } from "./stores_calibrated.ts";
import { type StoreRow, type StoresReport, storesTable } from "./stores_page.ts";
import { beginnings, passage } from "./stores_text.ts";

const quick = process.argv.includes("--quick");

/** Entries that stay whole, the same for all, so that their bytes can be compared. */
const window = 32;
const parts = { window, textLayers: 0, pivots: 0, hadamard: false, clip: 1 };
const cases: [name: string, cache: CacheOption][] = [
  ["full", full()],
  ["bf16", bf16({ window })],
  ["fp8", fp8({ window })],
  ["int8", int8({ window })],
  ["int4", int4({ window })],
  ["int4, keys per entry", int4({ window, keys: "entry" })],
  ["turboquant, 4 bits", turboquant({ window, bits: 4 })],
  ["int2 (kivi)", int2({ window })],
  ["turboquant, 2 bits", turboquant({ window, bits: 2 })],
  ["akvqVl: 2 bits, rounded to nearest", akvqVl(parts)],
  ["+ Hadamard", akvqVl({ ...parts, hadamard: true })],
  ["+ clip 0.8", akvqVl({ ...parts, hadamard: true, clip: 0.8 })],
  ["+ text of 2 layers in 4 bits", akvqVl({ window, pivots: 0 })],
  ["+ pivots", akvqVl({ window })],
  ["zipvl", zipvl({ window })],
  ["int4, keys before RoPE", int4({ window, rope: "before" })],
  ["int2, keys before RoPE", int2({ window, rope: "before" })],
  ["kvtuner, 8 bits of keys and 4 of values", kvtuner({ window })],
  ["kvtuner, 4 and 2", kvtuner({ window, pairs: [[4, 2]] })],
  ["skvq without an order, 2 bits", skvq({ window, sinks: 5 })],
  ["think, 0.6 of the channels", think({ window })],
  ["think, 0.6, in 4 bits", think({ window, bits: "4" })],
  ["think, 0.3 of the channels", think({ window, channels: 0.3 })],
  ["lorc, 0.75 to 0.5", lorc({ window, rope: "after" })],
  ["lorc, 0.75 to 0.5, keys before RoPE", lorc({ window, rope: "before" })],
  ["lorc, 0.75 to 0.5, heads together", lorc({ window, heads: "joint", rope: "after" })],
  ["lorc, 0.75 to 0.5, heads together, keys before RoPE", lorc({ window, heads: "joint", rope: "before" })],
  ["minicache", minicache({ window })],
  ["minicache, nothing retained", minicache({ window, retain: 0 })],
  ["minicache, from 0.7", minicache({ window, from: 0.7 })],
  ["minicache, 8 bits", minicache({ window, bits: "8" })],
  ["minicache, 4 bits", minicache({ window, bits: "4" })],
  ["snapkv, keep 0.5", snapkv({ keep: 0.5 })],
  ["snapkv, keep 0.5, int4", [snapkv({ keep: 0.5 }), int4({ window })]],
  ["streaming, keep 0.5, int8", [streaming({ keep: 0.5 }), int8({ window })]],
];

const { prompt, answer } = await passage(quick);
/** The text goes on from each of these once, and is timed. */
const starts = await beginnings(quick);

const asked = process.argv.indexOf("--only");
const only = asked < 0 ? undefined : (process.argv[asked + 1] ?? "").split(",");
const wanted = (name: string): boolean => only?.some((start) => name.startsWith(start)) ?? true;

/** Greedy tokens that a cache goes on with. */
const tokens = quick ? 8 : 64;

const found: { name: string; score: Score }[] = [];
await using model = await load(folder("f32"), { weights: "f32", threads: 2 });
const all = [...cases, ...(await calibrated(model, window, wanted))];
// The first tells the size of a full cache.
const measuring = all.filter(([name], index) => index === 0 || wanted(name));
for (const [name, cache] of measuring) {
  process.stderr.write(`\r\x1b[K${name}`);
  found.push({ name, score: await model.score({ prompt, answer, cache, kl: true }) });
}

/** The text that follows, and how long its tokens took, in milliseconds each. */
async function follow(prompt: string, cache: CacheOption): Promise<{ text: string; each: number }> {
  const { text, timings, usage } = await model.generate({ prompt, maxTokens: tokens, ignoreEos: true, cache });
  return { text, each: timings.decode / Math.max(1, usage.completionTokens - 1) };
}

/** ROUGE-L of each text with the full cache's. */
const rouges = new Map<string, number[]>();
/** The full cache's time for a token over a cache's, from the same few runs. */
const speeds = new Map<string, number[]>();
for (const [round, start] of starts.entries()) {
  const { text: reference, each: first } = await follow(start, full());
  let beside = first;
  for (const [index, [name, cache]] of order(measuring, round).entries()) {
    process.stderr.write(`\r\x1b[Ktext ${round + 1} of ${starts.length}: ${name}`);
    if (index > 0 && index % 4 === 0) beside = (await follow(start, full())).each;
    const { text, each } = await follow(start, cache);
    rouges.set(name, [...(rouges.get(name) ?? []), rougeL(text, reference)]);
    speeds.set(name, [...(speeds.get(name) ?? []), beside / each]);
  }
}
process.stderr.write("\n");

const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
const whole = found[0]?.score.memory.full ?? 1;
/** The full cache's, token by token. */
const plain = found[0]?.score.logprobs ?? [];
const from = await origin();
const commit = `${from.commit}${from.changed ? " with changes" : ""}`;
const measured: (StoreRow & { tokens: number; metadata: number; commit: string })[] = found.map(
  ({ name, score: { ppl, kl = [], logprobs, memory } }) => {
    const { payload, scales, metadata, resident, peak, effectiveBits } = memory;
    const tokens = logprobs.length;
    const losses = logprobs.map((logprob) => -logprob);
    const more = losses.map((loss, token) => loss + (plain[token] ?? Number.NaN));
    const rouge = bootstrap(rouges.get(name) ?? [], mean);
    const speed = summarise(speeds.get(name) ?? []);
    return {
      name,
      ppl,
      kl: mean(kl),
      rouge: rouge.value,
      intervals: { ppl: ofTokens(losses, Math.exp), overFull: ofTokens(more, Math.exp), kl: ofTokens(kl), rouge },
      speed,
      tokens,
      payload,
      scales,
      metadata,
      resident,
      peak,
      full: whole,
      effectiveBits,
      commit,
    };
  },
);
const last = only === undefined ? undefined : await before();
const rows = last === undefined ? measured : joined(last.rows);

/** The rows of the last run, with those of this one in their places or behind. */
function joined(known: StoreRow[]): StoreRow[] {
  const fresh = new Map(measured.map((row) => [row.name, row]));
  const kept = known.filter(({ name }) => fresh.has(name) || !wanted(name));
  const names = new Set(kept.map(({ name }) => name));
  return [...kept.map((row) => fresh.get(row.name) ?? row), ...measured.filter(({ name }) => !names.has(name))];
}

async function before(): Promise<StoresReport> {
  const file = new URL(`${from.machine.slug}-stores.json`, resultsFolder(quick));
  const last = JSON.parse(await readFile(file, "utf8")) as StoresReport & { origin: { commit: string } };
  return { ...last, rows: last.rows.map((row) => ({ ...row, commit: row.commit ?? last.origin.commit })) };
}

const usage = found[0]?.score.usage;
const note = last?.note;
const page = `${heading("Stores on real weights", from)}

SmolLM2-135M-Instruct in f32 reads ${usage?.promptTokens} tokens of \`tests/real/text.txt\` and is then asked for the ${measured[0]?.tokens} that follow, one by one. *divergence*: of the next
token's distribution from the full cache's, in nats, the mean over these tokens. *times full*: the perplexity over the full cache's. Behind these three are 95 % intervals from 2,000 resamples of the tokens in blocks of ${blockTokens} neighbours, the same
for all rows: they say how much the choice of tokens of this text matters, nothing about other texts. *bits*: of a number at the end, scales and the whole
window of ${window} entries included; *stored*: keys, values and scales; *resident*: all that the pool counts, positions and bookkeeping
included; *peak*: at any time, the prompt's included. All over the bytes of a full cache. *ROUGE-L*: of ${tokens} greedy tokens with those of the full cache, the mean
over ${starts.length} beginnings of the text of growing length, with the interval of resampling these few. *speed*: tokens a second over the full cache's in runs beside them, medians of these ${starts.length}; weights are most of what a token
of this small model reads, so little can be gained here ([how fast entries are read](../../docs/design/codecs.md#reading)). Calibrations are made from eight texts of 300 tokens
that the model makes up itself. The JSON beside this page says the commit at which each row was measured.
${note === undefined ? "" : `\n${note}\n`}
${storesTable(rows)}
`;
const report = { origin: from, ...(note !== undefined && { note }), rows };
await keep("stores", quick, report, page);
