import type { CalibrateHeadsOptions } from "../../calibrate_heads.ts";
import { formatColumns } from "../../format.ts";
import { UsageError } from "../args.ts";
import type { CalibrationCommand } from "../calibration_command.ts";
import type { Flag } from "../command.ts";

const flags: readonly Flag[] = [
  {
    name: "measure",
    type: "string",
    value: "NAME",
    text: "image-hits (default of --method sparseMm), image-mass, or copies (default of --method headKv)",
  },
  {
    name: "queries",
    type: "integer",
    value: "N",
    text: "last positions of each prompt that are looked at (default: 32)",
  },
];

/** How many heads are shown. */
const shown = 10;

/** The scores of heads, by what the method takes them for. */
function heads(method: string, usual: NonNullable<CalibrateHeadsOptions["measure"]>): CalibrationCommand {
  return {
    method,
    flags,
    without: ["keeps", "set"],
    prepare(values) {
      const numbers = values.options(["queries"]);
      const measure = measureOf(values.text("measure")) ?? usual;
      return async (model, given) => {
        const calibration = await model.calibrateHeads({ ...given, ...numbers, measure });
        const all = calibration.scores.flatMap((scores, layer) =>
          scores.map((score, head) => ({ layer, head, score })),
        );
        const whole = all.reduce((sum, { score }) => sum + score, 0);
        const rows = all
          .sort((a, b) => b.score - a.score)
          .slice(0, shown)
          .map(({ layer, head, score }) => [
            String(layer),
            String(head),
            score.toPrecision(3),
            `${((100 * score) / whole).toFixed(1)} %`,
          ]);
        const head = ["layer", "head", measure, "of all"];
        return { calibration, text: formatColumns([head, ...rows]) };
      };
    },
  };
}

function measureOf(text: string | undefined): CalibrateHeadsOptions["measure"] {
  if (text === undefined || text === "image-hits" || text === "image-mass" || text === "copies") return text;
  throw new UsageError(`--measure is image-hits, image-mass or copies, not \`${text}\``);
}

/** Heads that look at images, for SparseMM. */
export const images: CalibrationCommand = heads("sparseMm", "image-hits");
/** Heads that fetch what stood earlier, for HeadKV. */
export const copies: CalibrationCommand = heads("headKv", "copies");
