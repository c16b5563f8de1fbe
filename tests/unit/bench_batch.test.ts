import assert from "node:assert/strict";
import { test } from "node:test";
import { compare, markdown } from "../../bench/batch_report.ts";
import { origin } from "../kit/origin.ts";

test("requests together are set against one after the other in the same round", () => {
  const steps = [
    { requests: 1, times: [10, 20, 10] },
    { requests: 4, times: [20, 20, 16] },
  ];
  const series = { model: "m", weights: "f32", weightFormats: { f32: 2 }, weightBytes: 1000, entryBytes: 10, steps };
  const [alone, four] = compare(series, 50);
  assert.equal(alone?.gain.median, 1);
  assert.equal(alone?.bytes, 1500 / 10e6);
  assert.equal(four?.gain.median, 2.5);
  assert.equal(four?.rate, 200);
  assert.equal(four?.bytes, 3000 / 20e6);
  assert.throws(() => compare({ ...series, steps: steps.slice(1) }, 50), /alone/);
  const limit = { gemm: 100, read: 0.001 };
  const page = markdown({
    quick: true,
    rounds: 3,
    steps: 8,
    context: 50,
    origin,
    limits: { ...limit, before: limit, after: limit },
    compared: [{ model: "m", formats: ["f32"], together: compare(series, 50) }],
  });
  assert.match(page, /\| m \| f32 \| 4 \| 20\.0 ms ±5 % \| 200 \| 2\.50 \(2\.25 to 3\.25\) \| 0\.000150 \(15 %\) \|/);
});
