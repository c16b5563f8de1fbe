import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { methods } from "../../ts/generated/method_table.ts";
import * as api from "../../ts/index.ts";
import {
  BudgetError,
  type CacheMethod,
  type CacheOption,
  type Calibration,
  CalibrationError,
  full,
  type HeadsCalibration,
  h2o,
  image,
  type Keep,
  knorm,
  load,
  type Message,
  type Model,
  OptionError,
  OutOfMemoryError,
  prefixkv,
  snapkv,
  streaming,
} from "../../ts/index.ts";
import { shared } from "../kit/turns.ts";
import { type Scene, scene, scenes } from "./scenes.ts";

let model: Model;
let folder: string;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "prefixkv-cache-"));
  model = await load();
});

after(async () => {
  await model.dispose();
  await rm(folder, { recursive: true });
});

const ask = ({ image: source, question }: Scene): { messages: Message[] } => ({
  messages: [{ role: "user", content: [image(source), question] }],
});

/** The answers of the full cache to the first twenty scenes. */
let whole: Promise<number[][]> | undefined;

async function wholeAnswers(): Promise<number[][]> {
  const answers: number[][] = [];
  for (const one of scenes.slice(0, 20)) answers.push((await model.generate(ask(one))).tokens);
  return answers;
}

type Made = { keep: Keep; calibration?: HeadsCalibration };
const constructors = api as unknown as Readonly<Record<string, (options: Made) => CacheMethod>>;

/** Scores of the heads of the embedded model that differ. */
function scores({ layers, heads, kvHeads }: Model["info"]): HeadsCalibration {
  const of = (layer: number) => Array.from({ length: heads }, (_, head) => (layer * 7 + head * 5 + 3) % 11);
  return {
    format: "prefixkv-heads",
    version: 1,
    model: { layers, kvHeads },
    measure: "image-hits",
    scores: Array.from({ length: layers }, (_, layer) => of(layer)),
  };
}

for (const { name, budget, options } of methods) {
  if (budget === "outcome") continue;
  const make = (keep: Keep): CacheMethod => {
    const of = constructors[name];
    assert.ok(of, `ts/index.ts does not export ${name}`);
    const scored = options.some(({ kind }) => kind === "heads");
    return of({ keep, ...(scored && { calibration: scores(model.info) }) });
  };

  test(`${name} at half describes a scene in about half of the memory`, async () => {
    // As many tokens for every method: an answer that ends early tells nothing about the cache.
    const { memory, text, tokens } = await model.generate({
      ...ask(scene),
      cache: make(0.5),
      ignoreEos: true,
      maxTokens: 40,
    });
    assert.ok(text.length > 0);
    assert.equal(tokens.length, 40);
    assert.ok(memory.resident < 0.75 * memory.full, `${memory.resident} of ${memory.full}`);
    const positions = memory.full / model.info.kvBytesPerToken;
    const kept = memory.keptPerLayer.reduce((sum, layer) => sum + layer, 0) / model.info.layers;
    const grows = options.some((option) => option.name === "decode" && option.default === "none");
    const expected = grows ? 0.5 * (positions - 39) + 39 : 0.5 * positions;
    // Methods that go back to their size every so many tokens are above it in between.
    const every = Number(options.find((option) => option.name === "every")?.default ?? 0);
    assert.ok(kept > expected - 2 && kept < expected + Math.max(2, every), `${kept} of ${positions}`);
  });

  shared(`${name} with keep 1 gives the tokens of the full cache`, async () => {
    whole ??= wholeAnswers();
    // The Rust tests compare the logits of every method bit for bit.
    const answers = (await whole).slice(0, name === "prefixkv" ? 20 : 3);
    for (const [index, answer] of answers.entries()) {
      const { tokens, memory } = await model.generate({ ...ask(scenes[index] ?? scene), cache: make(1) });
      assert.deepEqual(tokens, answer, `scene ${index}`);
      assert.equal(memory.payload, memory.full);
    }
  });
}

test("full and an empty list are the plain cache", async () => {
  const { tokens } = await model.generate({ ...ask(scene), maxTokens: 20 });
  for (const cache of [full(), [], [full()]] satisfies CacheOption[]) {
    assert.deepEqual((await model.generate({ ...ask(scene), maxTokens: 20, cache })).tokens, tokens);
  }
});

test("a list with one choosing method works, with two it is refused by name", async () => {
  const { memory } = await model.generate({ ...ask(scene), maxTokens: 4, cache: [full(), knorm({ keep: 0.5 })] });
  assert.ok(memory.resident < 0.75 * memory.full);
  const both = model.generate({ ...ask(scene), cache: [h2o({ keep: 0.5 }), knorm({ keep: 0.5 })] });
  await assert.rejects(both, (error) => error instanceof OptionError && /h2o.*knorm/.test(error.message));
});

