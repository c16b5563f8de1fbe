import { OptionError } from "../../errors.ts";
import { openData } from "../../eval/data/open.ts";
import { evaluate, loadingOf } from "../../eval/evaluate.ts";
import { readMethodList } from "../../eval/method_file.ts";
import type { EvalProgress } from "../../eval/options.ts";
import { type CellSummary, leastRounds, type Spread } from "../../eval/records.ts";
import { formatColumns, formatDuration } from "../../format.ts";
import type { Model } from "../../model.ts";
import { UsageError } from "../args.ts";
import { type Command, type Context, loadFlags } from "../command.ts";
import { withModel } from "../loading.ts";
import { ProgressBar } from "../progress_bar.ts";

/** Measures methods at several sizes over samples. */
export const evalCommand: Command = {
  name: "eval",
  summary: "measure methods at several sizes over samples: quality, size and speed",
  flags: [
    {
      name: "methods",
      type: "string",
      value: "LIST",
      text: "e.g. h2o,prefixkv:score=text,decode=none; *.json is a file of methods",
      required: true,
    },
    { name: "keeps", type: "string", value: "LIST", text: "the sizes as shares, e.g. 0.5,0.2", required: true },
    {
      name: "out",
      type: "string",
      value: "DIR",
      text: "folder of the results; goes on with what is there",
      required: true,
    },
    {
      name: "data",
      type: "string",
      value: "DATA",
      text: "`scenes` (default), a file of samples, or a folder with one",
    },
    { name: "images", type: "string", value: "DIR", text: "folder of the pictures, where it is not the usual one" },
    { name: "limit", type: "integer", value: "N", text: "only the first N samples" },
    { name: "baseline", type: "string", value: "ID", text: "what the others are compared with (default: full)" },
    { name: "max-tokens", type: "integer", value: "N", text: "most tokens of a text (default: 256)" },
    { name: "seed", type: "integer", value: "N", text: "of the resampling, and of random (default: 1)" },
    {
      name: "batch",
      type: "integer",
      value: "N",
      text: "lines measured at once (default: 1): faster, with times that say nothing",
    },
    { name: "no-generate", type: "boolean", text: "generate no texts: perplexity and divergence only" },
    { name: "no-kl", type: "boolean", text: "do not compare whole distributions, which saves a pass per sample" },
    ...loadFlags,
  ],
  async run(values, context) {
    const methods = await asUsage(() => readMethodList(values.text("methods") ?? ""));
    const keeps = parseShares("keeps", values.text("keeps") ?? "");
    const out = values.text("out") ?? "";
    const images = values.text("images");
    const data = await openData(values.text("data"), images === undefined ? {} : { images });
    const measure = async (model: Model) => {
      const bar = new ProgressBar(context);
      const summary = await evaluate({
        model,
        data,
        methods,
        keeps,
        out,
        ...values.options(["limit", "baseline", "max-tokens", "seed", "batch"]),
        generate: !values.has("no-generate"),
        kl: !values.has("no-kl"),
        signal: context.signal,
        onProgress: (progress) => bar.update(shown(progress)),
      }).finally(() => bar.clear());
      if (!values.has("json")) printCells(summary.cells, context, out);
      return { model: model.info.source, data: data.name, out, ...summary };
    };
    const { batch = 1 } = values.options(["batch"]) as { batch?: number };
    return withModel(values, context, measure, loadingOf(batch));
  },
};

/** Progress as the bar shows it, with the time left. */
export function shown({ done, total, next, calibrating, millisecondsLeft }: EvalProgress): {
  stage: string;
  done: number;
  total: number;
} {
  if (calibrating) return { ...calibrating, stage: `calibrating ${calibrating.method}` };
  const what = next ? `${next.method} ${next.keep}, ${next.sample}` : "done";
  const left = millisecondsLeft === undefined ? "" : `, ${formatDuration(millisecondsLeft)} left`;
  return { stage: `${what}${left}`, done, total };
}

/** Reads shares with commas between. */
export function parseShares(flag: string, text: string): number[] {
  const shares = text.split(",").map((item) => (item.trim() === "" ? Number.NaN : Number(item)));
  if (shares.every((share) => share > 0 && share <= 1)) return shares;
  throw new UsageError(`--${flag} needs shares above 0 and up to 1 with commas, such as 0.5,0.2, not \`${text}\``);
}

/** Reads an argument, turning an OptionError into a UsageError. */
export async function asUsage<T>(read: () => T | Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (error instanceof OptionError) throw new UsageError(error.message.replace(/^invalid option: /, ""));
    throw error;
  }
}

export function printCells(cells: readonly CellSummary[], context: Pick<Context, "out">, out: string): void {
  const head = [
    "method",
    "keep",
    "perplexity",
    "ROUGE-L",
    "agreement",
    "KL",
    "right",
    "kept at end",
    "resident at end",
    "tokens/s",
  ];
  const rows = cells.map((cell): string[] => {
    const { method, keep, refused, samples, least, tokensPerSecond } = cell;
    if (samples === 0) return [method, String(keep), `refused; least ${JSON.stringify(least)}`];
    const right = cell.right ?? cell.accuracy;
    const fixed = (value: number | undefined, digits: number): string => value?.toFixed(digits) ?? "";
    return [
      refused > 0 ? `${method} (${refused} refused)` : method,
      String(keep),
      interval(cell.ppl, 3),
      fixed(cell.rougeL?.value, 3),
      fixed(cell.agreement?.value, 3),
      fixed(cell.kl?.value, 3),
      right ? `${(100 * right.value).toFixed(0)} %` : "",
      fixed(cell.keptShare, 3),
      fixed(cell.residentShare, 3),
      spread(tokensPerSecond),
    ];
  });
  context.out(`${formatColumns([head, ...rows])}wrote ${out}\n`);
}

function interval(found: { value: number; low: number; high: number } | undefined, digits: number): string {
  if (!found) return "";
  const [value, low, high] = [found.value, found.low, found.high].map((number) => number.toFixed(digits));
  return `${value} (${low} to ${high})`;
}

/** Median and quartiles; empty if there are too few rounds. */
function spread(found: Spread | undefined): string {
  if (!found || found.rounds < leastRounds) return "";
  return `${found.median.toFixed(1)} (${found.low.toFixed(1)} to ${found.high.toFixed(1)})`;
}
