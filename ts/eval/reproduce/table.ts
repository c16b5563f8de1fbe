import type { EvalMethod } from "../methods.ts";

/** The models of the published tables. */
export type Size = "7B" | "13B";

/** Our counterpart of a published row. */
export interface Ours {
  /** `official` replays the published code with its faults; `correct` is the algorithm as it is meant. */
  variant: "official" | "correct";
  /** The method for a model, or why there is none. */
  method: ((size: Size | undefined) => EvalMethod) | { notBuilt: string };
}

/** A published row: a method on a model, one value per size. */
export interface PublishedRow {
  model: Size;
  method: string;
  /** By metric, in the order of the table's sizes; null where the source has none. */
  values: Partial<Record<TableMetric, readonly (number | null)[]>>;
}

/** `speed` is tokens per second relative to the full cache. */
export type TableMetric = "ppl" | "rougeL" | "speed";

/**
 * A published table with what is run for it.
 *
 * @example
 * ```ts
 * import { type PublishedTable, publishedTables } from "prefixkv/eval";
 *
 * for (const { name, title, keeps } of publishedTables as readonly PublishedTable[]) console.log(name, title, keeps);
 * ```
 */
export interface PublishedTable {
  /** Its name for `prefixkv reproduce`. */
  name: string;
  /** The table's title. */
  title: string;
  /** Where it was published. */
  source: string;
  /** Known flaws of the numbers, so that nobody reads too much into them. */
  faults: readonly string[];
  /** The file of the data, where it has to be, and how many samples it holds. */
  data: { file: string; images: string; samples: number } | null;
  /** The sizes. */
  keeps: readonly number[];
  /** The published numbers. */
  rows: readonly PublishedRow[];
  /** The runs that stand for each published method. */
  ours: Readonly<Record<string, readonly Ours[]>>;
}

/** The published configuration for a model; without one of these, sizes are searched per prompt. */
function configuration(size: Size | undefined): Record<string, unknown> {
  return size === undefined ? {} : { calibration: `llava-1.5-${size.toLowerCase()}` };
}

/** PrefixKV with the published sizes: with the published code's positions, and with true ones. */
export const prefixkvOffline: readonly Ours[] = [
  {
    variant: "official",
    method: (size) => ({
      id: "prefixkv, official",
      cache: { method: "prefixkv", ...configuration(size), positions: "official", variant: "official" },
    }),
  },
  {
    variant: "correct",
    method: (size) => ({ id: "prefixkv", cache: { method: "prefixkv", ...configuration(size), variant: "paper" } }),
  },
];

/** Our counterparts of the published methods in the quality tables. */
export const qualityMethods: Readonly<Record<string, readonly Ours[]>> = {
  Local: [
    { variant: "official", method: { notBuilt: "the published code's positions are built for PrefixKV only" } },
    {
      variant: "correct",
      method: () => ({ id: "local", cache: { method: "streaming", sinks: 1 } }),
    },
  ],
  H2O: [
    { variant: "official", method: { notBuilt: "one set of entries for all layers, selected by a wrong sort" } },
    { variant: "correct", method: () => ({ id: "h2o", cache: { method: "h2o" } }) },
  ],
  Elastic: [
    { variant: "official", method: { notBuilt: "Elastic Cache with its wrong sort" } },
    { variant: "correct", method: { notBuilt: "Elastic Cache, which merges entries" } },
  ],
  PrefixKV: prefixkvOffline,
};

/** The sizes of the quality tables. */
export const tenths: readonly number[] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];

export const source =
  "Wang et al. 2024, PrefixKV, arXiv 2412.03409; tables of the repository THU-MIG/PrefixKV, read off its figures";

/** Known flaws of the published numbers. */
export const faults: readonly string[] = [
  "the perplexities were computed in bf16 and lie on its grid: expect a step of 1/64 to 1/32 and a percent of rounding",
  "while generating, the published code takes positions from the compacted length of the first layer, which differs by method",
  "H2O and Elastic of that code family select nearly at random, because indices are taken for ranks",
  "the checkpoint was tuned anew without the evaluation samples; the public LLaVA-1.5 has seen detail_1k",
];

/** Reads `4.41/.43 3.69/.51 ...` as perplexities and ROUGE-L. */
export function pairs(model: Size, method: string, text: string): PublishedRow {
  const cells = text.trim().split(/\s+/);
  const read = (index: 0 | 1): number[] => cells.map((cell) => Number(cell.split("/")[index]));
  return { model, method, values: { ppl: read(0), rougeL: read(1) } };
}
