#!/usr/bin/env node
import "../required.ts";
import { writeFailure } from "../files/write.ts";
import { printable } from "../format.ts";
import { pickDoor } from "../native/pick.ts";
import { noOutput, run } from "./run.ts";
import { Terminal } from "./terminal.ts";

const controller = new AbortController();

/** The hearer of Ctrl-C that a command has given, if any. */
let onInterrupt: (() => void) | undefined;

function interrupted(): void {
  if (onInterrupt !== undefined) {
    onInterrupt();
    return;
  }
  // The second Ctrl-C does not wait.
  if (controller.signal.aborted) process.exit(130);
  controller.abort();
}

process.on("SIGINT", interrupted);
const terminal = new Terminal(interrupted);

/** The fate of standard output: its reader (`| head`) has closed it, or writing to it has failed. */
let output: "whole" | "left" | "failed" = "whole";

function outputFailed(error: NodeJS.ErrnoException): void {
  if (output !== "whole") return;
  output = error.code === "EPIPE" ? "left" : "failed";
  if (output === "failed") {
    process.stderr.write(`error[output]: cannot write to standard output: ${printable(writeFailure(error))}\n`);
    process.exitCode = 1;
  }
  // Nobody reads the rest; what the command writes to files comes before it.
  controller.abort(noOutput);
}

/** Writes where it can: Deno throws at once what the others say by an event. */
function write(stream: NodeJS.WriteStream, text: string, failed: (error: NodeJS.ErrnoException) => void): void {
  try {
    stream.write(text);
  } catch (error) {
    failed(error as NodeJS.ErrnoException);
  }
}

process.stdout.on("error", outputFailed);

// Without a reader of diagnostics the answer is as good.
process.stderr.on("error", () => {});

const code = await run(process.argv.slice(2), {
  out: (text) => output === "whole" && write(process.stdout, text, outputFailed),
  err: (text) => write(process.stderr, text, () => {}),
  interactive: process.stderr.isTTY === true,
  color: process.stderr.isTTY === true && !process.env.NO_COLOR,
  signal: controller.signal,
  ask: (prompt) => terminal.ask(prompt, controller.signal),
  onInterrupt: (listener) => {
    onInterrupt = listener;
  },
  door: pickDoor,
});
terminal.close();

// A failed output has set one already.
process.exitCode ||= code;
