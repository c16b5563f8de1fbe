// LLaVA-NeXT and its relatives through the ordinary `load`, with the chats, traces and errors that a user sees.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { about, image, inspect, load, type Message, OptionError, prefixkv, visionZip } from "../../ts/index.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));
const picture = (name: string) => image(`${root}tests/golden/fixtures/images/${name}`);
const families: Record<string, string> = {
  "llava-next": "LlavaNextForConditionalGeneration",
  "llava-next-siglip": "LlavaNextForConditionalGeneration",
  "llava-onevision": "LlavaOnevisionForConditionalGeneration",
  "llava-interleave": "LlavaForConditionalGeneration",
};

interface Golden {
  cases: {
    images: string[];
    messages: { role: "user" | "assistant"; content: { type: string; text?: string }[] }[];
    input_ids: number[];
    tokens: number[];
  }[];
}

for (const [name, architecture] of Object.entries(families)) {
  test(`${name} answers as transformers does`, async () => {
    assert.ok((await about()).architectures.includes(architecture));
    const golden: Golden = JSON.parse(await readFile(`${root}tests/golden/data/${name}.json`, "utf8"));
    const model = await load(`${root}tests/golden/fixtures/${name}`, { batch: 3 });
    assert.equal(model.info.architecture, architecture);
    const answers = golden.cases.map(async ({ images, messages, input_ids, tokens }) => {
      const pictures = images.map((path) => image(`${root}${path}`));
      const asked = messages.map(({ role, content }): Message => {
        const parts = content.map(({ type, text }) => (type === "image" ? pictures.shift() : text));
        return { role, content: parts.filter((part) => part !== undefined) };
      });
      const answer = await model.generate({ messages: asked, maxTokens: 32 });
      assert.deepEqual(answer.tokens, tokens);
      assert.equal(answer.usage.promptTokens, input_ids.length);
    });
    await Promise.all(answers);
    const messages = [{ role: "user" as const, content: [picture("photo-300x200.png"), "What is it?"] }];
    const half = await model.generate({ messages, maxTokens: 4, ignoreEos: true, cache: prefixkv({ keep: 0.5 }) });
    assert.ok(half.memory.payload < 0.7 * half.memory.full, JSON.stringify(half.memory));
    const zipped = model.generate({ messages, cache: visionZip() });
    await assert.rejects(async () => await zipped, OptionError);
    await model.dispose();
  });
}

test("a picture of LLaVA-OneVision becomes one tile once it has company", async () => {
  const source = `${root}tests/golden/fixtures/llava-onevision`;
  const model = await load(source);
  const [wide, tall] = [picture("photo-300x200.png"), picture("photo-97x211.png")];
  const one: Message = { role: "user", content: [wide, "What is it?"] };
  const more: Message = { role: "user", content: [tall, "And this?"] };
  const { usage } = await model.generate({ messages: [one], maxTokens: 1 });
  assert.equal(usage.imageTokens, (await model.imageTokens(300, 200)).tokens);
  const { images, spans } = await model.trace({
    messages: [{ role: "user", content: [wide, tall, "?"] }],
    maxTokens: 1,
  });
  assert.deepEqual(
    images.map(({ index, tiles, rows, columns }) => [index, tiles, rows, columns]),
    [
      [0, 1, 5, 5],
      [1, 1, 5, 5],
    ],
  );
  const kinds = spans.flatMap(({ modality, len }) =>
    modality.type === "image" ? [[modality.piece.kind.type, len]] : [],
  );
  assert.deepEqual(kinds, [
    ["base", 25],
    ["end", 1],
    ["base", 25],
    ["end", 1],
  ]);
  // A chat reads the conversation anew when its first picture is no longer alone, and goes on from there.
  const chat = model.chat();
  const options = { maxTokens: 6, ignoreEos: true };
  const first = await chat.send(one.content, options);
  assert.equal(first.usage.imageTokens, usage.imageTokens);
  const second = await chat.send(more.content, options);
  assert.deepEqual([second.usage.cachedTokens, second.usage.imageTokens], [0, 52]);
  const answered: Message = { role: "assistant", content: first.text };
  const whole = await model.generate({ messages: [one, answered, more], ...options });
  assert.deepEqual(second.tokens, whole.tokens);
  await chat.dispose();
  await model.dispose();
});

test("line ends are positions of a picture and no cells of its grid", async () => {
  const source = `${root}tests/golden/fixtures/llava-next`;
  const info = await inspect(source, { picture: { width: 300, height: 200 } });
  const counted = info.image?.picture;
  assert.deepEqual(
    counted?.pieces.map(({ piece, tokens }) => [piece.kind.type, piece.rows, piece.columns, tokens]),
    [
      ["base", 4, 4, 16],
      ["tiles", 6, 8, 54],
    ],
  );
  assert.deepEqual([counted?.tokens, counted?.marks], [70, 0]);
  const model = await load(source);
  assert.deepEqual(await model.imageTokens(300, 200), counted);
  const content = [picture("photo-300x200.png"), picture("photo-97x211.png"), "Which one is larger?"];
  const { images, spans } = await model.trace({ messages: [{ role: "user", content }], maxTokens: 1 });
  assert.deepEqual(
    images.map(({ index, tiles, rows, columns }) => [index, tiles, rows, columns]),
    [
      [0, 1, 4, 4],
      [0, 4, 6, 8],
      [1, 1, 4, 4],
      [1, 3, 8, 4],
    ],
  );
  const grid = spans.filter(({ modality }) => modality.type === "image")[1];
  assert.ok(grid);
  // Behind each row of 8 cells stands one position that shows nothing.
  assert.deepEqual(
    images[1]?.cells,
    Array.from({ length: 48 }, (_, cell) => grid.start + cell + Math.floor(cell / 8)),
  );
  await model.dispose();
});
