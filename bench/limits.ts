// The machine's own limits and the attention kernels beside them, as criterion measured them (crates/kernels/benches/attention.rs).
// scripts/bench.mjs measures the limits right before and right after everything else, as the baselines `before` and `after`.
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

export interface Limits {
  /** f32 matrix product, GFLOP/s. */
  gemm: number;
  /** Memory read, GB/s. */
  read: number;
}

export interface Rate {
  id: string;
  /** Nanoseconds. */
  median: number;
  /** Standard error of the median, relative to it. */
  error: number;
  /** Billions of FLOPs or bytes per second. */
  rate: number;
}

export type Baseline = "before" | "after";

const criterion = new URL("../target/criterion/", import.meta.url);

interface Estimates {
  median: { point_estimate: number; standard_error: number };
}

interface Benchmark {
  full_id: string;
  throughput: { Elements?: number; Bytes?: number };
}

/** One measurement from the text of criterion's two files: work per nanosecond is billions per second. */
export function rateOf(estimates: string, benchmark: string): Rate {
  const { median }: Estimates = JSON.parse(estimates);
  const { full_id: id, throughput }: Benchmark = JSON.parse(benchmark);
  const work = throughput.Elements ?? throughput.Bytes ?? Number.NaN;
  return {
    id,
    median: median.point_estimate,
    error: median.standard_error / median.point_estimate,
    rate: work / median.point_estimate,
  };
}

/** All measurements of a group that the baseline has. */
export function rates(group: string, baseline: Baseline): Rate[] {
  const folder = new URL(`${group}/`, criterion);
  const files = readdirSync(folder, { recursive: true }) as string[];
  return files
    .filter((file) => file.replaceAll("\\", "/").endsWith(`${baseline}/estimates.json`))
    .map((file) => fileURLToPath(new URL(file.replaceAll("\\", "/"), folder)))
    .map((file) => rateOf(readFileSync(file, "utf8"), readFileSync(file.replace("estimates", "benchmark"), "utf8")))
    .sort((a, b) => a.id.localeCompare(b.id, "en", { numeric: true }));
}

function limits(baseline: Baseline): Limits {
  const found = rates("limits", baseline);
  const rate = (id: string): number => {
    const one = found.find((measured) => measured.id === id);
    if (!one)
      throw new Error(`criterion has no ${id} of the baseline ${baseline}; start the benches with \`npm run bench\``);
    return one.rate;
  };
  return { gemm: rate("limits/gemm"), read: rate("limits/read") };
}

/** The machine's best rates while the benches ran. */
export function best(a: Limits, b: Limits): Limits {
  return { gemm: Math.max(a.gemm, b.gemm), read: Math.max(a.read, b.read) };
}

/** The limits of a run: the better of both measurements, and both. */
export interface RunLimits extends Limits {
  before: Limits;
  after: Limits;
}

/** The limits that were measured right before and right after everything else. */
export function runLimits(): RunLimits {
  const [before, after] = [limits("before"), limits("after")];
  return { ...best(before, after), before, after };
}
