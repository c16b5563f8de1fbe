// The grids of `prefixkv/eval` on the scenes and on easy-VQA, with the methods of methods.json and the stores of stores.json: `npm run results`.
// Writes bench/results/eval-*.json and docs/results.md. Measurements stay in .cache/bench/results, and a later run continues from them.
import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { openData } from "../../ts/eval/data/open.ts";
import { evaluate } from "../../ts/eval/evaluate.ts";
import { type Results, readResults } from "../../ts/eval/files.ts";
import { readMethods } from "../../ts/eval/method_file.ts";
import type { EvalMethod } from "../../ts/eval/methods.ts";
import type { RunRecord } from "../../ts/eval/records.ts";
import { dataOf, type EvalData, hashOf } from "../../ts/eval/samples.ts";
import { origin, resultsFolder } from "../machine.ts";
import { markdown } from "./page.ts";
import { draw } from "./pictures.ts";
import { type Evaluated, sumUp } from "./summary.ts";

const root = new URL("../../", import.meta.url);
const kept = new URL(".cache/bench/results/", root);
const docs = new URL("docs/results.md", root);

/** The methods of a grid. */
export const methodsOf = ({ methods }: Grid): Promise<EvalMethod[]> =>
  readMethods(fileURLToPath(new URL(methods, import.meta.url)));

/** One grid. Its folder, its option and its file share its name. */
interface Grid {
  name: "scenes" | "easy-vqa" | "easy-vqa-plain" | "stores-scenes" | "stores-easy-vqa-plain";
  /** The file of its methods: those that choose entries, at several sizes, or stores, alone and behind a method at one size. */
  methods: "methods.json" | "stores.json";
  keeps: number[];
  data(): Promise<EvalData>;
}

const sizes = { methods: "methods.json", keeps: [0.5, 0.2] } as const;
const stores = { methods: "stores.json", keeps: [0.5] } as const;

export const grids: readonly Grid[] = [
  { ...sizes, name: "scenes", keeps: [0.8, 0.5, 0.3, 0.2, 0.1], data: () => openData() },
  { ...sizes, name: "easy-vqa", keeps: [...sizes.keeps], data: questions },
  { ...sizes, name: "easy-vqa-plain", keeps: [...sizes.keeps], data: plainQuestions },
  { ...stores, name: "stores-scenes", keeps: [...stores.keeps], data: () => openData() },
  { ...stores, name: "stores-easy-vqa-plain", keeps: [...stores.keeps], data: plainQuestions },
];

/** The first test questions of easy-VQA, as `prefixkv eval` asks them. */
async function questions(): Promise<EvalData> {
  const { name, samples } = await openData(fileURLToPath(new URL(".cache/data/easy-vqa", root)));
  return dataOf(name, samples.slice(0, 60));
}

/** The same without the instruction for short answers, which the embedded model has never read. */
export async function plainQuestions(): Promise<EvalData> {
  const { samples } = await questions();
  return dataOf(
    "easy-vqa-plain",
    samples.map((sample) => ({ ...sample, question: sample.question.split("\n")[0] ?? "" })),
  );
}

/** The results of a grid: those of the folder as they are when they are whole, else measured there. */
async function measure(grid: Grid, data: EvalData, folder: string): Promise<Results> {
  const before = await readResults(folder).catch(() => undefined);
  if (!before || !isWhole(before)) {
    await evaluate({
      methods: await methodsOf(grid),
      keeps: grid.keeps,
      data,
      out: folder,
      // A folder that was begun with as many goes on with as many.
      load: { threads: before?.run.threads ?? 1 },
      batch: before ? (before.run.batch ?? 1) : 16,
      onProgress: ({ done, total, calibrating, millisecondsLeft }) => {
        const minutes = millisecondsLeft === undefined ? "" : `, ${Math.ceil(millisecondsLeft / 60_000)} min left`;
        const left = calibrating ? `, ${calibrating.done} of ${calibrating.total} to calibrate` : minutes;
        process.stderr.write(`\r\x1b[K${grid.name}: ${done} of ${total}${left}`);
      },
    });
    process.stderr.write("\n");
  }
  const results = await readResults(folder);
  const wrong = await otherThan(results.run, grid, data);
  if (wrong || !isWhole(results))
    throw new Error(`${folder} holds not the grid ${grid.name}: ${wrong || "unfinished"}`);
  return results;
}

function isWhole({ run, quality, timings, summary }: Results): boolean {
  if (summary === undefined) return false;
  const lines = run.data.samples * summary.cells.length;
  return quality.length === lines && timings.length === lines;
}

