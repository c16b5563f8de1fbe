// Language models and their vision towers in GGUF files, through the public API.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import {
  image,
  inspect,
  type LoadOptions,
  load,
  ModelError,
  OptionError,
  PromptError,
  prefixkv,
  UnsupportedModelError,
} from "../../ts/index.ts";
import { root } from "../runtimes/spawn.ts";

const fixtures = join(root, "tests", "golden", "fixtures");
const pair = (name: string): string => join(fixtures, "gguf-pairs", name);
const picture = join(fixtures, "images", "photo-300x200.png");

async function withModel<T>(
  source: string | URL,
  options: LoadOptions,
  use: (model: Awaited<ReturnType<typeof load>>) => Promise<T>,
): Promise<T> {
  const model = await load(source, options);
  try {
    return await use(model);
  } finally {
    await model.dispose();
  }
}

const messages = [{ role: "user" as const, content: [image(picture), "What is in the picture?"] }];

test("a language model and its tower answer about a picture as their twin does", async () => {
  for (const name of ["llava-bare", "smolvlm-tiles", "qwen3-vl"]) {
    const ask = (source: string, options: LoadOptions) =>
      withModel(source, { ...options, weights: "f32" }, async (model) => {
        const { tokens, usage } = await model.generate({ messages, maxTokens: 12, ignoreEos: true });
        return { tokens, images: usage.imageTokens, counted: await model.imageTokens(300, 200) };
      });
    const want = await ask(join(fixtures, name), {});
    const tower = join(pair(name), "mmproj.gguf");
    for (const [source, vision] of [
      [pair(name), undefined],
      [join(pair(name), "model.gguf"), tower],
      [join(pair(name), "model.gguf"), pathToFileURL(tower)],
    ] as const)
      assert.deepEqual(await ask(source, vision === undefined ? {} : { vision }), want, name);
  }
});

test("a cache of half the size holds a picture of a pair", async () => {
  await withModel(pair("qwen2-vl"), {}, async (model) => {
    const { memory, tokens } = await model.generate({
      messages,
      maxTokens: 4,
      ignoreEos: true,
      cache: prefixkv({ keep: 0.5 }),
    });
    assert.equal(tokens.length, 4);
    assert.ok(memory.resident < memory.full);
  });
});

test("without its tower a model reads no pictures", async () => {
  assert.notEqual((await inspect(pair("qwen2-vl"))).image, null);
  assert.equal((await inspect(pair("qwen2-vl"), { vision: false })).image, null);
  await withModel(pair("qwen2-vl"), { vision: false }, async (model) => {
    assert.equal(model.info.image, null);
    await assert.rejects(Promise.resolve(model.generate({ messages, maxTokens: 1 })), PromptError);
  });
});

test("what is no tower of a model is refused by name", async () => {
  const text = join(pair("qwen2-vl"), "model.gguf");
  for (const [source, vision, type, pattern] of [
    [text, join(pair("smolvlm-tiles"), "mmproj.gguf"), UnsupportedModelError, /Idefics3 or SmolVLM.*`vision: false`/],
    [text, text, UnsupportedModelError, /is no vision tower \(mmproj\)/],
    [join(pair("llava-bare"), "model.gguf"), join(pair("llava-gqa64"), "mmproj.gguf"), ModelError, /takes 48/],
    [join(fixtures, "qwen2-vl"), join(pair("qwen2-vl"), "mmproj.gguf"), OptionError, /Hugging Face's layout/],
    [text, "", OptionError, /`vision`/],
    [text, new URL("https://example.com/mmproj.gguf"), OptionError, /`vision`/],
  ] as const) {
    for (const call of [load, inspect]) {
      const error = await call(source, { vision }).catch((error: unknown) => error);
      assert.ok(error instanceof type, String(error));
      assert.match(error.message, pattern);
    }
  }
  for (const vision of [true, 1, null]) {
    const refused = load(text, { vision: vision as unknown as string });
    await assert.rejects(refused, OptionError);
  }
  const tower = join(pair("qwen2-vl"), "mmproj.gguf");
  await assert.rejects(load(tower), /with this one as its `vision`/);
  assert.equal((await readFile(tower)).subarray(0, 4).toString(), "GGUF");
});
