import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  AbortError,
  about,
  type CacheMethod,
  type Chat,
  ContextOverflowError,
  DisposedError,
  type GenerateOptions,
  h2o,
  image,
  load,
  type Message,
  type Model,
  OptionError,
  prefixkv,
} from "../../ts/index.ts";
import { scene } from "./scenes.ts";

let model: Model;

before(async () => {
  model = await load();
});

after(() => model.dispose());

const star = scene.objects.find(({ shape }) => shape === "star");
const questions = ["How many objects are there?", "What color is the star?", "Describe the image in detail."];

const first = () => [image(scene.image), questions[0] ?? ""];

test("three turns equal one-shot generation over the same messages", async () => {
  const chat = model.chat();
  const messages: Message[] = [];
  for (const [turn, question] of questions.entries()) {
    const content = turn === 0 ? first() : question;
    messages.push({ role: "user", content });
    const whole = await model.generate({ messages, maxTokens: 60 });
    const { tokens, text, usage } = await chat.send(content, { maxTokens: 60 });
    assert.deepEqual(tokens, whole.tokens, question);
    assert.equal(usage.promptTokens, whole.usage.promptTokens);
    assert.equal(usage.cachedTokens > 0, turn > 0);
    assert.equal(usage.imageTokens, turn === 0 ? 144 : 0);
    messages.push({ role: "assistant", content: text });
    assert.deepEqual(chat.messages, messages);
  }
  await chat.dispose();
});

for (const cache of [prefixkv({ keep: 0.5 }), h2o({ keep: 0.5 })] satisfies CacheMethod[]) {
  test(`three turns with half of the cache by ${cache.method}`, async () => {
    const chat = model.chat({ cache });
    for (const [turn, question] of questions.entries()) {
      const { text, usage, memory } = await chat.send(turn === 0 ? first() : question, { maxTokens: 60 });
      assert.ok(text.length > 0, question);
      assert.ok(memory.resident < 0.65 * memory.full, `turn ${turn}: ${memory.resident} of ${memory.full}`);
      assert.equal(usage.cachedTokens > 0, turn > 0);
    }
    await chat.dispose();
  });
}

test("a chat remembers the image", async () => {
  const chat = model.chat({ cache: h2o({ keep: 0.75 }) });
  await chat.send(first());
  const { text } = await chat.send("What color is the star?");
  assert.match(text, new RegExp(star?.color ?? "no star"));
  await chat.dispose();
});

/** The answer of a chat after `trouble` in its second turn, beside its answer without. */
async function after2(trouble: (chat: Chat) => Promise<void>): Promise<[answer: string, expected: string]> {
  const answers: string[] = [];
  for (const happens of [trouble, async () => {}]) {
    const chat = model.chat({ maxTokens: 40 });
    await chat.send(first());
    await happens(chat);
    assert.equal(chat.messages.length, 2);
    answers.push((await chat.send("What color is the star?")).text);
    assert.equal(chat.messages.length, 4);
    await chat.dispose();
  }
  return [answers[0] ?? "", answers[1] ?? "none"];
}

test("a turn that does not fit leaves the chat as it was", async () => {
  const [answer, expected] = await after2(async (chat) => {
    await assert.rejects(chat.send("Too long.", { maxTokens: 100_000 }), ContextOverflowError);
    await assert.rejects(chat.send([image(new TextEncoder().encode("no image")), "What?"]), Error);
  });
  assert.equal(answer, expected);
});

test("a turn that is aborted before it has text leaves the chat as it was", async () => {
  const [answer, expected] = await after2(async (chat) => {
    await assert.rejects(chat.send("Stop.", { signal: AbortSignal.abort() }), AbortError);
  });
  assert.equal(answer, expected);
});

test("a turn that is aborted later keeps its text, and the chat goes on", async () => {
  const chat = model.chat();
  await chat.send(first());
  const controller = new AbortController();
  const turn = chat.send("Describe the image in detail.", { signal: controller.signal });
  let seen = "";
  await assert.rejects(async () => {
    for await (const part of turn) {
      seen += part.text;
      if (seen.length > 20) controller.abort();
    }
  }, AbortError);
  const { text, usage } = await chat.send("What color is the star?");
  assert.ok(text.length > 0 && usage.cachedTokens > 0);
  // The answer may have been complete when the signal came.
  assert.equal(chat.messages.length, 6);
  const [, , , partial] = chat.messages;
  assert.ok(String(partial?.content).startsWith(seen), String(partial?.content));
  await chat.dispose();
});

