import { evalReport } from "../../report/eval.ts";
import { requirePlace, writeReport } from "../../report/write.ts";
import type { Command } from "../command.ts";

/** Makes a page of charts from the folder of an evaluation. */
export const report: Command = {
  name: "report",
  summary: "make a page of charts from the folder of an evaluation",
  positional: "DIR",
  flags: [
    { name: "out", type: "string", value: "FILE", text: "the HTML file to write", required: true },
    { name: "svg", type: "string", value: "FOLDER", text: "also write every chart as an SVG file into this folder" },
  ],
  async run(values, context) {
    const file = values.text("out") ?? "";
    const svg = values.text("svg");
    await requirePlace(file, svg);
    const made = await evalReport(values.positionals[0] ?? "");
    await writeReport(made, file, svg);
    if (!values.has("json")) context.out(`wrote ${file}\n`);
    return { file, bytes: Buffer.byteLength(made.html), charts: made.charts.map(({ name }) => name) };
  },
};
