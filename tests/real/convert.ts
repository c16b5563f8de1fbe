// `convert.ts FILE.gguf FOLDER`: a Llama model of llama.cpp as Hugging Face has it, once for each file type, in FOLDER/{f32,f16,bf16}.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Gguf, type GgufTensor, type GgufValue } from "./gguf.ts";
import { type FileType, fileTypes, type Source, writeSafetensors } from "./safetensors.ts";
import { tokenizer, tokenizerConfig } from "./tokenizer.ts";

const layerNames: Record<string, string> = {
  attn_norm: "input_layernorm",
  attn_q: "self_attn.q_proj",
  attn_k: "self_attn.k_proj",
  attn_v: "self_attn.v_proj",
  attn_output: "self_attn.o_proj",
  ffn_norm: "post_attention_layernorm",
  ffn_gate: "mlp.gate_proj",
  ffn_up: "mlp.up_proj",
  ffn_down: "mlp.down_proj",
};
const otherNames: Record<string, string> = {
  "token_embd.weight": "model.embed_tokens.weight",
  "output_norm.weight": "model.norm.weight",
  "output.weight": "lm_head.weight",
};

/** Metadata of the architecture, as a number. */
function number(gguf: Gguf, key: string): number {
  const value = gguf.metadata.get(`llama.${key}`);
  if (typeof value !== "number") throw new Error(`the file does not say llama.${key}`);
  // A 32-bit float such as 1e-5 is written with the digits that it was meant to have.
  return Number(value.toPrecision(7));
}

function token(gguf: Gguf, key: string): GgufValue | undefined {
  return gguf.metadata.get(`tokenizer.ggml.${key}`);
}

function config(gguf: Gguf, type: FileType): object {
  return {
    architectures: ["LlamaForCausalLM"],
    attention_bias: false,
    bos_token_id: token(gguf, "bos_token_id"),
    dtype: { f32: "float32", f16: "float16", bf16: "bfloat16" }[type],
    eos_token_id: token(gguf, "eos_token_id"),
    hidden_act: "silu",
    hidden_size: number(gguf, "embedding_length"),
    intermediate_size: number(gguf, "feed_forward_length"),
    max_position_embeddings: number(gguf, "context_length"),
    mlp_bias: false,
    model_type: "llama",
    num_attention_heads: number(gguf, "attention.head_count"),
    num_hidden_layers: number(gguf, "block_count"),
    num_key_value_heads: number(gguf, "attention.head_count_kv"),
    pad_token_id: token(gguf, "padding_token_id"),
    rms_norm_eps: number(gguf, "attention.layer_norm_rms_epsilon"),
    rope_scaling: null,
    rope_theta: number(gguf, "rope.freq_base"),
    tie_word_embeddings: !gguf.tensors.some(({ name }) => name === "output.weight"),
    vocab_size: number(gguf, "vocab_size"),
  };
}

function source(gguf: Gguf, tensor: GgufTensor): Source {
  const [, layer, part] = tensor.name.match(/^blk\.(\d+)\.(\w+)\.weight$/) ?? [];
  const name = part ? layerNames[part] && `model.layers.${layer}.${layerNames[part]}.weight` : otherNames[tensor.name];
  if (!name) throw new Error(`no name is known for ${tensor.name}`);
  const heads = { attn_q: "attention.head_count", attn_k: "attention.head_count_kv" }[part ?? ""];
  const values = () => gguf.values(tensor);
  return {
    name,
    shape: tensor.shape,
    values: heads ? () => unpaired(values(), tensor.shape, number(gguf, heads)) : values,
  };
}

/**
 * The rows of each head in Hugging Face's order. llama.cpp turns neighbouring channels together and has its rows so; Hugging Face turns
 * channel c together with c + width/2.
 */
export function unpaired(
  values: Float32Array,
  [rows = 0, columns = 0]: readonly number[],
  heads: number,
): Float32Array {
  const out = new Float32Array(values.length);
  const half = rows / heads / 2;
  for (let head = 0; head < heads; head++) {
    for (let channel = 0; channel < 2 * half; channel++) {
      const to = head * 2 * half + channel;
      const from = head * 2 * half + 2 * (channel % half) + Math.floor(channel / half);
      out.set(values.subarray(from * columns, (from + 1) * columns), to * columns);
    }
  }
  return out;
}

export function convert(path: string, folder: string): void {
  const gguf = new Gguf(path);
  try {
    const architecture = gguf.metadata.get("general.architecture");
    if (architecture !== "llama") throw new Error(`${path} holds the architecture ${architecture}, not llama`);
    const tensors = gguf.tensors.map((tensor) => source(gguf, tensor));
    const { bos_token_id, eos_token_id, pad_token_id } = config(gguf, "f32") as Record<string, number>;
    for (const type of fileTypes) {
      const made = join(folder, type);
      mkdirSync(made, { recursive: true });
      const json = (name: string, value: object) =>
        writeFileSync(join(made, name), `${JSON.stringify(value, null, 2)}\n`);
      json("config.json", config(gguf, type));
      json("generation_config.json", { bos_token_id, eos_token_id, pad_token_id });
      json("tokenizer.json", tokenizer(gguf.metadata));
      json("tokenizer_config.json", tokenizerConfig(gguf.metadata));
      writeSafetensors(join(made, "model.safetensors"), type, tensors);
    }
  } finally {
    gguf.close();
  }
}

if (import.meta.main) {
  const [path, folder] = process.argv.slice(2);
  if (!path || !folder) throw new Error("convert.ts FILE.gguf FOLDER");
  convert(path, folder);
}
