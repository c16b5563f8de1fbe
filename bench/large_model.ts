// A GGUF file of the shape of Llama 2 7B with random blocks in Q4_K, for what memory large files take: nothing that it says has a meaning.
import { closeSync, existsSync, mkdirSync, openSync, renameSync } from "node:fs";
import { dirname } from "node:path";
import { Gguf, type GgufValue } from "../tests/real/gguf.ts";
import { encode } from "../tests/real/safetensors.ts";
import { GgufBytes, padded, type ValueKind, writeAll } from "./peers/gguf_bytes.ts";

const shape = { layers: 32, hidden: 4096, inner: 11008, heads: 32, context: 4096 };
/** Numbers and bytes of a block of Q4_K. */
const [numbers, bytes] = [256, 144];
const kinds = { f32: 0, q4_k: 12 };

interface Tensor {
  name: string;
  /** The row's length first, as GGUF has it. */
  shape: number[];
  kind: keyof typeof kinds;
}

/** Writes the file unless it is there; the vocabulary is taken from the GGUF file `vocabulary`. */
export function largeModel(path: string, vocabulary: string): void {
  if (existsSync(path)) return;
  const source = new Gguf(vocabulary);
  const words = source.metadata;
  source.close();
  const size = (words.get("tokenizer.ggml.tokens") as GgufValue[]).length;
  const tensors = tensorsOf(size);
  const out = new GgufBytes();
  out.u32(0x46554747).u32(3).u64(tensors.length);
  const entries = metadata(words);
  out.u64(entries.length);
  for (const [key, kind, value] of entries) out.text(key).value(kind, value);
  let at = 0;
  for (const tensor of tensors) {
    out.tensor(tensor.name, tensor.shape, kinds[tensor.kind], at);
    at += padded(sizeOf(tensor));
  }
  mkdirSync(dirname(path), { recursive: true });
  const partial = `${path}.partial`;
  const file = openSync(partial, "w");
  try {
    const head = out.all();
    writeAll(file, head, padded(head.length));
    const blocks = randomBlocks(2 ** 16);
    for (const tensor of tensors) writeTensor(file, tensor, blocks);
  } finally {
    closeSync(file);
  }
  renameSync(partial, path);
}

const count = ({ shape }: Tensor): number => shape.reduce((product, length) => product * length, 1);
const sizeOf = (tensor: Tensor): number =>
  tensor.kind === "f32" ? 4 * count(tensor) : (count(tensor) / numbers) * bytes;

function tensorsOf(words: number): Tensor[] {
  const { hidden, inner, layers } = shape;
  const matrix = (name: string, from: number, to: number): Tensor => ({ name, shape: [from, to], kind: "q4_k" });
  const norm = (name: string): Tensor => ({ name, shape: [hidden], kind: "f32" });
  const layer = (index: number): Tensor[] => {
    const named = (name: string): string => `blk.${index}.${name}.weight`;
    return [
      norm(named("attn_norm")),
      ...["attn_q", "attn_k", "attn_v", "attn_output"].map((name) => matrix(named(name), hidden, hidden)),
      norm(named("ffn_norm")),
      matrix(named("ffn_gate"), hidden, inner),
      matrix(named("ffn_up"), hidden, inner),
      matrix(named("ffn_down"), inner, hidden),
    ];
  };
  return [
    matrix("token_embd.weight", hidden, words),
    ...Array.from({ length: layers }, (_, index) => layer(index)).flat(),
    norm("output_norm.weight"),
    matrix("output.weight", hidden, words),
  ];
}

type Entry = [key: string, kind: ValueKind, value: GgufValue];

function metadata(words: ReadonlyMap<string, GgufValue>): Entry[] {
  const { hidden, inner, layers, heads, context } = shape;
  const own: Entry[] = [
    ["general.architecture", "text", "llama"],
    ["general.name", "text", "random 7B"],
    ["llama.block_count", "u32", layers],
    ["llama.context_length", "u32", context],
    ["llama.embedding_length", "u32", hidden],
    ["llama.feed_forward_length", "u32", inner],
    ["llama.attention.head_count", "u32", heads],
    ["llama.attention.head_count_kv", "u32", heads],
    ["llama.attention.layer_norm_rms_epsilon", "f32", 1e-5],
    ["llama.rope.freq_base", "f32", 10000],
    ["llama.rope.dimension_count", "u32", hidden / heads],
  ];
  const kindOf = (value: GgufValue): Entry[1] => {
    if (typeof value === "string") return "text";
    if (typeof value === "boolean") return "bool";
    if (Array.isArray(value)) return typeof value[0] === "string" ? "texts" : "i32s";
    return "u32";
  };
  const taken = [...words].filter(([key]) => key.startsWith("tokenizer."));
  return [...own, ...taken.map(([key, value]): Entry => [key, kindOf(value), value])];
}

/** Blocks whose numbers are even around zero, with a standard deviation near 0.02. */
function randomBlocks(many: number): Uint8Array {
  const step = 1.36e-4;
  // All sixteen scales and minima are 32 of 63, so a number is 32 * step * (q - 7.5).
  const head = [...encode(Float32Array.of(step, 7.5 * step), "f16"), ...new Array(8).fill(160), 0, 0, 0, 0];
  const out = new Uint8Array(many * bytes);
  // Any cheap noise will do.
  let state = 1;
  for (let block = 0; block < many; block += 1) {
    out.set(head, block * bytes);
    for (let at = head.length; at < bytes; at += 1) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      out[block * bytes + at] = state >>> 24;
    }
  }
  return out;
}

function writeTensor(file: number, tensor: Tensor, blocks: Uint8Array): void {
  if (tensor.kind === "f32") {
    writeAll(file, encode(new Float32Array(count(tensor)).fill(1), "f32"), padded(sizeOf(tensor)));
    return;
  }
  let left = sizeOf(tensor);
  // Tensors begin at different blocks, so that no two are alike.
  let from = ([...tensor.name].reduce((sum, letter) => 31 * sum + letter.charCodeAt(0), 7) % 4096) * bytes;
  while (left > 0) {
    const part = blocks.subarray(from, Math.min(blocks.length, from + left));
    writeAll(file, part, part.length);
    left -= part.length;
    from = 0;
  }
  writeAll(file, new Uint8Array(0), padded(sizeOf(tensor)) - sizeOf(tensor));
}
