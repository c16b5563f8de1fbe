// Contents of bench/results/eval-*.json: a folder of `prefixkv/eval`, summed up.
import { type Interval, Resamples } from "../../ts/eval/bootstrap.ts";
import type { Results } from "../../ts/eval/files.ts";
import { short } from "../../ts/eval/measure.ts";
import {
  type CellSummary,
  type Difference,
  type Measured,
  type Metric,
  metrics,
  type QualityRecord,
  type RunRecord,
} from "../../ts/eval/records.ts";
import type { EvalSample } from "../../ts/eval/samples.ts";
import { measured, pair, Statistics, summarise } from "../../ts/eval/summarise.ts";
import type { Origin } from "../machine.ts";

/** A cell without times, with two comparisons more. */
export interface Cell extends Omit<CellSummary, "tokensPerSecond" | "speedup" | "firstTokenMs"> {
  /** The perplexity relative to the full cache's, paired by sample. */
  overFull?: Interval;
  /** Less the random method at the same size, paired by sample. */
  versusRandom?: Partial<Record<Metric, Difference>>;
}

/** Accuracy of guessing the asked questions' answers without their pictures. */
export interface Blind {
  /** Different answers among the samples. */
  answers: number;
  majority: string;
  /** Share of samples with that answer. */
  majorityShare: number;
  /** Share of yes/no questions. */
  yesNo: number;
  /** Right answers of one who says the most frequent answer to yes/no questions, and that to the others. */
  byKind: number;
}

/** Answers that are wrong although the full cache's are right. */
export interface Spoiled {
  answers: number;
  /** How many of them begin with the full cache's answer and say more. */
  begun: number;
}

/** The samples with even numbers alone: the defaults of PrefixKV were chosen on the others. */
export interface Unseen {
  samples: number;
  cells: Pick<CellSummary, "method" | "keep" | "ppl" | "right">[];
}

export interface Evaluated {
  /** The name of the grid; without one, it is the name of its data. */
  grid?: string;
  /** Where its methods were measured; without any, at the one of `timings.origin` or before. */
  commits?: string[];
  run: RunRecord;
  answerTokens: number;
  /** Share of the prompt in all positions at the end of the reference answers. */
  promptShare: number;
  objects?: number;
  /** Written by hand where the figures no longer are of what their names mean now; gone when they are measured anew. */
  note?: string;
  unseen?: Unseen;
  blind?: Blind;
  spoiled?: Spoiled;
  cells: Cell[];
  /** Nothing else here depends on speed. The origin is the machine and commit that summed the folders up. */
  timings: {
    origin: Origin;
    wallMs: number;
    engineMs: number;
    ratio: number;
    cells: ({ method: string; keep: number } & Pick<CellSummary, "tokensPerSecond" | "speedup" | "firstTokenMs">)[];
  };
}

/** Whether a grid is about how entries are stored, and not about how many there are. */
export const isOfStores = ({ grid = "" }: Evaluated): boolean => grid.startsWith("stores-");

export function sumUp({ run, quality, timings }: Results, samples: readonly EvalSample[], origin: Origin): Evaluated {
  const { cells, overhead } = summarise(run, quality, timings);
  const lines = (method: string, keep: number): QualityRecord[] =>
    quality.filter((line) => line.method === method && line.keep === keep);
  const full = measured(lines("full", 1));
  const statistics = new Statistics(run.seed);
  const times: Evaluated["timings"]["cells"] = [];
  const compared = cells.map(({ tokensPerSecond, speedup, firstTokenMs, ...cell }): Cell => {
    const { method, keep } = cell;
    if (tokensPerSecond && firstTokenMs)
      times.push({ method, keep, tokensPerSecond, ...(speedup && { speedup }), firstTokenMs });
    if (method === "full" || cell.samples === 0) return cell;
    const overFull = perplexityOver(pair(lines(method, keep), full), run.seed);
    const [ours, random] = pair(lines(method, keep), lines("random", keep));
    const differences = metrics.flatMap((metric) => {
      const difference = method === "random" ? undefined : statistics.difference(metric, ours, random);
      return difference ? [[metric, difference] as const] : [];
    });
    return {
      ...cell,
      overFull,
      ...(differences.length > 0 && { versusRandom: Object.fromEntries(differences) }),
    };
  });
  const sum = (of: (line: Measured) => number): number => full.reduce((total, line) => total + of(line), 0);
  // The last token of an answer is predicted and never read.
  const share = ({ answerTokens, fullBytes }: Measured): number =>
    1 - ((answerTokens - 1) * run.model.kvBytesPerToken) / fullBytes;
  const objects = sum((line) => line.objects ?? 0);
  const blind = blindOf(samples);
  return {
    run,
    answerTokens: sum((line) => line.answerTokens),
    promptShare: short(sum(share) / full.length),
    ...(objects > 0 && { objects, unseen: unseenOf(quality, samples, statistics) }),
    ...(blind && { blind, spoiled: spoiledOf(measured(quality), full) }),
    cells: compared,
    timings: { origin, ...overhead, cells: times },
  };
}

