import type { Keep } from "../generated/wire.ts";
import { quantile, Resamples } from "./bootstrap.ts";
import { short } from "./measure.ts";
import {
  type CellSummary,
  type Difference,
  type Measured,
  type Metric,
  metrics,
  type QualityRecord,
  type RunRecord,
  type Spread,
  type Summary,
  type TimingRecord,
} from "./records.ts";

/** A metric as a ratio of sums over samples, and what is done with it: perplexity weighs tokens, the objects count by objects. */
const ratios: Record<Metric, (line: Measured) => [of: number, per: number] | undefined> = {
  ppl: ({ nll, answerTokens }) => [nll, answerTokens],
  rougeL: ({ rougeL }) => one(rougeL),
  agreement: ({ agreement }) => one(agreement),
  kl: ({ kl, answerTokens }) => (kl === undefined ? undefined : [kl * answerTokens, answerTokens]),
  accuracy: ({ correct }) => one(correct),
  right: ({ right, objects }) => (right === undefined || objects === undefined ? undefined : [right, objects]),
};

function one(value: number | undefined): [number, number] | undefined {
  return value === undefined ? undefined : [value, 1];
}

const finish = (metric: Metric, value: number): number => (metric === "ppl" ? Math.exp(value) : value);

/** The whole of a run, or of the part of it that is there. */
export function summarise(
  run: RunRecord,
  quality: readonly QualityRecord[],
  timings: readonly TimingRecord[],
): Summary {
  const cells = new Map<string, { quality: QualityRecord[]; timings: TimingRecord[] }>();
  quality.forEach((line, index) => {
    const key = cellKey(line.method, line.keep);
    const cell = cells.get(key) ?? { quality: [], timings: [] };
    const timing = timings[index];
    cells.set(key, cell);
    cell.quality.push(line);
    if (timing && !("refused" in line)) cell.timings.push(timing);
  });
  const statistics = new Statistics(run.seed);
  const baselineOf = (keep: number): readonly QualityRecord[] =>
    cells.get(run.baseline === "full" ? cellKey("full", 1) : cellKey(run.baseline, keep))?.quality ?? [];
  const total = (of: (timing: TimingRecord) => number): number => timings.reduce((sum, line) => sum + of(line), 0);
  const [wallMs, engineMs] = [total(({ wallMs }) => wallMs), total(({ engineMs }) => engineMs)];
  const fullTimes = new Map(cells.get(cellKey("full", 1))?.timings.map((timing) => [timing.sample, timing]));
  return {
    version: run.version,
    cells: [...cells.values()].map((cell) => {
      const [first] = cell.quality;
      const isBaseline = first?.method === run.baseline;
      const summary = summariseCell(statistics, cell, isBaseline ? undefined : baselineOf(first?.keep ?? 1));
      // Earlier releases measured a cell after the other, which says as much of the machine as of the methods; and the times of lines that
      // share their steps say nothing of each.
      return run.version === 1 || run.batch !== undefined
        ? summary
        : { ...summary, ...speeds(cell.timings, fullTimes) };
    }),
    overhead: { wallMs: short(wallMs), engineMs: short(engineMs), ratio: short(wallMs / engineMs) },
  };
}

function cellKey(method: string, keep: number): string {
  return JSON.stringify([method, keep]);
}

/** Intervals over lines, with the draws of each number of samples made once. */
export class Statistics {
  readonly #seed: number;
  readonly #resamples = new Map<number, Resamples>();

  constructor(seed: number) {
    this.#seed = seed;
  }

  #of(items: number): Resamples {
    const found = this.#resamples.get(items) ?? new Resamples(items, { seed: this.#seed });
    this.#resamples.set(items, found);
    return found;
  }

  /** A metric of lines; undefined where one of them lacks it. */
  #ratios(metric: Metric, lines: readonly Measured[]): { value: number; values: number[] } | undefined {
    const parts = lines.map(ratios[metric]);
    if (lines.length === 0 || parts.some((part) => part === undefined)) return undefined;
    const found = this.#of(lines.length).ratios(
      parts.map((part) => part?.[0] ?? 0),
      parts.map((part) => part?.[1] ?? 0),
    );
    return { value: finish(metric, found.value), values: found.values.map((value) => finish(metric, value)) };
  }

  interval(metric: Metric, lines: readonly Measured[]): { value: number; low: number; high: number } | undefined {
    const found = this.#ratios(metric, lines);
    if (found === undefined) return undefined;
    const { low, high } = this.#of(lines.length).ends(found.values);
    return { value: short(found.value), low: short(low), high: short(high) };
  }

  /** `lines` less `others`, sample by sample: both have the same ones in the same order, and each resample takes the same of both. */
  difference(metric: Metric, lines: readonly Measured[], others: readonly Measured[]): Difference | undefined {
    const [ours, theirs] = [this.#ratios(metric, lines), this.#ratios(metric, others)];
    if (ours === undefined || theirs === undefined) return undefined;
    const differences = ours.values.map((value, index) => value - (theirs.values[index] ?? Number.NaN));
    const { low, high } = this.#of(lines.length).ends(differences);
    return { difference: short(ours.value - theirs.value), low: short(low), high: short(high) };
  }
}

