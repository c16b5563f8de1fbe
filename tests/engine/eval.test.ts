import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { random } from "../../ts/eval/bootstrap.ts";
import { compareResults, evaluate, openData, readResults } from "../../ts/eval/index.ts";
import { image, load, type Model, prefixkv, snapkv } from "../../ts/index.ts";
import { shared } from "../kit/turns.ts";
import { root, runScript } from "../runtimes/spawn.ts";

let folder: string;
let model: Model;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "prefixkv-eval-"));
  model = await load();
});

after(async () => {
  await model.dispose();
  await rm(folder, { recursive: true });
});

const child = join(root, "tests", "engine", "eval_child.ts");
const env = { RAYON_NUM_THREADS: "1" };

/** Runs the child, killing it at a moment after it has begun with line `at`; says whether it came to its end. */
async function runChild(out: string, kill?: { at: number; delay: number }): Promise<boolean> {
  let due = kill !== undefined;
  const { code, err } = await runScript(child, [out], {
    env,
    onOut: (text, signal) => {
      // The child counts from where it goes on.
      if (!kill || !due || text.split("\n").length - 1 <= kill.at) return;
      due = false;
      setTimeout(() => signal("SIGKILL"), kill.delay);
    },
  });
  assert.ok(code === 0 || (kill && code === 137), `${code} ${err}`);
  return code === 0;
}

shared("a run that is killed and started again writes the same quality to the byte", { timeout: 300_000 }, async () => {
  const whole = join(folder, "whole");
  assert.ok(await runChild(whole));
  const quality = await readFile(join(whole, "quality.jsonl"), "utf8");
  assert.equal(quality.split("\n").length, 3 * 5 + 1);
  for (const seed of [1, 2]) {
    const draw = random(seed);
    const out = join(folder, `killed-${seed}`);
    let kills = 0;
    while (kills < 4 && !(await runChild(out, { at: Math.floor(4 * draw()), delay: 250 * draw() }))) kills += 1;
    assert.ok(kills > 1, `${kills} kills`);
    assert.ok(await runChild(out));
    assert.equal(await readFile(join(out, "quality.jsonl"), "utf8"), quality, `seed ${seed}`);
    assert.equal(
      await readFile(join(out, "reference.jsonl"), "utf8"),
      await readFile(join(whole, "reference.jsonl"), "utf8"),
    );
    assert.equal((await readResults(out)).timings.length, 15);
  }
});

test("the perplexity is the same as in transformers", async () => {
  const file = new URL("../golden/data/scenes.json", import.meta.url);
  const golden: { scenes: { image: string; ppl: number; logprobs: number[] }[] } = JSON.parse(
    await readFile(file, "utf8"),
  );
  const scenes = golden.scenes.slice(0, 6);
  const out = join(folder, "ppl");
  const { cells } = await evaluate({ model, methods: [], keeps: [], limit: 6, generate: false, out });
  const { quality } = await readResults(out);
  for (const [index, line] of quality.entries()) {
    const want = scenes[index];
    assert.ok("ppl" in line && want?.image === `${line.sample}.png`);
    assert.equal(line.answerTokens, want.logprobs.length);
    assert.ok(Math.abs(line.ppl / want.ppl - 1) < 1e-3, `${line.sample}: ${line.ppl} for ${want.ppl}`);
  }
  const logprobs = scenes.flatMap((scene) => scene.logprobs);
  const ppl = Math.exp(-logprobs.reduce((sum, logprob) => sum + logprob, 0) / logprobs.length);
  assert.ok(Math.abs((cells[0]?.ppl?.value ?? 0) / ppl - 1) < 1e-3);
});

test("what keeps everything is the full cache in every metric", async () => {
  const out = join(folder, "one");
  const { cells } = await evaluate({ model, methods: ["prefixkv", "h2o"], keeps: [1], limit: 1, maxTokens: 24, out });
  for (const cell of cells) {
    assert.deepEqual([cell.kl?.value, cell.rougeL?.value, cell.agreement?.value, cell.keptShare], [0, 1, 1, 1]);
    assert.equal(cell.ppl?.value, cells[0]?.ppl?.value);
    assert.equal(cell.effectiveBits, 32);
  }
});

test("a smaller cache differs and is smaller", async () => {
  const out = join(folder, "small");
  const options = {
    model,
    methods: ["prefixkv:score=text", "streaming"],
    keeps: [0.5, 0.02],
    limit: 1,
    maxTokens: 128,
    out,
  };
  const { cells, overhead } = await evaluate(options);
  const [full, text, streaming, , refused] = cells;
  assert.deepEqual([full?.right?.value, full?.kl?.value, full?.keptShareAfterPrompt], [1, 0, 1]);
  for (const cell of [text, streaming]) {
    assert.ok((cell?.kl?.value ?? 0) > 0 && (cell?.ppl?.value ?? 0) > (full?.ppl?.value ?? 0));
    assert.ok(Math.abs((cell?.keptShareAfterPrompt ?? 0) - 0.5) < 0.002);
    assert.ok((cell?.residentShare ?? 1) < 0.55 && (cell?.rougeL?.value ?? 1) < 1);
    assert.ok((cell?.tokensPerSecond?.median ?? 0) > 0 && (cell?.firstTokenMs?.median ?? 0) > 0);
  }
  assert.deepEqual([refused?.method, refused?.samples, refused?.refused], ["streaming", 0, 1]);
  assert.ok(overhead.ratio >= 1, String(overhead.ratio));
  assert.equal((await compareResults(out, out, { ppl: 0, kl: 0 })).worse, false);
});

