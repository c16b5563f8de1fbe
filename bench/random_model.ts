// A model folder with random weights: any shape, the same bytes on every machine, and nothing to download. Speed does not depend
// on what the weights say, so it measures as well as a trained model of its shape.
import { copyFile, mkdir, open, rename, rm, stat, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

export interface Shape {
  hidden: number;
  intermediate: number;
  layers: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  vocabulary: number;
  maxPositions: number;
  ropeTheta: number;
}

export interface Writing {
  dtype: "f32" | "f16";
  seed: number;
  /** Standard deviation of the weights. */
  deviation: number;
}

export interface TensorPlan {
  name: string;
  shape: number[];
  kind: "norm" | "weight";
}

/** The shape of SmolLM2-135M. */
export const smol: Shape = {
  hidden: 576,
  intermediate: 1536,
  layers: 30,
  heads: 9,
  kvHeads: 3,
  headDim: 64,
  vocabulary: 49_152,
  maxPositions: 8192,
  ropeTheta: 100_000,
};

/** About the same number of weights per token, in multiples of the 256 columns that q4_k needs. */
export const even: Shape = { ...smol, hidden: 768, intermediate: 2048, layers: 12, heads: 12, kvHeads: 12 };

/** LLaVA-1.5's proportions in small: every query head has a KV head of its own. */
export const plain: Shape = {
  hidden: 512,
  intermediate: 1376,
  layers: 8,
  heads: 8,
  kvHeads: 8,
  headDim: 64,
  vocabulary: 1024,
  maxPositions: 8192,
  ropeTheta: 10_000,
};

/** The same depth with three query heads for each KV head. */
export const grouped: Shape = { ...plain, hidden: 576, heads: 9, kvHeads: 3 };

const writing: Writing = { dtype: "f16", seed: 1, deviation: 0.03 };
const here = new URL("../", import.meta.url);
const tokenizer = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"];

/** The tensors of a Llama model with tied embeddings, in the order of the file. */
export function tensors(shape: Shape): TensorPlan[] {
  const { hidden, intermediate, headDim } = shape;
  const weight = (name: string, rows: number, columns: number): TensorPlan => ({
    name: `model.${name}.weight`,
    shape: [rows, columns],
    kind: "weight",
  });
  const norm = (name: string): TensorPlan => ({ name: `model.${name}.weight`, shape: [hidden], kind: "norm" });
  const layer = (n: number): TensorPlan[] => [
    norm(`layers.${n}.input_layernorm`),
    weight(`layers.${n}.self_attn.q_proj`, shape.heads * headDim, hidden),
    weight(`layers.${n}.self_attn.k_proj`, shape.kvHeads * headDim, hidden),
    weight(`layers.${n}.self_attn.v_proj`, shape.kvHeads * headDim, hidden),
    weight(`layers.${n}.self_attn.o_proj`, hidden, shape.heads * headDim),
    norm(`layers.${n}.post_attention_layernorm`),
    weight(`layers.${n}.mlp.gate_proj`, intermediate, hidden),
    weight(`layers.${n}.mlp.up_proj`, intermediate, hidden),
    weight(`layers.${n}.mlp.down_proj`, hidden, intermediate),
  ];
  return [
    weight("embed_tokens", shape.vocabulary, hidden),
    ...Array.from({ length: shape.layers }, (_, n) => layer(n)).flat(),
    norm("norm"),
  ];
}

export function elements(plan: TensorPlan): number {
  return plan.shape.reduce((product, size) => product * size, 1);
}

/** The head of a safetensors file: eight bytes of length, then JSON padded to eight bytes. */
export function header(plans: readonly TensorPlan[], dtype: Writing["dtype"]): Uint8Array {
  let offset = 0;
  const entries = plans.map((plan) => {
    const begin = offset;
    offset += elements(plan) * bytesOf(dtype);
    return [plan.name, { dtype: dtype.toUpperCase(), shape: plan.shape, data_offsets: [begin, offset] }];
  });
  const json = JSON.stringify(Object.fromEntries(entries));
  const text = new TextEncoder().encode(json.padEnd(Math.ceil(json.length / 8) * 8));
  const bytes = new Uint8Array(8 + text.length);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true);
  bytes.set(text, 8);
  return bytes;
}

