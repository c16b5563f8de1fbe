// `npm test [-- RUNNER...]`: installs, builds and runs every test, one runner after the other.
import { buildNative, buildPanics, buildShim, buildTs } from "./build.mjs";
import { install } from "./install.mjs";
import { failures, runTests } from "./run_tests.mjs";
import { runners } from "./runners.mjs";
import { fail, writeStamp } from "./shell.mjs";

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
const chosen = runners.filter(({ name }) => names.length === 0 || names.includes(name));
// Of tests that would say the same on every runtime, each runs on one where all three do; on a runtime by itself, all.
const all = ["bun", "deno", "node"].every((name) => chosen.some((runner) => runner.name === name));
for (const runner of chosen) results.push(await runTests(runner, { env: all ? { PREFIXKV_TURNS: "shared" } : {} }));

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
for (const result of ran) {
  total.passed += result.passed;
  total.failed += failures(result);
}
const line = `${total.passed} passed, ${total.failed} failed`;
writeStamp(".cache/test-summary", `${line}\n`);
process.stdout.write(`${line}\n`);
process.exitCode = total.failed === 0 ? 0 : 1;
