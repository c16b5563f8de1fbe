import assert from "node:assert/strict";
import { test } from "node:test";
import { AbortError, CalibrationError, DisposedError, image, PrefixKvError, prefixkv } from "../../ts/index.ts";
import { fakeModels, native } from "../kit/fake_model.ts";
import type { FakeNative } from "../kit/fake_native.ts";

const ops = (fake: FakeNative) => fake.requests.map(({ request }) => request.op);

const open = fakeModels();

test("a chat opens a session, sends new messages only, and closes once", async () => {
  const fake = native();
  const model = await open(fake);
  const chat = model.chat({ cache: prefixkv({ keep: 0.5 }), maxTokens: 9 });
  const content = [image(new Uint8Array([7])), "Hi"];
  assert.equal((await Array.fromAsync(chat.send(content))).length, 3);
  const { text } = await chat.send("And?", { maxTokens: 2, temperature: 1 });
  await Promise.all([chat.dispose(), chat.dispose(), chat[Symbol.asyncDispose]()]);
  assert.equal(text, "There is a star.");
  assert.deepEqual(
    fake.requests.map(({ request }) => request),
    [
      { op: "open-session", cache: { method: "prefixkv", keep: 0.5 } },
      {
        op: "turn",
        maxTokens: 9,
        session: "session 1",
        messages: [
          {
            role: "user",
            content: [
              { type: "image", index: 0 },
              { type: "text", text: "Hi" },
            ],
          },
        ],
      },
      { op: "turn", maxTokens: 2, temperature: 1, session: "session 1", messages: [{ role: "user", content: "And?" }] },
      { op: "close-session", session: "session 1" },
    ],
  );
  assert.deepEqual(chat.messages, [
    { role: "user", content },
    { role: "assistant", content: text },
    { role: "user", content: "And?" },
    { role: "assistant", content: text },
  ]);
});

test("turns that are sent together go in order, an unreadable image fails its own only", async () => {
  const fake = native();
  const model = await open(fake);
  const chat = model.chat();
  class SlowBlob extends Blob {
    override async arrayBuffer(): Promise<ArrayBuffer> {
      await new Promise((resolve) => setTimeout(resolve, 30));
      return super.arrayBuffer();
    }
  }
  const slow = new SlowBlob([new Uint8Array([1])]);
  const turns = [chat.send([image(slow), "one"]), chat.send([image("none.png"), "two"]), chat.send("three")];
  const outcomes = await Promise.allSettled(turns);
  assert.deepEqual(
    outcomes.map(({ status }) => status),
    ["fulfilled", "rejected", "fulfilled"],
  );
  const said = chat.messages.filter(({ role }) => role === "user").map(({ content }) => [content].flat().at(-1));
  assert.deepEqual(said, ["one", "three"]);
  assert.deepEqual(ops(fake), ["open-session", "turn", "turn"]);
  assert.deepEqual(
    fake.requests.map(({ images }) => images.length),
    [0, 1, 0],
  );
});

test("a turn that fails leaves the conversation, one that is aborted keeps what the engine keeps", async () => {
  const fake = native();
  const model = await open(fake);
  const chat = model.chat();
  await chat.send("one");
  fake.requestError = { code: "context-overflow", message: "too long", details: {} };
  await assert.rejects(chat.send("two"), PrefixKvError);
  fake.requestError = undefined;
  assert.equal(chat.messages.length, 2);
  fake.stallAfter = 0;
  const early = new AbortController();
  const silent = chat.send("three", { signal: early.signal });
  setTimeout(() => early.abort(), 5);
  await assert.rejects(silent, AbortError);
  fake.stallAfter = 1;
  const late = new AbortController();
  const partial = chat.send("four", { signal: late.signal });
  await assert.rejects(async () => {
    for await (const _ of partial) late.abort();
  }, AbortError);
  fake.stallAfter = Number.POSITIVE_INFINITY;
  await chat.send("five");
  assert.deepEqual(
    chat.messages.map(({ content }) => content),
    ["one", "There is a star.", "four", "There", "five", "There is a star."],
  );
});

test("a fork is submitted between the turns before and after it, and has the messages of those before", async () => {
  const fake = native();
  const model = await open(fake);
  const chat = model.chat({ maxTokens: 9 });
  const before = chat.send("one");
  const fork = chat.fork();
  const after = chat.send("two");
  const [, { text }] = await Promise.all([before, after, fork.send("three", { maxTokens: 2 })]);
  assert.deepEqual(
    fake.requests.map(({ request }) => request).filter(({ op }) => op !== "open-session"),
    [
      { op: "turn", maxTokens: 9, session: "session 1", messages: [{ role: "user", content: "one" }] },
      { op: "fork-session", session: "session 1" },
      { op: "turn", maxTokens: 9, session: "session 1", messages: [{ role: "user", content: "two" }] },
      { op: "turn", maxTokens: 2, session: "session 2", messages: [{ role: "user", content: "three" }] },
    ],
  );
  const said = (messages: readonly { content: unknown }[]) => messages.map(({ content }) => content);
  assert.deepEqual(said(chat.messages), ["one", text, "two", text]);
  assert.deepEqual(said(fork.messages), ["one", text, "three", text]);
  await chat.dispose();
  await fork.send("four");
  await fork.dispose();
  await assert.rejects(chat.fork().send("five"), DisposedError);
  const closed = fake.requests.flatMap(({ request }) => (request.op === "close-session" ? [request.session] : []));
  assert.deepEqual(closed, ["session 1", "session 2"]);
});

test("a chat that cannot be opened refuses its turns with the reason", async () => {
  const model = await open(native());
  const chat = model.chat({ cache: prefixkv({ calibration: "no-such-name" }) });
  await assert.rejects(chat.send("one"), CalibrationError);
  await assert.rejects(chat.send("two"), CalibrationError);
  await chat.dispose();
});

test("disposal cancels what runs and refuses what follows; the model's disposal ends its chats", async () => {
  const fake = native({ stallAfter: 1 });
  const model = await open(fake);
  const chat = model.chat();
  const turn = chat.send("one");
  await new Promise((resolve) => setTimeout(resolve, 10));
  await chat.dispose();
  assert.deepEqual([(await turn).finish, (await turn).text], ["aborted", "There"]);
  await assert.rejects(chat.send("two"), (error) => error instanceof DisposedError && /chat/.test(error.message));
  const other = model.chat();
  await model.dispose();
  await assert.rejects(other.send("three"), DisposedError);
  await other.dispose();
  assert.equal(fake.closes, 1);
});
