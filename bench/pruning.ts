// Prompts of which later layers see less, or whose layers have fewer positions attend: how much sooner they are read, beside the products that
// are left out:
// `npm run bench:pruning`, bench/results/<machine>-pruning.json and .md. Option: --quick. One thread.
import { openData } from "../ts/eval/data/open.ts";
import { about, type CacheOption, image, load, type Message } from "../ts/index.ts";
import { order } from "./cache.ts";
import { heading, keep as keepReport, origin } from "./machine.ts";
import { paired, percent, summarise, table } from "./stats.ts";

const quick = process.argv.includes("--quick");
const rounds = quick ? 2 : 15;
/** Pictures of 144 positions in a prompt of at most 2048. */
const pictures = quick ? 3 : 13;
/** The text model of models/tiny-llava. */
const { width, inner, heads, headDim } = { width: 192, inner: 512, heads: 6, headDim: 32 };

const full = "full";
/** ZipVL stores entries in few bits whoever attends, so time is taken beside that. */
const [stored, sparse] = ["zipvl, prefill: whole", "zipvl, prefill: sparse"];
const caches: [name: string, cache: CacheOption][] = [
  [full, { method: "full" }],
  ["fastv", { method: "fastv" }],
  ["fastv, images: 0.25", { method: "fastv", images: 0.25 }],
  ["fastv, images: 0", { method: "fastv", images: 0 }],
  ["visionZip", { method: "visionZip" }],
  ["visionZip, images: 0.1111", { method: "visionZip", images: 0.1111 }],
  ["pyramidInfer", { method: "pyramidInfer" }],
  ["pyramidInfer, constant 0.8", { method: "pyramidInfer", schedule: "constant", share: 0.8 }],
  [stored, { method: "zipvl" }],
  [sparse, { method: "zipvl", prefill: "sparse" }],
  [`${sparse}, mass: 0.9`, { method: "zipvl", prefill: "sparse", mass: 0.9 }],
  [`${sparse}, mass: 0.75`, { method: "zipvl", prefill: "sparse", mass: 0.75 }],
];

/** Floating-point operations of products with the weights of so many rows, summed over the layers, and of so many pairs in attention. */
function operations({ rows, pairs }: { rows: number; pairs: number }): number {
  const weights = 4 * width * heads * headDim + 3 * width * inner;
  return 2 * rows * weights + 4 * pairs * headDim;
}

await using model = await load(undefined, { threads: 1, prefillChunk: 0 });
const { samples } = await openData();
const content: Message["content"] = [
  ...samples.slice(0, pictures).map((sample) => image(sample.image)),
  "Describe the images in detail.",
];
const messages: Message[] = [{ role: "user", content }];

const times: Record<string, number[]> = {};
/** The rows that each layer reads: it holds them all. */
const rows: Record<string, number[]> = {};
/** Rows and pairs that the layers have computed of the prompt, as the engine counts them. */
const work: Record<string, { rows: number; pairs: number }> = {};
for (const [name, cache] of caches) {
  const { live: before } = await about();
  const { kept } = await model.score({ messages, answer: " A", cache, kept: true });
  const { live: after } = await about();
  rows[name] = kept.map((lanes) => lanes[0]?.positions.length ?? 0);
  work[name] = { rows: after.rowsRun - before.rowsRun, pairs: after.pairsRun - before.pairsRun };
}
for (let round = 0; round < rounds; round += 1) {
  for (const [name, cache] of order(caches, round)) {
    process.stderr.write(`\r\x1b[Kround ${round + 1} of ${rounds}: ${name}`);
    const { timings } = await model.generate({ messages, cache, maxTokens: 1 });
    times[name] = [...(times[name] ?? []), timings.prefill];
  }
}
process.stderr.write("\n");

const all = (name: string): number => operations(work[name] ?? { rows: 0, pairs: 0 });
const attention = (name: string): number => (work[name]?.pairs ?? 0) / (work[full]?.pairs ?? 1);
const lines = caches.slice(1).map(([name]) => {
  const before = name.startsWith(sparse) ? stored : full;
  const { median, low, high } = summarise(paired(times[name] ?? [], times[before] ?? []));
  const left = all(name) / all(full);
  return { name, left, attention: attention(name), median, low, high, share: (1 - median) / (1 - left) };
});
const from = await origin();
const positions = rows[full]?.[0] ?? 0;
const page = `${heading("Prompts of which later layers see less", from)}

A prompt of ${positions} positions, ${pictures} pictures of 144 and a question, with the embedded model on one thread; the text model's part alone: the vision tower sees every picture whole. *Operations* is what is left of the floating-point operations
of the full prompt, by the rows that every layer reads and the pairs of a query and an entry in its attention, as the engine counts them, and *attention* what is left of these pairs; *time* is the prompt's time over the full cache's in the same round, medians of ${rounds} rounds and quartiles. *Share* is how much of what the
operations promise is saved. Ranking and gathering rows are in the time; the goal is a share of 85 %. Of \`zipvl\` all layers read all rows, and fewer of them attend; it stores the entries in few bits, whoever attends,
so the time of \`sparse\` is over the time of \`whole\`. The probes' scores, which are among the pairs, and the copies of entries are in it.

${table([
  ["method", "rows per layer", "attention", "operations", "time", "share"],
  ...lines.map(({ name, left, attention, median, low, high, share }) => [
    name,
    (rows[name] ?? []).join(", "),
    attention.toFixed(3),
    left.toFixed(3),
    `${median.toFixed(3)} (${low.toFixed(3)} to ${high.toFixed(3)})`,
    left < 1 ? percent(share) : "",
  ]),
])}
`;
const report = { origin: from, positions, rows, work, times, lines };
await keepReport("pruning", quick, report, page);
