import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { order, type Series, whole } from "../../bench/cache.ts";
import { markdown as cacheMarkdown, compare as compareCaches } from "../../bench/cache_report.ts";
import { best, rateOf } from "../../bench/limits.ts";
import { slug } from "../../bench/machine.ts";
import { compare } from "../../bench/peers/compare.ts";
import { mixedPrompt, promptOf } from "../../bench/prompts.ts";
import { elements, half, type Shape, smol, tensors, writeModel } from "../../bench/random_model.ts";
import { digits, paired, spread, summarise, table } from "../../bench/stats.ts";
import { blockWeights, prefillFlops } from "../../bench/work.ts";
import { quantile } from "../../ts/eval/bootstrap.ts";
import { origin } from "../kit/origin.ts";

const tiny: Shape = {
  hidden: 8,
  intermediate: 16,
  layers: 2,
  heads: 2,
  kvHeads: 1,
  headDim: 4,
  vocabulary: 32,
  maxPositions: 64,
  ropeTheta: 10_000,
};

interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

/** The tensors of a safetensors file and the bytes behind its head. */
function parse(file: Uint8Array): { entries: Record<string, Entry>; data: Uint8Array } {
  const length = Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true));
  assert.equal(length % 8, 0);
  return {
    entries: JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + length))),
    data: file.subarray(8 + length),
  };
}

