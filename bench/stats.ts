// Statistics that hold up on a shared machine: medians, never means.
import { quantile } from "../ts/eval/bootstrap.ts";

export interface Summary {
  n: number;
  median: number;
  /** Quartiles: half of the samples lie between them. */
  low: number;
  high: number;
  min: number;
}

export function summarise(samples: readonly number[]): Summary {
  return {
    n: samples.length,
    median: quantile(samples, 0.5),
    low: quantile(samples, 0.25),
    high: quantile(samples, 0.75),
    min: quantile(samples, 0),
  };
}

/** The ratios of samples that were taken one right after the other, which share whatever else the machine did. */
export function paired(ours: readonly number[], theirs: readonly number[]): number[] {
  if (ours.length !== theirs.length) throw new RangeError(`${ours.length} samples against ${theirs.length}`);
  return ours.map((value, index) => value / (theirs[index] ?? Number.NaN));
}

/** Three significant digits. */
export function digits(value: number): string {
  if (value === 0 || !Number.isFinite(value)) return String(value);
  const places = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return value.toFixed(Math.min(places, 6));
}

export function percent(value: number): string {
  return `${(100 * value).toFixed(0)} %`;
}

/** Half the distance of the quartiles, relative to the median. */
export function spread(summary: Summary): string {
  return `±${percent((summary.high - summary.low) / 2 / summary.median)}`;
}

/** Rows of a Markdown table; the first is its head. */
export function table(rows: readonly (readonly string[])[]): string {
  const [head = [], ...body] = rows;
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...body.map(line)].join("\n");
}
