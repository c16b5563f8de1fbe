// Our side of the comparison: `ours.ts FOLDER WEIGHTS THREADS`, then one Run per line (see child.ts).
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { about, full, type LoadOptions, load } from "../../ts/index.ts";
import type { Ran, Ready, Run } from "./child.ts";

const [folder = "", weights = "f32", threads = "2"] = process.argv.slice(2);
const say = (answer: Ready | Ran): void => void process.stdout.write(`${JSON.stringify(answer)}\n`);

/** Bytes that the process holds, where the system says it. */
function held(): number {
  if (process.platform !== "linux") return Number.NaN;
  return Number(readFileSync("/proc/self/status", "utf8").match(/^VmRSS:\s+(\d+) kB$/m)?.[1]) * 1024;
}

const { version } = await about();
const before = held();
const started = performance.now();
await using model = await load(folder, {
  ...(weights !== "stored" && { weights: weights as NonNullable<LoadOptions["weights"]> }),
  threads: Number(threads),
});
const took = performance.now() - started;
const formats = Object.keys(model.info.weightFormats).join(" + ");
say({ ready: formats, load: took, versions: { prefixkv: version } });
for await (const line of createInterface({ input: process.stdin })) {
  const { prompt, steps, text, cache = full() }: Run = JSON.parse(line);
  if (text !== undefined) {
    const { usage, tokens, logprobs } = await model.score({ prompt, answer: text });
    say({ promptTokens: usage.promptTokens, tokens, prefill: 0, decode: 0, logprobs });
    continue;
  }
  const ran = await model.generate({ prompt, cache, maxTokens: steps + 1, ignoreEos: true });
  const { prefill, decode } = ran.timings;
  const { resident } = ran.memory;
  say({
    promptTokens: ran.usage.promptTokens,
    tokens: ran.tokens,
    prefill,
    decode,
    resident,
    more: held() - before,
  });
}
