// The search of a fit over bytes and losses that are made up, against measuring everything.
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Combination, combine, pointsOf, type Stages, steps } from "../../ts/fit/axes.ts";
import { type Measure, type Measured, type Refused, type Runner, Search } from "../../ts/fit/search.ts";
import { methods } from "../../ts/generated/method_table.ts";
import { type CacheMethod, h2o, int4, kvsharer, merge, OptionError, prefixkv, snapkv } from "../../ts/index.ts";

const samples = 5;
const order = Array.from({ length: samples }, (_, index) => index);

/** A number from 0 to 1 that follows from a text. */
function draw(text: string): number {
  let hash = 2166136261;
  for (const character of text) hash = Math.imul(hash ^ character.charCodeAt(0), 16777619);
  return ((hash ^ (hash >>> 15)) >>> 0) / 2 ** 32;
}

/** The size in a cache; all of it where there is none. */
const keepOf = (cache: Stages): number =>
  (cache.find((stage) => "keep" in stage) as { keep: number } | undefined)?.keep ?? 1;
const nameOf = (cache: Stages): string => JSON.stringify(cache.map((stage) => ({ ...stage, keep: 0 })));

/** Bytes that rise with the size, with waves where entries are grouped; losses that fall with it, but for some noise. */
function made(seed: number, waves: number): { measure: Measure; calls: () => number } {
  let calls = 0;
  const measure = async (cache: Stages, sample: number): Promise<Measured | Refused> => {
    calls += 1;
    const [keep, name] = [keepOf(cache), nameOf(cache)];
    const least = 0.01 + 0.01 * draw(`least ${sample} ${seed}`);
    if (keep < least) return { least };
    const price = name.includes("int4") ? 0.3 : 1;
    const wave = name.includes("int4") ? waves * Math.sin(60 * keep + sample) : 0;
    const bytes = Math.round(1_000_000 * price * (1 - 0.02 * sample) * (0.01 + keep + wave * Math.min(keep, 0.2)));
    const loss = (1 + draw(`loss ${name} ${seed}`)) * (1.2 - keep) ** 2 + 0.1 * draw(`${name} ${keep} ${sample}`);
    return { bytes, loss, tokens: 10 };
  };
  return { measure, calls: () => calls };
}

const points = [[prefixkv()], [h2o({ keep: 0.5 })], [snapkv({ keep: 0.5 }), merge()]] satisfies Stages[];
const combinations = (): Promise<Combination[]> => combine({ sharing: [], methods: points, stores: [[int4()]] });
const none = (): void => {};

/** The sum of the losses and the greatest of the bytes of a cache. */
async function over(measure: Measure, cache: Stages): Promise<{ loss: number; bytes: number } | undefined> {
  const found = await Promise.all(order.map((sample) => measure(cache, sample)));
  if (found.some((each) => "least" in each)) return undefined;
  const all = found as Measured[];
  return { loss: all.reduce((sum, { loss }) => sum + loss, 0), bytes: Math.max(...all.map(({ bytes }) => bytes)) };
}

const close = (found: number, expected: number): void =>
  assert.ok(Math.abs(found - expected) <= 1e-9 * Math.abs(expected), `${found}, not ${expected}`);

test("a combination is every choice of each axis, and of none", async () => {
  const caches = (await combinations()).map((combination) => combination.at(500));
  const half = { keep: 0.5 };
  const alone = [[], [prefixkv(half)], [h2o(half)], [snapkv(half), merge()]];
  const expected = alone
    .flatMap((stages) => [stages, [...stages, int4()]])
    .map((cache) => (cache.length > 0 ? cache : [{ method: "full" }]));
  assert.deepEqual(caches, expected);
});

test("layers that share come before the method", async () => {
  const shared = kvsharer({ sources: { "6": 2 } });
  const found = await combine({ sharing: [[shared]], methods: [[prefixkv()]], stores: [[int4()]] });
  assert.equal(found.length, 8);
  assert.deepEqual(found.at(-1)?.at(500), [shared, prefixkv({ keep: 0.5 }), int4()]);
  assert.deepEqual(found.at(-1)?.at(steps), [shared, int4()]);
});

test("a method that is to keep everything is left out", async () => {
  const caches = (await combinations()).map((combination) => combination.at(steps));
  assert.deepEqual(caches, Array.from({ length: 4 }, () => [[{ method: "full" }], [int4()]]).flat());
});

test("the stores are those of the table, and no method needs a calibration", () => {
  const ready = methods.filter(({ options }) =>
    options.every(({ kind }) => !["codebooks", "directions", "latents", "heads"].includes(kind)),
  );
  const stores = ready.filter(({ role }) => role === "stores").map(({ name }) => name);
  const found = pointsOf(() => undefined).stores.flat();
  assert.deepEqual([...new Set(found.map(({ method }) => method))], stores);
  assert.ok(
    pointsOf(() => undefined)
      .methods.flat()
      .every(({ method }) => method === "prefixkv"),
  );
});