test("lines that are measured at once are those one by one", async () => {
  const asked = { methods: ["prefixkv", "h2o", "streaming"], keeps: [0.5, 0.02], limit: 3, maxTokens: 24 };
  const [one, many] = [join(folder, "one-by-one"), join(folder, "at-once")];
  await evaluate({ ...asked, model, out: one });
  // Goes on where it was interrupted, in the middle of a sample.
  const controller = new AbortController();
  const load = { threads: model.info.threads };
  const first = evaluate({
    ...asked,
    batch: 4,
    load,
    out: many,
    signal: controller.signal,
    onProgress: ({ done }) => done === 9 && controller.abort(),
  });
  await assert.rejects(first, { name: "AbortError" });
  const { cells } = await evaluate({ ...asked, batch: 4, load, out: many });
  const [lines, together] = await Promise.all([one, many].map((out) => readFile(join(out, "quality.jsonl"), "utf8")));
  assert.equal(together, lines);
  assert.equal((await readResults(many)).run.batch, 4);
  assert.ok(cells.every((cell) => cell.tokensPerSecond === undefined && cell.speedup === undefined));
  await assert.rejects(evaluate({ ...asked, load, out: many }), /`?batch`? was 4, asked is nothing/);
  for (const batch of [0, 257])
    await assert.rejects(evaluate({ ...asked, batch, out: join(folder, "none") }), /`batch`/);
});

test("a sample is measured with the calibration of the others", async () => {
  const out = join(folder, "across");
  const across = { id: "across", cache: { method: "prefixkv", calibration: { crossFit: 2 } } };
  const asked = { model, methods: ["prefixkv", across], keeps: [0.5], limit: 2, generate: false, kl: false, out };
  const { cells } = await evaluate(asked);
  const lines = (await readFile(join(out, "calibrations.jsonl"), "utf8")).trim().split("\n");
  const { samples } = await openData();
  for (const [fold, line] of lines.entries()) {
    const other = samples[1 - fold];
    assert.ok(other);
    const messages = [{ role: "user", content: [image(other.image), other.question] }];
    const alone = await model.calibrate({ method: prefixkv(), samples: [{ messages }], keeps: [0.5] });
    assert.deepEqual(JSON.parse(line), { method: "across", stage: 0, fold, calibration: alone, refused: [] });
  }
  assert.equal(lines.length, 2);
  // Sizes that are known beforehand free each layer at once.
  const [, online, offline] = cells;
  assert.ok((offline?.peakShare ?? 1) < (online?.peakShare ?? 0) - 0.05, JSON.stringify(cells));
  assert.equal(offline?.keptShareAfterPrompt, online?.keptShareAfterPrompt);
});

shared("stores and layers that share are calibrated on the others as well, with options of their own", async () => {
  const out = join(folder, "stores-across");
  const of = (method: string, options: object, more: object) => ({
    id: method,
    cache: { method, calibration: { crossFit: 2, ...more }, ...options },
  });
  const methods = [
    of("skvq", { window: 32 }, { group: 32, sinks: 1 }),
    of("kvquant", { window: 32 }, { bits: 2, outliers: 0.05 }),
    of("cskv", { keys: 0.25, values: 0.75, window: 32 }, { init: "asvd" }),
    of("clla", { latent: 0.25, window: 32 }, {}),
    of("kvsharer", { layers: 2 }, { layers: 2 }),
    of("headKv", {}, { queries: 16 }),
  ];
  const { cells } = await evaluate({ model, methods, keeps: [0.5], limit: 2, generate: false, kl: true, out });
  const found = (await readFile(join(out, "calibrations.jsonl"), "utf8"))
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  assert.deepEqual(
    found.map(({ method, fold, calibration: { format } }) => [method, fold, format]),
    ["channels", "codebooks", "directions", "directions", "sharing", "heads"].flatMap((format, index) =>
      [0, 1].map((fold) => [methods[index]?.id, fold, `prefixkv-${format}`]),
    ),
  );
  const { samples } = await openData();
  const other = samples[1];
  assert.ok(other);
  const messages = [{ role: "user", content: [image(other.image), other.question] }];
  const alone = await model.calibrateKvquant({ samples: [{ messages }], bits: 2, outliers: 0.05 });
  assert.deepEqual(found[2]?.calibration, alone);
  assert.equal(found[0]?.calibration.group, 32);
  // Three quarters of 32, for the larger share.
  assert.deepEqual([found[4]?.calibration.rank, found[4]?.calibration.init], [24, "asvd"]);
  assert.deepEqual([found[10]?.calibration.measure, found[10]?.calibration.queries], ["copies", 16]);
  for (const cell of cells.slice(1)) {
    const keep = cell.method === "headKv" ? 0.5 : 1;
    assert.deepEqual([cell.keep, cell.samples, cell.refused], [keep, 2, 0], cell.method);
    assert.ok((cell.kl?.value ?? 0) > 0 && (cell.residentShare ?? 1) < 0.9, cell.method);
  }
});

test("divergences come with a score that asks for them", async () => {
  const asked = {
    prompt: "USER: Which shapes are there, and where? ASSISTANT:",
    answer: " There is a star in the top left.",
  };
  const { kl, logprobs } = await model.score({ ...asked, cache: snapkv({ keep: 0.3 }), kl: true });
  assert.equal(kl?.length, logprobs.length);
  assert.ok(kl?.some((each) => each > 0) && kl.every((each) => each >= 0));
  // The first token comes from the whole prompt.
  assert.equal(kl?.[0], 0);
  const one = await model.score({ ...asked, cache: prefixkv({ keep: 1 }), kl: true });
  assert.ok(one.kl?.every((each) => each === 0));
  assert.equal((await model.score(asked)).kl, undefined);
});
