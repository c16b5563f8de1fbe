import { image } from "../../media.ts";
import { UsageError } from "../args.ts";
import { methodOption } from "../cache_flags.ts";
import type { CalibrationCommand } from "../calibration_command.ts";
import { bits } from "../calibrations/bits.ts";
import { channels } from "../calibrations/channels.ts";
import { codebooks } from "../calibrations/codebooks.ts";
import { directions } from "../calibrations/directions.ts";
import { copies, images as imageHeads } from "../calibrations/heads.ts";
import { latents } from "../calibrations/latents.ts";
import { sharing } from "../calibrations/sharing.ts";
import { sizes } from "../calibrations/sizes.ts";
import { type Command, cacheFlags, loadFlags } from "../command.ts";
import { named } from "../images.ts";
import { withModel } from "../loading.ts";
import { ProgressBar } from "../progress_bar.ts";

/** Every calibration with a method of its own, in the order of the help. */
const own: readonly CalibrationCommand[] = [
  sharing,
  bits,
  channels,
  codebooks,
  directions,
  latents,
  imageHeads,
  copies,
];

/** Makes the calibration that a method uses, over sample pictures: how much each layer keeps, or what the method asks for. */
export const calibrate: Command = {
  name: "calibrate",
  summary:
    "find how much each layer should keep, which layers can share, which bits or order of channels they need, codebooks, directions, or which heads matter",
  positional: "IMAGE...",
  flags: [
    { name: "prompt", type: "string", value: "TEXT", text: 'what to ask (default: "Describe the image in detail.")' },
    ...sizes.flags,
    { name: "out", type: "string", value: "FILE", text: "the JSON file to write", required: true },
    ...new Set(own.flatMap(({ flags }) => flags)),
    ...cacheFlags.filter(({ name }) => name === "method" || name === "set"),
    ...loadFlags,
  ],
  async run(values, context) {
    const method = methodOption(values, "prefixkv")?.method;
    const chosen = own.find((calibration) => calibration.method === method) ?? sizes;
    const flags = own.flatMap((calibration) => calibration.flags);
    const foreign = flags.find((flag) => values.has(flag.name) && !chosen.flags.includes(flag));
    if (foreign !== undefined) {
      const methods = own.filter((calibration) => calibration.flags.includes(foreign)).map(({ method }) => method);
      throw new UsageError(`--${foreign.name} goes with --method ${methods.join(" or ")}`);
    }
    const refused = chosen.without.find((name) => values.has(name));
    if (refused !== undefined) throw new UsageError(`--${refused} does not go with --method ${chosen.method}`);
    const search = chosen.prepare(values);
    return withModel(values, context, async (model) => {
      const prompt = values.text("prompt") ?? "Describe the image in detail.";
      const file = values.text("out") ?? "";
      const images = values.positionals;
      const samples = images.map((source) => ({
        messages: [{ role: "user" as const, content: [image(source, named), prompt] }],
      }));
      const bar = new ProgressBar(context);
      const given = { samples, file, onProgress: bar.update, signal: context.signal };
      const { calibration, text } = await search(model, given).finally(() => bar.clear());
      if (!values.has("json")) context.out(`${text}wrote ${file}\n`);
      return { model: model.info.source, images, prompt, file, calibration };
    });
  },
};
