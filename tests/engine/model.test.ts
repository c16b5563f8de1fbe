import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { errorClasses } from "../../ts/generated/errors.ts";
import {
  AbortError,
  about,
  DeviceError,
  DisposedError,
  image,
  inspect,
  load,
  type Message,
  type Model,
  ModelError,
  OptionError,
  type Progress,
  UnsupportedModelError,
} from "../../ts/index.ts";
import { scene, scenes } from "./scenes.ts";

let model: Model;
let folder: string;
const progress: Progress[] = [];

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "prefixkv-engine-"));
  model = await load(undefined, { onProgress: (step) => progress.push(step) });
});

after(async () => {
  await model.dispose();
  await rm(folder, { recursive: true });
});

const ask = (path: string, text: string): Message[] => [{ role: "user", content: [image(path), text] }];

test("the table of error classes covers the engine's codes exactly", async () => {
  assert.deepEqual(Object.keys(errorClasses).sort(), [...(await about()).errorCodes].sort());
});

test("about and info say what is there", async () => {
  const { version, architectures, devices, threads } = await about();
  assert.match(version, /^\d+\.\d+\.\d+/);
  assert.ok(architectures.includes("LlavaForConditionalGeneration"));
  assert.ok(devices.includes("cpu"));
  assert.ok(threads >= 1);
  const { info } = model;
  assert.equal(info.architecture, "LlavaForConditionalGeneration");
  assert.deepEqual([info.layers, info.hiddenSize, info.heads, info.kvHeads, info.headDim], [10, 192, 6, 6, 32]);
  assert.deepEqual([info.vocabSize, info.maxPositions, info.image?.tokens], [768, 2048, 144]);
  assert.ok(Math.abs(info.parameters - 5.52e6) < 0.02e6);
  assert.ok(info.kvBytesPerToken % (2 * 10 * 192) === 0);
});

test("progress grows to its total", () => {
  assert.ok(progress.length > 0);
  for (const { stage, done, total } of progress) assert.ok(stage !== "" && done <= total);
  assert.equal(progress.at(-1)?.done, progress.at(-1)?.total);
});

test("inspect reads a folder without its weights", async () => {
  const info = await inspect();
  assert.deepEqual([info.layers, info.maxPositions, info.kvBytesPerToken], [10, 2048, model.info.kvBytesPerToken]);
  await assert.rejects(inspect(join(folder, "none")), ModelError);
});

test("score prefers the right answer, and its parts agree", async () => {
  const right = await model.score({ messages: ask(scene.image, scene.question), answer: scene.answer });
  const wrong = await model.score({ messages: ask(scene.image, scene.question), answer: scenes[1]?.answer ?? "" });
  assert.ok(right.ppl < 1.5, String(right.ppl));
  assert.ok(wrong.ppl > 3 * right.ppl, String(wrong.ppl));
  assert.equal(right.tokens.length, right.logprobs.length);
  const mean = right.logprobs.reduce((sum, value) => sum + value, 0) / right.logprobs.length;
  assert.ok(Math.abs(Math.exp(-mean) - right.ppl) < 1e-6 * right.ppl);
  assert.ok(right.logprobs.every((value) => value <= 0));
  assert.equal(right.usage.imageTokens, 144);
  assert.equal(right.memory.keptPerLayer.length, 10);
});

test("tokenize and detokenize are inverse", async () => {
  const text = "There is a blue triangle.";
  const tokens = await model.tokenize(text, { addSpecialTokens: false });
  assert.ok(tokens.length > 2 && tokens.every((token) => token < 768));
  assert.equal((await model.detokenize(tokens)).trim(), text);
  const special = await model.tokenize(text, { addSpecialTokens: true });
  assert.ok(special.length >= tokens.length);
});