function unseenOf(quality: readonly QualityRecord[], samples: readonly EvalSample[], statistics: Statistics): Unseen {
  const even = new Set(samples.filter((_, index) => index % 2 === 0).map(({ id }) => id));
  const cells = new Map<string, Measured[]>();
  for (const line of measured(quality)) {
    if (!even.has(line.sample)) continue;
    const key = JSON.stringify([line.method, line.keep]);
    cells.set(key, [...(cells.get(key) ?? []), line]);
  }
  return {
    samples: even.size,
    cells: [...cells.values()].flatMap((lines) => {
      const { method, keep } = lines[0] as Measured;
      const [ppl, right] = [statistics.interval("ppl", lines), statistics.interval("right", lines)];
      return ppl && right ? [{ method, keep, ppl, right }] : [];
    }),
  };
}

function spoiledOf(lines: readonly Measured[], full: readonly Measured[]): Spoiled {
  const right = new Map(full.filter(({ correct }) => correct === 1).map(({ sample, text = "" }) => [sample, text]));
  const wrong = lines.filter(({ sample, correct }) => correct === 0 && right.has(sample));
  const begun = wrong.filter(({ sample, text = "" }) => text.startsWith(right.get(sample) ?? ""));
  return { answers: wrong.length, begun: begun.length };
}

/** exp of the difference of the mean negative log-likelihoods per token. */
function perplexityOver([ours, full]: [Measured[], Measured[]], seed: number): Interval {
  const resamples = new Resamples(ours.length, { seed });
  const { value, values } = resamples.ratios(
    ours.map((line, index) => line.nll - (full[index]?.nll ?? Number.NaN)),
    ours.map((line) => line.answerTokens),
  );
  const { low, high } = resamples.ends(values.map((each) => Math.exp(each)));
  return { value: short(Math.exp(value)), low: short(low), high: short(high) };
}

/** Undefined where samples have no short answers. */
export function blindOf(samples: readonly EvalSample[]): Blind | undefined {
  const answers = samples.flatMap(({ answers }) => answers?.slice(0, 1) ?? []);
  if (answers.length < samples.length || samples.length === 0) return undefined;
  const isYesNo = (answer: string): boolean => answer === "yes" || answer === "no";
  const yesNo = answers.filter(isYesNo);
  const others = answers.filter((answer) => !isYesNo(answer));
  const [majority, most] = mostFrequent(answers);
  return {
    answers: new Set(answers).size,
    majority,
    majorityShare: short(most / answers.length),
    yesNo: short(yesNo.length / answers.length),
    byKind: short((mostFrequent(yesNo)[1] + mostFrequent(others)[1]) / answers.length),
  };
}

function mostFrequent(answers: readonly string[]): [answer: string, count: number] {
  const counts = new Map<string, number>();
  for (const answer of answers) counts.set(answer, (counts.get(answer) ?? 0) + 1);
  return [...counts].reduce<[string, number]>((most, each) => (each[1] > most[1] ? each : most), ["", 0]);
}