test("tokens and bytes are caps to the end", async () => {
  const request = { ...ask(scene), ignoreEos: true, maxTokens: 60 };
  const tokens = await model.generate({ ...request, cache: prefixkv({ keep: { tokens: 64 } }) });
  assert.ok(tokens.memory.keptPerLayer.reduce((sum, kept) => sum + kept, 0) <= 64 * model.info.layers);
  const bytes = await model.generate({ ...request, cache: h2o({ keep: { bytes: "1MiB" } }) });
  assert.ok(bytes.memory.resident <= 2 ** 20, String(bytes.memory.resident));
  assert.ok(bytes.memory.resident > 0.8 * 2 ** 20, String(bytes.memory.resident));
});

test("wrong methods, options and sizes are refused with a suggestion or a reason", async () => {
  const refused = (cache: unknown, pattern: RegExp, suggestion: string | null = null) =>
    assert.rejects(model.generate({ ...ask(scene), cache: cache as CacheMethod }), (error) => {
      assert.ok(error instanceof OptionError, String(error));
      assert.equal(error.code, "option");
      assert.match(error.message, pattern);
      assert.equal(error.details.suggestion, suggestion);
      return true;
    });
  await refused({ method: "prefix", keep: 0.5 }, /unknown method `prefix`; known are full, prefixkv/, "prefixkv");
  await refused({ method: "snapvk", keep: 0.5 }, /did you mean `snapkv`/, "snapkv");
  await refused({ method: "h2o", keep: 0.5, sink: 4 }, /did you mean `sinks`/, "sinks");
  await refused({ method: "h2o", keep: 0.5, sinks: -1 }, /`sinks` of h2o must be a whole number from 0/);
  await refused({ method: "snapkv", keep: 0.5, pool: "median" }, /one of max, mean, none, found "median"/);
  await refused({ method: "h2o" }, /h2o needs `keep`/);
  await refused({ method: "h2o", keep: 50 }, /at most 1, found 50/);
  await refused({ method: "full", keep: 0.5 }, /full takes no `keep`/);
  await refused("prefixkv", /`cache` of generate is the name of a method; call the method: prefixkv/, "prefixkv");
});

test("a size that is too small is refused with the least that works", async () => {
  for (const keep of [0.001, { tokens: 2 }, { bytes: 1000 }] satisfies Keep[]) {
    for (const make of [prefixkv, streaming, snapkv]) {
      const cache = make({ keep });
      const outcome = await model.generate({ ...ask(scene), cache, maxTokens: 3 }).catch((error: unknown) => error);
      // SnapKV's window shrinks with its size, so it may hold.
      if (!(outcome instanceof Error)) continue;
      assert.ok(outcome instanceof BudgetError, String(outcome));
      assert.deepEqual(outcome.asked, keep);
      const again = { ...cache, keep: outcome.least } as CacheMethod;
      const { tokens } = await model.generate({ ...ask(scene), cache: again, maxTokens: 3 });
      assert.ok(tokens.length > 0);
    }
  }
  const small = model.generate({ ...ask(scene), cache: streaming({ keep: { tokens: 2 } }) });
  await assert.rejects(small, BudgetError);
});

test("score says which positions stay, per layer and heads", async () => {
  const request = { ...ask(scene), answer: scene.answer };
  const whole = await model.score({ ...request, kept: true });
  const positions = Array.from({ length: whole.usage.promptTokens }, (_, position) => position);
  assert.deepEqual(
    whole.kept.flat().map((lane) => lane.positions),
    whole.kept.flat().map(() => positions),
  );
  const { kept, usage, ppl } = await model.score({ ...request, cache: h2o({ keep: 0.25 }), kept: true });
  assert.equal(kept.length, model.info.layers);
  assert.ok(ppl > whole.ppl);
  const heads = kept[0]?.map((lane) => lane.heads);
  assert.deepEqual(
    heads,
    Array.from({ length: model.info.kvHeads }, (_, head) => [head, head + 1]),
  );
  const count = kept.flat().reduce((sum, lane) => sum + lane.positions.length, 0) / model.info.kvHeads;
  assert.ok(Math.abs(count - 0.25 * usage.promptTokens * model.info.layers) <= 1, String(count));
  assert.equal((await model.score(request)).kept, undefined);
});

test("score says how much is left of text, image and answer at the end", async () => {
  const request = { ...ask(scene), answer: scene.answer };
  const whole = await model.score({ ...request, kept: true });
  assert.deepEqual(
    whole.spans.map(({ modality }) => modality.type),
    ["text", "image", "text", "generated"],
  );
  assert.ok(whole.spans.every(({ kept }) => kept === 1));
  const last = whole.spans.at(-1);
  // The last token of the answer is predicted and never read.
  assert.equal((last?.start ?? 0) + (last?.len ?? 0), whole.usage.promptTokens + whole.tokens.length - 1);
  const small = await model.score({ ...request, cache: streaming({ keep: 0.25, sinks: 4 }), kept: true });
  const entries = small.spans.reduce((sum, { len, kept }) => sum + len * kept, 0);
  const mean = small.memory.keptPerLayer.reduce((sum, kept) => sum + kept, 0) / model.info.layers;
  assert.ok(Math.abs(entries - mean) < 1e-9, `${entries} of ${mean}`);
  // Its sinks and the newest entries: the first text has four, and all of the answer is left but its first tokens.
  const [first, image, , answer] = small.spans;
  assert.ok(Math.abs((first?.kept ?? 0) * (first?.len ?? 0) - 4) < 1e-9);
  assert.equal(image?.kept, 0);
  assert.ok((answer?.kept ?? 0) > 0.5);
  assert.equal((await model.score(request)).spans, undefined);
});

