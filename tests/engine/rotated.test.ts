// Models that are loaded with the Hadamard transform of values in their weights answer as those without it.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import {
  akvqVl,
  type CacheOption,
  full,
  image,
  int4,
  kvquant,
  lagkv,
  load,
  type Model,
  OptionError,
  prefixkv,
} from "../../ts/index.ts";
import { scene } from "./scenes.ts";

const fixture = (name: string): string => fileURLToPath(new URL(`../golden/fixtures/${name}`, import.meta.url));
const prompt = [{ role: "user" as const, content: [image(scene.image), "Describe the image in detail."] }];
const answer = " There is a green star at the top left. There is a blue ring.";

let plain: Model;
let rotated: Model;

before(async () => {
  plain = await load();
  rotated = await load(undefined, { rotateValues: true });
});

after(() => Promise.all([plain.dispose(), rotated.dispose()]));

test("information says how a model was loaded, and its fingerprint does not change", () => {
  assert.deepEqual(
    [plain, rotated].map(({ info }) => info.rotatedValues),
    [false, true],
  );
  assert.deepEqual({ ...rotated.info, rotatedValues: false }, plain.info);
});

test("every cache scores an answer as without it", async () => {
  const samples = [{ messages: prompt }];
  const calibration = await plain.calibrateKvquant({ samples, bits: 4 });
  const caches: CacheOption[] = [
    full(),
    prefixkv({ keep: 0.4 }),
    lagkv({ keep: 0.4 }),
    akvqVl({ window: 16 }),
    akvqVl({ window: 16, hadamard: false }),
    int4({ window: 16, rotate: true }),
    int4({ window: 16 }),
    kvquant({ calibration, window: 16 }),
  ];
  for (const cache of caches) {
    const [one, other] = await Promise.all(
      [plain, rotated].map((model) => model.score({ messages: prompt, answer, cache, kept: true })),
    );
    assert.ok(one && other);
    assert.deepEqual(other.kept, one.kept);
    assert.deepEqual(other.memory, one.memory);
    const most = Math.max(...one.logprobs.map((value, index) => Math.abs(value - (other.logprobs[index] ?? 0))));
    assert.ok(most < 0.02, `${JSON.stringify(cache).slice(0, 80)}: ${most}`);
  }
});

test("weights in blocks answer", async () => {
  for (const weights of ["q8_0", "q4_k"] as const) {
    const model = await load(undefined, { weights, rotateValues: true });
    try {
      const { text } = await model.generate({ messages: prompt, maxTokens: 20, cache: akvqVl() });
      assert.match(text, /objects|There is an? /);
    } finally {
      await model.dispose();
    }
  }
});

test("heads that cannot be transformed are refused, and so is what is no flag", async () => {
  await assert.rejects(load(fixture("llava-bare"), { rotateValues: true }), (error) => {
    assert.ok(error instanceof OptionError);
    assert.match(error.message, /rotateValues.*12 channels/);
    return true;
  });
  await assert.rejects(load(undefined, { rotateValues: "yes" as never }), OptionError);
});