/** The lines that were measured. */
export function measured(lines: readonly QualityRecord[]): Measured[] {
  return lines.filter((line): line is Measured => !("refused" in line));
}

/** The lines of both whose samples are in both, in the same order. */
export function pair(ours: readonly QualityRecord[], theirs: readonly QualityRecord[]): [Measured[], Measured[]] {
  const others = new Map(measured(theirs).map((line) => [line.sample, line]));
  const both = measured(ours).flatMap((line) => {
    const other = others.get(line.sample);
    return other ? [[line, other] as const] : [];
  });
  return [both.map(([line]) => line), both.map(([, other]) => other)];
}

const kinds = ["keptOfText", "keptOfImages", "keptOfAnswer"] as const;

/** Over the samples that have any. */
function meanOf(kind: (typeof kinds)[number], lines: readonly Measured[]): [string, number][] {
  const found = lines.flatMap((line) => line[kind] ?? []);
  return found.length === 0 ? [] : [[kind, short(found.reduce((sum, share) => sum + share, 0) / found.length)]];
}

function summariseCell(
  statistics: Statistics,
  { quality }: { quality: QualityRecord[] },
  baseline: readonly QualityRecord[] | undefined,
): CellSummary {
  const lines = measured(quality);
  const { method = "", keep = 1 } = quality[0] ?? {};
  const refused = quality.flatMap((line) => ("refused" in line ? [line.refused.least] : []));
  const head = { method, keep, samples: lines.length, refused: refused.length };
  const least = refused.length > 0 && { least: largest(refused) };
  const [first] = lines;
  if (first === undefined) return { ...head, ...least };
  const mean = (of: (line: Measured) => number): number =>
    short(lines.reduce((sum, line) => sum + of(line), 0) / lines.length);
  const [ours, theirs] = pair(lines, baseline ?? []);
  const versus = metrics.flatMap((metric) => {
    const difference = statistics.difference(metric, ours, theirs);
    return difference ? [[metric, difference] as const] : [];
  });
  const intervals = metrics.flatMap((metric) => {
    const interval = statistics.interval(metric, lines);
    return interval ? [[metric, interval] as const] : [];
  });
  return {
    ...head,
    ...least,
    ...Object.fromEntries(intervals),
    keptPerLayer: first.keptPerLayer.map((_, layer) => mean((line) => line.keptPerLayer[layer] ?? 0)),
    keptShareAfterPrompt: mean((line) => line.keptShareAfterPrompt),
    keptShare: mean((line) => line.keptShareAtEnd),
    ...Object.fromEntries(kinds.flatMap((kind) => meanOf(kind, lines))),
    effectiveBits: mean((line) => line.effectiveBits),
    residentShare: mean((line) => line.residentBytes / line.fullBytes),
    peakShare: mean((line) => line.peakBytes / line.fullBytes),
    ...(versus.length > 0 && { versus: Object.fromEntries(versus) }),
  };
}

/** The times of a cell over its rounds, also relative to the full cache in the same rounds. */
function speeds(
  timings: readonly TimingRecord[],
  full: ReadonlyMap<string, TimingRecord>,
): Pick<CellSummary, "tokensPerSecond" | "speedup" | "firstTokenMs"> {
  // A text of one token has no steps after it.
  const decoded = timings.filter(({ tokensPerSecond }) => tokensPerSecond > 0);
  const tokensPerSecond = spread(decoded.map((timing) => timing.tokensPerSecond));
  const firstTokenMs = spread(timings.map((timing) => timing.firstTokenMs));
  const speedup = spread(
    decoded.flatMap((timing) => {
      const other = full.get(timing.sample);
      return other && other !== timing && other.tokensPerSecond > 0
        ? [timing.tokensPerSecond / other.tokensPerSecond]
        : [];
    }),
  );
  return {
    ...(tokensPerSecond && { tokensPerSecond }),
    ...(speedup && { speedup }),
    ...(firstTokenMs && { firstTokenMs }),
  };
}

function spread(values: readonly number[]): Spread | undefined {
  if (values.length === 0) return undefined;
  const [low, median, high] = [0.25, 0.5, 0.75].map((at) => short(quantile(values, at))) as [number, number, number];
  return { median, low, high, rounds: values.length };
}

function largest(keeps: readonly Keep[]): Keep {
  const size = (keep: Keep): number => (typeof keep === "number" ? keep : Number(keep.tokens ?? keep.bytes));
  return keeps.reduce((most, keep) => (size(keep) > size(most) ? keep : most));
}
