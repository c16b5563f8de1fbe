// Fits of the embedded model: what they promise, measured again.
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { appendFile, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import {
  AbortError,
  BudgetError,
  type CacheOption,
  type Fit,
  FitError,
  type FitOptions,
  type FitSample,
  image,
  int4,
  int8,
  load,
  type Model,
  OptionError,
  type Progress,
  prefixkv,
} from "../../ts/index.ts";
import { temporaryFolder } from "../kit/temporary_folder.ts";
import { shared } from "../kit/turns.ts";
import { scenes } from "./scenes.ts";

const folder = temporaryFolder("fit");
const budgets = [300_000, "512KiB", 900_000, 1_500_000];
// With the split of the paper, half a MiB is better used with fewer bits than with fewer entries alone.
const methods = [prefixkv({ objective: "least", floor: 0 })];
const stores = [int8(), int4({ window: 16 })];
/** Two pictures with their first objects, which takes few tokens. */
const samples: FitSample[] = scenes.slice(0, 2).map((scene) => ({
  messages: [{ role: "user", content: [image(scene.image), scene.question] }],
  answer: `${scene.answer.split(".").slice(0, 2).join(".")}.`,
}));

let model: Model;
let found: Fit;
const file = join(folder, "fit.json");

before(async () => {
  model = await load();
  found = await model.fit({ bytes: budgets, samples, methods, stores, file });
});
after(() => model.dispose());

/** The bytes and the loss of a cache, by the public `score`. */
async function measured(cache: CacheOption, kl = false, over = samples): Promise<{ resident: number; loss: number }> {
  let [resident, loss, tokens] = [0, 0, 0];
  for (const sample of over) {
    const score = await model.score({ ...sample, answer: sample.answer ?? "", cache, kl });
    resident = Math.max(resident, score.memory.resident);
    loss += kl
      ? (score.kl ?? []).reduce((sum, each) => sum + each, 0)
      : -score.logprobs.reduce((sum, each) => sum + each, 0);
    tokens += score.logprobs.length;
  }
  return { resident, loss: Number((loss / tokens).toPrecision(9)) };
}

shared("every point is within its bytes, to the byte, and its loss is what score says", async () => {
  assert.deepEqual(
    found.curve.map(({ bytes }) => bytes),
    [300_000, 524_288, 900_000, 1_500_000],
  );
  for (const { bytes, cache, resident, loss } of found.curve) {
    assert.ok(resident <= bytes, `${resident} of ${bytes}`);
    assert.deepEqual(await measured(cache), { resident, loss });
  }
  assert.deepEqual(await measured({ method: "full" }), found.full);
  assert.deepEqual(found.cache, found.curve.at(-1)?.cache);
});

shared("more bytes never cost quality, and fewer bits together with fewer entries beat either alone", async () => {
  const [keepAlone, storesAlone] = [
    await model.fit({ bytes: budgets, samples, methods, stores: [] }),
    await model.fit({ bytes: [900_000, 1_500_000], samples, methods: [], stores }),
  ];
  const losses = found.curve.map(({ loss }) => loss);
  assert.deepEqual(
    losses,
    losses.toSorted((a, b) => b - a),
  );
  for (const { curve } of [keepAlone, storesAlone])
    for (const { bytes, loss } of curve) {
      const both = found.curve.find((point) => point.bytes === bytes);
      assert.ok(both && both.loss <= loss, `${both?.loss} and ${loss} at ${bytes}`);
    }
  // At half a MiB, an eighth of the full cache.
  const [joint, alone] = [found.curve[1], keepAlone.curve[1]];
  assert.ok(joint && alone && joint.loss < 0.8 * alone.loss, `${joint?.loss} and ${alone?.loss}`);
  assert.equal(joint.cache.length, 2);
});

test("a configuration goes through JSON into generate, score and chat, and so does its file", async () => {
  const text = await readFile(file, "utf8");
  assert.deepEqual(JSON.parse(text), found);
  assert.ok(!existsSync(`${file}.partial`));
  const [{ messages = [] } = {}] = samples;
  const asked = { messages, maxTokens: 8 };
  const expected = await model.generate({ ...asked, cache: JSON.parse(text).cache });
  for (const cache of [file, pathToFileURL(file)] as CacheOption[]) {
    const { tokens, memory } = await model.generate({ ...asked, cache });
    assert.deepEqual([tokens, memory], [expected.tokens, expected.memory]);
    assert.deepEqual(await measured(cache), await measured(found.cache));
  }
  const chat = model.chat({ cache: file as CacheOption, maxTokens: 8 });
  const { memory } = await chat.send(messages[0]?.content ?? "");
  assert.equal(memory.resident, expected.memory.resident);
  await chat.dispose();
});

test("a file that is no fit of this model is refused", async () => {
  const refused = async (name: string, content: string | undefined, reason: RegExp) => {
    const path = join(folder, name);
    if (content !== undefined) await writeFile(path, content);
    await assert.rejects(
      async () => model.generate({ prompt: "a", maxTokens: 1, cache: path as CacheOption }),
      (error) => error instanceof FitError && error.code === "fit" && reason.test(error.message),
    );
  };
  await refused("none.json", undefined, /there is no such file/);
  await refused("text.json", "fit", /it is not JSON/);
  await refused("other.json", "{}", /it has no `format` "prefixkv-fit"/);
  await refused("newer.json", JSON.stringify({ ...found, version: 2 }), /its version is 2/);
  const model2 = { ...found.model, fingerprint: "sha256:0" };
  await refused("model.json", JSON.stringify({ ...found, model: model2 }), /belongs to another model/);
  await refused("empty.json", JSON.stringify({ ...found, cache: [] }), /it has no `cache`/);
  await assert.rejects(async () => model.generate({ prompt: "a", cache: new URL("https://x.org/f.json") }), FitError);
});

shared("bytes that nothing fits into say the least that do", async () => {
  const options: FitOptions = { bytes: 1000, samples, methods, stores };
  const error = await model.fit(options).catch((error: unknown) => error);
  assert.ok(error instanceof BudgetError && error.code === "budget");
  assert.deepEqual(error.asked, { bytes: 1000 });
  const { bytes: least = 0 } = error.least as { bytes: number };
  const { curve } = await model.fit({ ...options, bytes: least });
  assert.equal(curve[0]?.resident, least);
  await assert.rejects(model.fit({ ...options, bytes: least - 1 }), BudgetError);
});

shared("the divergence from the full cache can be made small instead", async () => {
  const few = samples.slice(0, 1);
  const { curve, full, objective } = await model.fit({
    bytes: [600_000, "64MiB"],
    samples: few,
    methods,
    stores: [int8()],
    objective: "kl",
  });
  assert.deepEqual([objective, full.loss], ["kl", 0]);
  const [small, large] = curve;
  assert.ok(small && small.loss > 0);
  assert.deepEqual(await measured(small.cache, true, few), { resident: small.resident, loss: small.loss });
  // Where the full cache fits, nothing is nearer to it.
  assert.deepEqual([large?.cache, large?.loss], [[{ method: "full" }], 0]);
});

shared("prompts alone are measured against what the full cache answers", async () => {
  const prompts = scenes.slice(0, 1).map((scene) => ({
    messages: [{ role: "user", content: [image(scene.image), "How many objects are there?"] }],
  }));
  const [{ messages = [] } = {}] = prompts;
  const { text } = await model.generate({ messages });
  const options = { bytes: 600_000, methods, stores: [int8()] };
  const [own, given] = [
    await model.fit({ ...options, samples: prompts }),
    await model.fit({ ...options, samples: prompts.map((prompt) => ({ ...prompt, answer: text })) }),
  ];
  assert.deepEqual(own, given);
});

shared("an aborted fit loses nothing and goes on to the same result", async () => {
  const path = join(folder, "resumed.json");
  const options: FitOptions = { bytes: budgets, samples, methods, stores, file: path };
  let steps = 0;
  for (;;) {
    const controller = new AbortController();
    let calls = 0;
    const onProgress = (): void => {
      calls += 1;
      if (calls === 4 + 6 * steps && steps < 3) controller.abort();
    };
    const before = existsSync(`${path}.partial`) ? await readFile(`${path}.partial`, "utf8") : "";
    const fitted = await model
      .fit({ ...options, onProgress, signal: controller.signal })
      .catch((error: unknown) => error);
    if (!(fitted instanceof AbortError)) {
      assert.deepEqual(fitted, found);
      break;
    }
    steps += 1;
    assert.ok(!existsSync(path));
    const whole = before.slice(0, before.lastIndexOf("\n") + 1);
    const after = await readFile(`${path}.partial`, "utf8");
    assert.ok(after.startsWith(whole) && after.length > whole.length);
    // A kill in the middle of a line leaves a part of it.
    await appendFile(`${path}.partial`, '["cut of');
  }
  assert.equal(steps, 3);
  assert.ok(!existsSync(`${path}.partial`) && !existsSync(`${path}.partial.lock`));
  assert.equal(await readFile(path, "utf8"), await readFile(file, "utf8"));
});

shared("measurements of something else are not taken over", async () => {
  const path = join(folder, "taken.json");
  const stopped = AbortSignal.abort();
  const stop = async (): Promise<void> => {
    const controller = new AbortController();
    const options = { bytes: 600_000, samples, methods, stores, file: path, signal: controller.signal };
    await assert.rejects(model.fit({ ...options, onProgress: () => controller.abort() }), AbortError);
  };
  await stop();
  await assert.rejects(model.fit({ bytes: 600_000, samples, methods, stores, signal: stopped }), AbortError);
  const other = { bytes: 600_000, samples: samples.slice(1), methods, stores, file: path };
  const refused = (options: FitOptions, reason: RegExp) =>
    assert.rejects(model.fit(options), (error) => error instanceof FitError && reason.test(error.message));
  await refused(other, /other samples/);
  await refused({ ...other, samples, objective: "kl" }, /another objective/);
  await appendFile(`${path}.partial`, "{}\n");
  await refused({ ...other, samples }, /line \d+ is no measurement/);
});

test("progress comes from the first sample to the end", async () => {
  const seen: Progress[] = [];
  const options = { bytes: ["2MiB", "3MiB"], samples: samples.slice(0, 1), methods: [], stores: [int8()] };
  await model.fit({ ...options, onProgress: (progress) => seen.push({ ...progress }) });
  assert.deepEqual(seen[0], { stage: "samples", done: 1, total: 1 });
  const search = seen.slice(1);
  assert.ok(
    search.every(
      ({ stage, done, total }, index) => stage === "search" && total === 6 && done >= (search[index - 1]?.done ?? 0),
    ),
  );
  assert.equal(search.at(-1)?.done, 6);
});

test("options that make no sense are refused by name", async () => {
  const good = { bytes: "1MiB", samples, methods, stores };
  const refused = (options: object, reason: RegExp) =>
    assert.rejects(model.fit({ ...good, ...options } as FitOptions), (error) => {
      assert.ok(error instanceof OptionError);
      assert.match(error.message, reason);
      return true;
    });
  await refused({ bytes: undefined }, /need `bytes`/);
  await refused({ bytes: "much" }, /`bytes` of fit must be a number of bytes/);
  await refused({ bytes: 0 }, /from 1/);
  await refused({ bytes: [] }, /`bytes` of fit is empty/);
  await refused({ samples: undefined }, /need `samples`/);
  await refused({ samples: [] }, /`samples` of fit is empty/);
  await refused({ samples: [{ prompt: "a", answer: "" }] }, /`samples\[0\]\.answer` of fit is empty/);
  await refused({ samples: [{ prompt: "a", awnser: "b" }] }, /has no `samples\[0\]\.awnser`/);
  await refused({ objective: "quality" }, /one of "ppl", "kl"/);
  await refused({ methods: "prefixkv" }, /`methods` of fit must be an array/);
  await refused({ methods: ["prefixkv"] }, /call the method/);
  await refused({ methods: [{ method: "custom", plan: () => [] }] }, /is code/);
  await refused({ stores: ["fit.json"] }, /`stores\[0\]` of fit must be a method/);
  await refused({ methods: [new URL("file:///fit.json")] }, /`methods\[0\]` of fit must be a method/);
  await refused({ file: "" }, /`file` is empty/);
  await refused({ keep: 0.5 }, /has no `keep`/);
});
