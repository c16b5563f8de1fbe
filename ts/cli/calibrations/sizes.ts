import { formatBars, formatTable } from "../../format.ts";
import { UsageError } from "../args.ts";
import { methodOption } from "../cache_flags.ts";
import type { CalibrationCommand } from "../calibration_command.ts";
import type { Values } from "../values.ts";

/** How much each layer should keep. */
export const sizes: CalibrationCommand = {
  flags: [
    { name: "keeps", type: "string", value: "LIST", text: "the sizes, e.g. 0.1,0.2,0.5 (default: 0.05 to 0.95)" },
  ],
  without: [],
  prepare(values) {
    const method = methodOption(values, "prefixkv");
    if (method === undefined) throw new UsageError("calibrate needs --method NAME");
    const keeps = parseKeeps(values);
    return async (model, given) => {
      const calibration = await model.calibrate({ method, ...given, ...(keeps && { keeps }) });
      const rows = calibration.rows.map(({ keep, retained }) => [keep.toFixed(2), formatBars(retained)] as const);
      return { calibration, text: formatTable(rows) };
    };
  },
};

function parseKeeps(values: Values): number[] | undefined {
  const text = values.text("keeps");
  if (text === undefined) return undefined;
  const keeps = text.split(",").map((item) => (item.trim() === "" ? Number.NaN : Number(item)));
  if (keeps.every((keep) => keep > 0 && keep <= 1)) return keeps;
  throw new UsageError(`--keeps needs shares above 0 and up to 1 with commas, such as 0.1,0.2, not \`${text}\``);
}
