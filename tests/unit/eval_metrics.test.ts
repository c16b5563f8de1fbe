import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { bootstrap, quantile, Resamples, random, ratio } from "../../ts/eval/bootstrap.ts";
import { describes } from "../../ts/eval/data/scenes.ts";
import { agreement, effectiveBits, entries } from "../../ts/eval/metrics.ts";
import { rougeL, words } from "../../ts/eval/rouge.ts";
import { accuracyOf, normalAnswer, vqaAccuracy } from "../../ts/eval/vqa.ts";
import { memory } from "../kit/fake_native.ts";

test("ROUGE-L counts the longest common subsequence of words", () => {
  assert.deepEqual(words("The top-left's 3 STARS, café."), ["the", "top", "left", "s", "3", "stars", "caf"]);
  assert.equal(rougeL("a b c d", "A, b: c; d!"), 1);
  // "police the gunman" for "police killed the gunman": 3 of 3 and 3 of 4.
  assert.ok(Math.abs(rougeL("police the gunman", "police killed the gunman") - 6 / 7) < 1e-12);
  // The order counts: only one of the two groups is common.
  assert.equal(rougeL("c d a b", "a b c d"), 0.5);
  // The words between are skipped: a _ c _ e.
  assert.equal(rougeL("a x c y e", "a b c d e"), 0.6);
  assert.equal(rougeL("a", "b"), 0);
  assert.equal(rougeL("", ""), 0);
  assert.equal(rougeL("...", "a"), 0);
});

test("bootstrap intervals are the same each time", () => {
  const items = [1, 2, 3, 4, 5].map((value) => ({ value, weight: value }));
  const mean = ratio<(typeof items)[number]>(
    ({ value, weight }) => value * weight,
    ({ weight }) => weight,
  );
  const interval = bootstrap(items, mean);
  assert.equal(interval.value, 55 / 15);
  assert.deepEqual(bootstrap(items, mean), interval);
  assert.notDeepEqual(bootstrap(items, mean, { seed: 2 }), interval);
  assert.ok(interval.low < interval.value && interval.value < interval.high);
  assert.deepEqual(bootstrap([items[0], items[0]] as typeof items, mean), { value: 1, low: 1, high: 1 });
});

test("95 % intervals hold the true value in about 95 % of trials", () => {
  // Token-weighted means of 80 samples whose true value is known: values of mean 1, weights that do not depend on them.
  const draw = random(11);
  const trials = 400;
  let covered = 0;
  let pairs = 0;
  for (let trial = 0; trial < trials; trial += 1) {
    const of = () => Array.from({ length: 80 }, () => draw() + draw() + draw() - 0.5);
    const per = Array.from({ length: 80 }, () => 60 + 80 * draw());
    const [first, second] = [of(), of()];
    const resamples = new Resamples(80, { resamples: 500, seed: trial });
    const weighted = (values: number[]) =>
      resamples.ratios(
        values.map((value, index) => value * (per[index] ?? 0)),
        per,
      );
    const [a, b] = [weighted(first), weighted(second)];
    const { low, high } = resamples.ends(a.values);
    if (low <= 1 && 1 <= high) covered += 1;
    // The difference of two with the same mean is 0.
    const ends = resamples.ends(a.values.map((value, index) => value - (b.values[index] ?? Number.NaN)));
    if (ends.low <= 0 && 0 <= ends.high) pairs += 1;
  }
  for (const count of [covered, pairs])
    assert.ok(count / trials >= 0.92 && count / trials <= 0.98, `${count} of ${trials}`);
});

test("many ratios are resampled as one statistic is", () => {
  const draw = random(3);
  const items = Array.from({ length: 20 }, () => ({ of: draw(), per: 1 + draw() }));
  const one = bootstrap(
    items,
    ratio(
      ({ of }) => of,
      ({ per }) => per,
    ),
    { resamples: 200, seed: 5 },
  );
  const resamples = new Resamples(20, { resamples: 200, seed: 5 });
  const many = resamples.ratios(
    items.map(({ of }) => of),
    items.map(({ per }) => per),
  );
  const { low, high } = resamples.ends(many.values);
  for (const [ours, theirs] of [
    [many.value, one.value],
    [low, one.low],
    [high, one.high],
  ] as const)
    assert.ok(Math.abs(ours - theirs) < 1e-12);
  assert.equal(quantile([1, Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY], 0.9), Number.POSITIVE_INFINITY);
});

test("ROUGE-L is the same as rouge-score's", async () => {
  const file = new URL("../golden/data/rouge.json", import.meta.url);
  const cases: [text: string, reference: string, f1: number][] = JSON.parse(await readFile(file, "utf8"));
  assert.ok(cases.length > 300);
  for (const [text, reference, f1] of cases) {
    const ours = rougeL(text, reference);
    assert.ok(Math.abs(ours - f1) < 1e-6, `${JSON.stringify([text, reference])}: ${ours} for ${f1}`);
  }
});

