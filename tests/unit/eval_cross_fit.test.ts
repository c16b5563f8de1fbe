import assert from "node:assert/strict";
import { appendFile, mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, test } from "node:test";
import { finders } from "../../ts/eval/finders.ts";
import {
  dataOf,
  type EvalMethod,
  type EvalSample,
  type EvaluateOptions,
  EvaluationError,
  readResults,
} from "../../ts/eval/index.ts";
import type { FitRecord } from "../../ts/eval/records.ts";
import { AbortError, type Calibration, type Model, OptionError } from "../../ts/index.ts";
import { clean, fresh, picture, read, run } from "../kit/eval_fake.ts";
import { FakeNative } from "../kit/fake_native.ts";

after(clean);

const samples = ["a", "b", "c", "d", "e"].map((id) => ({ id, image: picture, question: `${id}?`, answer: "Here." }));
const offline = (folds: unknown): EvalMethod => ({
  id: "offline",
  cache: { method: "prefixkv", calibration: { crossFit: folds } },
});
const options: Partial<EvaluateOptions> = {
  data: dataOf("five", samples),
  methods: ["h2o", offline(2)],
  keeps: [0.5, 0.2],
};

/** Which of the samples a request asks about. */
const asked = (request: unknown): string => /"([a-e])\?"/.exec(JSON.stringify(request))?.[1] ?? "";

type Sizes = Omit<FitRecord, "calibration"> & { calibration?: Calibration };

/** The calibrations of a folder. */
const fits = async (out: string): Promise<Sizes[]> =>
  (await read(out, "calibrations.jsonl"))
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Sizes);

test("no sample is measured with what was found on it", async () => {
  const [out, fake] = [fresh(), new FakeNative()];
  const progress: unknown[] = [];
  await run(out, { ...options, onProgress: ({ calibrating }) => calibrating && progress.push(calibrating) }, fake);
  const requests = fake.requests.map(({ request }) => request as unknown as Record<string, unknown>);
  const profiled = requests.filter(({ op }) => op === "profile");
  assert.deepEqual(profiled.map(asked), ["b", "d", "a", "c", "e"]);
  assert.ok(profiled.every(({ keeps }) => JSON.stringify(keeps) === "[0.2,0.5]"));
  assert.deepEqual(progress.slice(0, 3), [
    { method: "offline", done: 1, total: 2 },
    { method: "offline", done: 2, total: 2 },
    { method: "offline", done: 1, total: 3 },
  ]);
  const [even, odd] = await fits(out);
  // The fake tells its profiles apart: the first two are of one fold, the other three of the other.
  const retained = even?.calibration?.rows[0]?.retained.map((share) => share.toFixed(3));
  assert.deepEqual(retained, ["0.205", "0.195"]);
  assert.deepEqual([even?.fold, even?.calibration?.samples, odd?.fold, odd?.calibration?.samples], [0, 2, 1, 3]);
  const measured = requests.filter(({ op, cache }) => op !== "profile" && JSON.stringify(cache).includes("prefixkv"));
  assert.equal(measured.length, 5 * 2 * 2);
  for (const request of measured) {
    const { calibration } = request.cache as { calibration: unknown };
    assert.deepEqual(calibration, "ace".includes(asked(request)) ? even?.calibration : odd?.calibration);
  }
  const { run: record } = await readResults(out);
  assert.deepEqual(record.methods[2], offline(2));
});

test("one fold per sample leaves one out", async () => {
  const [out, fake] = [fresh(), new FakeNative()];
  await run(out, { ...options, methods: [offline(5)], generate: false }, fake);
  assert.deepEqual(
    (await fits(out)).map(({ fold, calibration }) => [fold, calibration?.samples]),
    [0, 1, 2, 3, 4].map((fold) => [fold, 4]),
  );
});

