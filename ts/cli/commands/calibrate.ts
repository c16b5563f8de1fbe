import { formatBars, formatTable } from "../../format.ts";
import { image } from "../../media.ts";
import { UsageError } from "../args.ts";
import { findMethod, methodOption } from "../cache_flags.ts";
import { type Command, cacheFlags, loadFlags } from "../command.ts";
import { named } from "../images.ts";
import { withModel } from "../loading.ts";
import { ProgressBar } from "../progress_bar.ts";
import type { Values } from "../values.ts";
import { bitsFlags, calibrateBitsOf } from "./calibrate_bits.ts";
import { calibrateChannelsOf } from "./calibrate_channels.ts";
import { calibrateCodebooks, codebookFlags } from "./calibrate_codebooks.ts";
import { calibrateLayers, sharingFlags } from "./calibrate_layers.ts";

/**
 * Finds how much each layer should keep, with `--method kvsharer` which layers can share, or with `--method kvtuner` how many bits each can
 * do with, with `--method skvq` in which order channels are best stored, with `--method kvquant`
 * codebooks, over sample pictures.
 */
export const calibrate: Command = {
  name: "calibrate",
  summary:
    "find how much each layer should keep, which layers can share, which bits or order of channels they need, or codebooks",
  positional: "IMAGE...",
  flags: [
    { name: "prompt", type: "string", value: "TEXT", text: 'what to ask (default: "Describe the image in detail.")' },
    { name: "keeps", type: "string", value: "LIST", text: "the sizes, e.g. 0.1,0.2,0.5 (default: 0.05 to 0.95)" },
    { name: "out", type: "string", value: "FILE", text: "the JSON file to write", required: true },
    ...sharingFlags,
    ...bitsFlags,
    ...codebookFlags,
    ...cacheFlags.filter(({ name }) => name === "method" || name === "set"),
    ...loadFlags,
  ],
  async run(values, context) {
    const method = methodOption(values, "prefixkv");
    if (method === undefined) throw new UsageError("calibrate needs --method NAME");
    const shares = findMethod(method.method).role === "shares";
    const storesBits = method.method === "kvtuner";
    for (const { name } of shares ? [] : sharingFlags)
      if (values.has(name)) throw new UsageError(`--${name} goes with --method kvsharer`);
    for (const { name } of storesBits ? [] : bitsFlags)
      if (values.has(name)) throw new UsageError(`--${name} goes with --method kvtuner`);
    for (const { name } of method.method === "kvquant" ? [] : codebookFlags)
      if (values.has(name)) throw new UsageError(`--${name} goes with --method kvquant`);
    if (shares) return calibrateLayers(values, context);
    const ordersChannels = method.method === "skvq";
    if ((storesBits || ordersChannels) && values.has("keeps"))
      throw new UsageError(`--keeps does not go with --method ${method.method}`);
    if (storesBits) return calibrateBitsOf(values, context);
    if (ordersChannels) return calibrateChannelsOf(values, context);
    if (method.method === "kvquant") return calibrateCodebooks(values, context);
    const keeps = parseKeeps(values);
    return withModel(values, context, async (model) => {
      const prompt = values.text("prompt") ?? "Describe the image in detail.";
      const file = values.text("out") ?? "";
      const images = values.positionals;
      const bar = new ProgressBar(context);
      const calibration = await model
        .calibrate({
          method,
          samples: images.map((source) => ({ messages: [{ role: "user", content: [image(source, named), prompt] }] })),
          ...(keeps && { keeps }),
          file,
          onProgress: bar.update,
          signal: context.signal,
        })
        .finally(() => bar.clear());
      if (!values.has("json")) {
        const rows = calibration.rows.map(({ keep, retained }) => [keep.toFixed(2), formatBars(retained)] as const);
        context.out(`${formatTable(rows)}wrote ${file}\n`);
      }
      return { model: model.info.source, images, prompt, file, calibration };
    });
  },
};

function parseKeeps(values: Values): number[] | undefined {
  const text = values.text("keeps");
  if (text === undefined) return undefined;
  const keeps = text.split(",").map((item) => (item.trim() === "" ? Number.NaN : Number(item)));
  if (keeps.every((keep) => keep > 0 && keep <= 1)) return keeps;
  throw new UsageError(`--keeps needs shares above 0 and up to 1 with commas, such as 0.1,0.2, not \`${text}\``);
}
