// Runs test runners; which there are is in runners.mjs.
import { spawn } from "node:child_process";
import { delimiter, join } from "node:path";
import { root, systemPath } from "./shell.mjs";

/** Runs one runner with its output shown and read; `limit` seconds end it, and so do `silence` seconds without a word. */
export async function runTests(runner, { limit, silence = 1200, env = {} } = {}) {
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
  const hung = () => {
    process.stdout.write(`\n${runner.name}: nothing came for ${silence} s; it was ended\n`);
    child.kill("SIGKILL");
    // Its children may live on and hold these open.
    child.stdout.destroy();
    child.stderr.destroy();
  };
  const watch = setTimeout(hung, silence * 1000);
  for (const name of ["stdout", "stderr"]) {
    child[name].setEncoding("utf8");
    child[name].on("data", (chunk) => {
      watch.refresh();
      text += chunk;
      process[name].write(chunk);
    });
  }
  const status = await new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve(code ?? 1));
  }).finally(() => clearTimeout(watch));
  return { name: runner.name, status, closing: text.match(runner.closing) ?? [], ...runner.count(text) };
}

/** How many failures a run counts as: one at least where it ended badly or tried nothing. */
export function failures({ status, passed, failed }) {
  return failed > 0 ? failed : status !== 0 || passed === 0 ? 1 : 0;
}
