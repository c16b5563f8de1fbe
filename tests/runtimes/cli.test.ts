// The command line as a process of its own, under the runtime of the tests and through the built package.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { assertDocumented } from "../docs/cli_schema.ts";
import { scene } from "../engine/scenes.ts";
import { root, runScript } from "./spawn.ts";

const main = join(root, "ts", "cli", "main.ts");
let folder: string;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "prefixkv-run-"));
});

after(() => rm(folder, { recursive: true }));

test("describe streams from any working directory", async () => {
  const { code, out, err } = await runScript(main, ["describe", scene.image, "--prompt", scene.question], {
    cwd: folder,
  });
  assert.equal(code, 0, err);
  for (const { color, shape } of scene.objects) assert.ok(out.includes(`${color} ${shape}`), out);
  assert.match(err, /tokens .*\nfirst token .*\ndecoding .* tokens\/s\nkv cache /);
  assert.doesNotMatch(err, /\r/);
});

test("describe --json through the built package prints the documented object", async () => {
  const built = join(root, "dist", "cli", "main.js");
  const { code, out, err } = await runScript(built, ["describe", scene.image, "--json", "--max-tokens", "8"], {
    cwd: folder,
  });
  assert.deepEqual([code, err], [0, ""]);
  const printed = JSON.parse(out);
  assertDocumented("describe --json", printed);
  assert.equal(printed.tokens.length, 8);
});

test("score, inspect and doctor print the documented objects", async () => {
  const asked = ["--image", scene.image, "--prompt", scene.question, "--answer", scene.answer];
  const score = await runScript(main, ["score", ...asked, "--json"]);
  assert.equal(score.code, 0, score.err);
  assertDocumented("score --json", JSON.parse(score.out));
  assert.ok(JSON.parse(score.out).ppl < 1.5);
  const inspect = await runScript(main, ["inspect", "models/tiny-llava", "--memory", "1GiB", "--json"]);
  assert.equal(inspect.code, 0, inspect.err);
  assertDocumented("inspect --json", JSON.parse(inspect.out));
  const doctor = await runScript(main, ["doctor", "--json"], { cwd: folder });
  assert.equal(doctor.code, 0, doctor.out);
  assertDocumented("doctor --json", JSON.parse(doctor.out));
});

test("a calibration is written, used and shown", async () => {
  const out = join(folder, "mine.json");
  const made = await runScript(main, ["calibrate", scene.image, "--keeps", "0.4,0.8", "--out", out, "--json"]);
  assert.equal(made.code, 0, made.err);
  assertDocumented("calibrate --json", JSON.parse(made.out));
  const cache = ["--method", "prefixkv", "--keep", "0.5", "--calibration", out];
  const used = await runScript(main, ["describe", scene.image, ...cache, "--max-tokens", "8"]);
  assert.equal(used.code, 0, used.err);
  assert.match(used.err, /kept +[▁▂▃▄▅▆▇█]{10} (49|50|51)\.\d %\n$/);
  const methods = await runScript(main, ["methods", "prefixkv", "--json"]);
  assertDocumented("methods --json", JSON.parse(methods.out));
});

test("errors and misuse have their exit codes", async () => {
  const missing = await runScript(main, ["describe", "none.png", "--json"]);
  assert.equal(missing.code, 1);
  assert.match(missing.err, /^error\[image\]: /);
  assertDocumented("error", JSON.parse(missing.out));
  const misuse = await runScript(main, ["describe", scene.image, "--sed", "1"]);
  assert.equal(misuse.code, 2);
  assert.match(misuse.err, /did you mean `--seed`\?/);
});

test("Ctrl-C stops a stream with 130", async () => {
  let killed = false;
  const { code, err } = await runScript(main, ["describe", scene.image, "--temperature", "5", "--max-tokens", "1700"], {
    onOut: (out, kill) => {
      if (!killed && out.length > 5) kill("SIGINT");
      killed ||= out.length > 5;
    },
  });
  assert.equal(code, 130, err);
  assert.match(err, /error\[aborted\]/);
});

test("a reader that leaves early is no error", { skip: process.platform === "win32" }, async () => {
  const script = join(folder, "head.sh");
  const { scriptArguments } = await import("./spawn.ts");
  const words = [process.execPath, ...scriptArguments(main, ["describe", scene.image])].map((word) => `'${word}'`);
  await writeFile(script, `set -o pipefail\n${words.join(" ")} | head -c 4 >/dev/null\n`);
  const { status, stderr } = spawnSync("bash", [script], { cwd: root, encoding: "utf8" });
  assert.equal(status, 0, stderr);
  assert.doesNotMatch(stderr, /EPIPE/);
});

test("a program that disposes of its model ends by itself, one that only imports loads no addon", async () => {
  const program = join(folder, "program.ts");
  await writeFile(
    program,
    `import { load } from ${JSON.stringify(join(root, "ts", "index.ts"))};
const before = process.report?.getReport?.()?.sharedObjects ?? [];
const model = await load();
console.log(model.info.layers, before.some?.((file) => String(file).includes("prefixkv")) ?? false);
await model.dispose();
`,
  );
  const { code, out, err } = await runScript(program, [], { cwd: folder });
  assert.equal(code, 0, err);
  assert.equal(out, "10 false\n");
});