export function config(shape: Shape, dtype: Writing["dtype"]): Record<string, unknown> {
  return {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    hidden_size: shape.hidden,
    intermediate_size: shape.intermediate,
    num_hidden_layers: shape.layers,
    num_attention_heads: shape.heads,
    num_key_value_heads: shape.kvHeads,
    head_dim: shape.headDim,
    vocab_size: shape.vocabulary,
    max_position_embeddings: shape.maxPositions,
    rope_theta: shape.ropeTheta,
    rms_norm_eps: 1e-5,
    hidden_act: "silu",
    attention_bias: false,
    mlp_bias: false,
    tie_word_embeddings: true,
    bos_token_id: 1,
    eos_token_id: 2,
    pad_token_id: 3,
    torch_dtype: dtype === "f16" ? "float16" : "float32",
  };
}

/** Writes the model into `.cache/bench/<name>` unless it is there, and returns the folder. */
export async function randomModel(name: string, shape: Shape, options: Partial<Writing> = {}): Promise<string> {
  const folder = new URL(`.cache/bench/${name}/`, here);
  await writeModel(folder, shape, options);
  return fileURLToPath(folder);
}

/** Writes the model into a folder unless one of this shape is there. */
export async function writeModel(folder: URL, shape: Shape, options: Partial<Writing> = {}): Promise<void> {
  const { dtype, seed, deviation } = { ...writing, ...options };
  const plans = tensors(shape);
  const head = header(plans, dtype);
  const size = plans.reduce((sum, plan) => sum + elements(plan) * bytesOf(dtype), head.length);
  const file = new URL("model.safetensors", folder);
  if ((await stat(file).catch(() => undefined))?.size === size) return;
  await mkdir(folder, { recursive: true });
  for (const name of tokenizer) await copyFile(new URL(`models/tiny-llava/${name}`, here), new URL(name, folder));
  await writeFile(new URL("config.json", folder), `${JSON.stringify(config(shape, dtype), null, 2)}\n`);

  // A second process may read while this one writes: the file appears only when it is whole.
  const partial = new URL(`model.safetensors.${process.pid}`, folder);
  const handle = await open(partial, "w");
  try {
    await handle.write(head);
    const draw = normals(dtype, seed, deviation);
    for (const plan of plans) {
      const values = plan.kind === "norm" ? ones(dtype, elements(plan)) : draw(elements(plan));
      await handle.write(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    }
    await handle.close();
    await rename(partial, file);
  } catch (error) {
    await handle.close().catch(() => {});
    await rm(partial, { force: true });
    throw error;
  }
}

function bytesOf(dtype: Writing["dtype"]): number {
  return dtype === "f16" ? 2 : 4;
}

function bits(dtype: Writing["dtype"], values: Float32Array): Uint16Array | Uint32Array {
  const words = new Uint32Array(values.buffer);
  return dtype === "f32" ? words : Uint16Array.from(words, half);
}

function ones(dtype: Writing["dtype"], length: number): Uint16Array | Uint32Array {
  return bits(dtype, new Float32Array(length).fill(1));
}

/** The half that a normal single is rounded to, towards zero; too small ones become zero. */
export function half(word: number): number {
  const sign = (word >>> 16) & 0x8000;
  const exponent = ((word >>> 23) & 0xff) - 112;
  return exponent <= 0 ? sign : sign | (exponent << 10) | ((word >>> 13) & 0x3ff);
}

/** Draws from a table of 65,536 normal values, which is much faster than a logarithm for each weight. */
function normals(dtype: Writing["dtype"], seed: number, deviation: number): (n: number) => Uint16Array | Uint32Array {
  let state = seed >>> 0 || 1;
  const next = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
  const table = bits(
    dtype,
    Float32Array.from({ length: 1 << 16 }, () => {
      const radius = Math.sqrt(-2 * Math.log((next() + 1) / 2 ** 32));
      return deviation * radius * Math.cos((2 * Math.PI * next()) / 2 ** 32);
    }),
  );
  return (n) => {
    const values = dtype === "f16" ? new Uint16Array(n) : new Uint32Array(n);
    for (let i = 0; i < n; i += 1) values[i] = table[next() >>> 16] as number;
    return values;
  };
}
