// Greedy text, and the distribution behind a prompt, against transformers.
import assert from "node:assert/strict";
import { test } from "node:test";
import { DECIDED, EXACT, MEAN, rounding } from "./bounds.ts";
import { cellsOf, named, quick, withModel } from "./cells.ts";
import { agreeing, distance } from "./compare.ts";
import { runs } from "./goldens.ts";

const longest = 64;

for (const cell of cellsOf("texts")) {
  test(`${named(cell)}: greedy text`, async () => {
    await withModel(cell, async (model) => {
      for (const run of runs) {
        assert.deepEqual(await model.tokenize(run.prompt, { addSpecialTokens: false }), run.prompt_tokens);
        const made = await model.generate({ prompt: run.prompt, maxTokens: longest });
        const same = agreeing(made, run.tokens);
        if (same === run.tokens.length) {
          assert.equal(made.text, run.text);
          assert.equal(made.finish, run.tokens.length < longest ? "eos" : "length");
          continue;
        }
        // Behind the first difference both go on with another text.
        const gap = run.gaps[same] ?? Number.POSITIVE_INFINITY;
        assert.ok(
          gap <= DECIDED[rounding(cell)],
          `token ${same} of ${JSON.stringify(run.text)} differs, decided by ${gap}`,
        );
      }
    });
  });

  test(`${named(cell)}: the likeliest and some unlikely tokens behind a prompt`, async () => {
    await withModel(cell, async (model) => {
      const [got, want]: [number[], number[]] = [[], []];
      for (const { prompt, prompt_tokens, choices } of runs) {
        // A long prompt is read again for each of them.
        if (quick && prompt_tokens.length > 100) continue;
        for (const { text, token, logprob } of choices) {
          const { tokens, logprobs } = await model.score({ prompt, answer: text });
          assert.deepEqual(tokens, [token]);
          got.push(...logprobs);
          want.push(logprob);
        }
      }
      const { mean, worst } = distance(got, want);
      // A log-probability of -20 is moved more than those of a text are, which are mostly above -5.
      assert.ok(mean <= 5 * MEAN[rounding(cell)], `off by ${mean} on average`);
      if (rounding(cell) === "f32") assert.ok(worst <= EXACT, `off by ${worst}`);
    });
  });
}
