import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, test } from "node:test";
import { compareResults, dataOf, type EvalMethod, readResults } from "../../ts/eval/index.ts";
import { summarise } from "../../ts/eval/summarise.ts";
import { clean, fresh, picture, read, run } from "../kit/eval_fake.ts";
import { FakeNative } from "../kit/fake_native.ts";

after(clean);

test("every round has each method at each size once, in an order that moves on", async () => {
  const five = dataOf(
    "five",
    ["a", "b", "c", "d", "e"].map((id) => ({ id, image: picture, question: "What?", answer: "This." })),
  );
  const out = fresh();
  const { cells } = await run(out, { data: five, keeps: [0.5, 0.2] });
  const { quality } = await readResults(out);
  const rounds = five.samples.map((_, round) => quality.slice(5 * round, 5 * round + 5));
  const names = rounds.map((lines) => lines.map(({ method, keep }) => `${method[0]}${keep}`));
  assert.deepEqual(names, [
    ["f1", "h0.5", "s0.5", "h0.2", "s0.2"],
    ["f1", "s0.5", "h0.2", "s0.2", "h0.5"],
    ["f1", "h0.2", "s0.2", "h0.5", "s0.5"],
    ["f1", "s0.2", "h0.5", "s0.5", "h0.2"],
    ["f1", "h0.5", "s0.5", "h0.2", "s0.2"],
  ]);
  for (const [at, lines] of rounds.entries()) assert.ok(lines.every(({ sample }) => sample === five.samples[at]?.id));
  for (const cell of cells) {
    // The fake takes 4 ms for two tokens each time.
    assert.deepEqual(cell.tokensPerSecond, { median: 500, low: 500, high: 500, rounds: 5 });
    assert.deepEqual(cell.firstTokenMs, { median: 6, low: 6, high: 6, rounds: 5 });
    assert.deepEqual(cell.speedup, cell.method === "full" ? undefined : { median: 1, low: 1, high: 1, rounds: 5 });
  }
});

test("a method that takes no size is measured once, and a store behind one at every size", async () => {
  const stored: EvalMethod = { id: "snapkv+int4", cache: [{ method: "snapkv" }, { method: "int4" }] };
  const native = new FakeNative();
  const { cells } = await run(fresh(), { methods: ["int4", stored, "streaming"], keeps: [0.5, 0.2] }, native);
  const measured = cells.map(({ method, keep }) => `${method} ${keep}`);
  assert.deepEqual(measured, [
    ...["full 1", "snapkv+int4 0.5", "streaming 0.5"],
    ...["snapkv+int4 0.2", "streaming 0.2", "int4 1"],
  ]);
  const asked = native.requests.map(({ request }) => JSON.stringify("cache" in request ? request.cache : null));
  assert.ok(asked.includes('{"method":"int4"}'));
  assert.ok(asked.includes('[{"method":"snapkv","keep":0.2},{"method":"int4"}]'));
});

test("speeds are medians with quartiles, and beside the full cache of the same round", async () => {
  const out = fresh();
  await run(out);
  const { run: record, quality, timings } = await readResults(out);
  // A machine that slows down to a tenth from round to round: the ratios do not see it.
  const samples = ["a", "b", "c", "d", "e"];
  const lines = samples.flatMap((sample) => quality.slice(0, 3).map((line) => ({ ...line, sample })));
  const times = samples.flatMap((sample, round) =>
    timings.slice(0, 3).map((line) => {
      const tokensPerSecond = (line.method === "full" ? 100 : line.method === "h2o" ? 150 : 0) / 10 ** round;
      return { ...line, sample, tokensPerSecond };
    }),
  );
  const [full, h2o, snapkv] = summarise(record, lines, times).cells;
  assert.deepEqual(full?.tokensPerSecond, { median: 1, low: 0.1, high: 10, rounds: 5 });
  assert.deepEqual(h2o?.speedup, { median: 1.5, low: 1.5, high: 1.5, rounds: 5 });
  // Texts of one token have no speed.
  assert.deepEqual([snapkv?.tokensPerSecond, snapkv?.speedup, snapkv?.firstTokenMs?.rounds], [undefined, undefined, 5]);
});

test("what an earlier release wrote is read, without its speeds, and not gone on with", async () => {
  const out = fresh();
  await run(out);
  const old = (text: string): string => text.replaceAll('"textTokens"', '"tokens"');
  await writeFile(join(out, "quality.jsonl"), old(await read(out)));
  const record = JSON.parse(await read(out, "run.json"));
  await writeFile(join(out, "run.json"), JSON.stringify({ ...record, version: 1 }));
  const results = await readResults(out);
  assert.ok(results.quality.every((line) => "textTokens" in line && line.textTokens === 3 && !("tokens" in line)));
  const { cells } = summarise(results.run, results.quality, results.timings);
  assert.ok(cells.every((cell) => cell.tokensPerSecond === undefined && cell.ppl !== undefined));
  assert.equal((await compareResults(out, out, { ppl: 0 })).worse, false);
  await assert.rejects(run(out), /an earlier release has begun it/);
});

test("random draws anew for each sample, the same each time", async () => {
  const seeds = async (methods: string[], seed = 1): Promise<unknown[]> => {
    const fake = new FakeNative();
    await run(fresh(), { methods, keeps: [0.5, 0.2], seed }, fake);
    const asked = fake.requests.flatMap(({ request }) => (request.op === "generate" ? [request] : []));
    return asked.flatMap(({ cache }) => {
      const { method, seed } = cache as { method: string; seed?: number };
      return method === "random" ? [seed] : [];
    });
  };
  const drawn = await seeds(["random"]);
  assert.equal(drawn.length, 4);
  // Two samples, and the same entries of a sample at each size, so that a smaller size is a part of a larger one.
  assert.deepEqual(new Set(drawn).size, 2);
  assert.ok(drawn.every((seed) => Number.isInteger(seed) && Number(seed) >= 0 && Number(seed) <= 1_000_000));
  assert.deepEqual(await seeds(["random"]), drawn);
  assert.notDeepEqual(await seeds(["random"], 2), drawn);
  const own = await seeds(["random:seed=7"]);
  assert.notDeepEqual(own, drawn);
  assert.deepEqual(await seeds(["random:seed=7"], 2), own);
});
