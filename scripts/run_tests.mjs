// Runs test runners; which there are is in runners.mjs.
import { spawn } from "node:child_process";
import { delimiter, join } from "node:path";
import { root, systemPath } from "./shell.mjs";

/** Runs one runner with its output shown and read; `limit` seconds end it. */
export async function runTests(runner, { limit, env = {} } = {}) {
  const { command, args, path, skip } = runner.start();
  if (skip) {
    process.stdout.write(`\n== ${runner.name}: ${skip}\n`);
    return { name: runner.name, skipped: true, closing: [skip] };
  }
  process.stdout.write(`\n== ${runner.name}: ${[runner.name === "rust" ? "cargo" : runner.name, ...args].join(" ")}\n`);
  const child = spawn(command, args, {
    cwd: root,
    stdio: ["ignore", "pipe", "pipe"],
    env: {
      ...process.env,
      PATH: path ?? [join(root, "node_modules", ".bin"), systemPath].join(delimiter),
      NO_COLOR: "1",
      FORCE_COLOR: undefined,
      RUST_BACKTRACE: "0",
      // Models must not oversubscribe the machine: quantised products spin while they wait.
      RAYON_NUM_THREADS: process.env.RAYON_NUM_THREADS ?? "2",
      ...env,
    },
    ...(limit ? { timeout: limit * 1000, killSignal: "SIGKILL" } : {}),
  });
  let text = "";
  child.stdout.setEncoding("utf8");
  child.stderr.setEncoding("utf8");
  child.stdout.on("data", (chunk) => {
    text += chunk;
    process.stdout.write(chunk);
  });
  child.stderr.on("data", (chunk) => {
    text += chunk;
    process.stderr.write(chunk);
  });
  const status = await new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve(code ?? 1));
  });
  return { name: runner.name, status, closing: text.match(runner.closing) ?? [], ...runner.count(text) };
}

/** How many failures a run counts as: one at least where it ended badly or tried nothing. */
export function failures({ status, passed, failed }) {
  return failed > 0 ? failed : status !== 0 || passed === 0 ? 1 : 0;
}
