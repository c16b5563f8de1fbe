// The grids of `prefixkv/eval` on the scenes and on easy-VQA, with the methods of methods.json and the stores of stores.json: `npm run results`.
// Writes bench/results/eval-*.json and docs/results.md. Measurements stay in .cache/bench/results, and a later run continues from them.
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { openData } from "../../ts/eval/data/open.ts";
import { readMethods } from "../../ts/eval/method_file.ts";
import type { EvalMethod } from "../../ts/eval/methods.ts";
import { dataOf, type EvalData } from "../../ts/eval/samples.ts";
import { origin, resultsFolder } from "../machine.ts";
import type { StoresReport } from "../stores_page.ts";
import { added } from "./add.ts";
import { markdown, trainedFile } from "./page.ts";
import { idOf, measure } from "./parts.ts";
import { draw } from "./pictures.ts";
import { type Evaluated, sumUp } from "./summary.ts";

const root = new URL("../../", import.meta.url);
const kept = new URL(".cache/bench/results/", root);
const docs = new URL("docs/results.md", root);

/** The methods of a grid. */
export const methodsOf = ({ methods }: Grid): Promise<EvalMethod[]> =>
  readMethods(fileURLToPath(new URL(methods, import.meta.url)));

/** One grid. Its folder and its file share its name. */
interface Grid {
  name: "scenes" | "easy-vqa" | "easy-vqa-plain" | "stores-scenes" | "stores-easy-vqa-plain";
  /** The file of its methods: those that choose entries, at several sizes, or stores, alone and behind a method at one size. */
  methods: "methods.json" | "stores.json";
  keeps: number[];
  data(): Promise<EvalData>;
}

const sizes = { methods: "methods.json", keeps: [0.8, 0.5, 0.3, 0.2, 0.1] } as const;
const stores = { methods: "stores.json", keeps: [0.5] } as const;

export const grids: readonly Grid[] = [
  { ...sizes, name: "scenes", keeps: [...sizes.keeps], data: () => openData() },
  { ...sizes, name: "easy-vqa", keeps: [0.5, 0.2], data: questions },
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

const fileOf = (name: string, part: boolean): URL => new URL(`eval-${name}.json`, resultsFolder(part));

/** The committed figures in the order of the page; of a grid that was not measured yet there are none. */
export async function committed(part = false): Promise<Evaluated[]> {
  const texts = await Promise.all(grids.map(({ name }) => readFile(fileOf(name, part), "utf8").catch(() => "")));
  return texts.filter((text) => text !== "").map((text) => JSON.parse(text) as Evaluated);
}

/** The committed stores on a trained model. */
export async function trained(): Promise<StoresReport> {
  const file = new URL(`${trainedFile}.json`, resultsFolder(false));
  return JSON.parse(await readFile(file, "utf8")) as StoresReport;
}

async function readGrid({ name }: Grid, part: boolean): Promise<Evaluated> {
  const text = await readFile(fileOf(name, part), "utf8").catch(() => undefined);
  if (text === undefined) throw new Error(`there are no figures of ${name} to add to; measure the whole grid`);
  return JSON.parse(text) as Evaluated;
}

/** The methods that a grid has no figures of, with `random`, which those with a size are compared with. */
function lacking({ run }: Evaluated, methods: readonly EvalMethod[]): EvalMethod[] {
  const names = new Set(run.methods.map(({ id }) => id));
  const found = methods.filter((method) => !names.has(idOf(method)));
  if (found.length === 0) throw new Error("every method of the grid has figures; --fresh measures some again");
  return methods.filter((method) => found.includes(method) || idOf(method) === "random");
}

/** Writes the page of the results that are there, or fails when it is stale. */
async function page(check: boolean): Promise<void> {
  const reports = await committed();
  if (check && reports.length < grids.length) throw new Error("not every grid was measured; run `npm run results`");
  const want = markdown(reports, await trained());
  if (!check) await writeFile(docs, want);
  else if ((await readFile(docs, "utf8").catch(() => "")).replaceAll("\r\n", "\n") !== want)
    throw new Error("docs/results.md is stale; run `npm run results -- --docs`");
}

async function main(): Promise<void> {
  const { values: options } = parseArgs({
    options: {
      only: { type: "string" },
      limit: { type: "string" },
      fresh: { type: "string" },
      add: { type: "boolean" },
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
  const forgotten = options.fresh?.split(",") ?? [];
  for (const grid of grids.filter(({ name }) => only.includes(name))) {
    const all = await grid.data();
    const data = dataOf(all.name, all.samples.slice(0, limit));
    const folder = new URL(`${part ? `part-${limit}/` : ""}${grid.name}/`, kept);
    const methods = await methodsOf(grid);
    const known = options.add ? await readGrid(grid, part) : undefined;
    const { results, commits } = await measure({
      name: grid.name,
      methods: known ? lacking(known, methods) : methods,
      keeps: grid.keeps,
      data,
      folder,
      forgotten,
    });
    const samples = data.samples;
    const evaluated = known
      ? added(known, { results, commits, samples, origin: await origin() }, methods.map(idOf))
      : { grid: grid.name, commits, ...sumUp(results, samples, await origin()) };
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
