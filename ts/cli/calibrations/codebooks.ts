import { formatTable } from "../../format.ts";
import type { CalibrationCommand } from "../calibration_command.ts";

/** The codebooks of kvquant. */
export const codebooks: CalibrationCommand = {
  method: "kvquant",
  flags: [
    { name: "bits", type: "integer", value: "N", text: "bits of a code, 2 or 4 (--method kvquant; default: 4)" },
    { name: "outliers", type: "number", value: "SHARE", text: "the share of numbers that lie apart (default: 0.01)" },
  ],
  without: ["keeps", "set"],
  prepare(values) {
    const numbers = values.options(["bits", "outliers"]);
    return async (model, given) => {
      const calibration = await model.calibrateKvquant({ ...given, ...numbers });
      const { layers, bits, positions } = calibration;
      const rows = [["codebooks", `${layers.length} layers, ${bits} bits, from ${positions ?? 0} positions`] as const];
      return { calibration, text: formatTable(rows) };
    };
  },
};
