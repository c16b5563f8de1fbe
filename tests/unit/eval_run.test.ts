import assert from "node:assert/strict";
import { mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, test } from "node:test";
import { sourceName } from "../../ts/eval/evaluate.ts";
import { compareResults, type EvaluateOptions, parseMethod, readResults } from "../../ts/eval/index.ts";
import { prepareMethods, splitMethods } from "../../ts/eval/methods.ts";
import { AbortError, OptionError } from "../../ts/index.ts";
import { clean, fresh, read, run } from "../kit/eval_fake.ts";
import { FakeNative } from "../kit/fake_native.ts";

/** The perplexity of the fake, with the digits that are written. */
const e = Number(Math.E.toPrecision(9));

after(clean);

test("a run writes its files", async () => {
  const out = fresh();
  const progress: unknown[] = [];
  const fake = new FakeNative();
  const summary = await run(out, { onProgress: (each) => progress.push(each) }, fake);
  assert.deepEqual((await readdir(out)).sort(), [
    "quality.jsonl",
    "reference.jsonl",
    "run.json",
    "summary.json",
    "timings.jsonl",
  ]);
  const { run: record, quality, timings, summary: written } = await readResults(out);
  assert.deepEqual(record.methods, [
    { id: "full", cache: { method: "full" } },
    { id: "h2o", cache: { method: "h2o" } },
    { id: "snapkv:window=4", cache: { method: "snapkv", window: 4 } },
  ]);
  assert.deepEqual([record.version, record.keeps, record.seed, record.baseline], [2, [0.5], 1, "full"]);
  assert.doesNotMatch(await read(out, "run.json"), new RegExp(process.cwd().replaceAll("\\", "\\\\")));
  assert.deepEqual(
    quality.map(({ method, keep, sample }) => [method, keep, sample]),
    [
      ["full", 1, "a"],
      ["h2o", 0.5, "a"],
      ["snapkv:window=4", 0.5, "a"],
      ["full", 1, "b"],
      // The second round begins with another method.
      ["snapkv:window=4", 0.5, "b"],
      ["h2o", 0.5, "b"],
    ],
  );
  const [first, second] = quality;
  assert.deepEqual(first, {
    method: "full",
    keep: 1,
    sample: "a",
    text: "There is a star.",
    textTokens: 3,
    rougeL: 1,
    agreement: 1,
    correct: 1,
    nll: 2,
    answerTokens: 2,
    ppl: e,
    kl: 0,
    keptPerLayer: [163, 163],
    keptShareAfterPrompt: 0.0025,
    keptShareAtEnd: 0.250368,
    keptOfText: 0.6875,
    keptOfImages: 0.25,
    effectiveBits: 127.811861,
    payloadBytes: 2_000_000,
    residentBytes: 2_001_000,
    peakBytes: 2_002_000,
    fullBytes: 2_000_000,
  } satisfies typeof first);
  assert.equal(second && "kl" in second && second.kl, 0.25);
  assert.equal(timings.length, 6);
  assert.deepEqual(written, summary);
  const [full, h2o] = summary.cells;
  assert.equal(full?.versus, undefined);
  assert.deepEqual(h2o?.ppl, { value: e, low: e, high: e });
  assert.deepEqual(h2o?.versus?.ppl, { difference: 0, low: 0, high: 0 });
  assert.deepEqual(h2o?.kl, { value: 0.25, low: 0.25, high: 0.25 });
  // Only one of the two samples has accepted answers, so there is no accuracy over both.
  assert.equal(h2o?.accuracy, undefined);
  assert.deepEqual([h2o?.samples, h2o?.refused, h2o?.keptPerLayer?.length], [2, 0, 2]);
  assert.deepEqual([h2o?.keptOfText, h2o?.keptOfImages, h2o?.keptOfAnswer], [0.6875, 0.25, undefined]);
  assert.ok(summary.overhead.wallMs > 0 && summary.overhead.engineMs === 6 * 20);
  assert.equal(progress.length, 7);
  assert.deepEqual(progress[0], { done: 0, total: 6, next: { method: "full", keep: 1, sample: "a" } });
  assert.deepEqual(progress.at(-1), { done: 6, total: 6 });
  // The full cache is compared with nothing, the others with it; a text may be 16 tokens longer.
  const asked = fake.requests.map(({ request }) => request);
  assert.deepEqual(
    asked.map((request) => request.op === "score" && request.kl),
    [undefined, false, true, false, true, false, undefined, false, true, false, true, false],
  );
  assert.deepEqual(
    asked.flatMap((request) => (request.op === "generate" ? [request.maxTokens] : [])),
    [256, 19, 19, 256, 19, 19],
  );
});

