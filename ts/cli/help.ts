import { type Command, commonFlags } from "./command.ts";
import { commands } from "./commands.ts";

/** The help of the program. */
export function programHelp(): string {
  const width = Math.max(...commands.map(({ name }) => name.length));
  const list = commands.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}\n`).join("");
  return `prefixkv COMMAND [FLAGS]

${list}
  --version, --help; \`prefixkv COMMAND --help\` shows the flags of a command.
`;
}

/** The help of one command. */
export function commandHelp({ name, summary, positional, flags }: Command): string {
  const lines = [...flags, ...commonFlags].map((flag) => {
    const left = flag.value ? `--${flag.name} ${flag.value}` : `--${flag.name}`;
    return [left, flag.required ? `${flag.text} (required)` : flag.text] as const;
  });
  const width = Math.max(...lines.map(([left]) => left.length));
  const list = lines.map(([left, text]) => `  ${left.padEnd(width)}  ${text}\n`).join("");
  return `prefixkv ${name}${positional ? ` ${positional}` : ""} [FLAGS]: ${summary}\n\n${list}`;
}
