import { existsSync } from "node:fs";
import { AbortError, PrefixKvError } from "../errors.ts";
import { formatJson, printable } from "../format.ts";
import { nearest } from "../suggest.ts";
import { packageVersion } from "../version.ts";
import { isGiven, parseCommand, UsageError } from "./args.ts";
import type { Command, Context, Streams } from "./command.ts";
import { commands } from "./commands.ts";
import { commandHelp, programHelp } from "./help.ts";

/** The reason of the signal once standard output takes no more: the command is stopped, which is no failure of it. */
export const noOutput = "standard output takes no more";

/** Runs a command line and resolves with the exit code: 0, 1 for errors, 2 for misuse, 130 after Ctrl-C. */
export async function run(args: readonly string[], streams: Streams): Promise<number> {
  const context: Context = {
    ...streams,
    out: (text) => streams.out(printable(text)),
    err: (text) => streams.err(printable(text)),
    rewrite: (line) => streams.err(`\r${printable(line)}`),
  };
  try {
    return await dispatch(args, context);
  } catch (error) {
    // The one who stopped it knows.
    if (error instanceof AbortError && streams.signal.reason === noOutput) return 0;
    return report(error, wantsJson(args), streams);
  }
}

function wantsJson([first, ...rest]: readonly string[]): boolean {
  const command = commands.find(({ name }) => name === first);
  return command === undefined ? rest.includes("--json") : isGiven("json", command, rest);
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
  if (values.has("json")) context.out(`${formatJson(output)}\n`);
  return command.failed?.(output) ? 1 : 0;
}

function find(name: string): Command {
  const command = commands.find((candidate) => candidate.name === name);
  if (command) return command;
  if (name.startsWith("-")) throw new UsageError(`unknown flag ${name}`, nearest(name, ["--help", "--version"]));
  const names = commands.map((candidate) => candidate.name);
  throw new UsageError(`unknown command \`${name}\``, nearest(name, names));
}

function report(error: unknown, json: boolean, { out, err, color }: Streams): number {
  const { code, message, details, exit } = classify(error);
  const label = color ? `\x1b[31merror[${code}]\x1b[0m` : `error[${code}]`;
  err(`${label}: ${printable(message)}\n`);
  if (code === "usage") err("Run `prefixkv --help` for the commands and their flags.\n");
  if (json) out(`${formatJson({ error: { code, message, details } })}\n`);
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
  if (!hasFolder()) {
    const message = "the folder that this was started in has been removed: change to another one";
    return { code: "working-folder", message, details: {}, exit: 1 };
  }
  const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { code: "internal", message, details: {}, exit: 1 };
}

/** Whether there is a working folder; without one, no relative path means anything. */
function hasFolder(): boolean {
  try {
    return existsSync(process.cwd());
  } catch {
    return false;
  }
}