test("smaller weights describe the scene too", async () => {
  for (const weights of ["f16", "q8_0"] as const) {
    const small = await load(undefined, { weights });
    const { text } = await small.generate({ messages: ask(scene.image, scene.question) });
    await small.dispose();
    for (const { color, shape } of scene.objects) assert.ok(text.includes(`${color} ${shape}`), `${weights}: ${text}`);
  }
});

test("models that are missing, broken or unknown are refused", async () => {
  await assert.rejects(
    load(join(folder, "none")),
    (error) => error instanceof ModelError && error.code === "model-not-found",
  );
  await assert.rejects(load(folder), ModelError);
  await writeFile(join(folder, "config.json"), "{ broken");
  await assert.rejects(load(folder), (error) => error instanceof ModelError && error.code === "model-file");
  await writeFile(
    join(folder, "config.json"),
    JSON.stringify({ architectures: ["GptForEverything"], model_type: "gpt" }),
  );
  await assert.rejects(load(folder), (error) => {
    return error instanceof UnsupportedModelError && String(error.details.known).includes("Llava");
  });
});

test("options of load are checked", async () => {
  await assert.rejects(load(undefined, { weigths: "f16" } as never), (error) => {
    return error instanceof OptionError && error.details.suggestion === "weights";
  });
  await assert.rejects(load(undefined, { weights: "q9" as never }), OptionError);
  await assert.rejects(load(undefined, { device: "cuda:999" }), DeviceError);
  await assert.rejects(load(undefined, { device: "gpu" as never }), OptionError);
});

test("a load can be aborted", async () => {
  await assert.rejects(load(undefined, { signal: AbortSignal.abort() }), AbortError);
  const controller = new AbortController();
  const loading = load(undefined, { signal: controller.signal });
  setTimeout(() => controller.abort(), 1);
  // A load that has finished within the millisecond is fine too.
  const outcome = await loading.catch((error: unknown) => error);
  if (outcome instanceof Error) assert.ok(outcome instanceof AbortError, String(outcome));
  else await (outcome as Model).dispose();
});

test("disposal ends what runs, refuses what follows and can be repeated", async () => {
  const other = await load();
  const running = other.generate({ messages: ask(scene.image, "Describe."), ignoreEos: true, maxTokens: 1800 });
  const outcome = running.then(
    (result) => result.finish,
    (error: unknown) => error,
  );
  await new Promise((resolve) => setTimeout(resolve, 100));
  await other.dispose();
  await other.dispose();
  const end = await outcome;
  assert.ok(end === "aborted" || end instanceof DisposedError, String(end));
  await assert.rejects(other.generate({ prompt: "Hi" }), DisposedError);
  await assert.rejects(other.score({ prompt: "Hi", answer: "a" }), DisposedError);
  await assert.rejects(other.tokenize("Hi"), DisposedError);
});

/** The share of the ticks of a 5 ms timer that come while something happens. */
async function tickShare(during: () => Promise<unknown>): Promise<number> {
  const period = 5;
  let ticks = 0;
  const timer = setInterval(() => {
    ticks += 1;
  }, period);
  const start = performance.now();
  await during().finally(() => clearInterval(timer));
  return (ticks * period) / (performance.now() - start);
}

test("the event loop stays alive while a model loads and generates", async () => {
  const sleep = () => new Promise((resolve) => setTimeout(resolve, 300));
  const work = async () => {
    const other = await load();
    await other.generate({ messages: ask(scene.image, scene.question), ignoreEos: true, maxTokens: 400 });
    await other.dispose();
  };
  const seen: string[] = [];
  // A machine that is busy with something else delays any timer: measured against the idle timer of the same moment, and
  // repeated before it counts as a failure.
  for (let attempt = 0; attempt < 4; attempt++) {
    const idle = await tickShare(sleep);
    const busy = await tickShare(work);
    if (busy >= 0.8 * Math.min(1, idle)) return;
    seen.push(`${busy.toFixed(2)} (idle ${idle.toFixed(2)})`);
  }
  assert.fail(`too few ticks came: ${seen.join(", ")}`);
});
