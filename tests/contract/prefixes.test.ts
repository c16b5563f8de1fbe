// Prefixes: read once, asked many times, saved and restored, through every door and across processes.
import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import {
  AbortError,
  DisposedError,
  fastv,
  h2o,
  image,
  int4,
  knorm,
  kvzip,
  load,
  lorc,
  OptionError,
  prefixkv,
  SnapshotError,
  snapkv,
} from "../../ts/index.ts";
import { root, runScript } from "../runtimes/spawn.ts";
import { doors, live, loadThrough } from "./doors.ts";

const scene = image(join(root, "data/scenes/scene-001.png"));
const messages = [{ role: "user", content: [scene] }];
const questions = ["How many objects are there?", "Describe the image in detail.", " What color is the star?"];
const child = fileURLToPath(new URL("./prefix_child.ts", import.meta.url));

async function folder<T>(use: (dir: string) => Promise<T>): Promise<T> {
  const dir = await mkdtemp(join(tmpdir(), "prefix-"));
  try {
    return await use(dir);
  } finally {
    await rm(dir, { recursive: true });
  }
}

async function problem(work: Promise<unknown>): Promise<string> {
  const error = await work.then(
    () => undefined,
    (error: unknown) => error,
  );
  assert.ok(error instanceof SnapshotError, String(error));
  return error.problem;
}

