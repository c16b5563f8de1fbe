// Puts what batch.ts measured beside one request after the other and the machine's bandwidth: bench/results/<machine>-batch.json
// and .md.
import { readFile } from "node:fs/promises";
import { type BatchSuite, raw, type Series } from "./batch.ts";
import { type RunLimits, runLimits } from "./limits.ts";
import { heading, keep, type Origin, origin } from "./machine.ts";
import { digits, paired, percent, type Summary, spread, summarise, table } from "./stats.ts";

export interface Together {
  requests: number;
  /** Milliseconds of a step. */
  step: Summary;
  /** Tokens a second of all requests. */
  rate: number;
  /** The same over one request after the other, round by round. */
  gain: Summary;
  /** Billions of bytes a second that a step reads. */
  bytes: number;
}

interface Report extends BatchSuite {
  origin: Origin;
  limits: RunLimits;
  compared: { model: string; formats: string[]; together: Together[] }[];
}

/** Every number of requests of a series beside one alone. */
export function compare(series: Series, context: number): Together[] {
  const alone = series.steps.find(({ requests }) => requests === 1);
  if (!alone) throw new Error("there is no request alone");
  return series.steps.map(({ requests, times }) => {
    const step = summarise(times);
    return {
      requests,
      step,
      rate: (1000 * requests) / step.median,
      gain: summarise(paired(alone.times, times).map((ratio) => requests * ratio)),
      bytes: (series.weightBytes + requests * context * series.entryBytes) / (step.median * 1e6),
    };
  });
}

export function markdown(report: Omit<Report, "series">): string {
  const { limits: limit } = report;
  const rows = report.compared.flatMap(({ model, formats, together }) =>
    together.map((one) => [
      model,
      formats.join(" + "),
      String(one.requests),
      `${digits(one.step.median)} ms ${spread(one.step)}`,
      digits(one.rate),
      `${digits(one.gain.median)} (${digits(one.gain.low)} to ${digits(one.gain.high)})`,
      `${digits(one.bytes)} (${percent(one.bytes / limit.read)})`,
    ]),
  );
  const head = ["model", "weights", "requests", "a step", "tokens a second", "times one by one", "GB/s (of read)"];
  const change = percent(limit.after.read / limit.before.read - 1);
  return `${heading("What requests together gain", report.origin)}

Decoding with the option \`batch\`: requests with prompts of ${report.context} tokens join one by one and go on while ${report.steps} steps are timed. *times one
by one*: tokens a second of all requests together over those of one request after the other in the same round; ${report.rounds} rounds,
medians with quartiles in brackets. A step reads the weights once and the cache of every request; reading was measured at
${digits(limit.read)} GB/s, which changed by ${change} between the start and the end of the run; the better one counts.

${table([head, ...rows])}

The shapes are \`smol\` (135m) and \`even\` (122m-even) in bench/random_model.ts. Reading the prompts is not in these figures: it takes as
long together as one after the other.
`;
}

async function main(): Promise<void> {
  const suite: BatchSuite = JSON.parse(await readFile(raw, "utf8"));
  const report: Report = {
    origin: await origin(),
    limits: runLimits(),
    compared: suite.series.map((series) => ({
      model: series.model,
      formats: Object.keys(series.weightFormats),
      together: compare(series, suite.context),
    })),
    ...suite,
  };
  await keep("batch", suite.quick, report, markdown(report));
}

if (import.meta.main) await main();
