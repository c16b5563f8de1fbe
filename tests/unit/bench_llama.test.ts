import assert from "node:assert/strict";
import { test } from "node:test";
import { type FileReport, markdown } from "../../bench/llama_page.ts";
import { origin } from "../kit/origin.ts";

const runs = (prefill: number, decode: number) => ({
  512: { prefill: [prefill, prefill, prefill], decode: [decode, decode, decode] },
});

const report: FileReport = {
  name: "a model, Q4_1",
  bytes: 2 ** 20,
  system: "llama, CPU : AVX2 = 1 | AVX512 = 0 | FMA = 1 | ",
  versions: {},
  samples: {
    fresh: {
      ours: [{ wall: 100, load: 50, first: 10, more: 3 * 2 ** 20 }],
      "llama.cpp": [{ wall: 400, load: 80, first: 20, more: 5 * 2 ** 20 }],
    },
    warm: {
      "ours, 1": runs(100, 4),
      "ours, 2": runs(64, 8),
      "llama.cpp, 1, flash": runs(400, 3),
      "llama.cpp, 2, plain": runs(128, 6),
    },
  },
  quality: {
    tokens: 7,
    ours: 10.1,
    theirs: 10,
    exact: 10.05,
    error: 0.002,
    off: { between: 0.05, ours: 0.03, theirs: 0.04 },
  },
};

test("each side has the threads and the attention that are the fastest for a row", () => {
  const page = markdown({ origin, rounds: 3, starts: 1, steps: 32, measured: [report] });
  assert.match(
    page,
    /\| a model, Q4_1 \| prompt of 512 \| \*\*2\.00\*\* \(2\.00 to 2\.00\) \| 8000 \| 2 \| 4000 \| 2, plain \|/,
  );
  assert.match(page, /\| tokens behind 512 \| \*\*0\.750\*\* \(0\.750 to 0\.750\) \| 250 \| 1 \| 333 \| 1, flash \|/);
  assert.match(
    page,
    /\| a model, Q4_1 \| 100 \| 400 \| 50\.0 \| 80\.0 \| 10\.0 \| 20\.0 \| 1\.00 \| 3\.00 \| 5\.00 \|/,
  );
  assert.match(page, /\| 10\.050 \| 10\.100 \| 10\.000 \| 1\.00 % ± 0\.20 \| 0\.0500 \| 0\.0300 \| 0\.0400 \|/);
  assert.match(page, /avx2 fma\)/);
});

test("a file whose speeds are of another commit says so", () => {
  const measured = [
    { ...report, commit: origin.commit },
    { ...report, commit: "0123456789" },
  ];
  const page = markdown({ origin, rounds: 3, starts: 1, steps: 32, measured });
  assert.match(page, /\| a model, Q4_1 \| prompt of 512/);
  assert.match(page, /\| a model, Q4_1 \(0123456789\) \| prompt of 512/);
});
