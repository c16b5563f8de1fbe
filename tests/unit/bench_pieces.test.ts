import assert from "node:assert/strict";
import { test } from "node:test";
import { markdown, type Run } from "../../bench/pieces.ts";
import { origin } from "../kit/origin.ts";

test("pieces are set against the whole prompt of the same round", () => {
  const run = (gap: number, reading: number): Run => ({ gap, reading, cpu: 2 * reading, first: 2 * reading, step: 5 });
  const chunks = [
    { chunk: 0, runs: [run(100, 100), run(200, 200), run(100, 100)] },
    { chunk: 64, runs: [run(40, 102), run(50, 204), run(40, 110)] },
  ];
  const series = { model: "m", weights: "f32", chunks };
  const page = markdown({ origin, rounds: 3, prompt: 200, series: [series] });
  const ones = "1\\.00 \\(1\\.00 to 1\\.00\\)";
  assert.match(
    page,
    new RegExp(
      `\\| m \\| f32 \\| whole \\| 100 ms ±25 % \\| 5\\.00 ms ±0 % \\| ${ones} \\| 100 ms ±25 % \\| ${ones} \\|`,
    ),
  );
  assert.match(page, /\| m \| f32 \| 64 \| 40\.0 ms ±6 % .* \| 110 ms ±23 % \| 1\.02 \(1\.02 to 1\.06\) \| 1\.02/);
  assert.throws(
    () => markdown({ origin, rounds: 3, prompt: 200, series: [{ ...series, chunks: chunks.slice(1) }] }),
    /whole/,
  );
});
