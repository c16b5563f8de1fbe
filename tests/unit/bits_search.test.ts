// Which pairs are left to a layer, which layers go together, and the search over them, on errors and losses that are made up.
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { BitsSearch, front, group, meanBits, type Pair, prune, tried } from "../../ts/bits_search.ts";
import { cli } from "../kit/command_line.ts";
import { native } from "../kit/fake_model.ts";
import { temporaryFolder } from "../kit/temporary_folder.ts";

const folder = temporaryFolder("bits-search");

/** Numbers that look like chance and never change. */
function numbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1_664_525 + 1_013_904_223) % 2 ** 32;
    return state / 2 ** 32;
  };
}

/** Errors of a layer that fall by about four with each step of bits, keys and values by their own measure. */
function errorsOf(next: () => number): number[] {
  const [key, value] = [0.5 + next(), 0.2 + next()];
  return tried.map(([keys, values]) => (key / 2 ** keys + value / 2 ** values) * (1 + 0.1 * next()));
}

test("a layer keeps the pairs that no other one beats", () => {
  for (let seed = 1; seed < 200; seed += 1) {
    const next = numbers(seed);
    // Coarse numbers, so that some are equal.
    const errors = tried.map(() => Math.floor(4 * next()));
    const beats = (a: number, b: number): boolean => {
      const [x, y] = [meanBits([tried[a] as Pair]), meanBits([tried[b] as Pair])];
      const [e, f] = [errors[a] as number, errors[b] as number];
      return x <= y && e <= f && (x < y || e < f || a < b);
    };
    const want = tried.map((_, index) => index).filter((b) => !tried.some((_, a) => a !== b && beats(a, b)));
    const got = prune(errors);
    assert.deepEqual(
      got.toSorted((a, b) => a - b),
      want,
    );
    const bits = got.map((index) => meanBits([tried[index] as Pair]));
    assert.deepEqual(
      bits,
      bits.toSorted((a, b) => a - b),
    );
  }
});

test("layers join when all of a group are alike, and further when there would be too many", () => {
  const falling = tried.map(([keys, values]) => 1 / keys + 1.5 / values);
  const times = (factor: number): number[] => falling.map((error) => factor * error);
  const other = tried.map(([keys, values]) => 1.5 / keys + 1 / values);
  const layers = [1, 1.2, 1.4, 3, 3.1].map(times);
  const of = (sensitivity: number[][], most: number) => group(sensitivity, most).map(({ layers }) => layers);
  // 1 and 1.4 are too far apart for one group, though 1.2 is near both.
  assert.deepEqual(of(layers, 9), [[0], [1, 2], [3, 4]]);
  assert.deepEqual(of(layers, 2), [
    [0, 1, 2],
    [3, 4],
  ]);
  assert.deepEqual(of(layers, 1), [[0, 1, 2, 3, 4]]);
  // With other pairs left a layer joins none.
  assert.deepEqual(of([...layers, other], 1), [[0, 1, 2, 3, 4], [5]]);
  // A layer that has nothing of its own goes with the one before it.
  assert.deepEqual(of([times(1), [], times(9), []], 9), [
    [0, 1],
    [2, 3],
  ]);
  assert.deepEqual(of([times(0), times(0)], 9), [[0, 1]]);
});

/** The mean over layers of what they lose, with a part that does not add up. */
function lossOf(sensitivity: readonly number[][], seed: number): (pairs: readonly Pair[]) => number {
  return (pairs) => {
    const each = pairs.map((pair, layer) => {
      const index = tried.findIndex(([keys, values]) => keys === pair[0] && values === pair[1]);
      return (sensitivity[layer]?.[index] ?? 0) ** 2 * (1 + 0.5 * numbers(seed + 31 * layer + index)());
    });
    return each.reduce((sum, loss) => sum + loss, 0) / pairs.length;
  };
}