test("wherever a run is broken off, its continuation writes the same bytes", async () => {
  const whole = fresh();
  await run(whole);
  const [quality, timings, reference] = await Promise.all(
    ["quality.jsonl", "timings.jsonl", "reference.jsonl"].map((name) => read(whole, name)),
  );
  assert.ok(quality && timings && reference);
  const lines = (text: string, end: number): string =>
    text
      .split("\n")
      .slice(0, end)
      .map((line) => `${line}\n`)
      .join("");
  // The reference of a round is written with its first line.
  const answers = (end: number): number => Math.min(2, Math.ceil(end / 3));
  for (let cell = 0; cell <= 6; cell += 1) {
    // Whole lines, then the timing without its quality, then torn lines of each file.
    const torn: [string, string, string][] = [
      [lines(quality, cell), lines(timings, cell), lines(reference, answers(cell))],
      [lines(quality, cell), lines(timings, Math.min(6, cell + 1)), lines(reference, answers(cell + 1))],
      [lines(quality, cell), timings.slice(0, lines(timings, cell).length + 7), lines(reference, answers(cell + 1))],
      [quality.slice(0, lines(quality, cell).length + 9), lines(timings, Math.min(6, cell + 1)), reference],
      [lines(quality, cell), lines(timings, cell), reference.slice(0, lines(reference, answers(cell)).length + 3)],
      // It should not happen, but a disk may do it: the later file is ahead.
      [lines(quality, cell), lines(timings, Math.max(0, cell - 1)), lines(reference, 1)],
    ];
    for (const [index, [q, t, r]] of torn.entries()) {
      const out = fresh();
      await mkdir(out);
      await writeFile(join(out, "run.json"), await read(whole, "run.json"));
      await writeFile(join(out, "quality.jsonl"), q);
      await writeFile(join(out, "timings.jsonl"), t);
      await writeFile(join(out, "reference.jsonl"), r);
      const fake = new FakeNative();
      await run(out, {}, fake);
      assert.equal(await read(out), quality, `${cell} ${index}`);
      assert.equal(await read(out, "reference.jsonl"), reference);
      assert.equal((await read(out, "timings.jsonl")).split("\n").length, 7);
      // A whole cell is not measured again.
      if (index === 0) assert.equal(fake.requests.length, 2 * (6 - cell));
    }
  }
});

test("a finished run is not measured again", async () => {
  const out = fresh();
  const first = await run(out);
  const fake = new FakeNative();
  assert.deepEqual(await run(out, {}, fake), first);
  assert.equal(fake.requests.length, 0);
});

test("the folder of another run is refused, and nothing in it changes", async () => {
  const out = fresh();
  await run(out);
  const before = await read(out);
  for (const [options, pattern] of [
    [{ keeps: [0.4] }, /keeps was \[0\.5\], asked is \[0\.4\]/],
    [{ methods: ["h2o"] }, /methods was .*, asked is/],
    [{ limit: 1 }, /data\.samples was 2, asked is 1; data\.hash was/],
    [{ seed: 2, baseline: "h2o" }, /seed was 1, asked is 2; baseline was "full", asked is "h2o"/],
    [{ generate: false }, /generate was \{.*\}, asked is false/],
    [{ maxTokens: 8 }, /generate\.maxTokens was 256, asked is 8/],
    [{ kl: false }, /kl was true, asked is false/],
  ] as const) {
    const fake = new FakeNative();
    await assert.rejects(
      run(out, options, fake),
      (error: Error) => error instanceof OptionError && pattern.test(error.message),
    );
    assert.equal(fake.requests.length, 0);
  }
  assert.equal(await read(out), before);
});

