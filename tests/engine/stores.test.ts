// Stores alone and behind a method, from TypeScript on the embedded model: what memory says about them, and what is refused.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  bf16,
  type CacheOption,
  fp8,
  full,
  h2o,
  image,
  int2,
  int4,
  int8,
  load,
  type Memory,
  type Message,
  type Model,
  OptionError,
  prefixkv,
  turboquant,
} from "../../ts/index.ts";
import { scene } from "./scenes.ts";

let model: Model;
before(async () => {
  model = await load();
});
after(() => model.dispose());

const messages: Message[] = [{ role: "user", content: [image(scene.image), scene.question] }];

async function memoryOf(cache: CacheOption): Promise<Memory> {
  return (await model.generate({ messages, cache, ignoreEos: true, maxTokens: 40 })).memory;
}

test("a store alone keeps every entry, and memory falls with the bits", async () => {
  const whole = await memoryOf(full());
  assert.deepEqual([whole.scales, whole.window, whole.effectiveBits, whole.dead], [0, 0, 32, 0]);
  let last = whole;
  for (const store of [
    bf16({ window: 16 }),
    int8({ window: 16 }),
    fp8({ window: 16 }),
    int4({ window: 16 }),
    int2({ window: 16 }),
  ]) {
    const memory = await memoryOf(store);
    assert.deepEqual(memory.keptPerLayer, whole.keptPerLayer);
    assert.equal(memory.full, whole.full);
    assert.equal(memory.scales > 0, !["bf16", "fp8"].includes(store.method));
    assert.ok(memory.window > 0 && memory.window < memory.payload);
    assert.ok(memory.effectiveBits < last.effectiveBits, `${store.method}: ${memory.effectiveBits} bits`);
    assert.ok(memory.resident < last.resident, `${store.method}: ${memory.resident} of ${last.resident}`);
    assert.ok(memory.resident >= memory.payload + memory.scales + memory.metadata + memory.dead);
    last = memory;
  }
  assert.ok(last.resident < 0.3 * whole.resident, `${last.resident} of ${whole.resident}`);
});

test("levels of a codebook take few bits, and no groups of entries", async () => {
  const [four, two] = [await memoryOf(turboquant()), await memoryOf(turboquant({ bits: 2 }))];
  assert.ok(
    two.effectiveBits < four.effectiveBits && four.effectiveBits < 9,
    `${two.effectiveBits}, ${four.effectiveBits}`,
  );
  assert.ok(two.scales === four.scales && two.dead === 0);
});

test("a store behind a method stores what the method leaves", async () => {
  const chosen = prefixkv({ keep: 0.4 });
  const alone = await memoryOf(chosen);
  const both = await memoryOf([chosen, int4({ window: 16 })]);
  assert.deepEqual(both.keptPerLayer, alone.keptPerLayer);
  assert.ok(both.resident < 0.6 * alone.resident, `${both.resident} of ${alone.resident}`);
  // Four bits and scales, but for the last entries.
  const encoded = both.payload - both.window + both.scales;
  assert.ok(encoded < 0.2 * (alone.payload - both.window), `${encoded} of ${alone.payload - both.window}`);
});

test("a store goes on from turn to turn of a chat", async () => {
  const chat = model.chat({ cache: [h2o({ keep: 0.5 }), int4({ window: 8, keys: "entry" })] });
  const first = await chat.send(messages[0]?.content ?? "");
  const second = await chat.send("And what else?");
  assert.ok(first.memory.effectiveBits < 20 && second.memory.effectiveBits < 20);
  assert.equal(second.memory.dead, 0);
  await chat.dispose();
});

test("what makes no sense is refused with the reason", async () => {
  const refused = async (cache: CacheOption, reason: RegExp) =>
    assert.rejects(
      async () => model.generate({ messages, cache, maxTokens: 1 }),
      (error) => error instanceof OptionError && reason.test(error.message),
    );
  await refused([int4(), int8()], /both say how entries are stored/);
  await refused([int4(), h2o({ keep: 0.5 })], /comes behind/);
  await refused([h2o({ keep: { bytes: "1MiB" } }), int4()], /keys: "entry"/);
  await refused(int4({ group: 20 }), /multiple of 8/);
  await refused(turboquant({ bits: 3 }), /2 or 4, found 3/);
});
