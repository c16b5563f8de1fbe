import type { CalibrateChannelsOptions } from "../../calibrate_channels.ts";
import { formatColumns } from "../../format.ts";
import type { CacheMethod, SkvqOptions } from "../../generated/methods.ts";
import { UsageError } from "../args.ts";
import { methodOption } from "../cache_flags.ts";
import type { CalibrationCommand } from "../calibration_command.ts";

/** An order of the channels of every head, and clips. */
export const channels: CalibrationCommand = {
  method: "skvq",
  flags: [],
  without: ["keeps"],
  prepare(values) {
    const { method: _, group, sinks, ...other } = methodOption(values) as CacheMethod & SkvqOptions;
    const [name] = Object.keys(other);
    if (name !== undefined) throw new UsageError(`--set ${name} does not go with calibrate: only group and sinks do`);
    return async (model, given) => {
      const options: CalibrateChannelsOptions = {
        ...given,
        ...(group !== undefined && { group }),
        ...(sinks !== undefined && { sinks }),
      };
      const calibration = await model.calibrateChannels(options);
      const rows = calibration.layers.map(({ keys, values }, layer) => [
        String(layer),
        ...[keys.clip2, keys.clip4, values.clip2, values.clip4].map((clip) => clip.toFixed(2)),
      ]);
      const head = ["layer", "keys in 2 bits", "in 4", "values in 2 bits", "in 4"];
      return { calibration, text: `clips:\n${formatColumns([head, ...rows])}` };
    };
  },
};