/** In what a run differs from the grid; empty where it does not. */
async function otherThan(run: RunRecord, grid: Grid, { name, samples }: EvalData): Promise<string> {
  const asked = {
    methods: [{ id: "full", cache: { method: "full" } }, ...(await methodsOf(grid))],
    keeps: grid.keeps,
    data: { name, samples: samples.length, hash: await hashOf(samples) },
    seed: 1,
    baseline: "full",
    generate: { maxTokens: 256, beyond: 16 },
    kl: true,
  };
  const differing = Object.entries(asked).filter(
    ([field, want]) => JSON.stringify(run[field as keyof RunRecord]) !== JSON.stringify(want),
  );
  return differing.map(([field]) => field).join(", ");
}

/** A folder of the cache, without what other native code or other measures left there: a run does not say what it was measured with. */
async function cached(name: string, fresh: boolean): Promise<string> {
  const folder = new URL(`${name}/`, kept);
  const hash = createHash("sha256");
  const native = (await readdir(new URL("native/", root))).filter((file) => file.endsWith(".node")).sort();
  const ours = ["cross_fit", "evaluate", "measure", "methods", "metrics", "rouge", "vqa", "data/scenes"].map(
    (file) => `ts/eval/${file}.ts`,
  );
  for (const file of [...native.map((file) => `native/${file}`), ...ours])
    hash.update(await readFile(new URL(file, root)));
  const state = hash.digest("hex");
  const file = new URL(`${name}.state`, kept);
  if (fresh || (await readFile(file, "utf8").catch(() => "")) !== state)
    await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  await writeFile(file, state);
  return fileURLToPath(folder);
}

const fileOf = (name: string, part: boolean): URL => new URL(`eval-${name}.json`, resultsFolder(part));

/** The committed figures in the order of the page; of a grid that was not measured yet there are none. */
export async function committed(part = false): Promise<Evaluated[]> {
  const texts = await Promise.all(grids.map(({ name }) => readFile(fileOf(name, part), "utf8").catch(() => "")));
  return texts.filter((text) => text !== "").map((text) => JSON.parse(text) as Evaluated);
}

/** Writes the page of the results that are there, or fails when it is stale. */
async function page(check: boolean): Promise<void> {
  const reports = await committed();
  if (check && reports.length < grids.length) throw new Error("not every grid was measured; run `npm run results`");
  const want = markdown(reports);
  if (!check) await writeFile(docs, want);
  else if ((await readFile(docs, "utf8").catch(() => "")).replaceAll("\r\n", "\n") !== want)
    throw new Error("docs/results.md is stale; run `npm run results -- --docs`");
}

async function main(): Promise<void> {
  const { values: options } = parseArgs({
    options: {
      scenes: { type: "string" },
      "easy-vqa": { type: "string" },
      "easy-vqa-plain": { type: "string" },
      "stores-scenes": { type: "string" },
      "stores-easy-vqa-plain": { type: "string" },
      only: { type: "string" },
      limit: { type: "string" },
      fresh: { type: "boolean", default: false },
      docs: { type: "boolean" },
      check: { type: "boolean" },
      pictures: { type: "boolean" },
    },
  });
  if (options.pictures) return await draw();
  if (options.check || options.docs) return await page(options.check ?? false);
  const only = options.only?.split(",") ?? grids.map(({ name }) => name);
  const unknown = only.find((name) => grids.every((grid) => grid.name !== name));
  if (unknown !== undefined)
    throw new Error(`unknown grid \`${unknown}\`; there are ${grids.map(({ name }) => name).join(", ")}`);
  const limit = options.limit === undefined ? undefined : Number(options.limit);
  if (limit !== undefined && !(Number.isSafeInteger(limit) && limit > 0))
    throw new Error(`--limit is a whole number from 1, found ${options.limit}`);
  const part = limit !== undefined;
  for (const grid of grids.filter(({ name }) => only.includes(name))) {
    const all = await grid.data();
    const data = dataOf(all.name, all.samples.slice(0, limit));
    const given = options[grid.name];
    const folder = given ?? (await cached(part ? `part-${limit}/${grid.name}` : grid.name, options.fresh));
    const results = await measure(grid, data, folder);
    const evaluated = { grid: grid.name, ...sumUp(results, data.samples, await origin()) };
    await mkdir(new URL("./", fileOf(grid.name, part)), { recursive: true });
    await writeFile(fileOf(grid.name, part), `${JSON.stringify(evaluated, null, 2)}\n`);
  }
  if (part) process.stdout.write(markdown(await committed(true)));
  else await page(false);
}

if (import.meta.main) {
  await main().catch((error: Error) => {
    process.stderr.write(`\n${error.message}\n`);
    process.exit(1);
  });
}
