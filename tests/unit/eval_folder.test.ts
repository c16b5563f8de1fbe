import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { readdir, rm, utimes, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { EvaluationError, readResults } from "../../ts/eval/index.ts";
import { clean, fresh, read, run } from "../kit/eval_fake.ts";

after(clean);

test("files that are not of the run are refused, by the line", async () => {
  const out = fresh();
  await run(out);
  const [quality = "", timings = "", reference = ""] = await Promise.all(
    ["quality.jsonl", "timings.jsonl", "reference.jsonl"].map((name) => read(out, name)),
  );
  const refused = async (name: string, content: string, pattern: RegExp, line?: number): Promise<void> => {
    const before = await read(out, name);
    await writeFile(join(out, name), content);
    const error = await run(out).catch((error: unknown) => error);
    assert.ok(error instanceof EvaluationError, String(error));
    assert.match(error.message, pattern);
    assert.equal(error.details.line, line);
    await writeFile(join(out, name), before);
  };
  const foreign = /does not belong to the run of run\.json/;
  await refused("quality.jsonl", quality.replace('"sample":"b"', '"sample":"c"'), foreign, 4);
  for (const [name, text] of [
    ["quality.jsonl", quality],
    ["timings.jsonl", timings],
    ["reference.jsonl", reference],
  ] as const) {
    const count = text.split("\n").length;
    const [first = ""] = text.split("\n");
    // Behind the last line, and in the middle: a line of the run, of another, of another file, of none, and no object.
    await refused(name, `${text}${first}\n`, foreign, count);
    await refused(name, `${text}${first.replace(/"sample":"a"/, '"sample":"z"')}\n`, foreign, count);
    for (const other of ["{}", '{"sample":"a"}', '{"method":"h2o","keep":0.5,"sample":"b"}'])
      await refused(name, `${text}${other}\n`, /it has no |its `tokens` are no list/, count);
    for (const other of ["null", "[]", "7", '"text"', "x", "{", "\0"]) {
      await refused(name, `${text}${other}\n`, /it is no JSON object/, count);
      await refused(name, `${first}\n${other}\n${text.slice(first.length + 1)}`, /it is no JSON object/, 2);
    }
  }
  for (const field of ["nll", "keptPerLayer", "fullBytes", "answerTokens"]) {
    const broken = quality.split("\n").map((line, at) => (at === 2 ? line.replace(`"${field}"`, '"other"') : line));
    await refused("quality.jsonl", broken.join("\n"), new RegExp(`\`${field}\``), 3);
    const none = quality.replace(new RegExp(`"${field}":(\\[[^\\]]*\\]|[^,}]*)`), `"${field}":null`);
    await refused("quality.jsonl", none, new RegExp(`\`${field}\``), 1);
  }
  await refused("run.json", "[", /no JSON object/);
  await refused("run.json", "[]", /no JSON object/);
  await refused("run.json", "{}", /its version is undefined; this release reads 1 and 2/);
  await rm(join(out, "run.json"));
  await assert.rejects(run(out), /it holds results but no run\.json/);
  await assert.rejects(readResults(out), /no run\.json, so it is no folder of results/);
  const file = fresh();
  await writeFile(file, "");
  await assert.rejects(run(file), EvaluationError);
});

test("a folder is written by one evaluation at a time", async () => {
  const out = fresh();
  let second: unknown;
  const onProgress = async ({ done }: { done: number }): Promise<void> => {
    if (done === 2) second = run(out).catch((error: unknown) => error);
  };
  await run(out, { onProgress });
  const error = await second;
  assert.ok(error instanceof EvaluationError, String(error));
  assert.match(error.message, /another evaluation writes into it \(process \d+\); wait for its end/);
  assert.equal((await readResults(out)).quality.length, 6);
  assert.ok(!(await readdir(out)).includes(".lock"));
  // Of a killed one only its lock is left: by a process that has gone, by one that is silent, half written, or empty.
  const dead = spawnSync(process.execPath, ["--version"]).pid;
  for (const [mark, silent] of [
    [JSON.stringify({ pid: dead, host: hostname(), id: "x" }), false],
    [JSON.stringify({ pid: process.pid, host: hostname(), id: "x" }), true],
    [JSON.stringify({ pid: 1, host: "elsewhere", id: "x" }), true],
    ['{"pid":', true],
    ["", true],
  ] as const) {
    const lock = join(out, ".lock");
    await writeFile(lock, mark);
    const past = new Date(Date.now() - 31_000);
    if (silent) await utimes(lock, past, past);
    await run(out);
    assert.ok(!(await readdir(out)).includes(".lock"), mark);
  }
  for (const mark of [JSON.stringify({ pid: 1, host: "elsewhere", id: "x" }), ""]) {
    await writeFile(join(out, ".lock"), mark);
    await assert.rejects(run(out), /another evaluation writes into it/);
  }
});

test("an evaluation whose folder was taken over stops instead of writing into it", async () => {
  const out = fresh();
  const onProgress = ({ done }: { done: number }): void => {
    if (done === 3) writeFileSync(join(out, ".lock"), "of somebody else");
  };
  await assert.rejects(run(out, { onProgress }), /another evaluation has taken the folder over from this one/);
  assert.equal((await read(out)).split("\n").length, 4);
});
