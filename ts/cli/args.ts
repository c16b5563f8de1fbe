import { parseArgs } from "node:util";
import { parseBytes } from "../format.ts";
import { nearest } from "../suggest.ts";
import { type Command, commonFlags, type Flag } from "./command.ts";
import { Values } from "./values.ts";

/** A command line that cannot be understood; the program exits with 2. */
export class UsageError extends Error {
  readonly suggestion: string | undefined;

  constructor(message: string, suggestion?: string) {
    super(suggestion === undefined ? message : `${message}; did you mean \`${suggestion}\`?`);
    this.name = "UsageError";
    this.suggestion = suggestion;
  }
}

/** The arguments of a command, one by one. */
function tokensOf(command: Command, args: readonly string[]) {
  const options = Object.fromEntries(
    [...command.flags, ...commonFlags].map(({ name, type }) => [
      name,
      { type: type === "boolean" ? ("boolean" as const) : ("string" as const), ...(name === "help" && { short: "h" }) },
    ]),
  );
  return parseArgs({ args: [...args], options, strict: false, tokens: true }).tokens;
}

/** Whether a flag without a value is given; not where it is the value of another one, or stands behind `--`. */
export function isGiven(name: string, command: Command, args: readonly string[]): boolean {
  return tokensOf(command, args).some((token) => token.kind === "option" && token.name === name);
}

/** Reads the arguments of a command; throws a UsageError for unknown ones. */
export function parseCommand(command: Command, args: readonly string[]): Values {
  const flags = [...command.flags, ...commonFlags];
  const values = new Map<string, unknown>();
  const positionals: string[] = [];
  for (const token of tokensOf(command, args)) {
    if (token.kind === "positional") positionals.push(token.value);
    if (token.kind !== "option") continue;
    const flag = flags.find(({ name }) => name === token.name && /^(?:--.|-h$)/.test(token.rawName));
    if (!flag) throw unknownFlag(command, token.rawName, flags);
    if (flag.type === "strings")
      values.set(flag.name, [...((values.get(flag.name) as string[]) ?? []), convert(flag, token.value)]);
    else values.set(flag.name, convert(flag, token.value));
  }
  if (!values.has("help")) checkComplete(command, values, positionals);
  return new Values(values, positionals);
}

function unknownFlag(command: Command, raw: string, flags: readonly Flag[]): UsageError {
  const name = nearest(
    raw.replace(/^-+/, ""),
    flags.map((flag) => flag.name),
  );
  return new UsageError(`${command.name} has no flag ${raw}`, name && `--${name}`);
}

function checkComplete(command: Command, values: ReadonlyMap<string, unknown>, positionals: readonly string[]): void {
  const { positional } = command;
  if (positional && !positional.startsWith("[") && positionals.length === 0)
    throw new UsageError(`${command.name} needs ${positional.replace("...", "")}`);
  const most = positional === undefined ? 0 : /\.\.\.\]?$/.test(positional) ? Number.POSITIVE_INFINITY : 1;
  if (positionals.length > most) throw new UsageError(`${command.name} does not take \`${positionals[most]}\``);
  const missing = command.flags.find((flag) => flag.required && !values.has(flag.name));
  if (missing) throw new UsageError(`${command.name} needs --${missing.name} ${missing.value ?? ""}`.trimEnd());
}

function convert(flag: Flag, value: string | undefined): unknown {
  if (flag.type === "boolean") {
    if (value === undefined) return true;
    throw new UsageError(`--${flag.name} takes no value`);
  }
  if (value === undefined) throw new UsageError(`--${flag.name} needs a value: ${flag.value}`);
  if (flag.type === "string" || flag.type === "strings") return value;
  const number = flag.type === "bytes" ? parseBytes(value) : value.trim() === "" ? Number.NaN : Number(value);
  if (number === undefined || !Number.isFinite(number) || (flag.type === "integer" && !Number.isSafeInteger(number))) {
    const kind = { integer: "a whole number", number: "a number", bytes: "a size such as 512MiB or 8GiB" }[flag.type];
    throw new UsageError(`--${flag.name} needs ${kind}, not \`${value}\``);
  }
  return number;
}