test("a turn that is aborted while its prompt is read costs nothing but time", async () => {
  const chat = model.chat({ maxTokens: 20 });
  await chat.send(first());
  const controller = new AbortController();
  const turn = chat.send([image(scene.image), "Describe the image in detail."], { signal: controller.signal });
  setTimeout(() => controller.abort(), 5);
  await assert.rejects(turn, AbortError);
  const { text, usage } = await chat.send("What color is the star?");
  assert.ok(text.length > 0);
  // When it was after all not aborted before its first token, the engine has kept its text.
  assert.equal(usage.promptTokens > 300, chat.messages.length === 6);
  await chat.dispose();
});

test("an image may come with a later turn", async () => {
  const chat = model.chat();
  await chat.send("Hello", { maxTokens: 4 });
  const { usage, text } = await chat.send([image(scene.image), "What color is the star?"], { maxTokens: 8 });
  assert.equal(usage.imageTokens, 144);
  assert.ok(text.length > 0);
  await chat.dispose();
});

test("turns that are sent at once are answered in order", async () => {
  const chat = model.chat({ maxTokens: 8 });
  const turns = await Promise.all([
    chat.send(first()),
    chat.send("What color is the star?"),
    chat.send("And the ring?"),
  ]);
  const prompts = turns.map(({ usage }) => usage.promptTokens);
  assert.deepEqual(
    prompts,
    prompts.toSorted((a, b) => a - b),
  );
  assert.deepEqual(
    chat.messages.filter(({ role }) => role === "assistant").map(({ content }) => content),
    turns.map(({ text }) => text),
  );
  await chat.dispose();
});

test("a chat is out of reach for every other request, whatever its options are called", async () => {
  const chat = model.chat({ maxTokens: 6 });
  const first = await chat.send("My secret is a green star.");
  const messages = [{ role: "user" as const, content: "What is the secret?" }];
  for (const session of [1, 2, "1", "0".repeat(32), null]) {
    for (const stray of [
      { session, messages, maxTokens: 3 },
      { op: "close-session", session },
      { op: "turn", session, messages },
    ]) {
      const options = stray as GenerateOptions;
      for (const call of [
        () => model.generate(options),
        () => model.trace(options),
        () => model.score({ answer: "a", ...options }),
      ]) {
        await assert.rejects(async () => void (await call()), OptionError);
      }
      await assert.rejects(async () => void (await chat.send("Hi", stray as never)), OptionError);
    }
  }
  const second = await chat.send("And now?");
  assert.ok(second.usage.cachedTokens >= first.usage.promptTokens);
  assert.equal(chat.messages.length, 4);
  await chat.dispose();
});

test("a wrong option fails the turn, a wrong cache every turn", async () => {
  const chat = model.chat();
  await assert.rejects(chat.send("Hi", { maxToken: 3 } as never), OptionError);
  assert.ok((await chat.send("Hi", { maxTokens: 3 })).tokens.length > 0);
  await chat.dispose();
  const wrong = model.chat({ cache: { method: "h2o" } as CacheMethod });
  await assert.rejects(wrong.send("Hi"), OptionError);
  await wrong.dispose();
});

test("a disposed chat is closed in the engine too, and so are the chats of a disposed model", async () => {
  const other = await load();
  const chat = other.chat();
  await chat.send("Hi", { maxTokens: 2 });
  const { sessions } = (await about()).live;
  await chat.dispose();
  assert.equal((await about()).live.sessions, sessions - 1);
  await assert.rejects(chat.send("Hi"), DisposedError);
  const left = other.chat();
  const running = left.send("Hi", { ignoreEos: true, maxTokens: 1500 });
  const outcome = running.then(
    ({ finish }) => finish,
    (error: unknown) => error,
  );
  await new Promise((resolve) => setTimeout(resolve, 50));
  await other.dispose();
  const end = await outcome;
  assert.ok(end === "aborted" || end instanceof DisposedError, String(end));
  await assert.rejects(left.send("Hi"), DisposedError);
  await left.dispose();
});
