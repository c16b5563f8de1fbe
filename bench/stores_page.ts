// The table of stores on a trained model, for the page of bench/stores.ts and for docs/results.md.
import type { Interval } from "../ts/eval/bootstrap.ts";
import { interval } from "./grids/statements.ts";
import { type Summary, table } from "./stats.ts";

/** A cache on the text; `bench/results/<machine>-stores.json` holds these. Bytes are of the end, `peak` of any time. */
export interface StoreRow {
  name: string;
  ppl: number;
  kl: number;
  rouge: number;
  intervals: Record<"ppl" | "overFull" | "kl" | "rouge", Interval>;
  speed: Summary;
  payload: number;
  scales: number;
  resident: number;
  peak: number;
  /** Of keys and values of a full cache. */
  full: number;
  effectiveBits: number;
  commit?: string;
}

/** The file of rows. */
export interface StoresReport {
  rows: StoreRow[];
  /** Written by hand where something is to be said of the figures; gone when all are measured anew. */
  note?: string;
}

const shown = (found: Interval, places: number): string => interval(found, (end) => end.toFixed(places));

export function storesTable(rows: readonly StoreRow[]): string {
  return table([
    ["cache", "perplexity", "times full", "divergence", "ROUGE-L", "bits", "stored", "resident", "peak", "speed"],
    ...rows.map(({ name, intervals, speed, effectiveBits, payload, scales, resident, peak, full }) => [
      name,
      shown(intervals.ppl, 3),
      shown(intervals.overFull, 3),
      shown(intervals.kl, 4),
      shown(intervals.rouge, 2),
      effectiveBits.toFixed(2),
      ((payload + scales) / full).toFixed(3),
      (resident / full).toFixed(3),
      (peak / full).toFixed(3),
      speed.median.toFixed(2),
    ]),
  ]);
}
