// bench/gpu/check.py where there is no GPU: the CPU plays both sides, or the shim plays the GPU. Only a GPU can show what it does on one.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { runtime } from "../../ts/native/pick.ts";
import { root } from "../runtimes/spawn.ts";

const build = new URL("../../scripts/build.mjs", import.meta.url).href;
const { library, shimLibrary } = (await import(build)) as { library: string; shimLibrary: string };

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

const names = [
  ...["machine", "smoke", "kernels", "products", "generations", "memory"],
  ...["throughput-7b", "trace-7b", "torch-7b", "throughput-13b", "torch-13b", "sanitizer"],
];
// A program in Python: that one runtime starts it is enough.
const node = runtime().name === "node";
const python = node && spawnSync("python3", ["--version"]).status === 0;
if (!node) console.log("bench/gpu is run under Node only");
else if (!python) console.log("python3 is not on the PATH: bench/gpu was not run");

interface How {
  /** At which text of its progress it is asked to end. */
  kill?: RegExp;
  env?: Record<string, string>;
  /** The parts that it has. */
  parts?: string[];
}

/** Runs the check and gives its exit status and result. */
async function check(
  args: string[],
  { kill, env = {}, parts = names }: How = {},
): Promise<{ status: number | null; result: Result; out: string }> {
  const folder = mkdtempSync(join(tmpdir(), "prefixkv-gpu-"));
  const scratch = join(folder, "scratch");
  mkdirSync(scratch);
  try {
    const out = join(folder, "result.json");
    const fixed = ["bench/gpu/check.py", "--out", out, "--scratch", scratch, "--device", "cpu", "--small"];
    const child = spawn("python3", [...fixed, ...args], {
      cwd: root,
      env: { ...process.env, RAYON_NUM_THREADS: "2", PYTHONDONTWRITEBYTECODE: "1", ...env },
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
    assert.deepEqual(Object.keys(result.parts), parts);
    assert.equal(shown, `${result.summary.join("\n")}\n`);
    for (const name of parts) assert.ok(shown.includes(`| ${name} |`), name);
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
  for (const name of ["machine", "smoke", "generations", "memory", "throughput-7b", "throughput-13b"])
    assert.equal(parts[name]?.status, "ok", name);
  for (const name of ["products", "torch-7b", "torch-13b"]) assert.notEqual(parts[name]?.status, "failed", name);
  for (const name of ["trace-7b", "sanitizer"]) assert.match(parts[name]?.reason ?? "", /watches a GPU/, name);

  const tally = parts.generations?.tally as Record<string, { cases: number; strict: number; sameTokens: number }>;
  for (const { cases, strict, sameTokens } of Object.values(tally))
    assert.deepEqual([cases, strict, sameTokens], [3, 3, 3]);
  // The system counts what the CPU has.
  assert.ok((parts.smoke as unknown as Smoke).runs.every(({ pool }) => pool === null));
  const { generations, memory } = parts as Record<string, Part & { methods?: string[]; runs?: unknown[] }>;
  assert.ok(generations?.methods?.includes("prefixkv"));
  assert.equal(memory?.runs?.length, 4);
  for (const name of ["throughput-7b", "throughput-13b"]) {
    const runs = parts[name]?.runs as { batch: number; keep: number | null; decodeTokensPerSecond: number | null }[];
    // One request alone is the first thing that a user sees.
    assert.equal(runs[0]?.batch, 1);
    for (const keep of [null, 1, 0.8, 0.6, 0.4, 0.2]) assert.ok(runs.some((run) => run.keep === keep));
    assert.ok(runs.some((run) => (run.decodeTokensPerSecond ?? 0) > 0));
  }
});

interface Smoke extends Part {
  runs: { device: string; pool: Record<"reserved" | "mostReserved" | "used" | "mostUsed", number> | null }[];
}

/** Findings of the parts of a run with the shim. */
interface Shown {
  smoke: Smoke;
  kernels: Part & {
    checks: { passed: number; failed: number };
    report: { name: string; passed: boolean; memory: { free: number; total: number } };
    ceilings: { readBytesPerSecond: number; matmulF16PerSecond: number };
  };
  generations: Part & {
    tally: Record<"f32" | "f16", { cases: number; strict: number }>;
    batch: { requests: number };
  };
  "throughput-7b": Part & {
    load: { info: { device: string }; batch: number };
    runs: { keep: number | null; bandwidthShare?: number | null; device?: unknown }[];
  };
}

const skip = !python
  ? "needs Node and python3"
  : existsSync(join(root, shimLibrary))
    ? false
    : `NOT RUN: no ${shimLibrary}: \`npm test\` makes it where there is a C++ compiler`;
if (skip) process.stderr.write(`tests/gpu/check.test.ts, bench/gpu over the shim: ${skip}\n`);

test("with the shim for a GPU kernels, generations and throughput are right, and memory says who is missing", {
  skip,
}, async () => {
  const parts = ["machine", "smoke", "kernels", "generations", "memory", "throughput-7b"];
  const args = ["--library", shimLibrary, "--device", "cuda:0", "--minutes", "8", "--only", parts.join(",")];
  // A card of this machine is none of its business.
  const { status, result } = await check(args, { env: { CUDA_VISIBLE_DEVICES: "none" }, parts });
  assert.equal(status, 0, JSON.stringify(result.parts));
  for (const name of parts) assert.equal(result.parts[name]?.status, name === "memory" ? "not run" : "ok", name);
  assert.match(result.parts.memory?.reason ?? "", /nobody counts the bytes of this device/);
  const { smoke, kernels, generations, "throughput-7b": throughput } = result.parts as unknown as Shown;
  const [, { pool } = assert.fail("no run on the shim")] = smoke.runs;
  assert.ok(
    pool && pool.used > 5e6 && pool.used < pool.mostUsed && pool.reserved <= pool.mostReserved,
    JSON.stringify(pool),
  );
  for (const part of [kernels, generations, throughput]) assert.deepEqual(part.notRun ?? [], []);

  assert.ok(kernels.checks.passed > 30 && kernels.checks.failed === 0, JSON.stringify(kernels.checks));
  const { name, passed, memory } = kernels.report;
  assert.deepEqual([name, passed, memory.free], ["the shim", true, memory.total]);
  const { readBytesPerSecond, matmulF16PerSecond } = kernels.ceilings;
  assert.ok(readBytesPerSecond > 0 && matmulF16PerSecond > 0);

  const { f32, f16 } = generations.tally;
  assert.deepEqual([f32.cases, f32.strict, f16.cases, generations.batch.requests], [3, 3, 3, 4]);

  assert.deepEqual([throughput.load.info.device, throughput.load.batch], ["cuda:0", 3]);
  for (const keep of [null, 1, 0.8, 0.6, 0.4, 0.2]) assert.ok(throughput.runs.some((run) => run.keep === keep));
  assert.ok(throughput.runs.some((run) => (run.bandwidthShare ?? 0) > 0));
  // Not what some card counts.
  assert.ok(throughput.runs.every((run) => run.device === undefined));
});

test("a library that is not there fails, and the result is written", { skip: !python }, async () => {
  const { status, result, out } = await check(["--library", "no/such/library.so", "--minutes", "1"]);
  // Its own status, for a script that can try something else in the time that is left.
  assert.equal(status, 3);
  for (const name of ["machine", "smoke"]) assert.equal(result.parts[name]?.status, "failed", name);
  for (const name of names.slice(2))
    assert.deepEqual([result.parts[name]?.status, result.parts[name]?.reason], ["not run", "the smoke test failed"]);
  assert.match(out, /machine failed: .*no library at .*library\.so: build one, or name it with --library/);
  assert.equal(result.library.version, null);
});

test("on a machine without the device it says what is missing", { skip: !python }, async () => {
  // A number that no machine has.
  const { status, result } = await check(["--library", library, "--minutes", "1", "--device", "cuda:99"]);
  assert.equal(status, 0, JSON.stringify(result.parts));
  for (const name of ["smoke", "generations", "throughput-7b"])
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

test("the two short runs have their parts, and come to an end in less than five minutes each", {
  skip: !python,
}, async () => {
  for (const [run, parts, minutes] of [
    ["first", ["machine", "smoke", "kernels", "products", "throughput-7b", "trace-7b"], 4.5],
    ["second", ["machine", "smoke", "memory", "generations", "throughput-7b", "torch-7b", "sanitizer"], 4.8],
  ] as const) {
    const { status, result } = await check(["--library", library, "--device", "cuda:99", "--run", run], {
      parts: [...parts],
    });
    assert.equal(status, 0, JSON.stringify(result.parts));
    assert.equal((result as Result & { options: { minutes: number } }).options.minutes, minutes);
  }
});

test("what is stopped leaves its result, and no model", { skip: !python }, async () => {
  const { status, result } = await check(["--library", library, "--minutes", "3"], { kill: /^generations: at most/m });
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
