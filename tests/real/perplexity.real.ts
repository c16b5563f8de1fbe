// A text, token by token, against torch with the weights of the same file.
import assert from "node:assert/strict";
import { test } from "node:test";
import { EXACT, MEAN, noise, PERPLEXITY } from "./bounds.ts";
import { cellsOf, named, quick, withModel } from "./cells.ts";
import { distance, ppl } from "./compare.ts";
import { perplexity, torchOf } from "./goldens.ts";
import { requestsTogether, scoreText } from "./windows.ts";

for (const cell of cellsOf("perplexity")) {
  test(`${named(cell)}: the log-probabilities of a text`, async () => {
    // Products in f16 take by far the longest, and their noise is small: half of the text tells as much.
    const parts = quick && cell.weights === "f16" ? requestsTogether / 2 : requestsTogether;
    const got = await withModel(cell, (model) => scoreText(model, parts), requestsTogether);
    const want = torchOf(cell.file).slice(0, got.length);
    assert.ok(parts < requestsTogether || got.length === perplexity.tokens.length);
    const { mean, worst } = distance(got, want);
    console.log(
      `${named(cell)}: perplexity ${ppl(got).toFixed(4)} for ${ppl(want).toFixed(4)}, off by ${mean.toFixed(5)} on average`,
    );
    const format = noise(cell);
    assert.ok(mean <= MEAN[format], `off by ${mean} on average, ${worst} at most`);
    if (format === "f32") assert.ok(worst <= EXACT, `off by ${worst}`);
    const share = Math.abs(ppl(got) / ppl(want) - 1);
    assert.ok(share <= PERPLEXITY[format], `perplexity ${ppl(got)} for ${ppl(want)}`);
  });
}
