import type { CacheOption } from "../../cache.ts";
import { formatBars, formatBytes, formatCount, formatShare, formatTable, formatTime } from "../../format.ts";
import { generationFlags } from "../../generated/flags.ts";
import type { GenerationResult, Memory, ModelInfo } from "../../generated/wire.ts";
import { image } from "../../media.ts";
import type { Model } from "../../model.ts";
import type { GenerateOptions } from "../../options/requests.ts";
import { cacheOption } from "../cache_flags.ts";
import { type Command, type Context, cacheFlags, loadFlags } from "../command.ts";
import { named } from "../images.ts";
import { withModel } from "../loading.ts";
import { answerWithReport, checkReportFlags, reportFlags } from "../reporting.ts";
import type { Values } from "../values.ts";

/** Answers a prompt about images, streaming. */
export const describe: Command = {
  name: "describe",
  summary: "answer a prompt about one or more images",
  positional: "IMAGE...",
  flags: [
    { name: "prompt", type: "string", value: "TEXT", text: 'what to ask (default: "Describe the image in detail.")' },
    ...generationFlags,
    ...cacheFlags,
    ...reportFlags,
    ...loadFlags,
  ],
  async run(values, context) {
    const cache = cacheOption(values);
    checkReportFlags(values);
    return withModel(values, context, (model) => answer(model, { cache, values }, context));
  },
};

async function answer(
  model: Model,
  { cache, values }: { cache: CacheOption | undefined; values: Values },
  context: Context,
): Promise<Record<string, unknown>> {
  const prompt = values.text("prompt") ?? "Describe the image in detail.";
  const images = values.positionals;
  const pictures = images.map((source) => image(source, named));
  const options = {
    messages: [{ role: "user", content: [...pictures, prompt] }],
    ...values.options(generationFlags.map(({ name }) => name)),
    ...(cache && { cache }),
    signal: context.signal,
  };
  const quiet = values.has("json");
  const file = values.text("report");
  const result = file === undefined ? await stream(model, options, quiet, context) : await reported();
  if (!quiet) {
    context.out("\n");
    context.err(`\n${summary(result, model.info)}${file === undefined ? "" : `wrote ${file}\n`}`);
  }
  return { model: model.info.source, images, prompt, ...result, ...(file !== undefined && { report: file }) };

  async function reported(): Promise<GenerationResult> {
    const trace = await answerWithReport(model, options, { prompt, pictures, cache, values });
    const { text, tokens, finish, usage, timings, memory } = trace;
    if (!quiet) context.out(text);
    return { text, tokens, finish, usage, timings, memory };
  }
}

async function stream(
  model: Model,
  options: GenerateOptions,
  quiet: boolean,
  context: Context,
): Promise<GenerationResult> {
  const out = model.generate(options);
  if (!quiet) for await (const part of out) context.out(part.text);
  return out;
}

function summary({ finish, usage, timings, memory }: GenerationResult, info: ModelInfo): string {
  const decoded = usage.completionTokens - 1;
  const speed = timings.decode > 0 && decoded > 0 ? `${((decoded * 1000) / timings.decode).toFixed(1)} tokens/s` : "-";
  return formatTable([
    [
      "tokens",
      `${formatCount(usage.completionTokens)} (${finish}), prompt ${usage.promptTokens} (${usage.imageTokens} image)`,
    ],
    ["first token", formatTime(timings.firstToken)],
    ["decoding", speed],
    ["kv cache", `${formatBytes(memory.resident)}, peak ${formatBytes(memory.peak)}, full ${formatBytes(memory.full)}`],
    ["kept at end", keptBars(memory, info)],
  ]);
}

/** How much of the positions seen each layer keeps, and all layers together. */
export function keptBars({ full, keptPerLayer }: Memory, { kvBytesPerToken }: ModelInfo): string {
  const shares = keptPerLayer.map((kept) => (kept * kvBytesPerToken) / full);
  const mean = shares.reduce((sum, share) => sum + share, 0) / shares.length;
  return `${formatBars(shares)} ${formatShare(mean)}`;
}
