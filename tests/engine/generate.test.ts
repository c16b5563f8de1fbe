import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import {
  AbortError,
  ContextOverflowError,
  type GenerateOptions,
  image,
  load,
  MediaError,
  type Message,
  type Model,
  OptionError,
  PromptError,
} from "../../ts/index.ts";
import { missingObjects, scene, scenes } from "./scenes.ts";

let model: Model;

before(async () => {
  model = await load();
});

after(() => model.dispose());

const ask = (text: string, source: string | Uint8Array = scene.image): { messages: Message[] } => ({
  messages: [{ role: "user", content: [image(source), text] }],
});
const describing = (options: Partial<GenerateOptions> = {}): GenerateOptions => ({
  ...ask("Describe the image in detail."),
  ...options,
});

test("describes a scene: colour, shape and place of every object", async () => {
  const { text, finish, usage, timings, memory, tokens } = await model.generate(ask(scene.question));
  assert.deepEqual(missingObjects(scene, text), []);
  assert.equal(finish, "eos");
  assert.equal(usage.imageTokens, 144);
  assert.ok(usage.promptTokens > 144);
  assert.ok(Math.abs(usage.completionTokens - tokens.length) <= 1);
  assert.ok(timings.firstToken > 0 && timings.firstToken <= timings.total);
  assert.equal(memory.keptPerLayer.length, model.info.layers);
  const positions = memory.keptPerLayer[0] ?? 0;
  assert.ok(Math.abs(positions - (usage.promptTokens + usage.completionTokens)) <= 1);
  assert.equal(memory.full, positions * model.info.kvBytesPerToken);
  assert.equal(memory.payload, memory.full);
  assert.ok(memory.resident >= memory.payload && memory.peak >= memory.resident);
});

test("a short question", async () => {
  const star = scene.objects.find(({ shape }) => shape === "star");
  const { text } = await model.generate(ask("What color is the star?"));
  assert.match(text, new RegExp(star?.color ?? "no star", "i"));
});

test("the same picture as path, bytes, data URL and file URL gives the same text", async () => {
  const bytes = new Uint8Array(await readFile(scene.image));
  const texts = new Set<string>();
  for (const source of [scene.image, bytes, `data:image/png;base64,${Buffer.from(bytes).toString("base64")}`]) {
    texts.add((await model.generate({ ...ask("Describe the image in detail.", source), maxTokens: 12 })).text);
  }
  assert.equal(texts.size, 1);
});

test("another picture gives another description", async () => {
  const other = scenes[1] ?? scene;
  const { text } = await model.generate(ask(other.question, other.image));
  assert.deepEqual(missingObjects(other, text), []);
  assert.notDeepEqual(missingObjects(scene, text), []);
});

test("the streamed pieces are the text and the tokens", async () => {
  const out = model.generate(describing());
  const parts = await Array.fromAsync(out);
  const { text, tokens } = await out;
  assert.ok(parts.length > 10);
  assert.equal(parts.map((part) => part.text).join(""), text);
  assert.deepEqual(
    parts.map((part) => part.token),
    tokens.slice(0, parts.length),
  );
});

test("maxTokens ends with length", async () => {
  const { tokens, finish, usage } = await model.generate(describing({ maxTokens: 5 }));
  assert.deepEqual([tokens.length, finish, usage.completionTokens], [5, "length", 5]);
});

test("a stop string ends the text before itself, in the pieces too", async () => {
  const whole = (await model.generate(describing())).text;
  const stop = whole.slice(20, 27);
  const out = model.generate(describing({ stop: ["not in the text at all", stop] }));
  const pieces = (await Array.fromAsync(out)).map((part) => part.text).join("");
  const { text, finish } = await out;
  assert.equal(finish, "stop");
  assert.equal(text, whole.slice(0, whole.indexOf(stop)));
  assert.equal(pieces, text);
});

test("greedy is deterministic, a seed repeats, another seed differs", async () => {
  const text = async (options: Partial<GenerateOptions>) =>
    (await model.generate(describing({ maxTokens: 40, ...options }))).text;
  assert.equal(await text({}), await text({ temperature: 0 }));
  const hot = { temperature: 3, topK: 0 };
  assert.equal(await text({ ...hot, seed: 7 }), await text({ ...hot, seed: 7 }));
  assert.notEqual(await text({ ...hot, seed: 7 }), await text({ ...hot, seed: 8 }));
});

