// Requests of one model that are decoded together.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import {
  AbortError,
  about,
  DisposedError,
  type GenerateOptions,
  type GenerationResult,
  h2o,
  image,
  load,
  type Model,
  OptionError,
  OutOfMemoryError,
  prefixkv,
} from "../../ts/index.ts";
import { scene } from "./scenes.ts";

let alone: Model;
let batched: Model;

before(async () => {
  alone = await load();
  batched = await load(undefined, { batch: 4 });
});

after(() => Promise.all([alone.dispose(), batched.dispose()]));

const ask = (text: string, options: Partial<GenerateOptions> = {}): GenerateOptions => ({
  messages: [{ role: "user", content: [image(scene.image), text] }],
  ...options,
});
const describe = "Describe the image in detail.";
/** Holds 256 parts unread, and then waits for a reader. */
const long: GenerateOptions = { prompt: "USER: Hello ASSISTANT:", maxTokens: 300, ignoreEos: true };
const different: GenerateOptions[] = [
  ask(describe, { maxTokens: 70, ignoreEos: true }),
  ask(describe, { cache: prefixkv({ keep: 0.4 }), maxTokens: 30 }),
  ask("How many objects are there?", { cache: h2o({ keep: 0.5 }) }),
  { prompt: "USER: Which shapes are there? ASSISTANT:", maxTokens: 50, ignoreEos: true, repetitionPenalty: 1.2 },
  ask(describe, { stop: ["."] }),
  ask(describe, { maxTokens: 1 }),
];
const comparable = ({ timings: _, ...rest }: GenerationResult) => rest;

test("each of several requests at once gets what it gets alone", async () => {
  const together = await Promise.all(different.map((options) => batched.generate(options)));
  for (const [index, options] of different.entries()) {
    const expected = await alone.generate(options);
    assert.deepEqual(comparable(together[index] as GenerationResult), comparable(expected), `request ${index}`);
  }
});

test("requests start and end while another stands still that nobody reads", async () => {
  const unread = batched.generate(long);
  const answers = await Promise.all(different.map((options) => batched.generate(options)));
  assert.equal(answers.length, different.length);
  const score = await batched.score({ prompt: "USER: Hello ASSISTANT:", answer: " There is a star." });
  assert.ok(score.ppl >= 1);
  const { tokens, finish } = await unread;
  assert.deepEqual([tokens, finish], [(await alone.generate(long)).tokens, "length"]);
});

test("long prompts are read in pieces while others generate", async () => {
  const cut = await load(undefined, { batch: 4, prefillChunk: 64 });
  try {
    const unread = cut.generate(long);
    const answers = await Promise.all(different.map((options) => cut.generate(options)));
    for (const [index, options] of different.entries()) {
      const { memory, ...got } = comparable(answers[index] as GenerationResult);
      const { memory: expected, ...want } = comparable(await alone.generate(options));
      assert.deepEqual(got, want, `request ${index}`);
      // All of a prompt is held until its last piece.
      assert.ok(memory.peak >= expected.peak, `request ${index}`);
      assert.deepEqual({ ...memory, peak: 0 }, { ...expected, peak: 0 }, `request ${index}`);
    }
    const chat = cut.chat();
    const stopped = chat.send("word ".repeat(300), { signal: AbortSignal.timeout(30) });
    const fork = chat.fork();
    await assert.rejects(async () => await stopped, AbortError);
    assert.ok((await fork.send("Hello", { maxTokens: 3 })).tokens.length > 0);
    assert.equal((await unread).finish, "length");
  } finally {
    await cut.dispose();
  }
  await assert.rejects(load(undefined, { prefillChunk: -1 }), OptionError);
});

test("the streamed pieces of each are its own", async () => {
  const outs = different.map((options) => batched.generate(options));
  const parts = await Promise.all(outs.map((out) => Array.fromAsync(out)));
  for (const [index, out] of outs.entries()) {
    const { text } = await out;
    assert.equal(parts[index]?.map((part) => part.text).join(""), text);
  }
});

test("aborted and abandoned requests leave the others alone", async () => {
  const controller = new AbortController();
  const aborted = batched.generate({ ...long, signal: controller.signal });
  const abandoned = batched.generate(long);
  const others = Promise.all([batched.generate(different[0] as GenerateOptions), batched.generate(long)]);
  for await (const _ of abandoned) break;
  controller.abort();
  await assert.rejects(Promise.resolve(aborted), AbortError);
  assert.equal((await abandoned).finish, "aborted");
  const [first, second] = await others;
  assert.deepEqual(first.tokens, (await alone.generate(different[0] as GenerateOptions)).tokens);
  assert.deepEqual(second.tokens, (await alone.generate(long)).tokens);
});

test("turns of one chat stay in order beside those of another", async () => {
  const questions = ["How many objects are there?", "What color is the star?", "Where is it?"];
  const talk = async (model: Model) => {
    const chat = model.chat({ maxTokens: 20 });
    const turns = questions.map((text, turn) => chat.send(turn === 0 ? [image(scene.image), text] : text));
    const texts = (await Promise.all(turns)).map(({ text }) => text);
    assert.equal(chat.messages.length, 2 * questions.length);
    await chat.dispose();
    return texts;
  };
  const expected = await talk(alone);
  assert.deepEqual(await Promise.all([talk(batched), talk(batched), talk(batched)]), [expected, expected, expected]);
});

test("a prompt waits for room under cacheLimit, unless it would not fit alone", async () => {
  const picture = ask(describe, { maxTokens: 3 });
  const [first, second] = [await alone.generate(long), await alone.generate(picture)];
  // Room for the long answer or the picture, and a little more.
  const cacheLimit = Math.ceil(1.1 * Math.max(first.memory.peak, second.memory.peak));
  const model = await load(undefined, { batch: 4, cacheLimit });
  const held = async () => (await about()).live.cacheBytes;
  const before = await held();
  const running = model.generate(long);
  // Unread, it stands still with 256 parts.
  while ((await held()) - before < 256 * model.info.kvBytesPerToken) await sleep(5);
  const tooLong = model.generate({ prompt: "a b c ".repeat(400), maxTokens: 1 });
  await assert.rejects(Promise.resolve(tooLong), OutOfMemoryError);
  let ended = false;
  const waiting = model.generate(picture).finally(() => {
    ended = true;
  });
  await sleep(100);
  assert.equal(ended, false);
  assert.deepEqual((await running).tokens, first.tokens);
  const { tokens, timings } = await waiting;
  assert.deepEqual(tokens, second.tokens);
  assert.ok(timings.queued >= 90, `it waited in the queue: ${timings.queued} ms`);
  await model.dispose();
});

test("disposing ends all that run and wait", async () => {
  const model = await load(undefined, { batch: 3 });
  const outs = Array.from({ length: 6 }, () => model.generate(long));
  for await (const _ of outs[0] as (typeof outs)[number]) break;
  const ends = Promise.allSettled(outs.slice(1));
  await model.dispose();
  for (const end of await ends) assert.ok(end.status === "rejected" && end.reason instanceof DisposedError);
});

test("batch is a number from 1 to 256", async () => {
  for (const batch of [0, 257, 1.5, "4" as unknown as number]) {
    await assert.rejects(load(undefined, { batch }), OptionError, String(batch));
  }
});
