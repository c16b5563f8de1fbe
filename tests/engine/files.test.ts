// Model folders as strangers make them, through the public API: what they hold is refused by name at load, and what a model computes
// from them is a number or an error.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { copyFile, cp, mkdtemp, readFile, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import {
  image,
  inspect,
  type LoadOptions,
  load,
  type Model,
  ModelError,
  PrefixKvError,
  prefixkv,
  UnsupportedModelError,
} from "../../ts/index.ts";
import { root } from "../runtimes/spawn.ts";

const fixtures = join(root, "tests", "golden", "fixtures");
const picture = join(fixtures, "images", "square-168.png");
let folder: string;
let copies = 0;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "prefixkv-files-"));
});
after(() => rm(folder, { recursive: true }));

async function copy(fixture: string): Promise<string> {
  const dir = join(folder, `${copies++}`);
  await cp(join(fixtures, fixture), dir, { recursive: true });
  return dir;
}

/** A copy of a fixture with another config.json. */
async function configured(fixture: string, change: (config: Record<string, unknown>) => object): Promise<string> {
  const dir = await copy(fixture);
  const config = JSON.parse(await readFile(join(dir, "config.json"), "utf8"));
  await writeFile(join(dir, "config.json"), JSON.stringify({ ...config, ...change(config) }));
  return dir;
}

type Header = Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;

/** Changes the header of model.safetensors, and the bytes behind it. */
async function rewrite(dir: string, change: (header: Header, data: Buffer) => void): Promise<void> {
  const path = join(dir, "model.safetensors");
  const file = await readFile(path);
  const start = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, start)) as Header;
  const data = file.subarray(start);
  change(header, data);
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  await writeFile(path, Buffer.concat([length, text, data]));
}

/** Writes one 16-bit number to every place of a tensor. */
const fill = (dir: string, tensor: string, bits: number): Promise<void> =>
  rewrite(dir, (header, data) => {
    const [from, to] = header[tensor]?.data_offsets ?? [0, 0];
    assert.ok(to > from, tensor);
    for (let at = from; at < to; at += 2) data.writeUInt16LE(bits, at);
  });

async function withModel<T>(dir: string | URL, options: LoadOptions, use: (model: Model) => Promise<T>): Promise<T> {
  const model = await load(dir, options);
  try {
    return await use(model);
  } finally {
    await model.dispose();
  }
}

const scored = (model: Model) => model.score({ prompt: "USER: hi", answer: " ok" });

async function refusal(dir: string, options: LoadOptions = {}): Promise<PrefixKvError> {
  const outcome = await load(dir, options).then(
    async (model) => model.dispose(),
    (error: unknown) => error,
  );
  assert.ok(outcome instanceof PrefixKvError, `it loads: ${dir}`);
  return outcome;
}

test("both spellings of a rope section load, as in transformers", async () => {
  const rope = { type: "linear", rope_type: "linear", factor: 4 };
  const answers: number[][] = [];
  for (const change of [
    () => ({ rope_scaling: rope }),
    () => ({ rope_parameters: rope, rope_scaling: null }),
    () => ({ rope_scaling: { ...rope, type: "dynamic" } }),
    () => ({ rope_scaling: { rope_type: "linear", factor: 4 } }),
  ]) {
    const dir = await configured("llama-linear-tied", change);
    answers.push(
      await withModel(dir, {}, async (model) => (await model.generate({ prompt: "a b c", maxTokens: 4 })).tokens),
    );
  }
  for (const answer of answers) assert.deepEqual(answer, answers[0]);
});

test("a quantised checkpoint is named with its format and what to do", async () => {
  const layers = /^language_model\.model\.layers.*weight$/;
  const matrices = (change: (name: string, info: Header[string], header: Header) => void) => (header: Header) => {
    for (const [name, info] of Object.entries(header)) {
      if (layers.test(name) && info.shape.length === 2) change(name, info, header);
    }
  };
  const elements = ({ data_offsets: [from, to] }: Header[string]): number => to - from;
  for (const [config, change, named] of [
    [
      { quantization_config: { quant_method: "bitsandbytes", load_in_4bit: true } },
      matrices((_, info) => Object.assign(info, { dtype: "U8", shape: [elements(info), 1] })),
      /bitsandbytes, 4 bit/,
    ],
    [{}, matrices((_, info) => Object.assign(info, { dtype: "U8", shape: [elements(info), 1] })), /bitsandbytes/],
    [
      { quantization_config: { quant_method: "gptq", bits: 4 } },
      matrices((name, info, header) => {
        delete header[name];
        header[name.replace(/weight$/, "qweight")] = { ...info, dtype: "I32", shape: [elements(info) / 4] };
      }),
      /GPTQ, 4 bit/,
    ],
    [
      {},
      matrices((name, info, header) => {
        delete header[name];
        header[name.replace(/weight$/, "qweight")] = { ...info, dtype: "I32", shape: [elements(info) / 4] };
      }),
      /AWQ or GPTQ/,
    ],
    [
      { quantization_config: { quant_method: "fp8" } },
      matrices((_, info) => Object.assign(info, { dtype: "F8_E4M3", shape: [elements(info)] })),
      /FP8/,
    ],
    [
      { quantization_config: { quant_method: "awq", bits: 4 } },
      () => {},
      /AWQ, 4 bit.*dense.*remove `quantization_config`/,
    ],
    [{ quantization_config: { quant_method: "fp8" } }, () => {}, /FP8.*dense/],
  ] as [object, (header: Header) => void, RegExp][]) {
    const dir = await configured("llava-gqa64", () => config);
    await rewrite(dir, change);
    const error = await refusal(dir);
    assert.ok(error instanceof UnsupportedModelError, error.message);
    assert.match(error.message, named);
    assert.match(error.message, /q4_k/);
  }
  const elsewhere = await configured("llava-gqa64", () => ({ transformers_weights: "other.safetensors" }));
  assert.match((await refusal(elsewhere)).message, /names `other\.safetensors` as its weights/);
  // An empty section asks for nothing.
  const dir = await configured("llava-gqa64", () => ({ quantization_config: null }));
  await (await load(dir)).dispose();
});

