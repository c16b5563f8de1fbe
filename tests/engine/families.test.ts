// The families beside LLaVA, and layers that differ, through the ordinary `load`.
import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import {
  about,
  h2o,
  image,
  inspect,
  load,
  type Model,
  OptionError,
  PromptError,
  prefixkv,
  visionZip,
} from "../../ts/index.ts";

const fixture = (name: string): string => fileURLToPath(new URL(`../golden/fixtures/${name}`, import.meta.url));
const prompt = "There is a green star at the top left and a blue ring at the bottom. ".repeat(4);
const families: Record<string, string> = {
  MistralForCausalLM: "mistral-window",
  MinistralForCausalLM: "ministral-types",
  Qwen2ForCausalLM: "qwen2-mixed",
  Qwen3ForCausalLM: "qwen3-norms",
  SmolLM3ForCausalLM: "smollm3-nope",
  Phi3ForCausalLM: "phi3-fused",
  Gemma2ForCausalLM: "gemma2-caps",
  Gemma3ForCausalLM: "gemma3-local",
};

let folder: string;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "prefixkv-families-"));
});

after(() => rm(folder, { recursive: true }));

async function using<T>(path: string, work: (model: Model) => Promise<T>): Promise<T> {
  const model = await load(path);
  try {
    return await work(model);
  } finally {
    await model.dispose();
  }
}

for (const [architecture, name] of Object.entries(families)) {
  test(`${architecture} loads, generates and takes a method`, async () => {
    assert.ok((await about()).architectures.includes(architecture));
    assert.equal((await inspect(fixture(name))).architecture, architecture);
    await using(fixture(name), async (model) => {
      assert.deepEqual([model.info.architecture, model.info.image], [architecture, null]);
      const options = { prompt, maxTokens: 12, ignoreEos: true };
      const full = await model.generate(options);
      assert.equal(full.tokens.length, 12);
      assert.deepEqual((await model.generate({ ...options, cache: prefixkv({ keep: 1 }) })).tokens, full.tokens);
      const half = await model.generate({ ...options, cache: h2o({ keep: 0.5 }) });
      assert.ok(half.memory.payload < 0.8 * half.memory.full, JSON.stringify(half.memory));
    });
  });
}

const inTiles = {
  SmolVLMForConditionalGeneration: { name: "smolvlm-tiles", cells: 4 },
  Idefics3ForConditionalGeneration: { name: "idefics3-plain", cells: 1 },
};

for (const [architecture, { name, cells }] of Object.entries(inTiles)) {
  test(`${architecture} sees pictures in tiles`, async () => {
    const picture = fileURLToPath(new URL("../golden/fixtures/images/photo-300x200.png", import.meta.url));
    const info = await inspect(fixture(name), { picture: { width: 300, height: 200 } });
    assert.deepEqual([info.architecture, info.image?.tokens], [architecture, null]);
    const counted = info.image?.picture;
    assert.ok(counted && counted.marks > counted.pieces.length);
    assert.deepEqual(
      counted.pieces.map(({ tokens }) => tokens),
      counted.pieces.map(() => cells),
    );
    await using(fixture(name), async (model) => {
      assert.deepEqual(await model.imageTokens(300, 200), counted);
      const messages = [{ role: "user", content: [image(picture), "What is in the picture?"] }];
      const { usage } = await model.generate({ messages, maxTokens: 4, ignoreEos: true });
      assert.equal(usage.imageTokens, counted.tokens);
      const without = await model.generate({
        messages: [{ role: "user", content: "What is in the picture?" }],
        maxTokens: 1,
      });
      const around = usage.promptTokens - usage.imageTokens - without.usage.promptTokens;
      // Marks may merge with what stands beside them.
      assert.ok(Math.abs(around - counted.marks) <= 2, `${around} tokens for ${counted.marks} marks`);
      const half = await model.generate({ messages, maxTokens: 4, ignoreEos: true, cache: prefixkv({ keep: 0.5 }) });
      assert.ok(half.memory.payload < 0.7 * half.memory.full, JSON.stringify(half.memory));
      const zipped = model.generate({ messages, cache: visionZip() });
      await assert.rejects(
        async () => await zipped,
        (error) => error instanceof OptionError && /no class token/.test(error.message),
      );
      const { images, spans } = await model.trace({ messages, maxTokens: 1 });
      assert.equal(images.length, 2);
      const positions = spans.flatMap(({ modality, start, len }) =>
        modality.type === "image" ? Array.from({ length: len }, (_, at) => start + at) : [],
      );
      assert.deepEqual(
        images.flatMap((grid) => grid.cells).sort((a, b) => a - b),
        positions,
      );
      assert.deepEqual(
        images.map(({ tiles }) => tiles),
        [counted.pieces.length - 1, 1],
      );
    });
  });
}

