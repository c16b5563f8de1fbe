import type { CalibrateBitsOptions } from "../../calibrate_bits.ts";
import { formatColumns } from "../../format.ts";
import type { CacheMethod, KvtunerOptions } from "../../generated/methods.ts";
import { UsageError } from "../args.ts";
import { methodOption } from "../cache_flags.ts";
import type { CalibrationCommand } from "../calibration_command.ts";

/** The bits that each layer can do with. */
export const bits: CalibrationCommand = {
  method: "kvtuner",
  flags: [
    {
      name: "trials",
      type: "integer",
      value: "N",
      text: "how many choices to measure (--method kvtuner; default: 200)",
    },
    { name: "groups", type: "integer", value: "N", text: "how many groups of layers to search over (default: 8)" },
    { name: "objective", type: "string", value: "NAME", text: "kl (default), or ppl, the likelihood of the answers" },
  ],
  without: ["keeps"],
  prepare(values) {
    const numbers = values.options(["trials", "groups"]);
    const objective = objectiveOf(values.text("objective"));
    const quantiser = quantiserOf(methodOption(values) as CacheMethod & KvtunerOptions);
    return async (model, given) => {
      const options: CalibrateBitsOptions = { ...given, ...quantiser, ...numbers, ...(objective && { objective }) };
      const calibration = await model.calibrateBits(options);
      const name = calibration.objective === "ppl" ? "loss" : "divergence";
      const rows = calibration.points.map(({ bits, loss, pairs }) => [
        bits.toFixed(2),
        loss.toPrecision(5),
        pairs.map(([keys, values]) => `${keys}/${values}`).join(" "),
      ]);
      return { calibration, text: formatColumns([["bits", name, "keys/values of each layer"], ...rows]) };
    };
  },
};

function objectiveOf(text: string | undefined): CalibrateBitsOptions["objective"] {
  if (text === undefined || text === "kl" || text === "ppl") return text;
  throw new UsageError(`--objective is kl or ppl, not \`${text}\``);
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
