import { formatTable } from "../../format.ts";
import { image } from "../../media.ts";
import { UsageError } from "../args.ts";
import type { Context, Flag } from "../command.ts";
import { named } from "../images.ts";
import { withModel } from "../loading.ts";
import { ProgressBar } from "../progress_bar.ts";
import type { Values } from "../values.ts";

/** Flags of `calibrate` for codebooks. */
export const codebookFlags: readonly Flag[] = [
  { name: "bits", type: "integer", value: "N", text: "bits of a code, 2 or 4 (--method kvquant; default: 4)" },
  { name: "outliers", type: "number", value: "SHARE", text: "the share of numbers that lie apart (default: 0.01)" },
];

/** Finds the codebooks of kvquant, over sample pictures. */
export async function calibrateCodebooks(values: Values, context: Context): Promise<Record<string, unknown>> {
  for (const flag of ["keeps", "set"]) {
    if (values.has(flag)) throw new UsageError(`--${flag} does not go with --method kvquant`);
  }
  const numbers = values.options(["bits", "outliers"]);
  return withModel(values, context, async (model) => {
    const prompt = values.text("prompt") ?? "Describe the image in detail.";
    const file = values.text("out") ?? "";
    const images = values.positionals;
    const bar = new ProgressBar(context);
    const calibration = await model
      .calibrateKvquant({
        samples: images.map((source) => ({ messages: [{ role: "user", content: [image(source, named), prompt] }] })),
        ...numbers,
        file,
        onProgress: bar.update,
        signal: context.signal,
      })
      .finally(() => bar.clear());
    if (!values.has("json")) {
      const { layers, bits, positions } = calibration;
      const rows = [["codebooks", `${layers.length} layers, ${bits} bits, from ${positions ?? 0} positions`] as const];
      context.out(`${formatTable(rows)}wrote ${file}\n`);
    }
    return { model: model.info.source, images, prompt, file, calibration };
  });
}
