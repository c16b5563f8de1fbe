import { image } from "../../media.ts";
import { type Command, loadFlags } from "../command.ts";
import { formatBytes, formatCount, formatTable, formatTime } from "../format.ts";
import { withModel } from "../loading.ts";

/** Says how likely the model finds an answer. */
export const score: Command = {
  name: "score",
  summary: "say how likely the model finds an answer",
  flags: [
    { name: "image", type: "strings", value: "FILE", text: "an image; may be given more than once" },
    { name: "prompt", type: "string", value: "TEXT", text: "the question", required: true },
    { name: "answer", type: "string", value: "TEXT", text: "the answer to score", required: true },
    ...loadFlags,
  ],
  run: (values, context) =>
    withModel(values, context, async (model) => {
      const images = values.texts("image");
      const prompt = values.text("prompt") ?? "";
      const answer = values.text("answer") ?? "";
      const content = [...images.map((source) => image(source)), prompt];
      const result = await model.score({ messages: [{ role: "user", content }], answer, signal: context.signal });
      if (!values.has("json")) {
        context.out(
          formatTable([
            ["perplexity", result.ppl.toFixed(4)],
            ["log-probability", result.logprobs.reduce((sum, value) => sum + value, 0).toFixed(4)],
            ["tokens", formatCount(result.tokens.length)],
            ["time", formatTime(result.timings.total)],
            ["kv cache", `${formatBytes(result.memory.resident)}, peak ${formatBytes(result.memory.peak)}`],
          ]),
        );
      }
      return { model: model.info.source, images, prompt, answer, ...result };
    }),
};
