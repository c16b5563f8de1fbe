import assert from "node:assert/strict";
import { after, test } from "node:test";
import {
  AbortError,
  DisposedError,
  image,
  MediaError,
  type Model,
  ModelError,
  NativeError,
  OptionError,
  PrefixKvError,
} from "../../ts/index.ts";
import { openModel } from "../../ts/load.ts";
import { FakeNative, memory, usage } from "../kit/fake_native.ts";

const native = (behaviour: Partial<FakeNative> = {}): FakeNative => Object.assign(new FakeNative(), behaviour);
const prompt = { prompt: "Hi" };
const opened: Model[] = [];

async function open(...args: Parameters<typeof openModel>): Promise<Model> {
  const model = await openModel(...args);
  opened.push(model);
  return model;
}

after(() => Promise.all(opened.map((model) => model.dispose())));

test("load sends the absolute folder and the options, and reports progress", async () => {
  const fake = native();
  const seen: unknown[] = [];
  const model = await open(fake, undefined, { weights: "q8_0", onProgress: (progress) => seen.push(progress) });
  assert.match(fake.loads[0]?.source ?? "", /models[\\/]tiny-llava$/);
  assert.deepEqual({ ...fake.loads[0], source: "" }, { source: "", weights: "q8_0" });
  assert.deepEqual(seen, [{ stage: "weights", done: 1, total: 2 }]);
  assert.equal(model.info.layers, 10);
  await model.dispose();
});

test("a failed load closes the engine", async () => {
  const fake = native({ loadError: { code: "model-not-found", message: "no", details: { path: "/x" } } });
  await assert.rejects(open(fake, "/x"), (error) => error instanceof ModelError && error.details.path === "/x");
  assert.equal(fake.closes, 1);
});

test("load with a signal that has fired does not open", async () => {
  const fake = native();
  await assert.rejects(open(fake, "/x", { signal: AbortSignal.abort() }), AbortError);
  assert.equal(fake.loads.length, 0);
});

test("a generation can be iterated and then awaited", async () => {
  const fake = native();
  const model = await open(fake);
  const out = model.generate({
    messages: [{ role: "user", content: [image(new Uint8Array([7])), "Hi"] }],
    maxTokens: 9,
  });
  const parts = [];
  for await (const part of out) parts.push(part);
  assert.deepEqual(
    parts.map((part) => part.text),
    fake.pieces,
  );
  const result = await out;
  assert.deepEqual(result, {
    text: "There is a star.",
    tokens: [0, 1, 2],
    finish: "eos",
    usage,
    timings: result.timings,
    memory,
  });
  assert.deepEqual(fake.requests[0]?.images, [new Uint8Array([7])]);
  assert.equal((fake.requests[0]?.request as { maxTokens?: number } | undefined)?.maxTokens, 9);
});

test("awaiting without iterating drains; the parts stay readable once", async () => {
  const model = await open(native());
  const out = model.generate(prompt);
  assert.equal((await out).text, "There is a star.");
  assert.equal((await Array.fromAsync(out)).length, 3);
  assert.throws(
    () => out[Symbol.asyncIterator](),
    (error) => error instanceof PrefixKvError && error.code === "consumed",
  );
});

test("awaiting inside the loop does not hang", async () => {
  const model = await open(native());
  const out = model.generate(prompt);
  const seen: string[] = [];
  for await (const part of out) {
    seen.push(part.text);
    assert.equal((await out).finish, "eos");
  }
  assert.equal(seen.length, 3);
});

test("leaving the loop cancels, and awaiting gives what there is", async () => {
  const fake = native({ stallAfter: 1 });
  const model = await open(fake);
  const out = model.generate(prompt);
  for await (const part of out) {
    assert.equal(part.text, "There");
    break;
  }
  const result = await out;
  assert.equal(fake.tickets[0]?.cancelled, true);
  assert.deepEqual([result.finish, result.text], ["aborted", "There"]);
});

test("a signal ends both the loop and the promise with what there was", async () => {
  const fake = native({ stallAfter: 2 });
  const model = await open(fake);
  const controller = new AbortController();
  const out = model.generate({ ...prompt, signal: controller.signal });
  const seen: string[] = [];
  const aborted = (error: unknown) =>
    error instanceof AbortError &&
    error.name === "AbortError" &&
    error.partial === "There is" &&
    error.cause === "enough";
  await assert.rejects(async () => {
    for await (const part of out) {
      seen.push(part.text);
      if (seen.length === 2) controller.abort("enough");
    }
  }, aborted);
  await assert.rejects(out, aborted);
  assert.equal(fake.tickets[0]?.cancelled, true);
});

test("a signal that has fired sends nothing", async () => {
  const fake = native();
  const model = await open(fake);
  await assert.rejects(
    model.generate({ messages: [{ role: "user", content: image("x.png") }], signal: AbortSignal.abort() }),
    AbortError,
  );
  await assert.rejects(model.score({ ...prompt, answer: "a", signal: AbortSignal.abort("r") }), AbortError);
});

test("a generation that nobody looks at does not end the process", async () => {
  const model = await open(native());
  model.generate({ messages: [{ role: "user", content: image("no-such-file.png") }] });
  await new Promise((resolve) => setTimeout(resolve, 20));
});

test("an unreadable image rejects with its number", async () => {
  const model = await open(native());
  const content = [image(new Uint8Array([1])), image("no-such-file.png"), "What?"];
  await assert.rejects(model.generate({ messages: [{ role: "user", content }] }), (error) => {
    return error instanceof MediaError && error.details.index === 1 && error.details.source === "no-such-file.png";
  });
});

test("an unknown option is refused before the engine hears of it, and the engine's own refusals come typed", async () => {
  const refusal = { code: "option", message: "unknown method `h3o`", details: { suggestion: "h2o" } };
  const fake = native();
  const model = await open(fake);
  const out = model.generate({ ...prompt, maxToken: 3 } as never);
  await assert.rejects(out, (error) => error instanceof OptionError && error.details.suggestion === "maxTokens");
  assert.equal(fake.requests.length, 0);
  fake.submitError = new Error(JSON.stringify(refusal));
  const refused = model.generate({ ...prompt, cache: { method: "h3o", keep: 0.5 } as never });
  await assert.rejects(refused, (error) => error instanceof OptionError && error.details.suggestion === "h2o");
});

test("an error of the engine rejects iteration and promise", async () => {
  const model = await open(native({ requestError: { code: "internal", message: "defect", details: {} } }));
  const out = model.generate(prompt);
  await assert.rejects(Array.fromAsync(out), NativeError);
  await assert.rejects(out, NativeError);
});

test("score, tokenize and detokenize", async () => {
  const model = await open(native());
  const score = await model.score({ ...prompt, answer: "a star" });
  assert.deepEqual([score.tokens, score.logprobs, score.memory], [[5, 6], [-0.5, -1.5], memory]);
  assert.deepEqual(await model.tokenize("ab"), [97, 98]);
  assert.equal(await model.detokenize([97, 98]), "ab");
});

test("disposal ends what runs, refuses what follows and happens once", async () => {
  const fake = native({ stallAfter: 1 });
  const model = await open(fake);
  const running = model.generate(prompt);
  const outcome = assert.rejects(running, DisposedError);
  await new Promise((resolve) => setTimeout(resolve, 5));
  await Promise.all([model.dispose(), model[Symbol.asyncDispose]()]);
  await outcome;
  assert.equal(fake.closes, 1);
  await assert.rejects(model.generate(prompt), DisposedError);
  await assert.rejects(model.tokenize("a"), DisposedError);
});