test("a run that was broken off while it calibrated or after it goes on with the same calibrations", async () => {
  const whole = fresh();
  await run(whole, options);
  const [found, quality, timings, reference] = await Promise.all(
    ["calibrations.jsonl", "quality.jsonl", "timings.jsonl", "reference.jsonl"].map((name) => read(whole, name)),
  );
  assert.ok(found && quality && timings && reference);
  const first = found.indexOf("\n") + 1;
  for (const [kept, profiles] of [
    [found.slice(0, first), 3],
    [found.slice(0, first + 20), 3],
    [found, 0],
  ] as const) {
    const [out, fake] = [fresh(), new FakeNative()];
    await mkdir(out);
    await writeFile(join(out, "run.json"), await read(whole, "run.json"));
    await writeFile(join(out, "calibrations.jsonl"), kept);
    if (kept === found) {
      await writeFile(join(out, "quality.jsonl"), quality.slice(0, 900));
      await writeFile(join(out, "timings.jsonl"), timings.slice(0, 900));
      await writeFile(join(out, "reference.jsonl"), reference);
    }
    fake.profiles = 5 - profiles;
    await run(out, options, fake);
    assert.equal(fake.profiles, 5);
    assert.equal(await read(out, "calibrations.jsonl"), found);
    assert.equal(await read(out), quality);
  }
  // An abort in the middle of the second fold leaves the first.
  const [out, controller] = [fresh(), new AbortController()];
  const onProgress: EvaluateOptions["onProgress"] = ({ calibrating }) => calibrating?.total === 3 && controller.abort();
  await assert.rejects(run(out, { ...options, onProgress, signal: controller.signal }), AbortError);
  assert.equal(await read(out, "calibrations.jsonl"), found.slice(0, first));
  await run(out, options, Object.assign(new FakeNative(), { profiles: 2 }));
  assert.equal(await read(out), quality);
});

test("a calibration that is not of the run is refused, by the line", async () => {
  const out = fresh();
  await run(out, options);
  const found = await read(out, "calibrations.jsonl");
  for (const [text, pattern, line] of [
    [found.replace('"fold":1', '"fold":2'), /does not belong to the run/, 2],
    [found.replace('"method":"offline"', '"method":"other"'), /does not belong to the run/, 1],
    [`${found}${found.split("\n")[0]}\n`, /does not belong to the run/, 3],
    [found.replace(/"refused":\[\]/, '"refused":[1]'), /its `refused` are no sizes/, 1],
    [found.replace(/"calibration":\{.*?\},"refused"/, '"calibration":7,"refused"'), /its `calibration` is none/, 1],
    [found.replace('"stage":0', '"stage":"0"'), /no numbers `stage` and `fold`/, 1],
  ] as const) {
    await writeFile(join(out, "calibrations.jsonl"), text);
    const error = await run(out, options).catch((error: unknown) => error);
    assert.ok(error instanceof EvaluationError, String(error));
    assert.match(error.message, pattern);
    assert.equal(error.details.line, line);
  }
  const plain = fresh();
  await run(plain);
  assert.ok(!(await readdir(plain)).includes("calibrations.jsonl"));
  await appendFile(join(plain, "calibrations.jsonl"), found);
  await assert.rejects(run(plain), /does not belong to the run/);
});

test("sizes that are too small to calibrate with are lines, and do not stop the others", async () => {
  for (const [least, kept] of [
    [0.4, [0.5]],
    [0.8, undefined],
  ] as const) {
    const [out, fake] = [fresh(), new FakeNative()];
    fake.leastKeep = least;
    const { cells } = await run(out, options, fake);
    assert.deepEqual(
      cells.filter(({ method }) => method === "offline").map(({ keep, samples, refused }) => [keep, samples, refused]),
      [
        [0.5, kept ? 5 : 0, kept ? 0 : 5],
        [0.2, 0, 5],
      ],
    );
    assert.deepEqual(cells.find(({ method, keep }) => method === "offline" && keep === 0.2)?.least, least);
    assert.deepEqual(
      (await fits(out))[0]?.calibration?.rows.map(({ keep }) => keep),
      kept,
    );
    // A refused request is not sent again.
    await run(out, options, Object.assign(new FakeNative(), { requestError: { code: "x", message: "", details: {} } }));
  }
});

