import { type Comparison, compareResults, type Thresholds } from "../../eval/compare.ts";
import { metrics } from "../../eval/records.ts";
import { formatColumns } from "../../format.ts";
import { UsageError } from "../args.ts";
import type { Command } from "../command.ts";

/** Compares two folders of results and fails when the second is worse. */
export const compare: Command = {
  name: "compare",
  summary: "fail when the second folder of results is worse than the first",
  positional: "DIR...",
  flags: [
    {
      name: "threshold",
      type: "string",
      value: "LIST",
      text: "how much worse each metric may be, relatively: ppl=0.02,rougeL=0.01",
      required: true,
    },
  ],
  async run(values, context) {
    const [before, after, ...more] = values.positionals;
    if (before === undefined || after === undefined || more.length > 0)
      throw new UsageError("compare needs two folders of results: the one before and the one after");
    const found = await compareResults(before, after, parseThresholds(values.text("threshold") ?? ""));
    if (!values.has("json")) {
      const head = [
        "method",
        "keep",
        "metric",
        "before",
        "after",
        "worse by",
        "threshold",
        "interval of the difference",
        "",
      ];
      context.out(formatColumns([head, ...found.comparisons.map(row)]));
      for (const { method, keep, reason } of found.missing) context.out(`${method} ${keep}: ${reason} in ${after}\n`);
      if (found.unpaired !== undefined) context.out(`no intervals: ${found.unpaired}\n`);
      context.out(found.worse ? "worse\n" : "not worse\n");
    }
    return { before, after, ...found };
  },
  failed: ({ worse }) => worse === true,
};

function row({ method, keep, metric, before, after, change, threshold, worse, paired, certain }: Comparison): string[] {
  const interval = paired
    ? `${paired.low.toPrecision(3)} to ${paired.high.toPrecision(3)}${certain ? "" : " (holds 0)"}`
    : "";
  const percent = (share: number): string => `${(100 * share).toFixed(2)} %`;
  return [
    method,
    String(keep),
    metric,
    before.toPrecision(5),
    after.toPrecision(5),
    before === 0 ? change.toPrecision(3) : percent(change),
    before === 0 ? String(threshold) : percent(threshold),
    interval,
    worse ? "WORSE" : "",
  ];
}

function parseThresholds(text: string): Thresholds {
  const thresholds: Record<string, number> = {};
  for (const item of text.split(",")) {
    const [, name = "", value = ""] = /^\s*(\w+)\s*=\s*([\d.eE+-]+)\s*$/.exec(item) ?? [];
    const number = value === "" ? Number.NaN : Number(value);
    if (!metrics.some((metric) => metric === name) || !(number >= 0))
      throw new UsageError(
        `--threshold needs METRIC=SHARE with commas, such as ppl=0.02, not \`${item}\`; the metrics are ${metrics.join(", ")}`,
      );
    thresholds[name] = number;
  }
  return thresholds;
}
