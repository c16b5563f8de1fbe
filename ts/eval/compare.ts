import { badOption } from "./errors.ts";
import { type Results, readResults } from "./files.ts";
import { type Difference, type Metric, metrics, type QualityRecord } from "./records.ts";
import { measured, pair, Statistics } from "./summarise.ts";

/**
 * How much worse a metric may get, as a share of what it was: 0.02 allows a perplexity that is 2 % higher, or a ROUGE-L that is 2 %
 * lower.
 *
 * @example
 * ```ts
 * import { compareResults, evaluate, type Thresholds } from "prefixkv/eval";
 *
 * await evaluate({ methods: ["h2o"], keeps: [0.5], limit: 1, out: "results-of-h2o" });
 * const thresholds: Thresholds = { ppl: 0.02, rougeL: 0.01 };
 * console.log((await compareResults("results-of-h2o", "results-of-h2o", thresholds)).worse);
 * ```
 */
export type Thresholds = Partial<Record<Metric, number>>;

/** One metric of one cell in two folders. */
export interface Comparison {
  method: string;
  keep: number;
  metric: Metric;
  before: number;
  after: number;
  /** How much worse it got: positive is worse. A share of `before`, or the plain difference where that is 0. */
  change: number;
  threshold: number;
  worse: boolean;
  /** `after` less `before` over the samples of both, with its paired interval. */
  paired?: Difference;
  /** Whether the interval excludes 0. */
  certain?: boolean;
}

/**
 * The result of a comparison.
 *
 * @example
 * ```ts
 * import { type CompareResult, compareResults, evaluate } from "prefixkv/eval";
 *
 * await evaluate({ methods: ["h2o"], keeps: [0.5], limit: 1, out: "results-of-h2o" });
 * const result: CompareResult = await compareResults("results-of-h2o", "results-of-h2o", { kl: 0.1 });
 * console.log(result.worse, result.missing);
 * ```
 */
export interface CompareResult {
  /** Whether anything got worse by more than its threshold, is missing or is newly refused. */
  worse: boolean;
  /** Every metric with a threshold, of every method at every size. */
  comparisons: Comparison[];
  /** Cells that the second folder lacks, or where it refuses more samples. */
  missing: { method: string; keep: number; reason: string }[];
  /** Why intervals cannot be paired, if they cannot. */
  unpaired?: string;
}

const larger: ReadonlySet<Metric> = new Set(["ppl", "kl"]);

/**
 * Compares two folders of results cell by cell: a regression gate. It is decided by the relative change of each metric against its
 * threshold; whether the paired bootstrap interval of the difference excludes 0 is reported too. A cell that is missing in `after`, or
 * refuses samples that it did not refuse before, counts as worse; cells that only `after` has are ignored.
 *
 * @example
 * ```ts
 * import { compareResults, evaluate } from "prefixkv/eval";
 *
 * await evaluate({ methods: ["h2o"], keeps: [0.5], limit: 1, out: "results-of-h2o" });
 * const { comparisons } = await compareResults("results-of-h2o", "results-of-h2o", { ppl: 0.02 });
 * for (const { method, keep, metric, change } of comparisons) console.log(method, keep, metric, change);
 * ```
 */
export async function compareResults(before: string, after: string, thresholds: Thresholds): Promise<CompareResult> {
  for (const [metric, threshold] of Object.entries(thresholds)) {
    if (!metrics.includes(metric as Metric))
      throw badOption(`\`${metric}\` is no metric; there are ${metrics.join(", ")}`);
    if (!(Number(threshold) >= 0)) throw badOption(`the threshold of \`${metric}\` must be 0 or more`);
  }
  if (Object.keys(thresholds).length === 0) throw badOption("at least one threshold is needed, e.g. ppl=0.02");
  const [a, b] = await Promise.all([readResults(before), readResults(after)]);
  const unpaired = a.run.data.hash === b.run.data.hash ? undefined : "the data differ";
  const statistics = new Statistics(a.run.seed);
  const others = cellsOf(b);
  const comparisons: Comparison[] = [];
  const missing: CompareResult["missing"] = [];
  for (const [key, cell] of cellsOf(a)) {
    const { method, keep } = cell[0] as QualityRecord;
    const other = others.get(key) ?? [];
    const [had, has] = [measured(cell).length, measured(other).length];
    if (has < had)
      missing.push({ method, keep, reason: other.length === 0 ? "missing" : `${had - has} fewer samples` });
    for (const metric of metrics) {
      const threshold = thresholds[metric];
      if (threshold === undefined) continue;
      const found = compareMetric(statistics, metric, threshold, cell, other, unpaired === undefined);
      if (found) comparisons.push({ method, keep, ...found });
    }
  }
  for (const metric of Object.keys(thresholds)) {
    if (!comparisons.some((comparison) => comparison.metric === metric))
      throw badOption(`\`${metric}\` has a threshold, but the two folders have no cell in common that measures it`);
  }
  const worse = missing.length > 0 || comparisons.some((comparison) => comparison.worse);
  return { worse, comparisons, missing, ...(unpaired !== undefined && { unpaired }) };
}

function cellsOf({ quality }: Results): Map<string, QualityRecord[]> {
  const cells = new Map<string, QualityRecord[]>();
  for (const line of quality) {
    const key = JSON.stringify([line.method, line.keep]);
    cells.set(key, [...(cells.get(key) ?? []), line]);
  }
  return cells;
}

function compareMetric(
  statistics: Statistics,
  metric: Metric,
  threshold: number,
  cell: readonly QualityRecord[],
  other: readonly QualityRecord[],
  paired: boolean,
): Omit<Comparison, "method" | "keep"> | undefined {
  const before = statistics.interval(metric, measured(cell))?.value;
  const after = statistics.interval(metric, measured(other))?.value;
  if (before === undefined || after === undefined) return undefined;
  const rise = (after - before) / (before === 0 ? 1 : Math.abs(before));
  const change = larger.has(metric) ? rise : 0 - rise;
  const facts = { metric, before, after, change, threshold, worse: !(change <= threshold) };
  const [theirs, ours] = pair(cell, other);
  const difference = paired ? statistics.difference(metric, ours, theirs) : undefined;
  if (!difference) return facts;
  return { ...facts, paired: difference, certain: difference.low > 0 || difference.high < 0 };
}