test("a size that holds too little is a line, and does not stop the others", async () => {
  const fake = new FakeNative();
  const refuse = (on: boolean): void => {
    fake.requestError = on ? { code: "budget", message: "too small", details: { asked: 0.5, least: 0.75 } } : undefined;
  };
  const out = fresh();
  await run(
    out,
    { methods: ["h2o"], onProgress: ({ next }) => refuse(next?.method === "h2o" && next.sample === "a") },
    fake,
  );
  const { quality, summary } = await readResults(out);
  assert.deepEqual(quality[1], { method: "h2o", keep: 0.5, sample: "a", refused: { code: "budget", least: 0.75 } });
  const cell = summary?.cells[1];
  assert.deepEqual([cell?.samples, cell?.refused, cell?.least, cell?.ppl?.value], [1, 1, 0.75, e]);
  const all = fresh();
  const { cells } = await run(
    all,
    { methods: ["h2o"], onProgress: ({ next }) => refuse(next?.method === "h2o") },
    fake,
  );
  assert.deepEqual(cells[1], { method: "h2o", keep: 0.5, samples: 0, refused: 2, least: 0.75 });
});

test("an abort leaves what is done, and the run goes on from it", async () => {
  const [out, whole] = [fresh(), fresh()];
  await run(whole);
  const controller = new AbortController();
  const stopped = run(out, {
    signal: controller.signal,
    onProgress: ({ done }) => done === 3 && controller.abort(),
  });
  await assert.rejects(stopped, AbortError);
  assert.equal((await read(out)).split("\n").length, 4);
  await run(out);
  assert.equal(await read(out), await read(whole));
});

test("without texts and distributions there are none of their metrics", async () => {
  const out = fresh();
  const { cells } = await run(out, { generate: false, kl: false });
  const { quality } = await readResults(out);
  assert.ok(quality.every((line) => !("text" in line) && !("rougeL" in line) && !("kl" in line) && "ppl" in line));
  assert.deepEqual([cells[1]?.rougeL, cells[1]?.kl, cells[1]?.right], [undefined, undefined, undefined]);
  assert.equal(await read(out, "reference.jsonl"), "");
});

test("another baseline is compared at the same size", async () => {
  const { cells } = await run(fresh(), { baseline: "h2o" });
  assert.deepEqual(
    cells.map(({ versus }) => versus?.kl?.difference),
    [undefined, undefined, 0],
  );
});

test("options that cannot be meant are refused before any work", async () => {
  for (const [options, pattern] of [
    [{ methods: ["h20"] }, /no method `h20`; there are full, prefixkv, h2o/],
    [{ methods: ["h2o:score=text"] }, /is no OPTION=VALUE of h2o; its options are/],
    [{ methods: ["h2o", "h2o"] }, /`h2o` is there twice/],
    [{ methods: [{ id: "mine", cache: { method: "h2o", keep: 0.5 } }] }, /has a `keep`/],
    [{ methods: [{ id: "full", cache: { method: "h2o" } }] }, /id `full`/],
    [{ keeps: [0] }, /shares above 0 and up to 1, found 0/],
    [{ keeps: [0.5, 0.5] }, /a size twice/],
    [{ baseline: "knorm" }, /`baseline` is `knorm`; there are full, h2o/],
    [{ limit: 0 }, /`limit` must be a whole number from 1/],
    [{ maxTokens: 0 }, /`maxTokens` must/],
    [{ seed: -1 }, /`seed` must/],
  ] as [Partial<EvaluateOptions>, RegExp][]) {
    const fake = new FakeNative();
    await assert.rejects(
      run(fresh(), options, fake),
      (error: Error) => error instanceof OptionError && pattern.test(error.message),
    );
    assert.equal(fake.requests.length, 0);
  }
});

