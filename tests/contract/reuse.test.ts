// Prompts that begin with the same pictures: read once, with the same answers whoever asks first, bounded, and the first to go.
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { type CacheOption, fastv, h2o, image, int4, knorm, load, prefixkv, snapkv } from "../../ts/index.ts";
import { root } from "../runtimes/spawn.ts";
import { doors, live } from "./doors.ts";

const scenes = [0, 1, 2, 3].map((number) => image(join(root, `data/scenes/scene-00${number}.png`)));
const [first, second] = scenes as [(typeof scenes)[0], (typeof scenes)[0]];
const questions = ["How many objects are there?", "What color is the star?", "Describe the image in detail."];
const about = (scene: (typeof scenes)[0], question = questions[0] ?? "") => [
  { role: "user", content: [scene, question] },
];

for (const binding of doors) {
  test(`${binding}: the second question about a picture reads only itself, with the answer of a first`, async () => {
    const caches: (CacheOption | undefined)[] = [
      undefined,
      prefixkv({ keep: 0.5 }),
      knorm({ keep: 0.4 }),
      h2o({ keep: 0.5 }),
      [snapkv({ keep: 0.5 }), int4({ window: 8 })],
    ];
    const plain = await load(undefined, { binding });
    for (const cache of caches) {
      const answers: (readonly number[])[][] = [];
      for (const order of [questions, [...questions].reverse()]) {
        const model = await load(undefined, { binding, prefixCache: "64MiB" });
        const found = new Map<string, readonly number[]>();
        for (const [index, question] of order.entries()) {
          const options = { messages: about(first, question), maxTokens: 16, ...(cache && { cache }) };
          const { tokens, usage } = await model.generate(options);
          found.set(question, tokens);
          const whole = await plain.generate(options);
          assert.deepEqual(
            [usage.promptTokens, usage.imageTokens, usage.completionTokens],
            [whole.usage.promptTokens, whole.usage.imageTokens, tokens.length],
          );
          if (index === 0) assert.equal(usage.cachedTokens, 0);
          else assert.ok(usage.cachedTokens >= usage.imageTokens && usage.cachedTokens < usage.promptTokens);
          if (cache === undefined) assert.deepEqual(tokens, whole.tokens);
        }
        answers.push(questions.map((question) => found.get(question) ?? []));
        await model.dispose();
      }
      assert.deepEqual(answers[0], answers[1]);
    }
    await plain.dispose();
    assert.equal((await live()).cacheBytes, 0);
  });

  test(`${binding}: another picture, text before it or method is another beginning`, async () => {
    const model = await load(undefined, { binding, prefixCache: "64MiB" });
    const cached = async (scene: (typeof scenes)[0], cache?: CacheOption, system?: string): Promise<number> => {
      const messages = [...(system ? [{ role: "system", content: system }] : []), ...about(scene)];
      return (await model.generate({ messages, maxTokens: 1, ...(cache && { cache }) })).usage.cachedTokens;
    };
    assert.equal(await cached(first), 0);
    assert.ok((await cached(first)) > 0);
    assert.equal(await cached(second), 0);
    assert.equal(await cached(first, knorm({ keep: 0.5 })), 0);
    assert.equal(await cached(first, knorm({ keep: 0.4 })), 0);
    assert.ok((await cached(first, knorm({ keep: 0.5 }))) > 0);
    assert.equal(await cached(first, undefined, "Be short."), 0);
    // These read prompts whole.
    for (let round = 0; round < 2; round++) assert.equal(await cached(first, fastv()), 0);
    assert.ok((await cached(second)) > 0);
    await model.dispose();
  });

  test(`${binding}: beginnings are bounded, and go when a request needs their room`, async () => {
    const plain = await load(undefined, { binding });
    const one = (await plain.generate({ messages: about(first), maxTokens: 1 })).memory.resident;
    await plain.dispose();
    const two = await load(undefined, { binding, prefixCache: Math.ceil(2.2 * one) });
    const cached = async (scene: (typeof scenes)[0]): Promise<number> =>
      (await two.generate({ messages: about(scene), maxTokens: 1 })).usage.cachedTokens;
    for (const scene of scenes) assert.equal(await cached(scene), 0);
    assert.ok((await live()).cacheBytes <= 2.2 * one);
    // The two that were wanted last are there, the others are not.
    assert.ok((await cached(scenes[3] as typeof first)) > 0 && (await cached(scenes[2] as typeof first)) > 0);
    assert.equal(await cached(first), 0);
    await two.dispose();
    const tight = await load(undefined, { binding, prefixCache: "64MiB", cacheLimit: Math.ceil(2.6 * one) });
    for (let round = 0; round < 3; round++) {
      for (const scene of scenes) {
        await tight.generate({ messages: about(scene), maxTokens: 8 });
        assert.ok((await live()).cacheBytes <= 2.6 * one);
      }
    }
    await tight.dispose();
    assert.equal((await live()).cacheBytes, 0);
  });
}
