import assert from "node:assert/strict";
import { test } from "node:test";
import { blockTokens, ofTokens } from "../../bench/blocks.ts";
import { random } from "../../ts/eval/bootstrap.ts";

const width = ({ low, high }: { low: number; high: number }): number => high - low;

test("a value is the one of all tokens, and its interval holds it", () => {
  const draw = random(3);
  const values = Array.from({ length: 151 }, () => draw());
  const mean = values.reduce((sum, value) => sum + value, 0) / 151;
  const found = ofTokens(values);
  assert.ok(Math.abs(found.value - mean) < 1e-12);
  assert.ok(found.low < mean && mean < found.high);
  const ppl = ofTokens(values, Math.exp);
  assert.ok(Math.abs(ppl.value - Math.exp(mean)) < 1e-12);
  assert.ok(Math.abs(ppl.low - Math.exp(found.low)) < 1e-9 && Math.abs(ppl.high - Math.exp(found.high)) < 1e-9);
  assert.deepEqual(ofTokens(values), found);
});

test("what does not vary has no width, and too few tokens are one block", () => {
  const { value, low, high } = ofTokens(Array(40).fill(2.5));
  assert.ok([value, low, high].every((end) => Math.abs(end - 2.5) < 1e-12));
  for (const n of [1, 5, blockTokens]) {
    const few = ofTokens(Array.from({ length: n }, (_, index) => index));
    assert.ok(few.low === few.value && few.high === few.value);
  }
  assert.throws(() => ofTokens([]), RangeError);
});

test("independent tokens have the width of their deviation, and blocks of alike ones a larger one", () => {
  const draw = random(11);
  const alone = Array.from({ length: 3000 }, () => draw() - 0.5);
  // 2 * 1.96 standard errors of uniform numbers.
  const want = (2 * 1.96) / Math.sqrt(12 * 3000);
  assert.ok(Math.abs(width(ofTokens(alone)) / want - 1) < 0.15, `${width(ofTokens(alone))} for ${want}`);
  const alike = alone.filter((_, index) => index % 10 === 0).flatMap((value) => Array(10).fill(value) as number[]);
  const [blocks, single] = [width(ofTokens(alike)), width(ofTokens(alike, undefined, 1))];
  assert.ok(Math.abs(single / want - 1) < 0.15, `${single}`);
  assert.ok(blocks > 2.2 * single && blocks < 3.5 * single, `${blocks} of ${single}`);
});

test("the same number of tokens is drawn the same way", () => {
  const draw = random(5);
  const one = Array.from({ length: 100 }, () => draw());
  const other = one.map((value) => value + 0.25);
  const difference = ofTokens(one.map((value, index) => value - (other[index] ?? 0)));
  assert.ok(Math.abs(difference.low + 0.25) < 1e-9 && Math.abs(difference.high + 0.25) < 1e-9);
  const [a, b] = [ofTokens(one), ofTokens(other)];
  assert.ok(Math.abs(b.low - a.low - 0.25) < 1e-9 && Math.abs(b.high - a.high - 0.25) < 1e-9);
});
