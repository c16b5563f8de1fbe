// How long a GGUF file takes to load, and what a process holds that has loaded it and holds a chat.
import assert from "node:assert/strict";
import { readFileSync, statSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { load } from "../../ts/index.ts";
import { quick } from "./cells.ts";
import { source } from "./goldens.ts";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** The most that a process may hold beside its cache: the file, and a tenth of it for vocabulary, norms and buffers. */
const MOST = 1.1;

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

const files = {
  SmolLM2: source("gguf"),
  ...(!quick && { "Gemma 3": here("../../.cache/real/gemma/gemma-3-270m-q4_k_m.gguf") }),
};
const passage = readFileSync(here("./text.txt"), "utf8").slice(0, 2000);

for (const [name, path] of Object.entries(files)) {
  for (const map of [true, false]) {
    test(`the GGUF file of ${name}, ${map ? "mapped" : "read"}: time and memory`, async () => {
      const { size } = statSync(path);
      await warm();
      const before = resident();
      const started = performance.now();
      const model = await load(path, { map });
      const milliseconds = performance.now() - started;
      const chat = model.chat();
      const { text, memory, usage } = await chat.send(passage, { maxTokens: 16, ignoreEos: true });
      assert.notEqual(text, "");
      const grown = resident() - before;
      const mib = (bytes: number): string => (bytes / 2 ** 20).toFixed(1);
      const tell = `${Math.round(milliseconds)} ms to load, ${mib(grown)} MiB more for a file of ${mib(size)}`;
      console.log(
        `${name}, ${map ? "mapped" : "read"}: ${tell}, ${mib(memory.resident)} of them ${usage.promptTokens} tokens`,
      );
      assert.equal(model.info.weights, "stored");
      assert.ok(model.info.weightBytes <= size);
      assert.ok(grown <= MOST * size + memory.resident, tell);
      await chat.dispose();
      await model.dispose();
    });
  }
}
