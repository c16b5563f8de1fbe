// Gemma 3 270M from its GGUF file against transformers: windows, local and global layers, norms, gates and scales with real weights.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { load, prefixkv } from "../../ts/index.ts";
import { DECIDED, EXACT, MEAN } from "./bounds.ts";
import { agreeing, distance } from "./compare.ts";
import type { Run } from "./goldens.ts";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
const file = here("../../.cache/real/gemma/gemma-3-270m-q4_k_m.gguf");
const whole = readFileSync(here("text.txt"), "utf8");
const { runs } = JSON.parse(readFileSync(here("golden/gemma.json"), "utf8")) as {
  runs: (Omit<Run, "prompt"> & { prompt: string | number })[];
};
const steps = 64;

for (const weights of ["stored", "f32"] as const) {
  test(`gguf file, ${weights} weights: greedy text and single tokens of Gemma 3`, async () => {
    const model = await load(file, weights === "stored" ? {} : { weights });
    // As they are stored, weights are exact and activations are rounded to 8 bits.
    const noise = weights === "stored" ? "q8_0" : "f32";
    try {
      assert.deepEqual([model.info.architecture, model.info.layers], ["Gemma3ForCausalLM", 18]);
      const [got, want]: [number[], number[]] = [[], []];
      for (const run of runs) {
        const prompt = typeof run.prompt === "number" ? whole.slice(0, run.prompt) : run.prompt;
        assert.deepEqual(await model.tokenize(prompt), run.prompt_tokens);
        const made = await model.generate({ prompt, maxTokens: steps, ignoreEos: true });
        const same = agreeing(made, run.tokens);
        if (same === steps) assert.equal(made.text, run.text);
        else assert.ok((run.gaps[same] ?? 0) <= DECIDED[noise], `token ${same} of ${JSON.stringify(run.text)} differs`);
        for (const { text, token, logprob } of run.choices) {
          const { tokens, logprobs } = await model.score({ prompt, answer: text });
          assert.deepEqual(tokens, [token]);
          got.push(...logprobs);
          want.push(logprob);
        }
      }
      const { mean, worst } = distance(got, want);
      console.log(
        `gguf file, ${weights} weights: ${got.length} log-probabilities off by ${mean} on average, ${worst} at most`,
      );
      assert.ok(mean <= 5 * MEAN[noise], `off by ${mean} on average`);
      if (noise === "f32") assert.ok(worst <= EXACT, `off by ${worst}`);
    } finally {
      await model.dispose();
    }
  });
}

test("gguf file: a small cache of Gemma 3 frees entries of its global layers alone", async () => {
  const model = await load(file);
  try {
    const options = { prompt: whole.slice(0, 3200), maxTokens: steps, ignoreEos: true };
    const full = await model.generate(options);
    const half = await model.generate({ ...options, cache: prefixkv({ keep: 0.5 }) });
    assert.deepEqual((await model.generate({ ...options, cache: prefixkv({ keep: 1 }) })).tokens, full.tokens);
    const [all, small] = [full.memory.keptPerLayer, half.memory.keptPerLayer];
    for (const [layer, kept] of small.entries()) {
      if ((layer + 1) % 6 !== 0) assert.equal(kept, all[layer], `layer ${layer} has a window`);
    }
    const global = (layers: readonly number[]) => [5, 11, 17].reduce((sum, layer) => sum + (layers[layer] ?? 0), 0);
    assert.ok(global(small) <= 0.51 * global(all), `${global(small)} of ${global(all)}`);
  } finally {
    await model.dispose();
  }
});
