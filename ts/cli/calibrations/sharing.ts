import { formatTable } from "../../format.ts";
import { UsageError } from "../args.ts";
import type { CalibrationCommand } from "../calibration_command.ts";

/** Layers that can share. */
export const sharing: CalibrationCommand = {
  method: "kvsharer",
  flags: [
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
  ],
  without: ["keeps", "set"],
  prepare(values) {
    const numbers = values.options(["layers", "share", "threshold"]);
    const variant = values.text("variant");
    if (variant !== undefined && variant !== "paper" && variant !== "official") {
      throw new UsageError(`--variant needs paper or official, not \`${variant}\``);
    }
    const resume = values.text("resume");
    return async (model, given) => {
      const calibration = await model.calibrateSharing({
        ...given,
        ...numbers,
        ...(variant && { variant }),
        ...(resume !== undefined && { resume }),
      });
      const rows = calibration.pairs.map(({ layer, source, similarity }) => {
        return [`layer ${layer}`, `reads ${source}, cosine ${(similarity ?? 0).toFixed(4)}`] as const;
      });
      return { calibration, text: formatTable(rows) };
    };
  },
};
