import { formatTable } from "../../format.ts";
import { type MethodFacts, type MethodOption, methods as table } from "../../generated/method_table.ts";
import { findMethod } from "../cache_flags.ts";
import type { Command } from "../command.ts";

/** Lists the methods, or the options of one. */
export const methods: Command = {
  name: "methods",
  summary: "list the methods that make the cache small, or the options of one",
  positional: "[NAME]",
  flags: [],
  async run(values, context) {
    const [name] = values.positionals;
    const one = name === undefined ? undefined : findMethod(name);
    if (!values.has("json"))
      context.out(one ? page(one) : formatTable(table.map((facts) => [facts.name, facts.summary])));
    return { methods: one ? [one] : table };
  },
};

function page({ name, title, summary, source, budget, options }: MethodFacts): string {
  const flag = ({ name, kind }: MethodOption) => (kind === "calibration" ? "--calibration FILE" : `--set ${name}=...`);
  const rows: [string, string][] = options.map((option) => [flag(option), about(option)]);
  if (budget !== "outcome")
    rows.unshift(["--keep SIZE", "how much stays: a share (0.5), 256tokens per layer, or 64MiB"]);
  const head = `${title} (${name}): ${summary}\n${source === "" ? "" : `${source}\n`}`;
  return rows.length === 0 ? head : `${head}\n${formatTable(rows)}`;
}

function about({ text, values, default: fallback }: MethodOption): string {
  return `${text} (${values}${fallback === null ? "" : `; default ${JSON.stringify(fallback)}`})`;
}
