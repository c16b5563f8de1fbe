// InternVL in both layouts through the ordinary `load`, with the chats and errors that a user sees.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { about, h2o, image, inspect, load, type Message, OptionError, prefixkv, visionZip } from "../../ts/index.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));
const families: Record<string, string> = {
  internvl3: "InternVLForConditionalGeneration",
  "internvl3.5": "InternVLForConditionalGeneration",
  "internvl-original": "InternVLChatModel",
};

interface Golden {
  cases: {
    name: string;
    images: string[];
    messages: { role: "user" | "assistant"; content: { type: string; text?: string }[] }[];
    input_ids: number[];
    grids: [number, number][];
    tokens: number[];
  }[];
}

for (const [name, architecture] of Object.entries(families)) {
  test(`${name} answers as transformers does, and with a small cache`, async () => {
    const folder = `${root}tests/golden/fixtures/${name}`;
    const golden: Golden = JSON.parse(await readFile(`${root}tests/golden/data/${name}.json`, "utf8"));
    assert.ok((await about()).architectures.includes(architecture));
    const info = await inspect(folder, { picture: { width: 300, height: 200 } });
    assert.deepEqual([info.architecture, info.image?.tokens, info.image?.size], [architecture, null, 24]);
    const counted = info.image?.picture;
    // Six tiles and the thumbnail, between two marks.
    assert.deepEqual([counted?.pieces.map(({ tokens }) => tokens), counted?.marks], [Array(7).fill(9), 2]);
    assert.deepEqual(
      counted?.pieces.map(({ piece }) => piece.kind.type),
      [...Array(6).fill("tile"), "base"],
    );
    const model = await load(folder, { batch: 3 });
    try {
      assert.deepEqual(await model.imageTokens(300, 200), counted);
      assert.equal((await model.imageTokens(24, 24)).tokens, 9);
      const answers = golden.cases.map(async ({ images, messages, input_ids, grids, tokens }) => {
        const pictures = images.map((path) => image(`${root}${path}`));
        const asked = messages.map(({ role, content }): Message => {
          const parts = content.map(({ type, text }) => (type === "image" ? pictures.shift() : text));
          return { role, content: parts.filter((part) => part !== undefined) };
        });
        // The original's template takes strings, in front of which images go.
        const first = asked[0]?.content;
        if (name === "internvl-original" && Array.isArray(first) && typeof first[0] === "string") return;
        const { tokens: answer, usage } = await model.generate({ messages: asked, maxTokens: 32 });
        assert.deepEqual(answer, tokens);
        assert.equal(usage.promptTokens, input_ids.length);
        assert.equal(
          usage.imageTokens,
          grids.reduce((sum, [rows, columns]) => sum + 9 * (rows * columns + 1), 0),
        );
      });
      await Promise.all(answers);

      const picture = image(`${root}tests/golden/fixtures/images/photo-300x200.png`);
      const messages: Message[] = [{ role: "user", content: [picture, "What is in the picture?"] }];
      for (const cache of [prefixkv({ keep: 0.5 }), h2o({ keep: 0.5 })]) {
        const half = await model.generate({ messages, maxTokens: 4, ignoreEos: true, cache });
        assert.ok(half.memory.payload < 0.7 * half.memory.full, JSON.stringify(half.memory));
      }
      const zipped = model.generate({ messages, cache: visionZip() });
      await assert.rejects(
        async () => await zipped,
        (error) => error instanceof OptionError && /class token for each tile/.test(error.message),
      );
      const { images } = await model.trace({ messages, maxTokens: 1 });
      assert.deepEqual(
        images.map(({ tiles }) => tiles),
        [6, 1],
      );
    } finally {
      await model.dispose();
    }
  });
}
