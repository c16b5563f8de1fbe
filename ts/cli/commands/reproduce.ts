import {
  findTable,
  publishedTables,
  type Reproduced,
  type ReproducedRow,
  reproduce as run,
} from "../../eval/reproduce/reproduce.ts";
import { formatColumns, formatTable } from "../../format.ts";
import { type Command, loadFlags } from "../command.ts";
import { withModel } from "../loading.ts";
import { ProgressBar } from "../progress_bar.ts";
import { asUsage, shown } from "./eval.ts";

/** Runs a published table and prints our numbers beside the published ones. */
export const reproduce: Command = {
  name: "reproduce",
  summary: "run a published table and print our numbers beside it; without a name list the tables",
  positional: "[TABLE]",
  flags: [
    { name: "data", type: "string", value: "DATA", text: "the data of the table: its file, or the folder with it" },
    { name: "images", type: "string", value: "DIR", text: "folder of the pictures, where it is not the usual one" },
    { name: "limit", type: "integer", value: "N", text: "only the first N samples" },
    { name: "out", type: "string", value: "DIR", text: "folder of the results (default: the table's name)" },
    ...loadFlags,
  ],
  async run(values, context) {
    const [name] = values.positionals;
    if (name === undefined) {
      if (!values.has("json")) context.out(formatTable(publishedTables.map((table) => [table.name, table.title])));
      return { tables: publishedTables.map(({ name, title, source }) => ({ name, title, source })) };
    }
    const table = await asUsage(() => findTable(name));
    const out = values.text("out") ?? table.name;
    return withModel(values, context, async (model) => {
      const bar = new ProgressBar(context);
      const found = await run({
        table: table.name,
        model,
        out,
        ...values.options(["data", "images", "limit"]),
        signal: context.signal,
        onProgress: (progress) => bar.update(shown(progress)),
      }).finally(() => bar.clear());
      if (!values.has("json")) context.out(page(found, model.info.source));
      return { model: model.info.source, out, ...found };
    });
  },
};

function page({ title, source, faults, keeps, missing, samples, rows }: Reproduced, model: string): string {
  const metrics = [...new Set(rows.map(({ metric }) => metric))];
  const tables = metrics.map((metric) => {
    const head = ["model", "method", "variant", ...keeps.map((keep) => `${Math.round(100 * keep)} %`)];
    const body = rows.filter((row) => row.metric === metric).map((row) => cells(row));
    return `${metric}, published / ours\n${formatColumns([head, ...body])}`;
  });
  const warning =
    missing.length === 0
      ? ""
      : `This is not the published setting, so nothing is reproduced. Missing:\n${missing.map((what) => `- ${what}\n`).join("")}Our numbers below are those of ${model} (samples: ${samples}): they show that the grid runs, and nothing else.\n\n`;
  const notes = faults.map((fault) => `- ${fault}\n`).join("");
  return `${title}\n${source}\n\n${warning}${tables.join("\n")}\nOf the published numbers:\n${notes}`;
}

function cells({ model, method, variant, published, ours, note }: ReproducedRow): string[] {
  const text = (value: number | null | undefined): string =>
    value === null || value === undefined ? "-" : value.toPrecision(3);
  const values = published.map((value, index) => `${text(value)} / ${text(ours[index])}`);
  return [model, method, variant, ...values, ...(note === undefined ? [] : [note])];
}