test("a calibration holds what was asked, and is used without a search", async () => {
  const file = join(folder, "mine.json");
  const calibration = await model.calibrate({
    method: prefixkv(),
    samples: scenes.slice(0, 4).map(ask),
    keeps: [0.3, 0.6],
    file,
  });
  assert.deepEqual(JSON.parse(await readFile(file, "utf8")), calibration);
  assert.deepEqual(
    [calibration.samples, calibration.score, calibration.model.fingerprint],
    [4, "mix", model.info.fingerprint],
  );
  for (const { keep, retained } of calibration.rows) {
    const mean = retained.reduce((sum, share) => sum + share, 0) / retained.length;
    assert.ok(Math.abs(mean - keep) < 0.005, `${keep}: ${mean}`);
  }
  const request = { ...ask(scenes[5] ?? scene), maxTokens: 8, ignoreEos: true };
  const searched = await model.generate({ ...request, cache: prefixkv({ keep: 0.45 }) });
  const calibrated = await model.generate({ ...request, cache: prefixkv({ keep: 0.45, calibration: file }) });
  assert.deepEqual(
    (await model.generate({ ...request, cache: prefixkv({ keep: 0.45, calibration }) })).tokens,
    calibrated.tokens,
  );
  // Layers are compacted on the way, so the whole prompt is never held.
  assert.ok(calibrated.memory.peak < 0.8 * searched.memory.peak, `${calibrated.memory.peak}`);
  const outside = model.generate({ ...request, cache: prefixkv({ keep: 0.1, calibration }) });
  await assert.rejects(
    outside,
    (error) => error instanceof CalibrationError && /0\.3000 to 0\.6000/.test(error.message),
  );
});

test("one published configuration says its size itself", async () => {
  const evicted = Array.from({ length: model.info.layers }, (_, layer) => (layer < 5 ? 0.25 : 0.75));
  const { memory } = await model.generate({ ...ask(scene), maxTokens: 2, cache: prefixkv({ calibration: evicted }) });
  const [first = 0, last = 0] = [memory.keptPerLayer[0], memory.keptPerLayer.at(-1)];
  assert.ok(Math.abs(first / last - 3) < 0.2, `${memory.keptPerLayer}`);
});

test("calibrations of another model and methods without sizes are refused", async () => {
  const request = ask(scene);
  const other = model.generate({ ...request, cache: prefixkv({ keep: 0.5, calibration: "llava-1.5-7b" }) });
  await assert.rejects(other, (error) => {
    return error instanceof CalibrationError && /layers 32 there, 10 here/.test(error.message);
  });
  const retained = Array.from({ length: model.info.layers }, () => 0.5);
  const stranger: Calibration = {
    format: "prefixkv-calibration",
    version: 1,
    model: { layers: model.info.layers, fingerprint: "sha256:00" },
    rows: [{ keep: 0.5, retained }],
  };
  await writeFile(join(folder, "stranger.json"), JSON.stringify(stranger));
  const cache = prefixkv({ keep: 0.5, calibration: join(folder, "stranger.json") });
  await assert.rejects(
    model.generate({ ...request, cache }),
    (error) => error instanceof CalibrationError && /fingerprint/.test(error.message),
  );
  await assert.rejects(
    model.calibrate({ method: h2o({ keep: 0.5 }), samples: [request] }),
    (error) => error instanceof OptionError && /nothing to calibrate/.test(error.message),
  );
});

test("a text prompt that small sizes do not fit leaves them out of the defaults", async () => {
  const { rows } = await model.calibrate({ method: prefixkv(), samples: [{ prompt: "USER: Hello ASSISTANT:" }] });
  assert.ok(rows.length > 0 && rows.length < 19, String(rows.length));
  assert.equal(rows.at(-1)?.keep, 0.95);
});

test("a limit refuses a prompt before any work, and admits what fits", async () => {
  const limited = await load(undefined, { cacheLimit: "1MiB" });
  try {
    const tooLarge = await limited.generate({ ...ask(scene), cache: prefixkv({ keep: 0.2 }) }).catch((error) => error);
    assert.ok(tooLarge instanceof OutOfMemoryError, String(tooLarge));
    assert.ok(Number(tooLarge.details.needed) > 2 ** 20);
    // A search per prompt holds the whole prompt; sizes found before need one layer more than what stays.
    const calibration = new Array<number>(limited.info.layers).fill(0.8);
    const { memory } = await limited.generate({ ...ask(scene), maxTokens: 20, cache: prefixkv({ calibration }) });
    assert.ok(memory.peak <= 2 ** 20, String(memory.peak));
    assert.ok((await limited.generate({ prompt: "USER: Hello ASSISTANT:", maxTokens: 4 })).tokens.length > 0);
  } finally {
    await limited.dispose();
  }
});
