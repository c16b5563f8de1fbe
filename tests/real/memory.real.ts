// How long the GGUF file takes to load, and what a process that has loaded it holds.
import assert from "node:assert/strict";
import { readFileSync, statSync } from "node:fs";
import { test } from "node:test";
import { load } from "../../ts/index.ts";
import { source } from "./goldens.ts";

/**
 * Beside the file and the cache: a vocabulary of 49,152 tokens with its merges, which takes some 9 MiB whatever the weights are, and
 * buffers of a request. 10.6 MiB were found for a file that is read, 13.4 for one that is mapped.
 */
const BESIDE = 16 * 2 ** 20;

/** Bytes that the process holds, mapped files included. */
const resident = (): number => {
  const kibibytes = readFileSync("/proc/self/status", "utf8").match(/^VmRSS:\s+(\d+) kB$/m)?.[1];
  assert.ok(kibibytes !== undefined);
  return Number(kibibytes) * 1024;
};

/** Has the native code in memory, and its threads. */
const warm = async (): Promise<void> => {
  await using model = await load();
  await model.generate({ prompt: "USER: Hello ASSISTANT:", maxTokens: 2 });
};

for (const map of [true, false]) {
  test(`the GGUF file, ${map ? "mapped" : "read"}: time and memory`, async () => {
    const path = source("gguf");
    const { size } = statSync(path);
    await warm();
    const before = resident();
    const started = performance.now();
    const model = await load(path, { map });
    const milliseconds = performance.now() - started;
    const { text, memory } = await model.generate({ prompt: "The lighthouse", maxTokens: 16 });
    assert.notEqual(text, "");
    const grown = resident() - before;
    const tell = `${Math.round(milliseconds)} ms to load, ${(grown / 2 ** 20).toFixed(1)} MiB more for a file of ${(size / 2 ** 20).toFixed(1)}`;
    console.log(`${map ? "mapped" : "read"}: ${tell}, ${(memory.resident / 2 ** 20).toFixed(1)} of them cache`);
    assert.equal(model.info.weights, "stored");
    assert.ok(model.info.weightBytes <= size);
    assert.ok(grown <= 1.01 * size + memory.peak + BESIDE, tell);
    await model.dispose();
  });
}
