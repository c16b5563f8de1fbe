// llama.cpp's side of the comparison: `llama_cpp.mjs PACKAGE FILE THREADS FLASH`, then one Run per line (see child.ts) whose prompt is given
// as `ids`. PACKAGE is the folder of node-llama-cpp, which is no dependency of this project.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [folder, modelPath, threads, flash] = process.argv.slice(2);
const { getLlama, LlamaLogLevel } = await import(pathToFileURL(join(folder, "dist", "index.js")).href);
const { version } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
const say = (answer) => void process.stdout.write(`${JSON.stringify(answer)}\n`);
const held = () => Number(readFileSync("/proc/self/status", "utf8").match(/^VmRSS:\s+(\d+) kB$/m)?.[1]) * 1024;

const llama = await getLlama({
  gpu: false,
  build: "never",
  maxThreads: Number(threads),
  logLevel: LlamaLogLevel.error,
});
const before = held();
const started = performance.now();
const model = await llama.loadModel({ modelPath });
const context = await model.createContext({
  contextSize: 2304,
  batchSize: 512,
  threads: Number(threads),
  flashAttention: flash === "flash",
});
const sequence = context.getSequence();
say({
  ready: `${model.fileInfo.metadata.general.architecture}, ${llama.systemInfo}`,
  load: performance.now() - started,
  versions: { "node-llama-cpp": version, "llama.cpp": llama.llamaCppRelease.release },
});

for await (const line of createInterface({ input: process.stdin })) {
  const { ids, steps, answer } = JSON.parse(line);
  await sequence.clearHistory();
  if (answer) say(await score(ids, answer));
  else {
    const tokens = [];
    const begun = performance.now();
    let first = 0;
    // Greedy, and nothing ends it before its time.
    for await (const token of sequence.evaluate(ids, { temperature: 0, yieldEogToken: true })) {
      if (tokens.length === 0) first = performance.now();
      tokens.push(token);
      if (tokens.length > steps) break;
    }
    say({
      promptTokens: ids.length,
      tokens,
      prefill: first - begun,
      decode: performance.now() - first,
      more: held() - before,
    });
  }
}
process.exit(0);

/** Log-probabilities of the tokens of an answer. */
async function score(ids, answer) {
  const all = [...ids, ...answer];
  const asked = all.map((token, at) =>
    at >= ids.length - 1 && at < all.length - 1 ? [token, { generateNext: { probabilities: true } }] : token,
  );
  const logprobs = [];
  // In pieces: each token's probabilities are a map over the vocabulary.
  for (let from = 0; from < asked.length; from += 64) {
    const outputs = await sequence.controlledEvaluate(asked.slice(from, from + 64));
    for (const [at, output] of outputs.entries()) {
      if (output?.next?.probabilities) logprobs.push(Math.log(output.next.probabilities.get(all[from + at + 1])));
    }
  }
  return { promptTokens: ids.length, tokens: answer, prefill: 0, decode: 0, logprobs };
}
