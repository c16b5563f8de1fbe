// Methods against the presses of NVIDIA's kvpress on a trained model: the positions that each head of each layer keeps (docs/kvpress.md).
import assert from "node:assert/strict";
import { test } from "node:test";
import type { CacheMethod, Model, Score } from "../../ts/index.ts";
import { cellsOf, named, quick, withModel } from "./cells.ts";
import { positions, ranged } from "./compare.ts";
import { type Press, presses } from "./goldens.ts";

for (const cell of cellsOf("kvpress")) {
  test(`${named(cell)}: methods keep what the presses of kvpress keep`, async () => {
    await withModel(cell, async (model) => {
      let [ties, exchanged] = [0, 0];
      // Sizes that differ from layer to layer take a run for each.
      for (const golden of presses.cases.filter(({ options }) => !quick || "keep" in options)) {
        ties += golden.ties;
        exchanged += await check(model, golden);
      }
      process.stderr.write(`kvpress: of ${ties} positions that tie, ${exchanged} were exchanged\n`);
    });
  });
}

/** Compares every layer and head; gives how many entries were exchanged with one of the same score. */
async function check(model: Model, golden: Press): Promise<number> {
  const want = golden.kept.map((heads) => heads.map(positions));
  if ("keep" in golden.options) return compare(golden, want, await read(model, golden.options));
  let exchanged = 0;
  for (const size of new Set(want.flat().map((head) => head.size))) {
    const score = await read(model, { ...golden.options, keep: { tokens: size } } as CacheMethod);
    exchanged += compare(golden, want, score, size);
  }
  return exchanged;
}

async function read(model: Model, cache: CacheMethod): Promise<Score> {
  const score = await model.score({ prompt: presses.prompt, answer: " The", cache, kept: true });
  assert.equal(score.usage.promptTokens, presses.prompt_tokens);
  return score;
}

/** Every head, or those of one size. */
function compare(golden: Press, want: Set<number>[][], { kept = [] }: Score, size?: number): number {
  let exchanged = 0;
  assert.equal(kept.length, want.length);
  for (const [layer, heads] of want.entries()) {
    for (const [head, wanted] of heads.entries()) {
      if (size !== undefined && wanted.size !== size) continue;
      // Heads may share a lane.
      const lane = kept[layer]?.find(({ heads: [first, end] }) => first <= head && head < end);
      const got = new Set(lane?.positions);
      const differ = [...new Set([...got, ...wanted])].filter((position) => got.has(position) !== wanted.has(position));
      const loose = ranged(golden.loose.find(([l, h]) => l === layer && h === head)?.[2] ?? "");
      const strange = differ.filter((position) => !loose.has(position));
      assert.deepEqual(strange, [], `${golden.press}, ${golden.attention}: layer ${layer}, head ${head}`);
      // Heads of different sizes may exchange entries with each other.
      if (golden.options.method !== "adakv") assert.equal(got.size, wanted.size, golden.press);
      exchanged += differ.length;
    }
  }
  return exchanged;
}
