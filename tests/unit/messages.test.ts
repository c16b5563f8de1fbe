import assert from "node:assert/strict";
import { test } from "node:test";
import { image, type Message, OptionError, PromptError } from "../../ts/index.ts";
import { wirePrompt } from "../../ts/messages.ts";

const a = image(new Uint8Array([1]));
const b = image(new Uint8Array([2]));

test("content may be a string, an image or an array; images are numbered in order", () => {
  const messages: Message[] = [
    { role: "user", content: [a, "What?"] },
    { role: "assistant", content: "A star." },
    { role: "user", content: b },
    { role: "user", content: ["Again:", a] },
  ];
  const { fields, images } = wirePrompt({ messages });
  assert.deepEqual(images, [a, b, a]);
  assert.deepEqual(fields.messages, [
    {
      role: "user",
      content: [
        { type: "image", index: 0 },
        { type: "text", text: "What?" },
      ],
    },
    { role: "assistant", content: "A star." },
    { role: "user", content: [{ type: "image", index: 1 }] },
    {
      role: "user",
      content: [
        { type: "text", text: "Again:" },
        { type: "image", index: 2 },
      ],
    },
  ]);
});

test("a raw prompt takes its images beside it", () => {
  const { fields, images } = wirePrompt({ prompt: "<image>\nWhat?", images: [a, new Uint8Array([3])] });
  assert.deepEqual(fields, { prompt: "<image>\nWhat?" });
  assert.equal(images[0], a);
  assert.equal(images.length, 2);
});

test("images beside messages go in front of the last user message", () => {
  const messages: Message[] = [
    { role: "user", content: [a, "First"] },
    { role: "assistant", content: "Yes." },
    { role: "user", content: "Second" },
  ];
  const { fields, images } = wirePrompt({ messages, images: [b] });
  assert.deepEqual(images, [a, b]);
  assert.deepEqual(fields.messages?.[2]?.content, [
    { type: "image", index: 1 },
    { type: "text", text: "Second" },
  ]);
});

test("unknown fields of a message go through to the engine", () => {
  const { fields } = wirePrompt({ messages: [{ role: "user", content: "Hi", name: "x" } as Message] });
  assert.deepEqual(fields.messages, [{ role: "user", content: "Hi", name: "x" }]);
});

test("more images than a request may have are refused before one is read", () => {
  const images = Array.from({ length: 65 }, () => image("none.png"));
  const refused = (input: object) =>
    assert.throws(
      () => wirePrompt(input as never),
      (error) => error instanceof OptionError && /at most 64 images, found 65/.test(error.message),
    );
  refused({ prompt: "<image>", images });
  refused({ messages: [{ role: "user", content: images }] });
  refused({ messages: [{ role: "user", content: images.slice(1) }], images: [a] });
  assert.equal(wirePrompt({ messages: [{ role: "user", content: images.slice(1) }] }).images.length, 64);
});

test("refuses what is not a message, and says what to write", () => {
  const refused = (input: unknown, pattern: RegExp) =>
    assert.throws(
      () => wirePrompt(input as never),
      (error) => error instanceof PromptError && pattern.test(error.message),
    );
  refused({ messages: "Hi" }, /not an array/);
  refused({ messages: ["Hi"] }, /message 0 has no role/);
  refused({ messages: [{ role: "user" }] }, /message 0 contains undefined/);
  refused(
    { messages: [{ role: "user", content: [{ type: "image_url" }] }] },
    /an object with type; .* image\(source\)/,
  );
  refused({ messages: [{ role: "user", content: [7] }] }, /a number/);
  refused({ messages: [{ role: "assistant", content: "Hi" }], images: [a] }, /role `user`/);
});
