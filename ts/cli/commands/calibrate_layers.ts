import { formatTable } from "../../format.ts";
import { image } from "../../media.ts";
import { UsageError } from "../args.ts";
import type { Context, Flag } from "../command.ts";
import { named } from "../images.ts";
import { withModel } from "../loading.ts";
import { ProgressBar } from "../progress_bar.ts";
import type { Values } from "../values.ts";

/** Flags of `calibrate` for layers that share. */
export const sharingFlags: readonly Flag[] = [
  { name: "layers", type: "integer", value: "N", text: "how many layers are to share (--method kvsharer)" },
  { name: "share", type: "number", value: "SHARE", text: "the share of the layers that are to share instead" },
  { name: "threshold", type: "number", value: "COSINE", text: "how alike results must stay (default: 0.5)" },
  {
    name: "variant",
    type: "string",
    value: "NAME",
    text: "the distance of layers: paper or official (default: paper)",
  },
  { name: "resume", type: "string", value: "FILE", text: "keep what has been tried in a file, and go on from it" },
];

/** Finds layers that can share, over sample pictures. */
export async function calibrateLayers(values: Values, context: Context): Promise<Record<string, unknown>> {
  for (const flag of ["keeps", "set"]) {
    if (values.has(flag)) throw new UsageError(`--${flag} does not go with --method kvsharer`);
  }
  const numbers = values.options(["layers", "share", "threshold"]);
  const variant = values.text("variant");
  if (variant !== undefined && variant !== "paper" && variant !== "official") {
    throw new UsageError(`--variant needs paper or official, not \`${variant}\``);
  }
  return withModel(values, context, async (model) => {
    const prompt = values.text("prompt") ?? "Describe the image in detail.";
    const file = values.text("out") ?? "";
    const resume = values.text("resume");
    const images = values.positionals;
    const bar = new ProgressBar(context);
    const calibration = await model
      .calibrateSharing({
        samples: images.map((source) => ({ messages: [{ role: "user", content: [image(source, named), prompt] }] })),
        ...numbers,
        ...(variant && { variant }),
        ...(resume !== undefined && { resume }),
        file,
        onProgress: bar.update,
        signal: context.signal,
      })
      .finally(() => bar.clear());
    if (!values.has("json")) {
      const rows = calibration.pairs.map(({ layer, source, similarity }) => {
        return [`layer ${layer}`, `reads ${source}, cosine ${(similarity ?? 0).toFixed(4)}`] as const;
      });
      context.out(`${formatTable(rows)}wrote ${file}\n`);
    }
    return { model: model.info.source, images, prompt, file, calibration };
  });
}
