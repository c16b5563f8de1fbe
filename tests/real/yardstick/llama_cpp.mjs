// How far llama.cpp is off on the text of tests/real/golden/perplexity.json. Not part of the project: in an empty folder outside of it, `npm install
// node-llama-cpp@3.22.1`, a copy of this file, and `node llama_cpp.mjs perplexity.json FILE.gguf`.
import { readFileSync } from "node:fs";
import { getLlama } from "node-llama-cpp";

const [golden, modelPath] = process.argv.slice(2);
const { prompt, tokens, logprobs } = JSON.parse(readFileSync(golden, "utf8"));
const llama = await getLlama({ gpu: false, build: "never" });
const model = await llama.loadModel({ modelPath });
const context = await model.createContext({ contextSize: 2304, batchSize: 512 });
const sequence = context.getSequence();

const start = model.tokenize(prompt, true);
const all = [...start, ...tokens];
const asked = all.map((token, at) =>
  at >= start.length - 1 && at < all.length - 1 ? [token, { generateNext: { probabilities: true } }] : token,
);
const found = [];
// In pieces: each token's probabilities are a map over the vocabulary.
for (let from = 0; from < asked.length; from += 64) {
  const outputs = await sequence.controlledEvaluate(asked.slice(from, from + 64));
  for (const [at, output] of outputs.entries()) {
    if (output?.next?.probabilities) found.push(Math.log(output.next.probabilities.get(all[from + at + 1])));
  }
}
const off = found.map((value, at) => Math.abs(value - logprobs.f32[at]));
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
console.log(llama.systemInfo);
console.log({ tokens: found.length, off: mean(off), worst: Math.max(...off), ppl: Math.exp(-mean(found)) });
process.exit(0);
