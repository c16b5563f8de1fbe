// Gemma 3 with pictures through the ordinary `load`, with the chats and errors that a user sees.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import {
  about,
  h2o,
  image,
  inspect,
  int4,
  load,
  type Message,
  type Model,
  OptionError,
  PromptError,
  prefixkv,
  visionZip,
} from "../../ts/index.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));
const folder = `${root}tests/golden/fixtures/gemma3-vision`;
const picture = (name: string) => image(`${root}tests/golden/fixtures/images/${name}`);
/** Positions of a picture. */
const CELLS = 16;

interface Golden {
  cases: {
    images: string[];
    messages: { role: "user" | "assistant"; content: { type: string; text?: string }[] }[];
    input_ids: number[];
    tokens: number[];
  }[];
}

let model: Model;

before(async () => {
  model = await load(folder, { batch: 3 });
});

after(() => model.dispose());

test("it answers as transformers does", async () => {
  assert.ok((await about()).architectures.includes("Gemma3ForConditionalGeneration"));
  assert.deepEqual([model.info.image?.tokens, model.info.image?.size, model.info.image?.patch], [CELLS, 32, 4]);
  const golden: Golden = JSON.parse(await readFile(`${root}tests/golden/data/gemma3-vision.json`, "utf8"));
  const answers = golden.cases.map(async ({ images, messages, input_ids, tokens }) => {
    const pictures = images.map((path) => image(`${root}${path}`));
    const asked = messages.map(({ role, content }): Message => {
      const parts = content.map(({ type, text }) => (type === "image" ? pictures.shift() : text));
      return { role, content: parts.filter((part) => part !== undefined) };
    });
    const answer = await model.generate({ messages: asked, maxTokens: 32, temperature: 0, ignoreEos: true });
    assert.deepEqual(answer.tokens, tokens);
    assert.equal(answer.usage.promptTokens, input_ids.length);
    assert.equal(answer.usage.imageTokens, CELLS * images.length);
  });
  await Promise.all(answers);
});

test("pictures are counted before weights are read", async () => {
  const counted = (await inspect(folder, { picture: { width: 300, height: 200 } })).image?.picture;
  assert.deepEqual(counted, await model.imageTokens(300, 200));
  assert.equal(counted?.tokens, CELLS);
  // Its own line ends and marks.
  assert.ok(counted && counted.marks >= 4, JSON.stringify(counted));
});

test("a chat with pictures goes on with a small cache", async () => {
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
        const pictures = cached ? [1, 1, 0][turn] : [1, 2, 2][turn];
        assert.equal(usage.imageTokens, CELLS * (pictures ?? 0));
        assert.ok(memory.payload < memory.full, JSON.stringify(memory));
        continued += Number(cached);
      }
      await chat.dispose();
    }
  }
  assert.ok(continued > 0);
});

test("a raw prompt has a mark for each picture", async () => {
  const images = [picture("square-168.png")];
  const { usage } = await model.generate({ prompt: "See <start_of_image>here", images, maxTokens: 1 });
  assert.equal(usage.imageTokens, CELLS);
  const error = await model.generate({ prompt: "See it", images }).catch((error: unknown) => error);
  assert.ok(error instanceof PromptError && /0 image placeholders for 1 image/.test(error.message), String(error));
});

test("a method that needs a class token says so", async () => {
  const messages: Message[] = [{ role: "user", content: [picture("square-168.png"), "What is this?"] }];
  const error = await model.generate({ messages, cache: visionZip() }).catch((error: unknown) => error);
  assert.ok(error instanceof OptionError && /class token/.test(error.message), String(error));
});
