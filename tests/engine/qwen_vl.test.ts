// Qwen2-VL, Qwen2.5-VL and Qwen3-VL through the ordinary `load`, with the chats and errors that a user sees.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import {
  about,
  h2o,
  image,
  int4,
  load,
  MediaError,
  type Message,
  type Model,
  OptionError,
  prefixkv,
  visionZip,
} from "../../ts/index.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));
const picture = (name: string) => image(`${root}tests/golden/fixtures/images/${name}`);
const families: Record<string, string> = {
  Qwen2VLForConditionalGeneration: "qwen2-vl",
  Qwen2_5_VLForConditionalGeneration: "qwen2.5-vl",
  Qwen3VLForConditionalGeneration: "qwen3-vl",
};

interface Golden {
  cases: {
    name: string;
    images: string[];
    messages: { role: "user" | "assistant"; content: { type: string; text?: string }[] }[];
    input_ids: number[];
    tokens: number[];
  }[];
}

for (const [architecture, name] of Object.entries(families)) {
  test(`${architecture} answers as transformers does, and in chats with a small cache`, async () => {
    assert.ok((await about()).architectures.includes(architecture));
    const golden: Golden = JSON.parse(await readFile(`${root}tests/golden/data/${name}.json`, "utf8"));
    const model = await load(`${root}tests/golden/fixtures/${name}`, { batch: 3 });
    assert.deepEqual([model.info.image?.tokens, model.info.image?.size, model.info.image?.patch], [null, null, 4]);
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

    // Random weights write bytes that are no text, behind which a chat reads everything again; some answers are text.
    let continued = 0;
    const shown = ["square-168.png", "photo-97x211.png", undefined];
    for (const cache of [prefixkv({ keep: 0.5 }), h2o({ keep: 0.5 }), [prefixkv({ keep: 0.6 }), int4({ window: 8 })]]) {
      for (const question of ["What is this?", "How many are there?", "Where is it?", "Describe it."]) {
        const chat = model.chat({ cache });
        for (const [turn, file] of shown.entries()) {
          const content = [...(file ? [picture(file)] : []), question];
          const { usage, memory } = await chat.send(content, { maxTokens: 2, ignoreEos: true });
          const cached = usage.cachedTokens > 0;
          assert.equal(usage.imageTokens, cached ? [36, 36, 0][turn] : [36, 72, 72][turn]);
          assert.ok(memory.payload < 0.75 * memory.full, JSON.stringify(memory));
          continued += Number(cached);
        }
        await chat.dispose();
      }
    }
    assert.ok(continued > 0);
    await model.dispose();
  });
}

let model: Model;

before(async () => {
  model = await load(`${root}tests/golden/fixtures/qwen3-vl`);
});

after(() => model.dispose());

test("a sliver of a picture is refused by its number", async () => {
  const messages: Message[] = [
    { role: "user", content: [picture("square-168.png"), picture("tall-1x500.png"), "Which one is taller?"] },
  ];
  const error = await model.generate({ messages }).catch((error: unknown) => error);
  assert.ok(error instanceof MediaError && /200 times/.test(error.message), String(error));
  assert.equal(error.details.index, 1);
});

test("a method that needs a class token says so", async () => {
  const messages: Message[] = [{ role: "user", content: [picture("square-168.png"), "What is this?"] }];
  const error = await model.generate({ messages, cache: visionZip() }).catch((error: unknown) => error);
  assert.ok(error instanceof OptionError && /class token/.test(error.message), String(error));
});
