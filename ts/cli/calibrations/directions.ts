import type { CalibrateCskvOptions } from "../../calibrate_cskv.ts";
import { formatTable } from "../../format.ts";
import type { CalibrationCommand } from "../calibration_command.ts";

/** The directions of cskv. */
export const directions: CalibrationCommand = {
  method: "cskv",
  flags: [
    {
      name: "init",
      type: "string",
      value: "NAME",
      text: "where directions come from: covariance or asvd (--method cskv; default: covariance)",
    },
    { name: "alpha", type: "number", value: "POWER", text: "the scaling of --init asvd (default: 0.5)" },
    { name: "heads", type: "string", value: "WHOSE", text: "directions of each head, or joint ones (default: each)" },
    { name: "most", type: "number", value: "SHARE", text: "the share of directions in the file (default: 0.5)" },
  ],
  without: ["keeps", "set"],
  prepare(values) {
    const given = values.options(["init", "alpha", "heads", "most"]) as Partial<CalibrateCskvOptions>;
    return async (model, samples) => {
      const calibration = await model.calibrateCskv({ ...samples, ...given });
      const { layers, rank, positions = 0 } = calibration;
      const rows = [["directions", `${rank} in ${layers.length} layers, from ${positions} positions`] as const];
      return { calibration, text: formatTable(rows) };
    };
  },
};