test("agreement counts equal places over the longer answer", () => {
  assert.equal(agreement([1, 2, 3, 4], [1, 2, 3, 4]), 1);
  assert.equal(agreement([1, 2, 3, 4], [1, 2]), 0.5);
  assert.equal(agreement([1, 2], [1, 2, 3, 4]), 0.5);
  // One token more at the start, and nothing agrees.
  assert.equal(agreement([9, 1, 2, 3], [1, 2, 3]), 0);
  assert.equal(agreement([], []), 1);
  assert.equal(agreement([1], []), 0);
});

test("short answers are normalised as the script of VQA does", () => {
  // The results of that script (its functions processPunctuation and processDigitArticle, run on these texts).
  for (const [text, normal] of [
    ["  The Two  'red' rings.\n", "2 'red' rings"],
    ["it's 3.5!", "it's 3.5"],
    ["None", "0"],
    ["ice-cream", "ice cream"],
    ["blue- green", "blue green"],
    ["tv/dvd", "tv dvd"],
    ["1,000 (one thousand)", "1000 1 thousand"],
    ["yes, 10:30.", "yes 10:30"],
    ["is it (maybe) so?", "is it maybe so"],
    ["dont", "don't"],
    ["couldnt've", "couldn't've"],
    ["y'alld've", "y'all'd've"],
    ["twas", "'twas"],
    ["well", "well"],
    ["e.g. 3. 2.5", "eg 3 2.5"],
    ["An apple\tand the pear", "apple and pear"],
    ["", ""],
  ] as const)
    assert.equal(normalAnswer(text), normal, JSON.stringify(text));
});

test("the accuracy of VQA leaves each person out once", () => {
  const people = (equal: number, all = 10): string[] =>
    Array.from({ length: all }, (_, at) => (at < equal ? "2" : "no"));
  for (const [equal, accuracy] of [
    [0, 0],
    [1, 0.3],
    [2, 0.6],
    [3, 0.9],
    [4, 1],
    [10, 1],
  ] as const)
    assert.ok(Math.abs(vqaAccuracy("Two.", people(equal)) - accuracy) < 1e-12, String(equal));
  // The definition itself, for any number of people.
  for (let all = 2; all <= 12; all += 1) {
    for (let equal = 0; equal <= all; equal += 1) {
      const answers = people(equal, all);
      const subsets = answers.map((_, out) => answers.filter((answer, at) => at !== out && answer === "2").length);
      const mean = subsets.reduce((sum, count) => sum + Math.min(count / 3, 1), 0) / all;
      assert.ok(Math.abs(vqaAccuracy("two", answers) - mean) < 1e-12, `${equal} of ${all}`);
    }
  }
  // A single accepted answer is no person's.
  assert.equal(vqaAccuracy("The triangle.", ["triangle"]), 1);
  assert.equal(vqaAccuracy("triangles", ["triangle"]), 0);
  assert.equal(vqaAccuracy("yes", []), 0);
  // Fewer than the formula is meant for are accepted answers, each as good as another.
  assert.equal(accuracyOf("Three.", ["3", "three"]), 1);
  assert.equal(accuracyOf("three", ["4", "3", "5"]), 1);
  assert.equal(accuracyOf("six", ["4", "3", "5"]), 0);
  assert.equal(accuracyOf("yes", []), 0);
  assert.ok(Math.abs(accuracyOf("two", people(2)) - 0.6) < 1e-12 && accuracyOf("2", people(4, 4)) === 1);
});

test("an object is described right in one sentence about one place", () => {
  const ring = { row: 2, col: 1, color: "blue", shape: "ring" };
  assert.ok(describes("Below it, in the bottom center, there is a small blue ring.", ring));
  assert.ok(!describes("In the bottom center there is a ring. It is a blue ring.", ring));
  assert.ok(!describes("In the bottom center and the top left there is a blue ring.", ring));
  assert.ok(!describes("In the bottom left there is a blue ring.", ring));
});

test("bits and entries of caches", () => {
  const info = { kvHeads: 2, headDim: 4 };
  // 3 entries of 2 x 2 x 4 numbers of 4 bytes, and half as many bytes.
  assert.equal(effectiveBits({ ...memory, payload: 3 * 64, keptPerLayer: [2, 1] }, info), 32);
  assert.equal(effectiveBits({ ...memory, payload: 3 * 32, keptPerLayer: [2, 1] }, info), 16);
  assert.equal(effectiveBits({ ...memory, payload: 3 * 16, scales: 3 * 4, keptPerLayer: [2, 1] }, info), 10);
  assert.equal(effectiveBits({ ...memory, payload: 0, keptPerLayer: [0, 0] }, info), 0);
  assert.equal(
    entries(
      [
        [
          { heads: [0, 1], positions: [0, 1, 2] },
          { heads: [1, 2], positions: [0] },
        ],
      ],
      2,
    ),
    2,
  );
});