test("a text model counts no pictures", async () => {
  await using(fixture("qwen3-norms"), async (model) => {
    await assert.rejects(model.imageTokens(10, 10), PromptError);
    await assert.rejects(model.imageTokens(0, 10), OptionError);
    await assert.rejects(model.imageTokens(10.5, 10), OptionError);
  });
  const info = await inspect(fixture("qwen3-norms"), { picture: { width: 8, height: 8 } });
  assert.equal(info.image, null);
});

test("every architecture is in docs/models.md, and none but these", async () => {
  const text = await readFile(new URL("../../docs/models.md", import.meta.url), "utf8");
  const named = [...text.matchAll(/^\| `(\w+)` \|/gm)].map(([, name]) => name);
  assert.deepEqual(named.sort(), [...(await about()).architectures].sort());
});

test("layers with a window are left to it, also by a calibration", async () => {
  await using(fixture("qwen2-mixed"), async (model) => {
    const calibration = await model.calibrate({ method: prefixkv(), samples: [{ prompt }], keeps: [0.5] });
    assert.deepEqual([calibration.model.layers, calibration.rows[0]?.retained.length], [2, 2]);
    const { memory, usage } = await model.generate({
      prompt,
      maxTokens: 4,
      ignoreEos: true,
      cache: prefixkv({ calibration }),
    });
    assert.ok((memory.keptPerLayer[0] ?? 0) < usage.promptTokens);
    assert.deepEqual(memory.keptPerLayer.slice(2), [10, 10]);
    const trace = await model.trace({ prompt, maxTokens: 2, cache: prefixkv({ keep: 0.5 }) });
    assert.deepEqual(
      trace.layers.map(({ importance }) => importance.length),
      [usage.promptTokens, usage.promptTokens, 0, 0],
    );
  });
});

test("a chat with layers that read those of others is forked", async () => {
  const path = join(folder, "shared");
  await cp(fixture("qwen2-mixed"), path, { recursive: true });
  const config = JSON.parse(await readFile(join(path, "config.json"), "utf8"));
  await writeFile(join(path, "config.json"), JSON.stringify({ ...config, kv_sources: [0, 0, 2, 2] }));
  await using(path, async (model) => {
    const own = await inspect(fixture("qwen2-mixed"));
    assert.equal(model.info.kvBytesPerToken, own.kvBytesPerToken / 2);
    const options = { maxTokens: 6, ignoreEos: true };
    for (const kind of [{}, { cache: prefixkv({ keep: 0.5 }) }]) {
      const alone = async (question: string): Promise<string[]> => {
        const chat = model.chat(kind);
        const first = await chat.send(prompt, options);
        const second = await chat.send(question, options);
        await chat.dispose();
        return [first.text, second.text];
      };
      const [left, right] = [await alone("What is green?"), await alone("What is blue, and where?")];
      const chat = model.chat(kind);
      assert.equal((await chat.send(prompt, options)).text, left[0]);
      const other = await chat.fork();
      assert.equal((await other.send("What is blue, and where?", options)).text, right[1]);
      const { text, memory } = await chat.send("What is green?", options);
      assert.equal(text, left[1]);
      // The first layers share theirs; the others have left what both had behind their window.
      assert.ok((memory.keptPerLayer[0] ?? 0) > 0 && memory.keptPerLayer[1] === 0);
      await other.dispose();
      await chat.dispose();
    }
  });
});
