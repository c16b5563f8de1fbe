// A GPU from `load({ device: "cuda" })` down to the kernels, without one: over crates/shim-addon, the addon whose `cuda:0` is the shim.
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import type { Kept, Memory } from "../../ts/index.ts";
import { shared } from "../kit/turns.ts";
import { root, runScript } from "../runtimes/spawn.ts";
import { doors } from "./doors.ts";

const build = new URL("../../scripts/build.mjs", import.meta.url).href;
const { shim } = (await import(build)) as { shim: string };
const file = join(root, shim);
const script = fileURLToPath(new URL("./gpu_child.ts", import.meta.url));
const env = { PREFIXKV_CUDA_NATIVE: file, RAYON_NUM_THREADS: "2" };
const skip = existsSync(file) ? false : `no ${shim}: \`npm test\` makes it where there is a C++ compiler`;
if (skip) console.log(`the product on a GPU was not tested: ${skip}`);

interface Told {
  name: string;
  code: string;
  message: string;
}

/** Memory and objects that the shim and the addon over it hold. */
interface Held {
  bytes: number;
  models: number;
  sessions: number;
  requests: number;
  cacheBytes: number;
}

type Counted = Pick<Memory, "full" | "payload" | "keptPerLayer">;

/** Results of a model on one device. */
interface Side {
  device: string;
  loaded: Held;
  said: {
    described: { text: string; tokens: number[]; memory: Counted };
    kept: Kept[][];
    logprobs: number[];
    halved: Counted;
    resident: number[];
  };
  stopped: { error: Told | null; parts: number; afterwards: number[] };
  talked?: { turns: { tokens: number[]; cached: number }[]; open: Held };
  three?: number[][];
  cacheKeys: Told | null;
  disposed: Held;
}

interface Outcome {
  about: { devices: string[]; noGpu: string | null };
  cuda: Side;
  cpu: Side;
  auto: string;
  weights: Told | null;
  second: Told | null;
  checked: { error: Told | null; seen: number[] } | null;
  atLast: Held;
}

/** An error of a class, whose message says something. */
function isRefused(told: Told | null, name: string, code: string, message: RegExp): void {
  assert.deepEqual([told?.name, told?.code], [name, code], JSON.stringify(told));
  assert.match(told?.message ?? "", message);
}

const nothing: Held = { bytes: 0, models: 0, sessions: 0, requests: 0, cacheBytes: 0 };

for (const [index, door] of doors.entries()) {
  // The second door leads to the same engine: what only that decides is not asked again.
  const part = index === 0 ? "all" : "some";
  test(`${door}: a model on a GPU says and keeps what it does on the CPU, and gives its memory back`, {
    skip,
  }, async () => {
    const { code, out, err } = await runScript(script, [door, part, file], { env });
    assert.equal(code, 0, err);
    const { about, cuda, cpu, auto, weights, second, checked, atLast } = JSON.parse(out) as Outcome;
    assert.deepEqual(about, { devices: ["cpu", "cuda:0"], noGpu: null });
    assert.deepEqual([cuda.device, cpu.device, auto], ["cuda:0", "cpu", "cuda:0"]);

    // Of the tokens, positions and reports nothing may differ; the last bits of the logits do.
    const { logprobs, resident, ...said } = cuda.said;
    const { logprobs: expected, resident: onCpu, ...rest } = cpu.said;
    assert.deepEqual(said, rest);
    assert.ok(said.described.text.startsWith("The image shows"), said.described.text);
    assert.equal(logprobs.length, expected.length);
    for (const [at, logprob] of logprobs.entries()) {
      const apart = Math.abs(logprob - (expected[at] ?? Number.NaN));
      assert.ok(apart < 1e-4, `token ${at}: ${logprob} and ${expected[at]}`);
    }
    const { full, payload } = said.halved;
    assert.ok(payload < 0.52 * full, `${payload} of ${full}`);
    for (const [at, bytes] of resident.entries()) {
      // Bookkeeping is a little larger on a GPU.
      assert.ok(Math.abs(bytes - (onCpu[at] ?? 0)) < 4096, `${bytes} and ${onCpu[at]}`);
    }
    assert.ok((resident[1] ?? 0) < 0.55 * (resident[0] ?? 0), `${resident}`);

    isRefused(cuda.stopped.error, "AbortError", "aborted", /./);
    assert.equal(cuda.stopped.parts, 2);
    assert.deepEqual(cuda.stopped.afterwards, cpu.stopped.afterwards);
    assert.deepEqual(cuda.three, cpu.three);
    assert.deepEqual(cuda.talked?.turns, cpu.talked?.turns);
    if (part === "all") {
      assert.deepEqual([cuda.three?.length, new Set(cuda.three?.map(String)).size], [3, 3]);
      assert.ok((cuda.talked?.turns[1]?.cached ?? 0) > 100);
      assert.equal(checked?.seen[0], 1);
      isRefused(checked?.error ?? null, "AbortError", "aborted", /./);
    }

    isRefused(cuda.cacheKeys, "OptionError", "option", /positions "cache".*which the CUDA kernels do not/);
    assert.equal(cpu.cacheKeys, null);
    isRefused(weights, "DeviceError", "device", /`cuda:0`.*"q8_0" run on the CPU only; use "f16" or "f32"/);
    isRefused(second, "DeviceError", "device", /`cuda:1`.*no device 1/);

    // The weights of the model and the cache of a chat are on the device, and nothing stays there.
    const { bytes, ...loaded } = cuda.loaded;
    assert.deepEqual(loaded, { models: 1, sessions: 0, requests: 0, cacheBytes: 0 });
    assert.ok(bytes > 15_000_000, `${bytes}`);
    if (cuda.talked) {
      const { open } = cuda.talked;
      assert.ok(open.sessions === 1 && open.cacheBytes > 1_000_000, JSON.stringify(open));
      assert.ok(open.bytes >= bytes + open.cacheBytes - 65_536, JSON.stringify([bytes, open]));
    }
    assert.deepEqual([cuda.disposed, atLast], [nothing, nothing]);
  });
}

shared("doctor describes the sample on the GPU too", { skip }, async () => {
  const { code, out, err } = await runScript(join(root, "ts", "cli", "main.ts"), ["doctor", "--json"], { env });
  assert.equal(code, 0, out + err);
  const { cuda, selfTest } = JSON.parse(out);
  assert.deepEqual([cuda.file, cuda.devices, cuda.reason], [file, ["cuda:0"], null]);
  assert.deepEqual([cuda.selfTest.ok, cuda.selfTest.error], [true, null]);
  assert.equal(cuda.selfTest.text, selfTest.text);
});
