// bench/gpu/check.py where there is no GPU: the CPU plays both sides. What it does on one, only one can show.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { root } from "../runtimes/spawn.ts";

const build = new URL("../../scripts/build.mjs", import.meta.url).href;
const { library } = (await import(build)) as { library: string };

interface Part {
  status: "ok" | "failed" | "not run";
  reason?: string;
  seconds: number;
  notRun?: { what: string; reason: string }[];
  [more: string]: unknown;
}

interface Result {
  machine: { processor: string; python: string } | null;
  library: { version: string | null; bytes: number | null };
  parts: Record<string, Part>;
  summary: string[];
  seconds: number;
}

const names = ["machine", "kernels", "generations", "memory"].concat(
  ["7b", "13b"].flatMap((size) => [`throughput-${size}`, `torch-${size}`]),
);
const python = spawnSync("python3", ["--version"]).status === 0;
if (!python) console.log("python3 is not on the PATH: bench/gpu was not run");

/** Runs the check and gives its exit status and result; `kill` says at which text of its progress it is asked to end. */
async function check(args: string[], kill?: RegExp): Promise<{ status: number | null; result: Result; out: string }> {
  const folder = mkdtempSync(join(tmpdir(), "prefixkv-gpu-"));
  const scratch = join(folder, "scratch");
  mkdirSync(scratch);
  try {
    const out = join(folder, "result.json");
    const fixed = ["bench/gpu/check.py", "--out", out, "--scratch", scratch, "--device", "cpu", "--small"];
    const child = spawn("python3", [...fixed, ...args], {
      cwd: root,
      env: { ...process.env, RAYON_NUM_THREADS: "2", PYTHONDONTWRITEBYTECODE: "1" },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let [shown, progress] = ["", ""];
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
      shown += chunk;
    });
    child.stderr.setEncoding("utf8").on("data", (chunk: string) => {
      progress += chunk;
      // Not by `child.kill`, after which Deno keeps the exit status to itself.
      if (kill?.test(progress) && child.pid) process.kill(child.pid, "SIGTERM");
    });
    const status = await new Promise<number | null>((resolve, reject) => {
      child.on("error", reject);
      child.on("close", resolve);
    });
    const result = JSON.parse(readFileSync(out, "utf8")) as Result;
    assert.deepEqual(readdirSync(scratch), [], "models are left behind");
    assert.deepEqual(Object.keys(result.parts), names);
    assert.equal(shown, `${result.summary.join("\n")}\n`);
    for (const name of names) assert.ok(shown.includes(`| ${name} |`), name);
    return { status, result, out: shown };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test("the dry run takes every part that can run, and says why the others cannot", { skip: !python }, async () => {
  const { status, result } = await check(["--library", library, "--minutes", "3"]);
  const { parts } = result;
  assert.equal(status, 0, JSON.stringify(parts));
  const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { version: string };
  assert.equal(result.library.version, version);
  assert.ok(result.machine?.processor);
  assert.deepEqual([parts.kernels?.status, /needs a CUDA device/.test(parts.kernels?.reason ?? "")], ["not run", true]);
  for (const name of ["machine", "generations", "memory", "throughput-7b", "throughput-13b"])
    assert.equal(parts[name]?.status, "ok", name);
  for (const name of ["torch-7b", "torch-13b"]) assert.notEqual(parts[name]?.status, "failed", name);

  const tally = parts.generations?.tally as Record<string, { cases: number; strict: number; sameTokens: number }>;
  for (const { cases, strict, sameTokens } of Object.values(tally))
    assert.deepEqual([cases, strict, sameTokens], [5, 5, 5]);
  const { generations, memory } = parts as Record<string, Part & { methods?: string[]; runs?: unknown[] }>;
  assert.ok(generations?.methods?.includes("prefixkv"));
  assert.equal(memory?.runs?.length, 4);
  for (const name of ["throughput-7b", "throughput-13b"]) {
    const runs = parts[name]?.runs as { keep: number | null; decodeTokensPerSecond: number | null }[];
    for (const keep of [null, 1, 0.8, 0.6, 0.4, 0.2]) assert.ok(runs.some((run) => run.keep === keep));
    assert.ok(runs.some((run) => (run.decodeTokensPerSecond ?? 0) > 0));
  }
});

test("a library that is not there fails, and the result is written", { skip: !python }, async () => {
  const { status, result, out } = await check(["--library", "no/such/library.so", "--minutes", "1"]);
  assert.equal(status, 1);
  for (const name of ["machine", "generations", "memory", "throughput-7b", "throughput-13b"])
    assert.equal(result.parts[name]?.status, "failed", name);
  assert.match(out, /machine failed: .*no library at .*library\.so: build one, or name it with --library/);
  assert.equal(result.library.version, null);
});

test("on a machine without the device it says what is missing", { skip: !python }, async () => {
  // A number that no machine has.
  const { status, result } = await check(["--library", library, "--minutes", "1", "--device", "cuda:99"]);
  assert.equal(status, 0, JSON.stringify(result.parts));
  for (const name of ["generations", "throughput-7b"])
    assert.match(result.parts[name]?.reason ?? "", /^the library has no cuda:99: /);
  for (const name of names.filter((name) => name !== "machine"))
    assert.equal(result.parts[name]?.status, "not run", name);
});

test("without time nothing runs, which is no failure", { skip: !python }, async () => {
  const { status, result } = await check(["--library", library, "--minutes", "0"]);
  assert.equal(status, 0);
  for (const name of names) {
    assert.equal(result.parts[name]?.status, "not run");
    assert.match(result.parts[name]?.reason ?? "", /no time left/);
  }
});

test("what is stopped leaves its result, and no model", { skip: !python }, async () => {
  const { status, result } = await check(["--library", library, "--minutes", "3"], /^generations: at most/m);
  assert.equal(status, 1, JSON.stringify(result.parts));
  assert.equal(result.parts.machine?.status, "ok");
  for (const [name, state] of [
    ["generations", "failed"],
    ["torch-13b", "not run"],
  ] as const)
    assert.deepEqual([result.parts[name]?.status, result.parts[name]?.reason], [state, "stopped by SIGTERM"]);
});

test("crashes, hangs and differences are reported for what they are", { skip: !python }, () => {
  const { status, stderr } = spawnSync("python3", ["tests/gpu/check_parts.py"], { cwd: root, encoding: "utf8" });
  assert.equal(status, 0, stderr);
});
