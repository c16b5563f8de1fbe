import type { CalibrateCskvOptions } from "../../calibrate_cskv.ts";
import { formatTable } from "../../format.ts";
import type { CalibrationCommand } from "../calibration_command.ts";
import type { Flag } from "../command.ts";

export const headsFlag: Flag = {
  name: "heads",
  type: "string",
  value: "WHOSE",
  text: "directions of each head, or joint ones (--method cskv or clla; default: each)",
};
export const mostFlag: Flag = {
  name: "most",
  type: "number",
  value: "SHARE",
  text: "the share of directions in the file (--method cskv or clla; default: 0.5)",
};

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
    headsFlag,
    mostFlag,
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
