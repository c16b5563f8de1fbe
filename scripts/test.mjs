// `npm test [-- RUNNER...]`: installs, builds and runs every test, one runner after the other.
import { spawn } from "node:child_process";
import { delimiter, join } from "node:path";
import { buildNative, buildPanics, buildShim, buildTs } from "./build.mjs";
import { install } from "./install.mjs";
import { runners } from "./runners.mjs";
import { fail, root, systemPath, writeStamp } from "./shell.mjs";

const names = process.argv.slice(2);
const unknown = names.find((name) => !runners.some((runner) => runner.name === name));
if (unknown) fail(`unknown runner \`${unknown}\`; there are ${runners.map((runner) => runner.name).join(", ")}`, 2);

install();
buildNative();
buildPanics();
// The others know nothing of it.
if (names.length === 0 || names.some((name) => ["bun", "deno", "node"].includes(name))) buildShim();
buildTs();

const results = [];
for (const runner of runners.filter(({ name }) => names.length === 0 || names.includes(name))) {
  results.push(await runTests(runner));
}

process.stdout.write("\n");
for (const { name, closing } of results) {
  for (const line of closing) process.stdout.write(`${name.padEnd(5)} ${line.trim()}\n`);
}
const ran = results.filter(({ skipped }) => !skipped);
for (const { name, status, passed, failed } of ran) {
  if (passed + failed === 0) process.stdout.write(`${name.padEnd(5)} ran no test: counted as a failure\n`);
  else if (status !== 0 && failed === 0)
    process.stdout.write(`${name.padEnd(5)} exited with ${status}: counted as a failure\n`);
}
const total = { passed: 0, failed: 0 };
for (const { status, passed, failed } of ran) {
  total.passed += passed;
  total.failed += failed > 0 ? failed : status !== 0 || passed === 0 ? 1 : 0;
}
const line = `${total.passed} passed, ${total.failed} failed`;
writeStamp(".cache/test-summary", `${line}\n`);
process.stdout.write(`${line}\n`);
process.exitCode = total.failed === 0 ? 0 : 1;

/** Runs one runner with its output shown and read. */
async function runTests(runner) {
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
    },
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