for (const door of doors) {
  test(`${door}: questions about a prefix get what they get with the picture before them`, async () => {
    const model = await loadThrough(door);
    const prefix = await model.prefill({ messages });
    const { imageTokens, promptTokens } = prefix.usage;
    assert.ok(imageTokens === 144 && promptTokens >= 144);
    assert.equal(prefix.waits, false);
    const together = await Promise.all(questions.map((prompt) => prefix.generate({ prompt, maxTokens: 24 })));
    for (const [index, question] of questions.entries()) {
      const whole = await model.generate({
        messages: [{ role: "user", content: [scene, question] }],
        maxTokens: 24,
      });
      const { text, tokens, usage, memory } = together[index] as typeof whole;
      assert.deepEqual([text, tokens], [whole.text, whole.tokens]);
      assert.equal(usage.promptTokens, whole.usage.promptTokens);
      assert.deepEqual([usage.cachedTokens, usage.imageTokens], [promptTokens, 0]);
      // The entries of the picture are there once.
      assert.ok(memory.shared > 0.5 * prefix.memory.payload, `${memory.shared} of ${prefix.memory.payload}`);
    }
    const system = await model.prefill({ prompt: "USER: There is a red circle." });
    const raw = await system.generate({ prompt: " What is it? ASSISTANT:", maxTokens: 8 });
    const one = await model.generate({ prompt: "USER: There is a red circle. What is it? ASSISTANT:", maxTokens: 8 });
    assert.deepEqual(raw.tokens, one.tokens);
    await system.dispose();
    await Promise.all([prefix.dispose(), prefix.dispose()]);
    await assert.rejects(prefix.generate({ prompt: "?" }), DisposedError);
    await assert.rejects(prefix.save("nowhere"), DisposedError);
    const left = await live();
    assert.equal(left.cacheBytes, 0);
    await model.dispose();
  });

  test(`${door}: a prefix goes on from its file as it would have gone on, whatever its method`, () =>
    folder(async (dir) => {
      const model = await loadThrough(door);
      const caches = [
        undefined,
        prefixkv({ keep: 0.5 }),
        prefixkv({ keep: 0.5, variant: "paper" }),
        h2o({ keep: 0.4 }),
        [kvzip({ keep: 0.5 }), int4({ window: 8 })],
        [snapkv({ keep: 0.5 }), int4()],
      ];
      for (const [index, cache] of caches.entries()) {
        const prefix = await model.prefill({ messages, ...(cache && { cache }) });
        const path = join(dir, `${index}.prefix`);
        const bytes = await prefix.save(path);
        assert.equal((await readFile(path)).length, bytes);
        const again = await model.restore(path);
        assert.deepEqual(
          [again.usage, again.waits, again.memory.payload, again.memory.keptPerLayer],
          [prefix.usage, prefix.waits, prefix.memory.payload, prefix.memory.keptPerLayer],
        );
        for (const prompt of questions) {
          const [want, got] = await Promise.all(
            [prefix, again].map((one) => one.generate({ prompt, maxTokens: 16, temperature: 0.8, seed: 5 })),
          );
          assert.deepEqual([got?.tokens, got?.text], [want?.tokens, want?.text]);
          assert.deepEqual(got?.memory.keptPerLayer, want?.memory.keptPerLayer);
        }
        if (prefix.waits) {
          const { memory } = await again.generate({ prompt: "What color is the star?", maxTokens: 2 });
          const [most] = [Math.max(...memory.keptPerLayer)];
          assert.ok(most < prefix.usage.promptTokens, `${most} entries behind the question`);
        } else if (cache) assert.ok(prefix.memory.payload < 0.8 * prefix.memory.full);
        await Promise.all([prefix.dispose(), again.dispose()]);
      }
      await model.dispose();
      assert.deepEqual(
        (await readdir(dir)).sort(),
        caches.map((_, index) => `${index}.prefix`),
      );
      assert.equal((await live()).cacheBytes, 0);
    }));

  test(`${door}: a question runs a fifth of the rows of its prompt at most`, async () => {
    const model = await loadThrough(door);
    const rows = async (work: () => PromiseLike<unknown>): Promise<number> => {
      const before = (await live()).rowsRun;
      await work();
      return (await live()).rowsRun - before;
    };
    const prompt = "What color is the star?";
    const content = [scene, prompt];
    const whole = await rows(() => model.generate({ messages: [{ role: "user", content }], maxTokens: 1 }));
    const prefix = await model.prefill({ messages, cache: knorm({ keep: 0.2 }) });
    const asked = await rows(() => prefix.generate({ prompt, maxTokens: 1 }));
    // Its picture has been seen, too: nothing of the tower is run.
    assert.ok(asked > 0 && asked * 5 < whole, `${asked} of ${whole} rows`);
    await model.dispose();
  });

  test(`${door}: another process goes on from the file of this one`, () =>
    folder(async (dir) => {
      const model = await loadThrough(door);
      const prefix = await model.prefill({ messages, cache: knorm({ keep: 0.5 }) });
      const path = join(dir, "scene.prefix");
      await prefix.save(path);
      const want = await prefix.generate({ prompt: questions[1] ?? "", maxTokens: 24 });
      const { code, out, err } = await runScript(child, [door, path, questions[1] ?? ""], {});
      assert.equal(code, 0, `${out}${err}`);
      assert.deepEqual(JSON.parse(out), { text: want.text, tokens: want.tokens, cached: prefix.usage.promptTokens });
      await model.dispose();
    }));

  test(`${door}: files that are no snapshot of this model say what is wrong with them`, () =>
    folder(async (dir) => {
      const model = await loadThrough(door);
      const path = join(dir, "a.prefix");
      const prefix = await model.prefill({ messages });
      await prefix.save(path);
      const bytes = await readFile(path);
      const broken = async (change: (bytes: Uint8Array<ArrayBuffer>) => Uint8Array): Promise<string> => {
        const other = join(dir, "b.prefix");
        await writeFile(other, change(new Uint8Array(bytes)));
        return problem(model.restore(other));
      };
      const set = (at: number, value: number) =>
        broken((bytes) => {
          bytes[at] = value;
          return bytes;
        });
      assert.equal(await set(0, 0), "no-snapshot");
      assert.equal(await broken(() => new Uint8Array()), "no-snapshot");
      assert.equal(await broken(() => new TextEncoder().encode("prefix")), "no-snapshot");
      assert.equal(await set(8, 2), "version");
      assert.equal(await set(15, 255), "truncated");
      assert.equal(await set(22, 1), "truncated");
      for (const length of [9, 20, 55, 56, 500, bytes.length - 1]) {
        assert.equal(await broken((bytes) => bytes.subarray(0, length)), "truncated", String(length));
      }
      assert.equal(await broken((bytes) => new Uint8Array([...bytes, 0])), "corrupt");
      for (const at of [24, 60, 300, bytes.length - 1]) {
        assert.equal(await set(at, (bytes[at] ?? 0) ^ 1), "corrupt", String(at));
      }
      assert.equal(await problem(model.restore(join(dir, "none.prefix"))), "missing");
      assert.equal(await problem(model.restore(dir)), "io");
      assert.equal(await problem(prefix.save(join(dir, "no", "folder"))), "missing");
      const other = await load(join(root, "tests/golden/fixtures/llava-gqa64"), { binding: door });
      assert.equal(await problem(other.restore(path)), "other-model");
      await other.dispose();
      const quantised = await load(undefined, { binding: door, weights: "q8_0" });
      assert.equal(await problem(quantised.restore(path)), "other-model");
      await quantised.dispose();
      // The model goes on, and a file that is written again takes the place of the old one.
      await prefix.save(join(dir, "b.prefix"));
      await (await model.restore(join(dir, "b.prefix"))).dispose();
      await model.dispose();
      assert.deepEqual((await readdir(dir)).sort(), ["a.prefix", "b.prefix"]);
    }));

  test(`${door}: what cannot be a prefix, or cannot be saved, is refused by name`, () =>
    folder(async (dir) => {
      const model = await loadThrough(door);
      const refused = async (work: Promise<unknown>, part: RegExp) =>
        assert.rejects(work, (error: unknown) => error instanceof OptionError && part.test(error.message));
      await refused(model.prefill({ messages, cache: fastv() }), /fastv looks at the question/);
      const found = await model.prefill({ messages, cache: lorc() });
      await refused(found.save(join(dir, "a")), /lorc .* no snapshot holds/);
      assert.ok((await found.generate({ prompt: "What is there?", maxTokens: 2 })).tokens.length > 0);
      await found.dispose();
      await assert.rejects(
        model.prefill({ messages, signal: AbortSignal.abort() }),
        (error: unknown) => error instanceof AbortError,
      );
      await refused(
        model.prefill({ messages }).then((prefix) => prefix.generate({} as { prompt: string })),
        /prompt/,
      );
      await refused(model.restore(7 as unknown as string), /path/);
      await model.dispose();
      assert.deepEqual(await readdir(dir), []);
    }));
}
