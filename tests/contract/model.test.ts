// Behaviour of the public API through every door.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  AbortError,
  ContextOverflowError,
  checkDevice,
  DeviceError,
  DisposedError,
  image,
  inspect,
  load,
  MediaError,
  type Message,
  type Model,
  ModelError,
  OptionError,
  type Progress,
  PromptError,
} from "../../ts/index.ts";
import { runtime } from "../../ts/native/pick.ts";
import { missingObjects, scene } from "../engine/scenes.ts";
import { type Door, doors, loadThrough, sleep } from "./doors.ts";

const models = new Map<Door, Model>();
const seen = new Map<Door, Progress[]>();

before(async () => {
  for (const binding of doors) {
    const progress: Progress[] = [];
    seen.set(binding, progress);
    models.set(binding, await load(undefined, { binding, onProgress: (step) => progress.push(step) }));
  }
});

after(() => Promise.all([...models.values()].map((model) => model.dispose())));

const model = (door: Door): Model => models.get(door) as Model;
const question: Message[] = [{ role: "user", content: [image(scene.image), scene.question] }];
const long = { prompt: "USER: Describe. ASSISTANT:", ignoreEos: true, maxTokens: 1500 };

for (const door of doors) {
  test(`${door}: loads with progress, streams, and describes a picture`, async () => {
    assert.ok((seen.get(door) ?? []).length > 0);
    const out = model(door).generate({ messages: question });
    const parts = await Array.fromAsync(out);
    const { text, usage } = await out;
    assert.equal(parts.map((part) => part.text).join(""), text);
    assert.deepEqual(missingObjects(scene, text), []);
    assert.equal(usage.imageTokens, 144);
  });

  test(`${door}: text, tokens and scores`, async () => {
    const tokens = await model(door).tokenize("Größe: ☆", { addSpecialTokens: false });
    assert.equal((await model(door).detokenize(tokens)).trim(), "Größe: ☆");
    assert.ok((await model(door).score({ messages: question, answer: scene.answer })).ppl < 1.5);
  });

  test(`${door}: an abort before the start, while the prompt is read, and while tokens come`, async () => {
    await assert.rejects(model(door).generate({ ...long, signal: AbortSignal.abort("early") }), AbortError);
    const prompt = `USER: ${"word ".repeat(300)}ASSISTANT:`;
    const reading = model(door).generate({ ...long, prompt, maxTokens: 400, signal: AbortSignal.timeout(5) });
    await assert.rejects(reading, (error) => error instanceof AbortError && typeof error.partial === "string");
    const controller = new AbortController();
    const decoding = model(door).generate({ ...long, signal: controller.signal });
    let parts = 0;
    await assert.rejects(
      async () => {
        for await (const _ of decoding) if (++parts === 5) controller.abort();
      },
      (error) => error instanceof AbortError && error.partial !== "",
    );
    assert.equal(parts, 5);
    assert.equal((await model(door).generate({ ...long, maxTokens: 3 })).tokens.length, 3);
  });

  test(`${door}: forks of a chat answer as separate chats with the same history, from memory that is there once`, async () => {
    const first = [image(scene.image), "How many objects are there?"];
    const questions = ["What color is the star?", "Describe the image in detail."];
    const chat = model(door).chat({ maxTokens: 24 });
    const { memory: before } = await chat.send(first);
    const forks = questions.map(() => chat.fork());
    const answers = await Promise.all(forks.map((fork, index) => fork.send(questions[index] ?? "")));
    for (const [index, { tokens, usage, memory }] of answers.entries()) {
      const separate = model(door).chat({ maxTokens: 24 });
      await separate.send(first);
      const expected = await separate.send(questions[index] ?? "");
      assert.deepEqual([tokens, usage], [expected.tokens, expected.usage]);
      assert.equal(memory.payload, expected.memory.payload);
      assert.equal(expected.memory.shared, 0);
      assert.ok(memory.shared > 0.9 * before.payload && memory.shared < memory.resident, JSON.stringify(memory));
      await separate.dispose();
    }
    await chat.dispose();
    await forks[0]?.dispose();
    const { memory } = (await forks[1]?.send("And the ring?")) ?? {};
    assert.equal(memory?.shared, 0, "the last one has it alone");
    await forks[1]?.dispose();
  });

  test(`${door}: reads a folder without its weights`, async () => {
    const info = await inspect(undefined, { binding: door });
    assert.equal(info.kvBytesPerToken, model(door).info.kvBytesPerToken);
    await assert.rejects(inspect("no/such/folder", { binding: door }), ModelError);
  });

  test(`${door}: a check of a device refuses what cannot be checked`, async () => {
    await assert.rejects(checkDevice("cpu", { binding: door }), (error) => {
      return error instanceof DeviceError && error.message.includes("nothing to check");
    });
    await assert.rejects(checkDevice("gpu" as never, { binding: door }), OptionError);
    await assert.rejects(checkDevice("cpu", { binding: door, ceiling: true } as never), OptionError);
    await assert.rejects(checkDevice("cuda:4096", { binding: door }), (error) => {
      return error instanceof DeviceError && error.details.device === "cuda:4096";
    });
  });

  test(`${door}: errors come with their code`, async () => {
    const one = model(door);
    const picture = { prompt: "<image>", images: [new Uint8Array(9)] };
    const codes: [() => Promise<unknown>, string, new (...args: never[]) => Error][] = [
      [() => load("no/such/folder", { binding: door }), "model-not-found", ModelError],
      [() => load(undefined, { binding: door, weigths: "f16" } as never), "option", OptionError],
      [() => one.generate({ ...long, maxToken: 3 } as never), "option", OptionError],
      [() => one.generate({ ...long, prompt: "<image>" }), "prompt", PromptError],
      [() => one.generate({ ...long, maxTokens: 5000 }), "context-overflow", ContextOverflowError],
      [() => one.generate(picture), "image", MediaError],
    ];
    for (const [call, code, Class] of codes) {
      await assert.rejects(call, (error) => {
        assert.ok(error instanceof Class && (error as { code?: string }).code === code, `${code}: ${String(error)}`);
        return true;
      });
    }
  });

  test(`${door}: disposal ends what runs and waits, refuses what follows, and can be repeated`, async () => {
    const other = await loadThrough(door);
    const ends = [other.generate(long), other.generate(long)].map((work) =>
      work.then(
        ({ finish }) => finish,
        (error: unknown) => error,
      ),
    );
    await sleep(50);
    await Promise.all([other.dispose(), other[Symbol.asyncDispose]()]);
    await other.dispose();
    for (const end of await Promise.all(ends))
      assert.ok(end === "aborted" || end instanceof DisposedError, String(end));
    await assert.rejects(other.generate(long), DisposedError);
    await assert.rejects(other.tokenize("Hi"), DisposedError);
    assert.equal((await model(door).generate({ ...long, maxTokens: 2 })).tokens.length, 2);
  });

  test(`${door}: two models at once`, async () => {
    const other = await load(undefined, { binding: door, weights: "f16", rotateValues: true });
    assert.deepEqual([model(door).info.rotatedValues, other.info.rotatedValues], [false, true]);
    const asked = { ...long, maxTokens: 60 };
    const [one, two] = await Promise.all([model(door).generate(asked), other.generate(asked)]);
    assert.deepEqual([one.tokens.length, two.tokens.length], [60, 60]);
    await other.dispose();
  });
}

test("all doors give the same tokens", async () => {
  const answers = await Promise.all(doors.map((door) => model(door).generate({ ...long, maxTokens: 40 })));
  for (const { tokens } of answers) assert.deepEqual(tokens, answers[0]?.tokens);
});

test("a door that does not exist here is refused with the cure", async () => {
  await assert.rejects(load(undefined, { binding: "wasm" as never }), OptionError);
  await assert.rejects(inspect(undefined, { binding: "wasm" as never }), OptionError);
  if (runtime().name === "node") {
    await assert.rejects(load(undefined, { binding: "ffi" }), (error) => {
      return error instanceof OptionError && error.details.suggestion === "napi" && /Bun or Deno/.test(error.message);
    });
  }
});
