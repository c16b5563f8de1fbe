import type { Model } from "../../model.ts";
import { openData } from "../data/open.ts";
import { badOption } from "../errors.ts";
import { evaluate } from "../evaluate.ts";
import type { EvalMethod } from "../methods.ts";
import { type ReproduceOptions, readReproduce } from "../options.ts";
import type { CellSummary, Summary } from "../records.ts";
import { ablation } from "./ablation.ts";
import { description } from "./description.ts";
import { mmVetTable } from "./mm_vet.ts";
import { speed } from "./speed.ts";
import type { Ours, PublishedTable, Size, TableMetric } from "./table.ts";

/**
 * The published tables that can be run.
 *
 * @example
 * ```ts
 * import { publishedTables } from "prefixkv/eval";
 *
 * console.log(publishedTables.map(({ name, title }) => `${name}: ${title}`));
 * ```
 */
export const publishedTables: readonly PublishedTable[] = [description, mmVetTable, speed, ablation];

/** A table by its name. */
export function findTable(name: string): PublishedTable {
  const found = publishedTables.find((table) => table.name === name);
  if (found) return found;
  throw badOption(`there is no table \`${name}\`; there are ${publishedTables.map((table) => table.name).join(", ")}`);
}

/** A published row beside ours. */
export interface ReproducedRow {
  model: Size;
  method: string;
  variant: "official" | "correct";
  metric: TableMetric;
  /** One value per size; null where there is none. */
  published: (number | null)[];
  ours: (number | null)[];
  /** Why `ours` is empty. */
  note?: string;
}

/**
 * A table with our numbers.
 *
 * @example
 * ```ts
 * import type { Reproduced } from "prefixkv/eval";
 *
 * const reproduced = ({ missing }: Reproduced): boolean => missing.length === 0;
 * console.log(typeof reproduced);
 * ```
 */
export interface Reproduced {
  /** The name of the table. */
  table: string;
  /** The table's title. */
  title: string;
  /** Where it was published. */
  source: string;
  /** Known flaws of the published numbers. */
  faults: string[];
  /** The sizes. */
  keeps: number[];
  /** Missing inputs. If any, nothing is reproduced: ours come from another model or other data, and only show that the grid runs. */
  missing: string[];
  /** Samples that were run. */
  samples: number;
  /** Published numbers and ours. */
  rows: ReproducedRow[];
}

/** Samples where something stands in, unless asked otherwise: enough to see the grid run. */
const few = 4;

/**
 * Runs a published table and puts our numbers next to the published ones: the `official` variant of each method, which replays the
 * published code, and the correct one; anything not built is named. Without the table's model or data the same grid runs on what there
 * is, and `missing` says so: nothing is reproduced then.
 *
 * @example
 * ```ts no-run: runs the whole grid
 * import { load } from "prefixkv";
 * import { reproduce } from "prefixkv/eval";
 *
 * await using model = await load("llava-hf/llava-1.5-7b-hf");
 * const { rows, missing } = await reproduce({ table: "prefixkv-mm-vet", model, data: "data/mm-vet", out: "mm-vet" });
 * for (const { method, variant, metric, published, ours } of rows) console.log(method, variant, metric, published, ours);
 * console.log(missing);
 * ```
 */
export async function reproduce(options: ReproduceOptions): Promise<Reproduced> {
  return run(readReproduce(options));
}

async function run(options: ReproduceOptions): Promise<Reproduced> {
  const table = findTable(options.table);
  const { model } = options;
  const size = sizeOf(model);
  const data = await openData(options.data, options.images === undefined ? {} : { images: options.images });
  const count = Math.min(options.limit ?? data.samples.length, data.samples.length);
  const missing = missingFor(table, size, options.data, count);
  const limit = options.limit ?? (missing.length > 0 ? few : undefined);
  const summary = await evaluate({
    model,
    data,
    methods: methodsOf(table, size),
    keeps: table.keeps,
    out: options.out,
    // The grid has no divergences, and texts only where they are compared or timed.
    kl: false,
    // As the published scripts have it.
    maxTokens: 1024,
    generate: table.rows.some(({ values }) => values.rougeL !== undefined || values.speed !== undefined),
    ...(limit !== undefined && { limit }),
    ...(options.signal && { signal: options.signal }),
    ...(options.onProgress && { onProgress: options.onProgress }),
  });
  const { name, title, source, faults, keeps } = table;
  return {
    table: name,
    title,
    source,
    faults: [...faults],
    keeps: [...keeps],
    missing,
    samples: summary.cells[0]?.samples ?? 0,
    rows: rowsOf(table, size, summary),
  };
}

/** Lists what a table needs and was not given, and where to put it. */
export function missingFor(
  table: PublishedTable,
  size: Size | undefined,
  data: string | undefined,
  samples: number,
): string[] {
  const missing: string[] = [];
  const sizes = [...new Set(table.rows.map(({ model }) => model))];
  if (size === undefined || !sizes.includes(size))
    missing.push(
      `LLaVA-1.5 ${sizes.join(" or ")}: give its folder, in the layout of the Hugging Face hub (config.json, *.safetensors, ` +
        `tokenizer.json), or llava-hf/llava-1.5-${(sizes[0] ?? "7B").toLowerCase()}-hf, with --model`,
    );
  if (table.data && data === undefined)
    missing.push(
      `${table.data.file} (${table.data.samples} samples): give the file or its folder with --data; pictures: ${table.data.images}`,
    );
  else if (table.data && samples !== table.data.samples)
    missing.push(`all ${table.data.samples} samples of ${table.data.file}: ${samples} are run`);
  return missing;
}

/** LLaVA-1.5 by its sizes. */
export function sizeOf(model: Pick<Model, "info">): Size | undefined {
  const { layers, hiddenSize, image } = model.info;
  if (image?.tokens !== 576) return undefined;
  if (layers === 32 && hiddenSize === 4096) return "7B";
  return layers === 40 && hiddenSize === 5120 ? "13B" : undefined;
}

function methodsOf({ ours }: PublishedTable, size: Size | undefined): EvalMethod[] {
  const found = new Map<string, EvalMethod>();
  for (const { method } of Object.values(ours).flat()) {
    if (typeof method !== "function") continue;
    const made = method(size);
    found.set(made.id, made);
  }
  return [...found.values()];
}

function rowsOf(table: PublishedTable, size: Size | undefined, { cells }: Summary): ReproducedRow[] {
  const shown = table.rows.filter(({ model }) => size === undefined || model === size);
  return shown.flatMap(({ model, method, values }) =>
    (table.ours[method] ?? []).flatMap((ours) =>
      Object.entries(values).map(([name, published]): ReproducedRow => {
        const metric = name as TableMetric;
        const values = table.keeps.map((keep) => measuredValue(metric, cellOf(ours, size, cells, keep)));
        const note = noteOf(ours);
        const head = { model, method, variant: ours.variant, metric, published: [...published], ours: values };
        return { ...head, ...(note !== undefined && { note }) };
      }),
    ),
  );
}

function cellOf(
  { method }: Ours,
  size: Size | undefined,
  cells: readonly CellSummary[],
  keep: number,
): CellSummary | undefined {
  if (typeof method !== "function") return undefined;
  const { id } = method(size);
  return cells.find((cell) => cell.method === id && cell.keep === keep);
}

function measuredValue(metric: TableMetric, cell: CellSummary | undefined): number | null {
  if (metric !== "speed") return cell?.[metric]?.value ?? null;
  return cell?.speedup?.median ?? null;
}

function noteOf({ method }: Ours): string | undefined {
  return typeof method === "function" ? undefined : `not built: ${method.notBuilt}`;
}
