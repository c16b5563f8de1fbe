import { formatBytes, formatCount, formatRuns, formatTable, formatTime } from "../../format.ts";
import { scoreFlags } from "../../generated/flags.ts";
import type { Kept, KeptSpan } from "../../generated/wire.ts";
import { image } from "../../media.ts";
import { cacheOption } from "../cache_flags.ts";
import { type Command, cacheFlags, loadFlags } from "../command.ts";
import { named } from "../images.ts";
import { withModel } from "../loading.ts";
import { keptBars } from "./describe.ts";

/** Scores an answer. */
export const score: Command = {
  name: "score",
  summary: "say how likely the model finds an answer",
  flags: [
    { name: "image", type: "strings", value: "FILE", text: "an image; may be given more than once" },
    { name: "prompt", type: "string", value: "TEXT", text: "the question", required: true },
    { name: "answer", type: "string", value: "TEXT", text: "the answer to score", required: true },
    ...scoreFlags,
    ...cacheFlags,
    ...loadFlags,
  ],
  async run(values, context) {
    const cache = cacheOption(values);
    return withModel(values, context, async (model) => {
      const images = values.texts("image");
      const prompt = values.text("prompt") ?? "";
      const answer = values.text("answer") ?? "";
      const content = [...images.map((source) => image(source, named)), prompt];
      const result = await model.score({
        messages: [{ role: "user", content }],
        answer,
        ...(cache && { cache }),
        ...values.options(scoreFlags.map(({ name }) => name)),
        signal: context.signal,
      });
      if (!values.has("json")) {
        context.out(
          formatTable([
            ["perplexity", result.ppl.toFixed(4)],
            ["log-probability", result.logprobs.reduce((sum, value) => sum + value, 0).toFixed(4)],
            ["tokens", formatCount(result.tokens.length)],
            ...(result.kl ? [["divergence", mean(result.kl).toFixed(6)] as const] : []),
            ["time", formatTime(result.timings.total)],
            ["kv cache", `${formatBytes(result.memory.resident)}, peak ${formatBytes(result.memory.peak)}`],
            ["kept at end", keptBars(result.memory, model.info)],
          ]),
        );
        if (result.spans) context.out(`\n${formatTable(result.spans.map(spanRow))}`);
        if (result.kept) context.out(`\n${formatTable(result.kept.flatMap(keptRows))}`);
      }
      return { model: model.info.source, images, prompt, answer, ...result };
    });
  },
};

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** How much is left of a span at the end. */
function spanRow({ modality, start, len, kept }: KeptSpan): [string, string] {
  const of = modality.type === "image" ? `image ${modality.index + 1}` : modality.type === "text" ? "text" : "answer";
  return [`${of}, ${start}-${start + len - 1}`, `${(100 * kept).toFixed(1)} %`];
}

/** A layer's positions, one row for each range of heads. */
function keptRows(lanes: Kept[], layer: number): [string, string][] {
  return lanes.map(({ heads: [first, end], positions }) => [
    lanes.length === 1 ? `layer ${layer}` : `layer ${layer}, head ${formatRuns([first, end - 1])}`,
    formatRuns(positions),
  ]);
}
