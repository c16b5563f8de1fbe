// Puts what the suite measured beside the limits of the same run: bench/results/<machine>.json and .md.
import { readFile } from "node:fs/promises";
import { type Limits, type Rate, type RunLimits, rates, runLimits } from "./limits.ts";
import { heading, keep, type Origin, origin } from "./machine.ts";
import { digits, percent, spread, table } from "./stats.ts";
import { raw, type Speed, type Suite } from "./suite.ts";

export interface Report extends Suite {
  origin: Origin;
  limits: RunLimits;
  kernels: Rate[];
}

/** Share of the f32 product rate that a prefill reaches. */
export function prefillShare(speed: Speed, limit: Limits): number {
  return speed.prefillFlops / (speed.prefill.median * 1e6) / limit.gemm;
}

/** Share of the memory bandwidth that decode reaches. */
export function decodeShare(speed: Speed, limit: Limits): number {
  return speed.decodeBytes / (speed.decode.median * 1e6) / limit.read;
}

export function markdown(report: Report): string {
  const { limits: limit } = report;
  const change = (name: keyof Limits): string => percent(limit.after[name] / limit.before[name] - 1);
  const held = (formats: Record<string, number>): string => Object.keys(formats).join(" + ");
  const speeds = report.speeds.map((speed) => [
    speed.model,
    held(speed.weightFormats),
    String(speed.context),
    `${digits(speed.prefill.median)} ms ${spread(speed.prefill)}`,
    percent(prefillShare(speed, limit)),
    `${digits(speed.decode.median)} ms ${spread(speed.decode)}`,
    percent(decodeShare(speed, limit)),
  ]);
  const kernels = report.kernels.map(({ id, error, rate }) => {
    const share = rate / (id.startsWith("prefill/") ? limit.gemm : limit.read);
    return [id, percent(share), `±${percent(error)}`];
  });
  const calls = report.calls.map(({ name, unit, summary }) => [
    name,
    `${digits(summary.median)} ${unit} ${spread(summary)}`,
  ]);
  return `${heading("Speed beside the machine's limits", report.origin)}

Medians with half the distance of their quartiles. Shares are of the limits measured in the same run: prefill of the f32 matrix
product rate, decode of the memory read bandwidth. Between the start and the end of the run these changed by ${change("gemm")} and
${change("read")}; the better ones count. Weights are random, the shapes are in bench/random_model.ts.

${table([["model", "weights", "tokens", "prefill", "of GEMM", "decode, a token", "of bandwidth"], ...speeds])}

## Attention kernels

${table([["bench (heads, entries)", "of its limit", "error"], ...kernels])}

## Calls

${table([["what", "time"], ...calls])}
`;
}

async function main(): Promise<void> {
  const suite: Suite = JSON.parse(await readFile(raw, "utf8"));
  const kernels = suite.quick ? [] : [...rates("prefill", "before"), ...rates("decode", "before")];
  const report: Report = {
    origin: await origin(),
    limits: runLimits(),
    ...suite,
    kernels,
  };
  await keep("", suite.quick, report, markdown(report));
}

if (import.meta.main) await main();
