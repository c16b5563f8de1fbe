import assert from "node:assert/strict";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { wireCache } from "../../ts/cache.ts";
import { calibrationText, readCalibration } from "../../ts/calibration.ts";
import { type MethodFacts, methods } from "../../ts/generated/method_table.ts";
import * as api from "../../ts/index.ts";
import {
  BudgetError,
  type Calibration,
  CalibrationError,
  h2o,
  OptionError,
  type Progress,
  prefixkv,
} from "../../ts/index.ts";
import { stage } from "../../ts/options/stage.ts";
import { fakeModels } from "../kit/fake_model.ts";
import { FakeNative } from "../kit/fake_native.ts";
import { temporaryFolder } from "../kit/temporary_folder.ts";

const folder = temporaryFolder("cache");

const fixture = (name: string): URL => new URL(`../fixtures/prefixkv-confs/${name}`, import.meta.url);
const shipped = (name: string): URL => new URL(`../../calibrations/${name}.json`, import.meta.url);

const open = fakeModels();

test("every method has a public constructor that makes a frozen plain object", () => {
  assert.ok(methods.length >= 7);
  for (const { name, budget } of methods) {
    const make = (api as unknown as Record<string, (options?: object) => object>)[name];
    assert.ok(make, name);
    const options = budget === "outcome" ? {} : { keep: { tokens: 7 } };
    const made = make(options);
    assert.deepEqual(made, { method: name, ...options });
    assert.ok(Object.isFrozen(made), name);
    assert.deepEqual(structuredClone(made), made);
    assert.deepEqual(JSON.parse(JSON.stringify(made)), made);
  }
});

test("a method's object does not change with what it was made of", () => {
  const keep = { tokens: 7 };
  const made = h2o({ keep });
  keep.tokens = 8;
  assert.deepEqual(made.keep, { tokens: 7 });
  const url = prefixkv({ calibration: new URL("file:///data/mine.json") });
  assert.deepEqual(structuredClone(url), { method: "prefixkv", calibration: "file:///data/mine.json" });
  assert.deepEqual(stage("h2o", { method: "other", keep: undefined }), { method: "h2o" });
});

test("the defaults in the table are of their kinds", () => {
  const types: Record<string, string> = {
    count: "number",
    number: "number",
    share: "number",
    flag: "boolean",
    choice: "string",
  };
  const options = methods.flatMap((facts: MethodFacts) => facts.options);
  for (const option of options) {
    // All pairs of its calibration.
    const open =
      (option.name === "layers" && option.text.includes("left out")) ||
      (option.kind === "number" && option.default === null);
    if (open || !(option.kind in types)) assert.equal(option.default, null);
    else assert.equal(typeof option.default, types[option.kind], option.name);
  }
});

test("calibrations are inlined from objects, arrays, paths, URLs and names", async () => {
  const file = join(folder, "own.json");
  const own: Calibration = {
    format: "prefixkv-calibration",
    version: 1,
    model: { layers: 2 },
    rows: [{ keep: 0.5, retained: [0.75, 0.25] }],
  };
  await writeFile(file, calibrationText(own));
  assert.deepEqual(JSON.parse(await readFile(file, "utf8")), own);
  for (const calibration of [own, file, pathToFileURL(file), pathToFileURL(file).href]) {
    assert.deepEqual(await wireCache(prefixkv({ keep: 0.5, calibration })), {
      method: "prefixkv",
      keep: 0.5,
      calibration: own,
    });
  }
  const evicted = JSON.parse(await readFile(fixture("prefixkv_llava-v1.5-7b_0.5.json"), "utf8"));
  assert.deepEqual(await readCalibration(evicted), evicted);
  assert.deepEqual(await readCalibration(fixture("prefixkv_llava-v1.5-7b_0.5.json")), evicted);
  const named = (await readCalibration("llava-1.5-13b")) as Calibration;
  assert.deepEqual([named.model.layers, named.published], [40, true]);
  const stages = await wireCache([h2o({ keep: 0.5 }), prefixkv({ calibration: "llava-1.5-7b" })]);
  const [, second] = stages as { calibration?: Calibration }[];
  assert.equal(second?.calibration?.model.layers, 32);
});

