// A grid in parts, a folder of `prefixkv/eval` for each method, so that a method that is new or has changed is measured alone.
import { createHash } from "node:crypto";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { evaluate } from "../../ts/eval/evaluate.ts";
import { type Results, readResults } from "../../ts/eval/files.ts";
import type { EvalMethod } from "../../ts/eval/methods.ts";
import type { QualityRecord } from "../../ts/eval/records.ts";
import type { EvalData } from "../../ts/eval/samples.ts";
import { methods as specs } from "../../ts/generated/method_table.ts";
import { origin } from "../machine.ts";

interface Asked {
  name: string;
  methods: readonly EvalMethod[];
  keeps: readonly number[];
  data: EvalData;
  /** Where the parts are. */
  folder: URL;
  /** Methods to be measured anew, by their ids; `all` is every one. */
  forgotten: readonly string[];
}

/** How a part was measured, beside all that its run.json says. */
interface State {
  /** Of the measuring code and of the defaults of the methods. */
  hash: string;
  commit: string;
}

/** The results of all parts as those of one run, and the commits that they were measured at. */
export async function measure(asked: Asked): Promise<{ results: Results; commits: string[] }> {
  const parts: Results[] = [];
  const commits = new Set<string>();
  for (const method of asked.methods) {
    const { results, commit } = await part(asked, method);
    parts.push(results);
    commits.add(commit);
  }
  return { results: together(asked.name, parts), commits: [...commits].sort() };
}

async function part(
  { name, keeps, data, folder, forgotten }: Asked,
  method: EvalMethod,
): Promise<{ results: Results; commit: string }> {
  const id = idOf(method);
  const own = new URL(`${id.replaceAll(/[^a-zA-Z0-9.=-]+/g, "-")}/`, folder);
  const out = fileURLToPath(own);
  const file = new URL("state.json", own);
  const hash = await hashFor(method);
  const known: State | undefined = JSON.parse(await readFile(file, "utf8").catch(() => "null")) ?? undefined;
  if (known?.hash !== hash || forgotten.includes(id) || forgotten.includes("all"))
    await rm(own, { recursive: true, force: true });
  await mkdir(own, { recursive: true });
  const before = await readResults(out).catch(() => undefined);
  const { commit, changed } = await origin();
  const state = before && known?.hash === hash ? known : { hash, commit: `${commit}${changed ? " with changes" : ""}` };
  await writeFile(file, JSON.stringify(state));
  await evaluate({
    methods: [method],
    keeps: [...keeps],
    data,
    out,
    load: { threads: 1 },
    batch: 16,
    onProgress: ({ done, total, calibrating }) => {
      const left = calibrating ? `, ${calibrating.done} of ${calibrating.total} to calibrate` : "";
      process.stderr.write(`\r\x1b[K${name}, ${id}: ${done} of ${total}${left}`);
    },
  });
  process.stderr.write("\n");
  return { results: await readResults(out), commit: state.commit };
}

/** The name of a method in the figures. */
export const idOf = (method: EvalMethod): string => (typeof method === "string" ? method : method.id);

/** Changes with how lines are measured, and with the options of the methods in a cache. */
async function hashFor(method: EvalMethod): Promise<string> {
  const text = JSON.stringify(method);
  const options = specs
    .filter(({ name }) => text.includes(name))
    .map(({ name, options, variants }) => [name, options.map(({ name, default: usual }) => [name, usual]), variants]);
  const hash = createHash("sha256").update(JSON.stringify([text, options]));
  for (const file of ["cross_fit", "evaluate", "measure", "methods", "metrics", "rouge", "vqa", "data/scenes"])
    hash.update(await readFile(new URL(`../../ts/eval/${file}.ts`, import.meta.url)));
  return hash.digest("hex");
}

/** One run of parts. Each has measured the full cache: where its lines differ, so does the engine, and the parts say nothing beside each other. */
export function together(name: string, parts: readonly Results[]): Results {
  const [first] = parts;
  if (!first) throw new RangeError("a grid needs a method");
  const full = ({ quality }: Results): QualityRecord[] => quality.filter(({ method }) => method === "full");
  const want = JSON.stringify(full(first));
  const other = parts.find((part) => JSON.stringify(full(part)) !== want);
  if (other)
    throw new Error(
      `${name}: the full cache has other lines beside ${other.run.methods.at(-1)?.id} than beside ${first.run.methods.at(-1)?.id}; measure with --fresh all`,
    );
  const own = (part: Results): { quality: Results["quality"]; timings: Results["timings"] } => {
    const at = part.quality.flatMap(({ method }, index) => (method === "full" && part !== first ? [] : [index]));
    return {
      quality: at.flatMap((index) => part.quality[index] ?? []),
      timings: at.flatMap((index) => part.timings[index] ?? []),
    };
  };
  return {
    run: {
      ...first.run,
      methods: [first.run.methods[0] ?? [], ...parts.map(({ run }) => run.methods.slice(1))].flat(),
    },
    quality: parts.flatMap((part) => own(part).quality),
    timings: parts.flatMap((part) => own(part).timings),
  };
}
