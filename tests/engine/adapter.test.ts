import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { load, ModelError, OptionError, UnsupportedModelError } from "../../ts/index.ts";

const fixture = (name: string): string => fileURLToPath(new URL(`../golden/fixtures/${name}`, import.meta.url));
const adapter = fixture("adapters/llama");
const base = fixture("llama3-rope");

async function answer(options: Parameters<typeof load>[1]) {
  const model = await load(base, options);
  try {
    const { tokens } = await model.generate({ prompt: "Hello! Who are you?", maxTokens: 12, ignoreEos: true });
    return { tokens, info: model.info };
  } finally {
    await model.dispose();
  }
}

test("an adapter by path, as a URL and in a list gives the same other answer", { timeout: 60_000 }, async () => {
  const plain = await answer({});
  const merged = await answer({ adapter });
  assert.deepEqual(plain.info.adapters, []);
  assert.deepEqual(merged.info.adapters, [adapter]);
  assert.notDeepEqual(merged.tokens, plain.tokens);
  assert.notEqual(merged.info.fingerprint, plain.info.fingerprint);
  assert.deepEqual((await answer({ adapter: pathToFileURL(adapter) })).tokens, merged.tokens);
  assert.deepEqual((await answer({ adapter: [adapter] })).tokens, merged.tokens);
  const twice = await answer({ adapter: [adapter, adapter] });
  assert.deepEqual(twice.info.adapters, [adapter, adapter]);
  assert.notEqual(twice.info.fingerprint, merged.info.fingerprint);
  assert.deepEqual((await answer({ adapter: [] })).tokens, plain.tokens);
});

test("adapters that cannot be merged are typed errors", { timeout: 60_000 }, async () => {
  const rejects = (source: string, options: object, type: new (...args: never[]) => Error, pattern: RegExp) =>
    assert.rejects(load(source, options), (error: unknown) => {
      assert.ok(error instanceof type, String(error));
      assert.match(error.message, pattern);
      return true;
    });
  await rejects(base, { adapter: fixture("adapters/llava") }, ModelError, /other sizes|does not have/);
  await rejects(base, { adapter: base }, ModelError, /is a model, not an adapter/);
  await rejects(adapter, {}, UnsupportedModelError, /as `adapter`/);
  await rejects(base, { adapter: Array(17).fill(adapter) }, OptionError, /expected 16 at most/);
  await rejects(base, { adapter: "" }, OptionError, /is empty/);
  await rejects(base, { adapter: [adapter, 3] }, OptionError, /a string or a URL/);
  await rejects(base, { adapter: new URL("https://example.org/x") }, OptionError, /file: URL/);
  await rejects(fixture("gguf/llama-mixed.gguf"), { adapter }, OptionError, /give `weights`/);
});