test("a raw prompt with its images equals the chat template's", async () => {
  const question = "What color is the star?";
  const raw = model.generate({ prompt: `USER: <image>\n${question} ASSISTANT:`, images: [image(scene.image)] });
  assert.deepEqual((await raw).tokens, (await model.generate(ask(question))).tokens);
});

test("text only", async () => {
  const { usage, finish } = await model.generate({ messages: [{ role: "user", content: "Hello" }], maxTokens: 4 });
  assert.equal(usage.imageTokens, 0);
  assert.ok(usage.completionTokens <= 4 && finish.length > 0);
});

test("a second turn about the same picture", async () => {
  const first = ask("How many objects are there?").messages;
  const { text } = await model.generate({ messages: first });
  const messages: Message[] = [
    ...first,
    { role: "assistant", content: text.trim() },
    { role: "user", content: "What color is the star?" },
  ];
  const { usage } = await model.generate({ messages, maxTokens: 16 });
  assert.equal(usage.imageTokens, 144);
});

test("two images in one prompt take their tokens, or are refused with a reason", async () => {
  const content = [image(scene.image), image(scenes[1]?.image ?? scene.image), "Describe the image in detail."];
  const outcome = await model
    .generate({ messages: [{ role: "user", content }], maxTokens: 4 })
    .catch((error: unknown) => error);
  if (outcome instanceof Error) assert.ok(outcome instanceof PromptError, String(outcome));
  else assert.equal((outcome as { usage: { imageTokens: number } }).usage.imageTokens, 288);
});

test("images and placeholders that do not match are refused", async () => {
  await assert.rejects(model.generate({ prompt: "USER: <image>\nHi ASSISTANT:" }), PromptError);
  await assert.rejects(model.generate({ prompt: "USER: Hi ASSISTANT:", images: [image(scene.image)] }), PromptError);
  await assert.rejects(model.generate({}), (error) => error instanceof PromptError || error instanceof OptionError);
});

test("bytes that are no image are refused with the image's number", async () => {
  const content = [image(scene.image), image(new TextEncoder().encode("not an image")), "What?"];
  await assert.rejects(model.generate({ messages: [{ role: "user", content }] }), (error) => {
    return error instanceof MediaError && error.code === "image" && error.details.index === 1;
  });
});

test("too long a request is refused before any work", async () => {
  await assert.rejects(model.generate(describing({ maxTokens: 100_000 })), (error) => {
    assert.ok(error instanceof ContextOverflowError, String(error));
    assert.deepEqual([error.available, error.imageTokens], [model.info.maxPositions, 144]);
    assert.ok(error.needed > 100_000);
    return true;
  });
});

test("an unknown option is refused with a suggestion, a wrong value with a reason", async () => {
  await assert.rejects(model.generate({ ...describing(), maxToken: 3 } as GenerateOptions), (error) => {
    assert.ok(error instanceof OptionError, String(error));
    assert.equal(error.details.suggestion, "maxTokens");
    assert.match(error.message, /maxTokens/);
    return true;
  });
  await assert.rejects(model.generate(describing({ topP: 7 })), OptionError);
  await assert.rejects(model.generate(describing({ temperature: "hot" as never })), OptionError);
  await assert.rejects(model.generate(describing({ maxTokens: -1 })), OptionError);
});

test("a signal before the start", async () => {
  await assert.rejects(model.generate(describing({ signal: AbortSignal.abort() })), AbortError);
});

test("a signal during the stream ends it with the text so far, and the model goes on", async () => {
  const controller = new AbortController();
  let text = "";
  await assert.rejects(
    async () => {
      for await (const part of model.generate(
        describing({ signal: controller.signal, ignoreEos: true, maxTokens: 1000 }),
      )) {
        text += part.text;
        if (text.length > 20) controller.abort();
      }
    },
    (error) => error instanceof AbortError && error.partial.startsWith(text),
  );
  assert.equal((await model.generate(describing({ maxTokens: 3 }))).tokens.length, 3);
});

test("leaving the loop frees the engine for the next request", async () => {
  const out = model.generate(describing({ ignoreEos: true, maxTokens: 1500 }));
  for await (const _ of out) break;
  const result = await out;
  assert.equal(result.finish, "aborted");
  assert.ok(result.tokens.length < 1500);
});

test("requests made together are answered one after the other", async () => {
  const texts = await Promise.all([1, 2, 3].map(async () => (await model.generate(describing({ maxTokens: 6 }))).text));
  assert.equal(new Set(texts).size, 1);
});