test("where there are few choices all are measured, and the front is theirs", async () => {
  const next = numbers(7);
  const sensitivity = [1, 4, 20].flatMap((factor) => {
    const errors = errorsOf(next).map((error) => factor * error);
    return [errors, errors];
  });
  const [groups, loss] = [group(sensitivity, 9), lossOf(sensitivity, 3)];
  let all: Pair[][] = [sensitivity.map((): Pair => [8, 8])];
  for (const { layers, pairs } of groups)
    all = all.flatMap((before) =>
      pairs.map((pair) => before.map((old, layer) => (layers.includes(layer) ? (tried[pair] as Pair) : old))),
    );
  all.push(...tried.map((pair) => sensitivity.map((): Pair => pair)));
  const want = front(all.map((pairs) => ({ bits: meanBits(pairs), loss: loss(pairs), pairs })));
  const search = new BitsSearch(groups, sensitivity, 10_000);
  const got = await search.run(
    async (pairs) => loss(pairs),
    () => {},
  );
  assert.deepEqual(got, want);
  assert.ok(got.length > tried.length, "more than the same bits everywhere");
  // A search that may not measure all finds most of it, with fewer trials.
  const few = new BitsSearch(groups, sensitivity, 90);
  const near = await few.run(
    async (pairs) => loss(pairs),
    () => {},
  );
  assert.ok(few.trials <= 90 && search.trials > 100, `${few.trials} and ${search.trials}`);
  for (const { bits, loss } of want) {
    const best = Math.min(...near.filter((point) => point.bits <= bits).map((point) => point.loss));
    assert.ok(best <= 1.25 * loss, `${best} for ${loss} at ${bits} bits`);
  }
});

test("a search is the same every time, within its trials and no worse than the same bits everywhere", async () => {
  const next = numbers(11);
  const sensitivity = Array.from({ length: 32 }, () => {
    const factor = 0.1 + 10 * next();
    return errorsOf(next).map((error) => factor * error);
  });
  const [groups, loss] = [group(sensitivity, 8), lossOf(sensitivity, 5)];
  for (const trials of [10, 40, 200]) {
    const run = async () => {
      const steps: number[] = [];
      const search = new BitsSearch(groups, sensitivity, trials);
      const points = await search.run(
        async (pairs) => loss(pairs),
        (done) => steps.push(done),
      );
      assert.deepEqual(
        steps,
        Array.from({ length: search.trials }, (_, index) => index + 1),
      );
      assert.ok(search.trials <= trials);
      return points;
    };
    const points = await run();
    assert.deepEqual(await run(), points);
    assert.deepEqual(front(points), points);
    for (const pair of tried) {
      const bits = meanBits([pair]);
      const best = Math.min(...points.filter((point) => point.bits <= bits).map((point) => point.loss));
      assert.ok(best <= loss(sensitivity.map((): Pair => pair)));
    }
  }
});

test("calibrate --method kvtuner writes the table and shows it", async () => {
  const [file, picture] = [join(folder, "bits.json"), join(folder, "a.png")];
  await writeFile(picture, "png");
  const args = ["calibrate", picture, "--method", "kvtuner", "--set", "window=0", "--trials", "12", "--out", file];
  const fake = native();
  const { code, out, err } = await cli(args, { fake });
  assert.equal(code, 0, err);
  // Every choice is as good to the fake, so the one with the least bits is all that is left.
  assert.match(
    out,
    /^bits +divergence +keys\/values of each layer\n2\.00 +0\.25000 +2\/2 2\/2.*\nwrote .*bits\.json\n$/,
  );
  const [first] = fake.requests.map(({ request }) => request).filter(({ op }) => op === "sensitivity");
  const cache = { method: "kvtuner", group: 32, window: 0, keys: "channel" };
  assert.deepEqual(first && "cache" in first && first.cache, cache);
  const json = await cli([...args, "--objective", "ppl", "--groups", "1", "--json"], { fake: native() });
  const { calibration } = JSON.parse(json.out) as {
    calibration: { objective: string; trials: number; groups: object[] };
  };
  assert.deepEqual(calibration, JSON.parse(await readFile(file, "utf8")));
  assert.deepEqual([calibration.objective, calibration.trials, calibration.groups.length], ["ppl", 9, 1]);
  const misuse = async (more: string[], text: RegExp): Promise<void> => {
    const { code, err } = await cli([...args, ...more], { fake: native() });
    assert.ok(code === 2 && text.test(err), err);
  };
  await misuse(["--keeps", "0.5"], /--keeps does not go with --method kvtuner/);
  await misuse(["--layers", "2"], /--layers goes with --method kvsharer/);
  await misuse(["--objective", "mine"], /kl or ppl/);
  await misuse(["--set", "bits=4"], /--set bits does not go with calibrate/);
  const prefix = await cli(["calibrate", picture, "--trials", "9", "--out", file], { fake: native() });
  assert.match(prefix.err, /--trials goes with --method kvtuner/);
});
