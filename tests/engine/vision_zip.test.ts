// Images that come to the language model as fewer positions: what a trace, a score, chats and batches say of them.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { image, int8, load, type Message, type Model, merge, OptionError, visionZip } from "../../ts/index.ts";
import { scene, scenes } from "./scenes.ts";

let model: Model;

before(async () => {
  model = await load();
});

after(() => model.dispose());

const patches = 144;
const content = [image(scene.image), scene.question];
const messages: Message[] = [{ role: "user", content }];

test("a constructor gives the plain object, and its options are checked", async () => {
  assert.deepEqual(visionZip({ images: 0.2 }), { method: "visionZip", images: 0.2 });
  const refused = { name: "OptionError", message: /images/ };
  await assert.rejects(model.generate({ messages, cache: visionZip({ images: 2 }) }), refused);
  await assert.rejects(
    model.generate({ messages, cache: [visionZip(), merge()] }),
    (error) => error instanceof OptionError && /frees no entries/.test(error.message),
  );
});

test("no layer sees the positions that are merged, and the trace says which those are", async () => {
  const trace = await model.trace({ messages, cache: visionZip(), maxTokens: 6, ignoreEos: true });
  const [plan] = trace.plans;
  assert.deepEqual([trace.plans.length, plan?.moment, plan?.layer], [1, "images", undefined]);
  const prompt = trace.usage.promptTokens;
  const left = prompt - patches + Math.floor(0.3333 * patches + 0.5);
  assert.equal(plan?.rows?.length, left);
  for (const { kept, importance } of trace.layers) {
    assert.deepEqual(kept[0]?.positions, plan?.rows);
    assert.equal(importance.length, prompt);
    assert.ok(importance.reduce((sum, of) => sum + of, 0) < 1);
  }
  // Dominant positions, the most of those that go on, are looked at more than whoever does not.
  const seen = new Set(plan?.rows);
  const importance = trace.layers[0]?.importance ?? [];
  const gone = importance.filter((_, position) => !seen.has(position));
  const more = importance.filter((of, position) => seen.has(position) && of >= Math.max(...gone));
  assert.ok(more.length >= 40, `${more.length}`);
  assert.equal(trace.score, "class");
  assert.equal(trace.steps[0]?.kept, left);
  const answer = await model.generate({ messages, cache: visionZip(), maxTokens: 6, ignoreEos: true });
  assert.deepEqual([trace.tokens, trace.memory], [answer.tokens, answer.memory]);
  assert.equal(answer.usage.imageTokens, patches);
  assert.equal(answer.memory.payload * (prompt + 5), answer.memory.full * (left + 5));
});

test("a text has all of its positions", async () => {
  const prompt = "USER: Which shapes are there? ASSISTANT:";
  const { plans, layers, text } = await model.trace({ prompt, cache: visionZip(), maxTokens: 6 });
  assert.deepEqual(plans, []);
  assert.ok(layers.every(({ importance }) => importance.every((of) => of === 0)));
  assert.equal(text, (await model.generate({ prompt, maxTokens: 6 })).text);
});

test("a score says what is left, and how far it is from the full cache", async () => {
  const request = { messages, answer: scene.answer };
  const full = await model.score({ ...request, kl: true, cache: visionZip({ images: 1 }) });
  assert.ok(full.kl?.every((of) => Math.abs(of) < 1e-6));
  const plain = await model.score(request);
  assert.deepEqual(full.logprobs, plain.logprobs);
  const cut = await model.score({ ...request, kl: true, kept: true, cache: visionZip({ images: 0.25 }) });
  assert.ok((cut.kl ?? []).some((of) => of > 1e-3));
  const spans = cut.spans?.filter(({ modality }) => modality.type === "image");
  assert.deepEqual(
    spans?.map(({ len, kept }) => [len, kept]),
    [[patches, 0.25]],
  );
});

for (const cache of [visionZip({ images: 0.25 }), [visionZip({ images: 0.25 }), int8({ window: 1_000_000 })]]) {
  test(`turns with images of their own equal one prompt: ${JSON.stringify(cache)}`, async () => {
    const chat = model.chat({ cache });
    const all: Message[] = [];
    for (const { image: path, question } of scenes.slice(0, 2)) {
      const turn = [image(path), question];
      all.push({ role: "user", content: turn });
      const whole = await model.generate({ messages: all, cache, maxTokens: 30 });
      const fork = chat.fork();
      const { tokens, text, usage } = await chat.send(turn, { maxTokens: 30 });
      assert.deepEqual(tokens, whole.tokens);
      assert.deepEqual((await fork.send(turn, { maxTokens: 30 })).tokens, tokens);
      assert.equal(usage.imageTokens, patches);
      all.push({ role: "assistant", content: text });
      await fork.dispose();
    }
    await chat.dispose();
  });
}

test("requests that run together answer as alone", async () => {
  const caches = [visionZip(), visionZip({ images: 0.1, contextual: 0 }), undefined];
  const requests = caches.map((cache) => ({ messages, maxTokens: 20, ...(cache && { cache }) }));
  const alone: string[] = [];
  for (const request of requests) alone.push((await model.generate(request)).text);
  const together = await Promise.all(requests.map((request) => model.generate(request)));
  assert.deepEqual(
    together.map(({ text }) => text),
    alone,
  );
});
