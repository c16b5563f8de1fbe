// Runs the command line from its sources, with Bun where there is one.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import { root, runtime, which, windows } from "./shell.mjs";

/** Runs `prefixkv ARGS` on this terminal and resolves with its exit code. */
export function prefixkv(args, { cwd = root } = {}) {
  const child = spawn(cliRuntime(), [join(root, "ts", "cli", "main.ts"), ...args], {
    cwd,
    stdio: "inherit",
    env: { ...process.env, NODE_OPTIONS: quietNode() },
  });
  // The terminal sends Ctrl-C to the whole group: wait for the child's own answer.
  process.on("SIGINT", () => {});
  process.on("SIGTERM", () => child.kill("SIGTERM"));
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("exit", (code, signal) => resolve(code ?? 128 + (constants.signals[signal ?? "SIGTERM"] ?? 0)));
  });
}

function cliRuntime() {
  if (process.versions.bun) return process.execPath;
  const local = join(root, "node_modules", ".bin", windows ? "bun.exe" : "bun");
  return existsSync(local) ? local : (which("bun") ?? runtime("node"));
}

function quietNode() {
  return `${process.env.NODE_OPTIONS ?? ""} --disable-warning=ExperimentalWarning`.trim();
}
