import { AbortError, PrefixKvError } from "../errors.ts";
import { nearest } from "../suggest.ts";
import { packageVersion } from "../version.ts";
import { parseCommand, UsageError } from "./args.ts";
import type { Command, Context } from "./command.ts";
import { commands } from "./commands.ts";
import { commandHelp, programHelp } from "./help.ts";

/** Runs a command line and resolves with the exit code: 0, 1 for errors, 2 for misuse, 130 after Ctrl-C. */
export async function run(args: readonly string[], context: Context): Promise<number> {
  try {
    return await dispatch(args, context);
  } catch (error) {
    return report(error, args.includes("--json"), context);
  }
}

async function dispatch(args: readonly string[], context: Context): Promise<number> {
  const [first, ...rest] = args;
  if (first === undefined) {
    context.err(programHelp());
    return 2;
  }
  if (first === "--help" || first === "-h" || first === "help") {
    context.out(rest[0] === undefined ? programHelp() : commandHelp(find(rest[0])));
    return 0;
  }
  if (first === "--version" || first === "-v") {
    context.out(`${await packageVersion()}\n`);
    return 0;
  }
  const command = find(first);
  const values = parseCommand(command, rest);
  if (values.has("help")) {
    context.out(commandHelp(command));
    return 0;
  }
  const output = await command.run(values, context);
  if (values.has("json")) context.out(`${JSON.stringify(output)}\n`);
  return command.failed?.(output) ? 1 : 0;
}

function find(name: string): Command {
  const command = commands.find((candidate) => candidate.name === name);
  if (command) return command;
  if (name.startsWith("-")) throw new UsageError(`unknown flag ${name}`, nearest(name, ["--help", "--version"]));
  const names = commands.map((candidate) => candidate.name);
  throw new UsageError(`unknown command \`${name}\``, nearest(name, names));
}

function report(error: unknown, json: boolean, context: Context): number {
  const { code, message, details, exit } = classify(error);
  const label = context.color ? `\x1b[31merror[${code}]\x1b[0m` : `error[${code}]`;
  context.err(`${label}: ${message}\n`);
  if (code === "usage") context.err("Run `prefixkv --help` for the commands and their flags.\n");
  if (json) context.out(`${JSON.stringify({ error: { code, message, details } })}\n`);
  return exit;
}

function classify(error: unknown): { code: string; message: string; details: Record<string, unknown>; exit: number } {
  if (error instanceof UsageError) {
    return { code: "usage", message: error.message, details: { suggestion: error.suggestion ?? null }, exit: 2 };
  }
  if (error instanceof PrefixKvError) {
    const { code, message, details } = error;
    return { code, message, details, exit: error instanceof AbortError ? 130 : 1 };
  }
  const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { code: "internal", message, details: {}, exit: 1 };
}