test("the sizes of a calibration are those of its rows", async () => {
  const rows = (keeps: number[]) => keeps.map((keep) => ({ keep, retained: [keep, keep] }));
  const calibrated = (keeps: number[]): CacheMethod =>
    prefixkv({ calibration: { format: "prefixkv-calibration", version: 1, model: { layers: 2 }, rows: rows(keeps) } });
  const [, some] = await combine({ methods: [[calibrated([0.1, 0.5, 0.9])]], stores: [], sharing: [] });
  assert.deepEqual([some?.least, some?.most], [100, 900]);
  const [, one] = await combine({ methods: [[calibrated([0.4])]], stores: [], sharing: [] });
  assert.deepEqual(one?.at(one.most), [calibrated([0.4])]);
});

for (const waves of [0, 0.2]) {
  test(`the size is the largest that fits, with waves of ${waves}`, async () => {
    const { measure } = made(1, waves);
    for (const budget of [20_000, 700_000, ...Array.from({ length: 20 }, (_, index) => 30_000 + 14_321 * index)]) {
      for (const combination of await combinations()) {
        const found = await new Search([combination], measure, [0]).best(budget, [], none);
        let [largest, smallest] = [0, Number.POSITIVE_INFINITY];
        for (let size = 1; size <= steps; size += 1) {
          const measured = await measure(combination.at(size), 0);
          if ("least" in measured) continue;
          if (measured.bytes <= budget && size <= combination.most && size >= combination.least) largest = size;
          if (size >= combination.least) smallest = Math.min(smallest, measured.bytes);
        }
        const first = await measure(combination.at(combination.least), 0);
        if (largest === 0 || (first as Measured).bytes > budget) {
          assert.equal(found, undefined);
          continue;
        }
        assert.ok(found && found.bytes <= budget && found.size <= largest);
        // Below a crest of a wave, a size further up is found within a stride of the largest.
        const off = combination.grouped && waves > 0 ? 50 : Math.max(1, largest * 0.01);
        assert.ok(largest - found.size <= off, `${found.size} of ${largest} at ${budget}`);
      }
    }
  });
}

test("the winner is the best of what each combination has alone, and few measurements find it", async () => {
  for (let seed = 0; seed < 20; seed += 1) {
    const { measure, calls } = made(seed, 0.4);
    const budget = 150_000 + 20_000 * seed;
    const won = await new Search(await combinations(), measure, order).best(budget, [], none);
    const together = calls();
    let expected = Number.POSITIVE_INFINITY;
    for (const combination of await combinations()) {
      const alone = await new Search([combination], measure, order).best(budget, [], none);
      expected = Math.min(expected, alone?.loss ?? expected);
    }
    assert.ok(won);
    close(won.loss, expected);
    const again = await over(measure, won.combination.at(won.size));
    close(won.loss, again?.loss ?? 0);
    assert.equal(won.bytes, again?.bytes);
    assert.ok(won.bytes <= budget);
    assert.ok(together < calls() - together);
  }
});

test("more bytes never give a worse loss, though a larger size may", async () => {
  const { measure } = made(3, 0.4);
  // A loss that rises with the size: only what a smaller budget has found keeps it down.
  const perverse: Measure = async (cache, sample) => {
    const found = await measure(cache, sample);
    return "least" in found ? found : { ...found, loss: keepOf(cache) };
  };
  const search = new Search(await combinations(), perverse, order);
  let best: Runner | undefined;
  for (let budget = 60_000; budget < 1_200_000; budget += 90_000) {
    const found: Runner | undefined = await search.best(budget, best ? [best] : [], none);
    assert.ok(found && found.bytes <= budget);
    assert.ok(best === undefined || found.loss <= best.loss);
    best = found;
  }
});

test("a combination that the engine refuses is left out, and one that is refused alone is an error", async () => {
  const refusing = (part: string): Measure => {
    const { measure } = made(5, 0);
    return async (cache, sample) => {
      if (!JSON.stringify(cache).includes(part)) return measure(cache, sample);
      throw new OptionError("option", "these do not go together");
    };
  };
  for (const budget of [100_000, 300_000]) {
    const measure = refusing('},{"method":"int4"');
    const won = await new Search(await combinations(), measure, order).best(budget, [], none);
    assert.ok(won);
    assert.doesNotMatch(JSON.stringify(won.combination.at(won.size)), /\},\{"method":"int4"/);
  }
  const alone = new Search(await combinations(), refusing('[{"method":"int4"}]'), order);
  await assert.rejects(alone.best(300_000, [], none), OptionError);
});

test("the least bytes fit, and a byte less does not", async () => {
  for (let seed = 0; seed < 10; seed += 1) {
    const { measure } = made(seed, 0.4);
    const least = await new Search(await combinations(), measure, order).least();
    const fits = async (budget: number) => new Search(await combinations(), measure, order).best(budget, [], none);
    assert.equal((await fits(least))?.bytes, least);
    assert.equal(await fits(least - 1), undefined);
  }
});
