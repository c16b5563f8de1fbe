// Starts a script under the runtime that runs the tests.
import { spawn } from "node:child_process";
import { constants } from "node:os";
import { fileURLToPath } from "node:url";
import { runtime } from "../../ts/native/pick.ts";

/** The repository. */
export const root: string = fileURLToPath(new URL("../../", import.meta.url));

export interface Outcome {
  /** The exit code; for a signal 128 and its number, since Deno reports a code of 130 as SIGINT. */
  code: number;
  out: string;
  err: string;
}

export interface SpawnOptions {
  cwd?: string;
  env?: Record<string, string>;
  /** Gives the script `gc()`, where the runtime has no such function of its own. */
  gc?: boolean;
  /** Called with all of standard output so far, and may signal the process. */
  onOut?: (out: string, kill: (signal: NodeJS.Signals) => void) => void;
  /** Its standard input, line by line; without it there is none. */
  input?: AsyncIterable<string>;
}

/** The arguments with which this runtime runs a script, with `gc()` for it if asked. */
export function scriptArguments(script: string, args: readonly string[] = [], gc = false): string[] {
  switch (runtime().name) {
    case "deno":
      return ["run", "-A", "--no-check", ...(gc ? ["--v8-flags=--expose-gc"] : []), script, ...args];
    case "node":
      return ["--disable-warning=ExperimentalWarning", ...(gc ? ["--expose-gc"] : []), script, ...args];
    default:
      return [script, ...args];
  }
}

/** Runs a script under this runtime to its end. */
export function runScript(script: string, args: readonly string[] = [], options: SpawnOptions = {}): Promise<Outcome> {
  const child = spawn(process.execPath, scriptArguments(script, args, options.gc), {
    cwd: options.cwd ?? root,
    env: { ...process.env, NO_COLOR: "1", RUST_BACKTRACE: "0", ...options.env },
    stdio: [options.input ? "pipe" : "ignore", "pipe", "pipe"],
  });
  const { stdin, stdout, stderr } = child;
  if (options.input && stdin) void feed(options.input, stdin);
  let out = "";
  let err = "";
  stdout?.setEncoding("utf8").on("data", (chunk: string) => {
    out += chunk;
    // Deno reports the signal of `child.kill` as the end of a child that has ended well all the same.
    options.onOut?.(out, (signal) => process.kill(child.pid ?? 0, signal));
  });
  stderr?.setEncoding("utf8").on("data", (chunk: string) => {
    err += chunk;
  });
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) =>
      resolve({ code: code ?? 128 + constants.signals[signal ?? "SIGKILL"], out, err }),
    );
  });
}

async function feed(input: AsyncIterable<string>, stdin: NodeJS.WritableStream): Promise<void> {
  for await (const text of input) stdin.write(text);
  stdin.end();
}