test("a random model is a whole safetensors file, the same each time", async () => {
  const folder = await mkdtemp(join(tmpdir(), "prefixkv-bench-"));
  try {
    for (const [dtype, size] of [["f16", 2] as const, ["f32", 4] as const]) {
      const files = await Promise.all(
        ["a", "b"].map(async (name) => {
          const path = join(folder, dtype, name);
          await writeModel(pathToFileURL(`${path}/`), tiny, { dtype });
          return new Uint8Array(await readFile(join(path, "model.safetensors")));
        }),
      );
      const [file, again] = files as [Uint8Array, Uint8Array];
      assert.deepEqual(file, again);
      const { entries, data } = parse(file);
      let offset = 0;
      for (const plan of tensors(tiny)) {
        const entry = entries[plan.name];
        assert.ok(entry, plan.name);
        assert.equal(entry.dtype, dtype.toUpperCase());
        assert.deepEqual(entry.shape, plan.shape);
        assert.deepEqual(entry.data_offsets, [offset, offset + elements(plan) * size]);
        offset += elements(plan) * size;
      }
      assert.equal(data.length, offset);
      const config = JSON.parse(await readFile(join(folder, dtype, "a", "config.json"), "utf8"));
      assert.equal(config.num_key_value_heads, tiny.kvHeads);
    }
    const { data } = parse(new Uint8Array(await readFile(join(folder, "f32", "a", "model.safetensors"))));
    const weights = new Float32Array(data.slice(0, 4 * tiny.vocabulary * tiny.hidden).buffer);
    const deviation = Math.sqrt(weights.reduce((sum, weight) => sum + weight * weight, 0) / weights.length);
    assert.ok(deviation > 0.02 && deviation < 0.04, String(deviation));
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("the default shape is SmolLM2-135M's", () => {
  const count = tensors(smol).reduce((sum, plan) => sum + elements(plan), 0);
  assert.equal(count, 134_515_008);
  const norms = (2 * smol.layers + 1) * smol.hidden;
  assert.equal(blockWeights(smol) + smol.vocabulary * smol.hidden + norms, count);
  assert.ok(prefillFlops(smol, 512) > 2 * blockWeights(smol) * 512);
});

test("halves of simple numbers are exact", () => {
  const word = (value: number): number => new Uint32Array(new Float32Array([value]).buffer)[0] ?? 0;
  assert.deepEqual([1, -1, 0, 0.5, 0.0625].map(word).map(half), [0x3c00, 0xbc00, 0, 0x3800, 0x2c00]);
});

test("medians and ratios", () => {
  assert.equal(quantile([3, 1, 2], 0.5), 2);
  assert.equal(quantile([4, 1, 2, 3], 0.5), 2.5);
  assert.deepEqual(summarise([5, 1, 3, 2, 4]), { n: 5, median: 3, low: 2, high: 4, min: 1 });
  assert.equal(spread(summarise([5, 1, 3, 2, 4])), "±33 %");
  assert.deepEqual(paired([1, 6], [2, 3]), [0.5, 2]);
  assert.throws(() => quantile([], 0.5), RangeError);
  assert.throws(() => paired([1], [1, 2]), RangeError);
  assert.deepEqual([1234, 12.345, 0.012345, 0].map(digits), ["1234", "12.3", "0.0123", "0"]);
  assert.equal(
    table([
      ["a", "b"],
      ["1", "2"],
    ]),
    "| a | b |\n| --- | --- |\n| 1 | 2 |",
  );
});

test("ratios pair each of ours with each of theirs", () => {
  const samples = {
    ours: { 8: { prefill: [1, 2], decode: [3, 3] } },
    theirs: { 8: { prefill: [2, 4], decode: [1, 2] } },
  };
  const [first, ...rest] = compare(samples, ["ours"], ["theirs"]);
  assert.equal(rest.length, 0);
  assert.deepEqual(first?.prefill.pairs, [0.5, 0.5]);
  assert.equal(first?.decode.median, 2.25);
});

test("a machine's name tells its processor and nothing else", () => {
  assert.equal(slug("AMD EPYC", 2, ["avx2", "fma", "f16c"]), "2c-amd-epyc-avx2");
  assert.equal(
    slug("Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz", 8, ["avx2", "avx512f"]),
    "8c-intel-xeon-platinum-8375c-avx512f",
  );
  assert.equal(slug("AMD EPYC 7R13 48-Core Processor", 4, []), "4c-amd-epyc-7r13-portable");
  assert.equal(slug("", 1, []), "1c-unknown-portable");
});

test("criterion's files give rates", () => {
  const estimates = JSON.stringify({ median: { point_estimate: 200, standard_error: 10 } });
  const benchmark = (throughput: object): string => JSON.stringify({ full_id: "limits/read", throughput });
  assert.deepEqual(rateOf(estimates, benchmark({ Bytes: 4000 })), {
    id: "limits/read",
    median: 200,
    error: 0.05,
    rate: 20,
  });
  assert.equal(rateOf(estimates, benchmark({ Elements: 100 })).rate, 0.5);
  assert.deepEqual(best({ gemm: 1, read: 4 }, { gemm: 2, read: 3 }), { gemm: 2, read: 4 });
});

test("a prompt has one word less than tokens", () => {
  assert.equal(promptOf(4), " a a a");
  assert.equal(mixedPrompt(50).trim().split(" ").length, 49);
  assert.ok(mixedPrompt(60).startsWith(mixedPrompt(50)));
  assert.ok(new Set(mixedPrompt(200).split(" ")).size > 10);
});

test("a smaller cache stands beside what its bytes predict", () => {
  const memory = (share: number) => ({
    full: 1000,
    payload: 1000 * share,
    scales: 0,
    window: 0,
    effectiveBits: 32,
    metadata: 0,
    dead: 0,
    resident: 1100 * share,
    shared: 0,
    peak: 1100,
    keptPerLayer: [],
  });
  const series: Series = {
    model: "plain",
    shape: tiny,
    context: 8,
    weightBytes: 900,
    measured: [
      { name: "half", prefill: [2, 6], decode: [1, 2], memory: memory(0.5) },
      { name: whole, prefill: [1, 4], decode: [2, 2], memory: memory(1) },
    ],
  };
  const [half, full] = compareCaches(series);
  assert.equal(half?.prefill.median, 1.75);
  assert.equal(half?.gain.median, 1.5);
  assert.equal(half?.predicted, 2000 / 1450);
  assert.equal(half?.rate, 1450 / 1.5e6);
  assert.deepEqual([half?.resident, half?.payload, half?.peak], [1.1, 0.5, 1.1]);
  assert.equal(full?.predicted, 1);
  assert.throws(() => compareCaches({ ...series, measured: series.measured.slice(0, 1) }), /full cache/);
  assert.deepEqual(
    [order(["a", "b"], 0), order(["a", "b"], 1)],
    [
      ["a", "b"],
      ["b", "a"],
    ],
  );
  const limit = { gemm: 100, read: 0.002 };
  const page = cacheMarkdown({
    quick: true,
    rounds: 2,
    steps: 8,
    origin,
    limits: { ...limit, before: limit, after: limit },
    compared: [{ model: "plain", context: 8, variants: compareCaches(series) }],
  });
  assert.match(
    page,
    /\| half \| 1\.75 \(1\.63 to 1\.88\) \|.* 1\.38 \| 0\.000967 \(48 %\) \| 1\.100 \| 0\.500 \| 1\.100 \|/,
  );
});