test("a fault of a file is told with the name of that file", async () => {
  for (const [name, content, said] of [
    ["generation_config.json", '{ "eos_token_id": "2" }', /eos_token_id/],
    ["generation_config.json", "[", /JSON/],
    ["preprocessor_config.json", '{ "image_mean": 1e39 }', /image_mean/],
    ["preprocessor_config.json", '{ "image_std": 1e-45 }', /image_std/],
    ["preprocessor_config.json", '{ "rescale_factor": 1e39 }', /rescale_factor/],
    ["preprocessor_config.json", '{ "size": 28, "crop_size": 28 }', /28 x 28/],
    ["processor_config.json", '{ "image_processor": { "size": 28, "crop_size": 28 } }', /28 x 28/],
    ["processor_config.json", '{ "image_processor": { "image_std": 0 } }', /image_std/],
  ] as const) {
    const dir = await copy("llava-gqa64");
    await writeFile(join(dir, name), content);
    const error = await refusal(dir);
    assert.deepEqual([error.code, error.details.path], ["model-file", join(dir, name)], error.message);
    assert.match(error.message, said);
  }
  for (const eps of [-1, 0, 1e-60, 5]) {
    const dir = await configured("llava-gqa64", ({ vision_config }) => ({
      vision_config: { ...(vision_config as object), layer_norm_eps: eps },
    }));
    assert.match((await refusal(dir)).message, /config\.json: `vision_config\.layer_norm_eps` is/);
  }
});

test("what is no plain file is refused at once, and never waited for", { timeout: 120_000 }, async () => {
  for (const name of [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
    "model.safetensors",
  ]) {
    for (const [kind, make] of [
      ["a FIFO", async (path: string) => void execFileSync("mkfifo", [path])],
      ["a device", (path: string) => symlink("/dev/zero", path)],
      [
        "more than",
        async (path: string) => {
          await writeFile(path, "");
          await truncate(path, 3 * 2 ** 30);
        },
      ],
    ] as [string, (path: string) => Promise<void>][]) {
      // Read lazily behind another source of the template; weights have no limit but their header's.
      if (name === "model.safetensors" && kind === "more than") continue;
      const dir = await copy("llava-gqa64");
      await rm(join(dir, "chat_template.json"), { force: true });
      await rm(join(dir, name), { force: true });
      await make(join(dir, name));
      const started = performance.now();
      const error = await refusal(dir, { signal: AbortSignal.timeout(20_000) });
      assert.ok(error instanceof ModelError, error.message);
      assert.ok(error.message.includes(name) && error.message.includes(kind), `${name} ${kind}: ${error.message}`);
      assert.ok(performance.now() - started < 10_000, name);
    }
  }
});

