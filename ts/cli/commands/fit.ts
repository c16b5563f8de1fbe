import { openData } from "../../eval/data/open.ts";
import { type EvalMethod, parseMethod, splitMethods } from "../../eval/methods.ts";
import { promptOf } from "../../eval/samples.ts";
import type { FitOptions } from "../../fit/options.ts";
import { formatBytes, formatColumns, parseBytes } from "../../format.ts";
import type { CacheMethod } from "../../generated/methods.ts";
import { UsageError } from "../args.ts";
import { type Command, loadFlags } from "../command.ts";
import { withModel } from "../loading.ts";
import { ProgressBar } from "../progress_bar.ts";
import type { Values } from "../values.ts";
import { asUsage } from "./eval.ts";

/** Searches method, size and store for the best quality within some bytes. */
export const fit: Command = {
  name: "fit",
  summary: "find what to keep, and in how many bits, for the best answers within some bytes",
  flags: [
    {
      name: "bytes",
      type: "string",
      value: "LIST",
      text: "most bytes of the cache, e.g. 32MiB or 8MiB,16MiB",
      required: true,
    },
    {
      name: "out",
      type: "string",
      value: "FILE",
      text: "the JSON file to write; goes on after an interruption",
      required: true,
    },
    { name: "data", type: "string", value: "DATA", text: "samples as `eval` takes them (default: `scenes`)" },
    { name: "images", type: "string", value: "DIR", text: "folder of the pictures, where it is not the usual one" },
    { name: "limit", type: "integer", value: "N", text: "only the first N samples" },
    {
      name: "objective",
      type: "string",
      value: "NAME",
      text: "ppl (default), or kl, the divergence from the full cache",
    },
    {
      name: "methods",
      type: "string",
      value: "LIST",
      text: "methods to choose from, e.g. h2o,prefixkv:decode=none; `none`: keep all",
    },
    {
      name: "stores",
      type: "string",
      value: "LIST",
      text: "stores to choose from, e.g. int8,int4:window=16; `none`: full precision",
    },
    {
      name: "sharing",
      type: "string",
      value: "LIST",
      text: "maps of layers that share to choose from, e.g. kvsharer:calibration=map.json,layers=2",
    },
    ...loadFlags,
  ],
  async run(values, context) {
    const bytes = parseList(values.text("bytes") ?? "");
    const choices = (["methods", "stores", "sharing"] as const).map((flag) => parseChoices(values, flag));
    const [methods, stores, sharing] = await Promise.all(choices);
    const objective = values.text("objective") ?? "ppl";
    if (objective !== "ppl" && objective !== "kl")
      throw new UsageError(`--objective is ppl or kl, not \`${objective}\``);
    const images = values.text("images");
    const data = await openData(values.text("data"), images === undefined ? {} : { images });
    const samples = data.samples.slice(0, limitOf(values));
    const file = values.text("out") ?? "";
    return withModel(values, context, async (model) => {
      const bar = new ProgressBar(context);
      const found = await model
        .fit({
          bytes,
          samples: samples.map((sample) => ({ ...promptOf(sample), answer: sample.answer })),
          objective,
          ...(methods && { methods }),
          ...(stores && { stores }),
          ...(sharing && { sharing }),
          file,
          onProgress: bar.update,
          signal: context.signal,
        } satisfies FitOptions)
        .finally(() => bar.clear());
      if (!values.has("json")) {
        const quality = (loss: number): string => (objective === "ppl" ? Math.exp(loss) : loss).toPrecision(5);
        const head = ["bytes", "used", objective === "ppl" ? "perplexity" : "divergence", "cache"];
        const rows = found.curve.map((point) => [
          formatBytes(point.bytes),
          formatBytes(point.resident),
          quality(point.loss),
          JSON.stringify(point.cache),
        ]);
        const full = ["full", formatBytes(found.full.resident), quality(found.full.loss), ""];
        context.out(`${formatColumns([head, ...rows, full])}wrote ${file}\n`);
      }
      return { model: model.info.source, data: data.name, file, fit: found };
    });
  },
};

function parseList(text: string): number[] {
  const found = text.split(",").map((item) => parseBytes(item) ?? 0);
  if (found.every((bytes) => bytes >= 1)) return found;
  throw new UsageError(`--bytes needs sizes such as 32MiB, with commas between several, not \`${text}\``);
}

async function parseChoices(
  values: Values,
  flag: "methods" | "stores" | "sharing",
): Promise<CacheMethod[] | undefined> {
  const text = values.text(flag);
  if (text === undefined) return undefined;
  if (text.trim() === "none") return [];
  const found = await asUsage(() => splitMethods(text).map(parseMethod));
  // Methods that are written on a command line are one stage.
  return found.map(({ cache }: EvalMethod) => cache as unknown as CacheMethod);
}

function limitOf(values: Values): number | undefined {
  const limit = values.number("limit");
  if (limit === undefined || limit >= 1) return limit;
  throw new UsageError(`--limit needs a whole number from 1, not \`${limit}\``);
}
