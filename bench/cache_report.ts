// Puts what cache.ts measured beside what the bytes predict: bench/results/<machine>-cache.json and .md.
import { readFile } from "node:fs/promises";
import { type CacheSuite, type Measured, raw, type Series, whole } from "./cache.ts";
import { type RunLimits, runLimits } from "./limits.ts";
import { heading, keep, type Origin, origin } from "./machine.ts";
import { digits, paired, percent, type Summary, spread, summarise, table } from "./stats.ts";

export interface Compared {
  name: string;
  /** Prompt time relative to the full cache's, round by round. */
  prefill: Summary;
  /** Time of a generated token with the full cache over this one, round by round: above 1 this one is faster. */
  gain: Summary;
  /** The same ratio of bytes. */
  predicted: number;
  /** Milliseconds per token. */
  decode: Summary;
  /** Weights and cache that a step reads. */
  stepBytes: number;
  /** Billions of these bytes per second. */
  rate: number;
  resident: number;
  payload: number;
  peak: number;
}

interface Report extends CacheSuite {
  origin: Origin;
  limits: RunLimits;
  compared: { model: string; context: number; variants: Compared[] }[];
}

/** Every variant of a series beside the full cache. */
export function compare({ measured, weightBytes }: Series): Compared[] {
  const reference = measured.find(({ name }) => name === whole);
  if (!reference) throw new Error(`there is no ${whole}`);
  // A step reads what the pool holds; the few tokens of the run hardly change it.
  const bytes = ({ memory }: Measured): number => weightBytes + memory.resident;
  return measured.map((one) => {
    const decode = summarise(one.decode);
    return {
      name: one.name,
      prefill: summarise(paired(one.prefill, reference.prefill)),
      gain: summarise(paired(reference.decode, one.decode)),
      predicted: bytes(reference) / bytes(one),
      decode,
      stepBytes: bytes(one),
      rate: bytes(one) / (decode.median * 1e6),
      resident: one.memory.resident / one.memory.payload,
      payload: one.memory.payload / one.memory.full,
      peak: one.memory.peak / one.memory.full,
    };
  });
}

export function markdown(report: Omit<Report, "series">): string {
  const { limits: limit } = report;
  const change = percent(limit.after.read / limit.before.read - 1);
  const quartiles = ({ median, low, high }: Summary): string => `${digits(median)} (${digits(low)} to ${digits(high)})`;
  const sections = report.compared.map(({ model, context, variants }) => {
    const rows = variants.map((one) => [
      one.name,
      quartiles(one.prefill),
      `${digits(one.decode.median)} ms ${spread(one.decode)}`,
      quartiles(one.gain),
      digits(one.predicted),
      `${digits(one.rate)} (${percent(one.rate / limit.read)})`,
      one.resident.toFixed(3),
      one.payload.toFixed(3),
      one.peak.toFixed(3),
    ]);
    const head = [
      "cache",
      "prompt, times full",
      "a token",
      "faster than full",
      "by bytes",
      "GB/s (of read)",
      "resident / payload",
      "payload / full",
      "peak / full",
    ];
    return `## ${model}, ${context} tokens\n\n${table([head, ...rows])}`;
  });
  return `${heading("What a smaller cache costs and gains", report.origin)}

Ratios are of runs of the same round, ${report.rounds} rounds, medians with quartiles in brackets; every other round runs backwards. Weights and
cache are f32, ${report.steps} tokens are generated, the prompt's words are drawn. *prompt, times full*: time until the prompt is read and
compacted, over that with the full cache. *by bytes*: the ratio of weights and resident cache that a step must read. Reading was
measured at ${digits(limit.read)} GB/s, which changed by ${change} between the start and the end of the run; the better one counts. *full* is
what the positions seen would take in the plain cache, without bookkeeping.

${sections.join("\n\n")}

The shapes are \`plain\` (as many KV heads as heads) and \`grouped\` (three heads to a KV head) in bench/random_model.ts. Random weights
spread attention evenly, so the layers' sizes hardly differ; the work does not depend on that.
`;
}

async function main(): Promise<void> {
  const suite: CacheSuite = JSON.parse(await readFile(raw, "utf8"));
  const report: Report = {
    origin: await origin(),
    limits: runLimits(),
    compared: suite.series.map((series) => ({
      model: series.model,
      context: series.context,
      variants: compare(series),
    })),
    ...suite,
  };
  await keep("cache", suite.quick, report, markdown(report));
}

if (import.meta.main) await main();
