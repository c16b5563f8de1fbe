#!/usr/bin/env node
import { pickDoor } from "../native/pick.ts";
import { run } from "./run.ts";

const controller = new AbortController();

process.on("SIGINT", () => {
  // The second Ctrl-C does not wait.
  if (controller.signal.aborted) process.exit(130);
  controller.abort();
});

process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  // The reader (`| head`) has seen enough.
  if (error.code === "EPIPE") process.exit(0);
  throw error;
});

process.exitCode = await run(process.argv.slice(2), {
  out: (text) => void process.stdout.write(text),
  err: (text) => void process.stderr.write(text),
  interactive: process.stderr.isTTY === true,
  color: process.stderr.isTTY === true && !process.env.NO_COLOR,
  signal: controller.signal,
  door: pickDoor,
});
