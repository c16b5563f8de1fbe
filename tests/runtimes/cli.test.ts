// The command line as a process of its own, under the runtime of the tests and through the built package.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { lstat, readdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { runtime } from "../../ts/native/pick.ts";
import { assertDocumented } from "../docs/cli_schema.ts";
import { scene } from "../engine/scenes.ts";
import { temporaryFolder } from "../kit/temporary_folder.ts";
import { shared } from "../kit/turns.ts";
import { root, runScript } from "./spawn.ts";

const main = join(root, "ts", "cli", "main.ts");
const folder = temporaryFolder("run");

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
  assert.match(used.err, /kept at end +[▁▂▃▄▅▆▇█]{10} (49|50|51)\.\d %\n$/);
  const methods = await runScript(main, ["methods", "prefixkv", "--json"]);
  assertDocumented("methods --json", JSON.parse(methods.out));
});

shared("a fit is written, used and shown", async () => {
  const out = join(folder, "fit.json");
  const search = ["--limit", "1", "--methods", "none", "--stores", "int8,int4:window=16", "--out", out];
  const made = await runScript(main, ["fit", "--bytes", "1300000,2MiB", ...search, "--json"]);
  assert.equal(made.code, 0, made.err);
  assertDocumented("fit --json", JSON.parse(made.out));
  assert.deepEqual(JSON.parse(made.out).fit, JSON.parse(await readFile(out, "utf8")));
  const used = await runScript(main, ["describe", scene.image, "--fit", out, "--max-tokens", "8"]);
  assert.equal(used.code, 0, used.err);
  const none = await runScript(main, ["fit", "--bytes", "1KiB", ...search]);
  assert.equal(none.code, 1);
  assert.match(none.err, /^error\[budget\]: .* the least that one takes is \d+ bytes\n$/m);
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
  const { code, err } = await runScript(
    main,
    ["describe", scene.image, "--temperature", "5", "--ignore-eos", "--max-tokens", "1700"],
    {
      onOut: (out, kill) => {
        if (!killed && out.length > 5) kill("SIGINT");
        killed ||= out.length > 5;
      },
    },
  );
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

const unix = { skip: process.platform === "win32" };

/** Runs lines of bash in which `$CLI` is the command line under this runtime. */
async function bash(lines: string): Promise<{ status: number | null; stdout: string; stderr: string }> {
  const { scriptArguments } = await import("./spawn.ts");
  const words = [process.execPath, ...scriptArguments(main)].map((word) => `'${word}'`);
  const script = `CLI() { ${words.join(" ")} "$@"; }\n${lines}\n`;
  const { status, stdout, stderr } = spawnSync("bash", ["-c", script], { cwd: root, encoding: "utf8" });
  return { status, stdout, stderr };
}

test("a standard output that takes no more is an error without a stack trace", unix, async () => {
  for (const args of ["methods", "methods --json", `describe '${scene.image}' --max-tokens 4`]) {
    const { status, stderr } = await bash(`CLI ${args} > /dev/full`);
    assert.equal(status, 1, `${args}: ${stderr}`);
    assert.match(stderr, /error\[output\]: cannot write to standard output: the disk is full \(ENOSPC\)/);
    assert.doesNotMatch(stderr, /^ +at /m);
  }
});

test("without a reader of diagnostics the exit code is the work's", unix, async () => {
  const { stdout } = await bash(
    `CLI describe '${scene.image}' --max-tokens 4 2>&1 >/dev/null | true; echo "\${PIPESTATUS[0]}"; CLI nonsense 2>&1 | true; echo "\${PIPESTATUS[0]}"; ` +
      `CLI describe none.png --json 2>/dev/null | true; echo "\${PIPESTATUS[0]}"; CLI methods | head -c 1; echo " \${PIPESTATUS[0]}"`,
  );
  assert.deepEqual(stdout.split("\n"), ["0", "2", "1", "f 0", ""]);
});

test("a working folder that is gone is said to be", { skip: process.platform !== "linux" }, async () => {
  // Deno does not start there at all.
  if (runtime().name === "deno") return;
  const gone = join(folder, "gone");
  const { stderr, stdout } = await bash(
    `mkdir '${gone}' && cd '${gone}' && rmdir '${gone}'; CLI describe x.png; echo "$?"; CLI methods h2o | head -n 1`,
  );
  assert.match(stdout, /^1\n.*\(h2o\)/);
  assert.match(stderr, /^error\[(?:working-folder|image)\]: .*/);
  assert.doesNotMatch(stderr, /^ +at /m);
});

test("files are written where their names lead, and a full disk leaves the old one", unix, async () => {
  const at = (name: string): string => join(folder, name);
  await writeFile(at("real.json"), "old", { mode: 0o600 });
  await symlink("real.json", at("link.json"));
  const calibrate = `CLI calibrate '${scene.image}' --keeps 0.5 --out`;
  assert.equal((await bash(`${calibrate} '${at("link.json")}'`)).status, 0);
  assert.ok((await lstat(at("link.json"))).isSymbolicLink());
  assert.equal((await stat(at("real.json"))).mode & 0o777, 0o600);
  assert.equal(JSON.parse(await readFile(at("real.json"), "utf8")).rows.length, 1);
  const piped = await bash(
    `mkfifo '${at("pipe")}'; cat '${at("pipe")}' & ${calibrate} '${at("pipe")}' >/dev/null; wait`,
  );
  assert.equal(JSON.parse(piped.stdout).format, "prefixkv-calibration");
  assert.ok((await lstat(at("pipe"))).isFIFO());
  const printed = await bash(`${calibrate} /dev/stdout --json`);
  // The file, and behind it the object of the command.
  const [file = "", object = ""] = printed.stdout.split(/^(?=\{"model")/m);
  assert.deepEqual(JSON.parse(object).calibration, JSON.parse(file));
  const nobody = await bash(`${calibrate} '${at("pipe")}'`);
  assert.match(nobody.stderr, /error\[calibration\]: cannot write the calibration .*nobody reads the pipe/);
  // Shells count the limit in blocks of 1024 bytes or 512; both are less than a page.
  await writeFile(at("page.html"), "old");
  for (const name of ["page.html", "new.html"]) {
    const { status, stderr } = await bash(
      `trap '' XFSZ; ulimit -f 8; CLI describe '${scene.image}' --max-tokens 2 --method h2o --keep 0.5 --report '${at(name)}'`,
    );
    assert.equal(status, 1, stderr);
    assert.match(stderr, /error\[option\]: cannot write .*: (?:a file may not be that large here|File too large)/);
  }
  assert.equal(await readFile(at("page.html"), "utf8"), "old");
  assert.deepEqual(
    (await readdir(folder)).filter((name) => /^new|tmp$/.test(name)),
    [],
  );
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
