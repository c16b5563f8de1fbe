import type { CalibrateBitsOptions } from "../../calibrate_bits.ts";
import { formatColumns } from "../../format.ts";
import type { CacheMethod, KvtunerOptions } from "../../generated/methods.ts";
import { image } from "../../media.ts";
import { UsageError } from "../args.ts";
import { methodOption } from "../cache_flags.ts";
import type { Context, Flag } from "../command.ts";
import { named } from "../images.ts";
import { withModel } from "../loading.ts";
import { ProgressBar } from "../progress_bar.ts";
import type { Values } from "../values.ts";

/** Flags of `calibrate` for the bits of each layer. */
export const bitsFlags: readonly Flag[] = [
  { name: "trials", type: "integer", value: "N", text: "how many choices to measure (--method kvtuner; default: 200)" },
  { name: "groups", type: "integer", value: "N", text: "how many groups of layers to search over (default: 8)" },
  { name: "objective", type: "string", value: "NAME", text: "kl (default), or ppl, the likelihood of the answers" },
];

/** Finds the bits that each layer can do with, over sample pictures. */
export async function calibrateBitsOf(values: Values, context: Context): Promise<Record<string, unknown>> {
  const numbers = values.options(["trials", "groups"]);
  const objective = values.text("objective");
  if (objective !== undefined && objective !== "kl" && objective !== "ppl") {
    throw new UsageError(`--objective is kl or ppl, not \`${objective}\``);
  }
  const quantiser = quantiserOf(methodOption(values) as CacheMethod & KvtunerOptions);
  return withModel(values, context, async (model) => {
    const prompt = values.text("prompt") ?? "Describe the image in detail.";
    const file = values.text("out") ?? "";
    const images = values.positionals;
    const bar = new ProgressBar(context);
    const calibration = await model
      .calibrateBits({
        samples: images.map((source) => ({ messages: [{ role: "user", content: [image(source, named), prompt] }] })),
        ...quantiser,
        ...numbers,
        ...(objective && { objective }),
        file,
        onProgress: bar.update,
        signal: context.signal,
      } satisfies CalibrateBitsOptions)
      .finally(() => bar.clear());
    if (!values.has("json")) {
      const name = calibration.objective === "ppl" ? "loss" : "divergence";
      const rows = calibration.points.map(({ bits, loss, pairs }) => [
        bits.toFixed(2),
        loss.toPrecision(5),
        pairs.map(([keys, values]) => `${keys}/${values}`).join(" "),
      ]);
      context.out(`${formatColumns([["bits", name, "keys/values of each layer"], ...rows])}wrote ${file}\n`);
    }
    return { model: model.info.source, images, prompt, file, calibration };
  });
}

/** The options of the store that a search can be about. */
function quantiserOf({
  method: _,
  ...options
}: CacheMethod & KvtunerOptions): Pick<KvtunerOptions, "group" | "window" | "keys"> {
  const { group, window, keys, ...other } = options;
  const [name] = Object.keys(other);
  if (name !== undefined) throw new UsageError(`--set ${name} does not go with calibrate: it is what is looked for`);
  return { ...(group !== undefined && { group }), ...(window !== undefined && { window }), ...(keys && { keys }) };
}
