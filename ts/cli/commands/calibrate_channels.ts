import type { CalibrateChannelsOptions } from "../../calibrate_channels.ts";
import { formatColumns } from "../../format.ts";
import type { CacheMethod, SkvqOptions } from "../../generated/methods.ts";
import { image } from "../../media.ts";
import { UsageError } from "../args.ts";
import { methodOption } from "../cache_flags.ts";
import type { Context } from "../command.ts";
import { named } from "../images.ts";
import { withModel } from "../loading.ts";
import { ProgressBar } from "../progress_bar.ts";
import type { Values } from "../values.ts";

/** Finds an order of the channels of every head, and clips, over sample pictures. */
export async function calibrateChannelsOf(values: Values, context: Context): Promise<Record<string, unknown>> {
  const { method: _, group, sinks, ...other } = methodOption(values) as CacheMethod & SkvqOptions;
  const [name] = Object.keys(other);
  if (name !== undefined) throw new UsageError(`--set ${name} does not go with calibrate: only group and sinks do`);
  return withModel(values, context, async (model) => {
    const prompt = values.text("prompt") ?? "Describe the image in detail.";
    const file = values.text("out") ?? "";
    const images = values.positionals;
    const bar = new ProgressBar(context);
    const calibration = await model
      .calibrateChannels({
        samples: images.map((source) => ({ messages: [{ role: "user", content: [image(source, named), prompt] }] })),
        ...(group !== undefined && { group }),
        ...(sinks !== undefined && { sinks }),
        file,
        onProgress: bar.update,
        signal: context.signal,
      } satisfies CalibrateChannelsOptions)
      .finally(() => bar.clear());
    if (!values.has("json")) {
      const rows = calibration.layers.map(({ keys, values }, layer) => [
        String(layer),
        ...[keys.clip2, keys.clip4, values.clip2, values.clip4].map((clip) => clip.toFixed(2)),
      ]);
      const head = ["layer", "keys in 2 bits", "in 4", "values in 2 bits", "in 4"];
      context.out(`clips:\n${formatColumns([head, ...rows])}wrote ${file}\n`);
    }
    return { model: model.info.source, images, prompt, file, calibration };
  });
}
