import type { CalibrateCllaOptions } from "../../calibrate_clla.ts";
import { formatTable } from "../../format.ts";
import type { CalibrationCommand } from "../calibration_command.ts";
import { headsFlag, mostFlag } from "./directions.ts";

/** The latents of clla. */
export const latents: CalibrationCommand = {
  method: "clla",
  flags: [headsFlag, mostFlag],
  without: ["keeps", "set"],
  prepare(values) {
    const given = values.options(["heads", "most"]) as Partial<CalibrateCllaOptions>;
    return async (model, samples) => {
      const calibration = await model.calibrateClla({ ...samples, ...given });
      const { layers, rank, positions = 0 } = calibration;
      const rows = [
        ["latents", `${rank} of ${layers.length / 2} pairs of layers, from ${positions} positions`] as const,
      ];
      return { calibration, text: formatTable(rows) };
    };
  },
};