test("a search gets what its stage has in common with it, its own options, and up to 64 samples", async () => {
  const seen: Record<string, unknown>[] = [];
  const search = (options: Record<string, unknown>): unknown => seen.push(options);
  const names = ["calibrateBits", "calibrateChannels", "calibrateHeads", "calibrateKvquant", "calibrateSharing"];
  const model = Object.fromEntries(names.map((name) => [name, search])) as unknown as Model;
  const many = Array.from({ length: 150 }, (_, index) => ({
    ...(samples[0] as EvalSample),
    id: String(index),
    answer: `${index}.`,
  }));
  const stage = { method: "any", window: 16, group: 32, keys: "entry", sinks: 2, layers: 3, bits: 4 };
  const given = { onProgress: () => {} };
  for (const kind of ["bits", "channels", "codebooks", "sharing"] as const)
    await finders[kind]?.(model, { stage, options: { mine: 1 }, samples: many, given });
  for (const method of ["sparseMm", "headKv"])
    await finders.heads?.(model, { stage: { ...stage, method }, options: { queries: 8 }, samples: many, given });
  const rest = seen.map(({ samples: _, onProgress, ...options }) => {
    assert.equal(onProgress, given.onProgress);
    return options;
  });
  assert.deepEqual(rest, [
    { group: 32, window: 16, keys: "entry", mine: 1 },
    { group: 32, sinks: 2, mine: 1 },
    { mine: 1 },
    { layers: 3, mine: 1 },
    { queries: 8 },
    { measure: "copies", queries: 8 },
  ]);
  const [bits = [], channels = [], , sharing = [], heads = []] = seen.map(
    ({ samples }) => samples as { answer?: string }[],
  );
  assert.deepEqual([bits.length, bits[1]?.answer, bits.at(-1)?.answer], [64, "2.", "147."]);
  assert.equal(sharing.length, 64);
  assert.deepEqual([heads.length, heads[1]?.answer], [64, "2."]);
  assert.ok(channels.every((sample) => !("answer" in sample)));
});

test("folds that cannot be meant are refused before any work", async () => {
  for (const [methods, pattern] of [
    [[offline(1)], /`crossFit` of the method `offline` must be a whole number from 2 to 100, found 1/],
    [[offline(101)], /from 2 to 100, found 101/],
    [[offline(2.5)], /found 2\.5/],
    [[offline("2")], /found "2"/],
    [[offline(null)], /found null/],
    [[offline(6)], /makes 6 folds of 5 samples; every fold needs one/],
    [
      [{ id: "x", cache: { method: "prefixkv", calibration: { crossFit: 2, seed: 1 } } }],
      /`calibration` of the method `x` has `seed` beside `crossFit`/,
    ],
    [
      [{ id: "x", cache: { method: "skvq", calibration: { crossFit: 2, file: "f.json" } } }],
      /`calibration` of the method `x` has `file` beside `crossFit`/,
    ],
    [
      [{ id: "x", cache: { method: "h2o", calibration: { crossFit: 2 } } }],
      /asks for a calibration, but h2o takes none/,
    ],
  ] as const) {
    const [out, fake] = [fresh(), new FakeNative()];
    await assert.rejects(
      run(out, { ...options, methods }, fake),
      (error: Error) => error instanceof OptionError && pattern.test(error.message),
    );
    assert.equal(fake.requests.length, 0);
  }
  const [out, fake] = [fresh(), new FakeNative()];
  await run(out, { ...options, methods: ['prefixkv:calibration={"crossFit":2}'], limit: 2 }, fake);
  assert.deepEqual((await fits(out)).length, 2);
});