test("calibrations that are missing or broken say what was looked for", async () => {
  const refused = (source: string | URL, pattern: RegExp) =>
    assert.rejects(readCalibration(source), (error) => {
      assert.ok(error instanceof CalibrationError && error instanceof OptionError, String(error));
      assert.equal(error.code, "calibration");
      assert.match(error.message, pattern);
      return true;
    });
  await refused("llava-9b", /`?llava-9b`?: no calibration of that name .*llava-1\.5-13b, llava-1\.5-7b/);
  await refused("./none.json", /\.\/none\.json: .*none\.json: there is no such file/);
  await refused(new URL("https://example.com/a.json"), /use a path or a file: URL/);
  await writeFile(join(folder, "broken.json"), "{ broken");
  await refused(join(folder, "broken.json"), /broken\.json: it is not JSON/);
  await writeFile(join(folder, "other.json"), '{ "format": "other" }');
  await refused(join(folder, "other.json"), /no `format` "prefixkv-calibration" or "prefixkv-sharing"/);
  await assert.rejects(readCalibration("llava-1.5-7b", AbortSignal.abort()), api.AbortError);
});

test("the shipped calibrations are the published configurations", async () => {
  for (const [name, layers] of [
    ["llava-1.5-7b", 32],
    ["llava-1.5-13b", 40],
  ] as const) {
    const { model, rows, published, origin } = JSON.parse(await readFile(shipped(name), "utf8")) as Calibration;
    assert.deepEqual(model, { name, layers, kvHeads: layers, headDim: 128 });
    assert.equal(published, true);
    assert.match(origin ?? "", /THU-MIG\/PrefixKV.*MIT/);
    assert.deepEqual(
      rows.map(({ keep }) => keep),
      [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
    );
    for (const { keep, retained } of rows) {
      assert.equal(retained.length, layers);
      const mean = retained.reduce((sum, share) => sum + share, 0) / layers;
      assert.ok(Math.abs(mean - keep) < 0.01, `${name} ${keep}: ${mean}`);
    }
  }
});

test("a shipped row is one minus the published evicted share", async () => {
  const { rows } = JSON.parse(await readFile(shipped("llava-1.5-7b"), "utf8")) as Calibration;
  // By hand: 1 - 0.11433945133085736, the first number of the published file for half of the cache.
  assert.equal(rows[4]?.retained[0], 0.8856605486691427);
  for (const [file, name, row] of [
    ["prefixkv_llava-v1.5-7b_0.5.json", "llava-1.5-7b", 4],
    ["prefixkv_llava-v1.5-7b_0.9.json", "llava-1.5-7b", 0],
    ["prefixkv_llava-v1.5-13b_0.3.json", "llava-1.5-13b", 6],
  ] as const) {
    const evicted = JSON.parse(await readFile(fixture(file), "utf8")) as number[];
    const { rows } = JSON.parse(await readFile(shipped(name), "utf8")) as Calibration;
    assert.deepEqual(
      rows[row]?.retained,
      evicted.map((share) => 1 - share),
      file,
    );
  }
});

test("calibrate averages over the samples, binds the model and writes whole files", async () => {
  const fake = new FakeNative();
  const model = await open(fake);
  const file = join(folder, "mine.json");
  const seen: Progress[] = [];
  const calibration = await model.calibrate({
    method: prefixkv({ keep: 0.1, score: "window" }),
    samples: [{ prompt: "a" }, { messages: [{ role: "user", content: "b" }] }],
    keeps: [0.5, 0.2, 0.5],
    file,
    onProgress: (progress) => seen.push(progress),
  });
  assert.deepEqual(
    fake.requests.map(({ request }) => request),
    [
      { op: "profile", keeps: [0.2, 0.5], cache: { method: "prefixkv", keep: 1, score: "window" }, prompt: "a" },
      {
        op: "profile",
        keeps: [0.2, 0.5],
        cache: { method: "prefixkv", keep: 1, score: "window" },
        messages: [{ role: "user", content: "b" }],
      },
    ],
  );
  const { rows, ...head } = calibration;
  assert.deepEqual(head, {
    format: "prefixkv-calibration",
    version: 1,
    // The layers that were profiled: methods leave those that read another's entries alone.
    model: { name: "tiny-llava", layers: 2, kvHeads: 6, headDim: 32, fingerprint: "f00d" },
    samples: 2,
    score: "window",
    window: 32,
    pool: "max",
    poolSize: 7,
  });
  assert.deepEqual(
    rows.map(({ keep, retained }) => [keep, ...retained.map((share) => share.toFixed(3))]),
    [
      [0.2, "0.205", "0.195"],
      [0.5, "0.505", "0.495"],
    ],
  );
  assert.deepEqual(seen, [
    { stage: "samples", done: 1, total: 2 },
    { stage: "samples", done: 2, total: 2 },
  ]);
  assert.deepEqual(JSON.parse(await readFile(file, "utf8")), calibration);
  assert.deepEqual(
    (await readdir(folder)).filter((name) => name.endsWith(".new")),
    [],
  );
});

test("sizes that are too small are left out of the defaults and refused when asked for", async () => {
  const fake = Object.assign(new FakeNative(), { leastKeep: 0.12 });
  const model = await open(fake);
  async function* samples() {
    yield { prompt: "a" };
    fake.leastKeep = 0.32;
    yield { prompt: "b" };
  }
  const { rows, samples: count, score } = await model.calibrate({ method: prefixkv(), samples: samples() });
  assert.deepEqual([rows.length, rows[0]?.keep, rows.at(-1)?.keep, count, score], [13, 0.35, 0.95, 2, "mix"]);
  const asked = model.calibrate({ method: prefixkv(), samples: [{ prompt: "a" }], keeps: [0.1, 0.5] });
  await assert.rejects(asked, (error) => error instanceof BudgetError && error.least === 0.32);
  await assert.rejects(model.calibrate({ method: prefixkv(), samples: [] }), OptionError);
  const aborted = { method: prefixkv(), samples: [{ prompt: "a" }], signal: AbortSignal.abort() };
  await assert.rejects(model.calibrate(aborted), api.AbortError);
  const nowhere = fileURLToPath(pathToFileURL(join(folder, "none", "mine.json")));
  fake.leastKeep = 0;
  const unwritten = model.calibrate({ method: prefixkv(), samples: [{ prompt: "a" }], file: nowhere });
  await assert.rejects(unwritten, (error) => error instanceof CalibrationError && /cannot write/.test(error.message));
});

test("a calibration says which score its sizes follow from, with its options", async () => {
  const model = await open(new FakeNative());
  const ranking = async (options: Parameters<typeof prefixkv>[0]): Promise<unknown> => {
    const { score, window, pool, poolSize } = await model.calibrate({
      method: prefixkv(options),
      samples: [{ prompt: "a" }],
      keeps: [0.5],
    });
    return [score, window, pool, poolSize];
  };
  const none = [undefined, undefined, undefined];
  assert.deepEqual(await ranking({}), ["mix", 32, "max", 7]);
  assert.deepEqual(await ranking({ variant: "tuned", window: 4, poolSize: 3 }), ["mix", 4, "max", 3]);
  assert.deepEqual(await ranking({ score: "question" }), ["question", 32, "max", 7]);
  assert.deepEqual(await ranking({ variant: "paper" }), ["columns", ...none]);
  assert.deepEqual(await ranking({ variant: "official" }), ["columns", ...none]);
  assert.deepEqual(await ranking({ variant: "paper", score: "window" }), ["window", 32, "none", 7]);
  assert.deepEqual(await ranking({ score: "text" }), ["text", ...none]);
});

test("generate and score send the method, score asks for what is kept", async () => {
  const fake = new FakeNative();
  const model = await open(fake);
  await model.generate({ prompt: "a", cache: h2o({ keep: 0.5 }) });
  const { kept } = await model.score({
    prompt: "a",
    answer: "b",
    cache: [h2o({ keep: { bytes: "1MiB" } })],
    kept: true,
  });
  assert.deepEqual(kept[0], [{ heads: [0, 6], positions: [0, 2] }]);
  assert.equal((await model.score({ prompt: "a", answer: "b" })).kept, undefined);
  assert.deepEqual(
    fake.requests.slice(0, 2).map(({ request }) => request),
    [
      { op: "generate", cache: { method: "h2o", keep: 0.5 }, prompt: "a" },
      { op: "score", answer: "b", kept: true, cache: [{ method: "h2o", keep: { bytes: "1MiB" } }], prompt: "a" },
    ],
  );
});