test("a left-over index hides no weights, and a GGUF file is read as one", async () => {
  const stale = await copy("llava-gqa64");
  await writeFile(
    join(stale, "model.safetensors.index.json"),
    JSON.stringify({ weight_map: { a: "model-00001-of-00002.safetensors" } }),
  );
  await (await load(stale)).dispose();
  const only = await copy("llava-gqa64");
  await rm(join(only, "model.safetensors"));
  const gguf = join(only, "model-Q4_K_M.gguf");
  await writeFile(gguf, "GGUF");
  for (const source of [only, gguf]) {
    const error = await refusal(source);
    assert.match(error.message, /model-Q4_K_M\.gguf: truncated: its 4 bytes end within the header/);
    assert.doesNotMatch(error.message, /pickle/);
  }
  await copyFile(join(fixtures, "gguf", "llama-mixed.gguf"), gguf);
  for (const source of [only, gguf, pathToFileURL(gguf)]) {
    for (const map of [true, false]) {
      await withModel(source, { map }, async (model) => {
        assert.deepEqual([model.info.source, model.info.weights], [gguf, "stored"]);
        const { tokens } = await model.generate({ prompt: "hello", maxTokens: 3, ignoreEos: true });
        assert.equal(tokens.length, 3);
      });
    }
  }
  for (const map of [true, false]) {
    const cut = join(only, `cut-${map}.gguf`);
    await copyFile(gguf, cut);
    await withModel(cut, { map }, async (model) => {
      await truncate(cut, 100);
      const answer = Promise.resolve(model.generate({ prompt: "hello", maxTokens: 3, ignoreEos: true }));
      if (map) await assert.rejects(answer, ModelError);
      else assert.equal((await answer).tokens.length, 3);
    });
  }
  const { architecture, weightBytes } = await inspect(gguf);
  assert.equal(architecture, "LlamaForCausalLM");
  await withModel(gguf, { weights: "f16" }, async ({ info }) => assert.ok(info.weightBytes > weightBytes));
});

test("a number that is none, or that a format cannot hold, is an error at load", async () => {
  const tensor = "language_model.model.layers.0.mlp.down_proj.weight";
  for (const [bits, code, formats] of [
    [0x7fc0, "model-file", ["f32", "f16", "q8_0", "q4_k"]],
    [0x7f80, "model-file", ["f32", "f16", "q8_0", "q4_k"]],
    [0x47c3, "numbers", ["f16"]],
  ] as const) {
    const dir = await copy("llava-head128");
    await fill(dir, tensor, bits);
    for (const weights of formats) {
      const error = await refusal(dir, { weights });
      assert.equal(error.code, code, error.message);
      assert.ok(error.message.includes(tensor) && error.message.includes("model.safetensors"), error.message);
    }
    if (code !== "numbers") continue;
    assert.deepEqual((await refusal(dir, { weights: "f16" })).details.fits, ["f32", "q8_0", "q4_k"]);
    for (const weights of ["f32", "q8_0"] as const) {
      const { logprobs, ppl } = await withModel(dir, { weights }, scored);
      assert.ok([...logprobs, ppl].every(Number.isFinite), weights);
    }
  }
});

/** Every way to have a model compute something. */
function calls(model: Model): Record<string, () => Promise<unknown>> {
  const prompt = "USER: hi";
  const messages = [{ role: "user" as const, content: [image(picture), "What is it?"] }];
  return {
    generate: async () => model.generate({ prompt, maxTokens: 4 }),
    messages: async () => model.generate({ messages, maxTokens: 4 }),
    "at random": async () => model.generate({ prompt, maxTokens: 4, temperature: 1, seed: 1 }),
    score: () => model.score({ prompt, answer: " ok" }),
    kl: () => model.score({ prompt, answer: " ok", kl: true }),
    cached: () => model.score({ prompt, answer: " ok", cache: prefixkv({ keep: 0.5 }) }),
    trace: () => model.trace({ prompt, maxTokens: 4 }),
    calibrate: () => model.calibrate({ method: prefixkv(), samples: [{ messages }] }),
    chat: async () => model.chat().send("hi", { maxTokens: 4 }),
  };
}

test("what is no number while a model runs ends every call with one typed error", async () => {
  for (const [fixture, tensor, bits, weights, said] of [
    // 3e38 in bf16: what follows overflows f32.
    ["llava-head128", "language_model.model.norm.weight", 0x7f61, "f32", /logits/],
    ["llava-head128", "language_model.model.layers.0.post_attention_layernorm.weight", 0x7f61, "f32", /layer 1|logits/],
    // 30,000 in f16: keys and values past an f16 cache.
    ["llava-gqa64", "language_model.model.layers.0.self_attn.k_proj.weight", 0x7753, "f16", /keys of layer 0 reach/],
    ["llava-gqa64", "language_model.model.layers.1.self_attn.v_proj.weight", 0x7753, "q8_0", /values of layer 1 reach/],
    ["llava-gqa64", "language_model.model.layers.1.self_attn.v_proj.weight", 0x7753, "q4_k", /values of layer 1 reach/],
  ] as const) {
    const dir = await copy(fixture);
    await fill(dir, tensor, bits);
    await withModel(dir, { weights }, async (model) => {
      for (const [name, call] of Object.entries(calls(model))) {
        const outcome = await call().catch((error: unknown) => error);
        assert.ok(outcome instanceof ModelError, `${tensor} ${weights} ${name}: ${JSON.stringify(outcome)}`);
        assert.equal(outcome.code, "numbers");
        assert.match(outcome.message, said);
        assert.doesNotMatch(outcome.message, /report it/);
      }
    });
    if (weights === "f32") continue;
    const { logprobs, ppl } = await withModel(dir, { weights: "f32" }, scored);
    assert.ok([...logprobs, ppl].every(Number.isFinite));
  }
});