test("methods are written with their options", async () => {
  assert.deepEqual(parseMethod("prefixkv:score=text,decode=none"), {
    id: "prefixkv:score=text,decode=none",
    cache: { method: "prefixkv", score: "text", decode: "none" },
  });
  assert.deepEqual(parseMethod("knorm:sinks=4,protectText=true").cache, {
    method: "knorm",
    sinks: 4,
    protectText: true,
  });
  assert.equal(parseMethod("prefixkv:calibration=/somewhere/mine.json").id, "prefixkv:calibration=mine.json");
  assert.deepEqual(splitMethods("prefixkv:score=text,decode=none,h2o, snapkv"), [
    "prefixkv:score=text,decode=none",
    "h2o",
    "snapkv",
  ]);
  const [offline] = await prepareMethods(["prefixkv:calibration=llava-1.5-7b"]);
  assert.match(JSON.stringify(offline?.record), /"calibration":"sha256:[0-9a-f]{64}"/);
  assert.match(JSON.stringify(offline?.at(0.5, 1, "a")), /"keep":0\.5/);
});

test("a model is named without where it lies", () => {
  assert.equal(sourceName("/home/me/models/llava-1.5-7b-hf/"), "llava-1.5-7b-hf");
  assert.equal(sourceName("C:\\models\\tiny"), "tiny");
  assert.equal(sourceName("/c/hub/models--llava-hf--llava-1.5-7b-hf/snapshots/abc"), "llava-hf/llava-1.5-7b-hf@abc");
});

test("a comparison fails for what is worse by more than its threshold", async () => {
  const [before, after] = [fresh(), fresh()];
  await run(before);
  await run(after);
  const same = await compareResults(before, after, { ppl: 0, rougeL: 0, kl: 0 });
  assert.deepEqual([same.worse, same.missing, same.comparisons.length], [false, [], 9]);
  assert.ok(same.comparisons.every(({ change, certain }) => change === 0 && certain === false));

  const change = async (edit: (line: string) => string): Promise<void> =>
    writeFile(join(after, "quality.jsonl"), (await read(before)).split("\n").map(edit).join("\n"));
  await change((line) =>
    line.includes('"h2o"') ? line.replace('"nll":2', '"nll":2.1').replace('"rougeL":1', '"rougeL":0.9') : line,
  );
  const worse = await compareResults(before, after, { ppl: 0.02, rougeL: 0.2 });
  assert.equal(worse.worse, true);
  const [ppl, rougeL] = worse.comparisons.filter(({ method }) => method === "h2o");
  assert.ok(Math.abs((ppl?.change ?? 0) - Math.expm1(0.05)) < 1e-8);
  assert.deepEqual([ppl?.worse, ppl?.certain], [true, true]);
  assert.ok(Math.abs((rougeL?.change ?? 0) - 0.1) < 1e-9);
  assert.deepEqual([rougeL?.worse, rougeL?.certain], [false, true]);
  assert.equal((await compareResults(before, after, { ppl: 0.06 })).worse, false);
  // The other way round it is better.
  assert.equal((await compareResults(after, before, { ppl: 0.02, rougeL: 0.02 })).worse, false);
  const text = (await read(before)).split("\n").filter((line) => !line.includes("snapkv"));
  await writeFile(join(after, "quality.jsonl"), text.join("\n"));
  const gone = await compareResults(before, after, { ppl: 0.02 });
  assert.deepEqual([gone.worse, gone.missing], [true, [{ method: "snapkv:window=4", keep: 0.5, reason: "missing" }]]);
  await assert.rejects(compareResults(before, after, { right: 0.1 }), /no cell in common that measures it/);
  await assert.rejects(compareResults(before, after, {}), /at least one threshold/);
});
