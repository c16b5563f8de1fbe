"""A Llama of LLaVA-1.5-7B's widths, two layers deep, whose weights anyone can compute: nothing to store but the answer.

Element i (row-major, from 0) of the tensor called n, all integers modulo 2^64:

    seed = FNV-1a-64 of n's bytes (offset 0xcbf29ce484222325, prime 0x100000001b3)
    z = seed + (i + 1) * 0x9e3779b97f4a7c15
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb
    u = z ^ (z >> 31)
    x = (f32(u >> 40) / 2^24 - 0.5) * 2          exact in f32, in [-1, 1)

A norm's weight is f16(1 + 0.1f32 * x), any other f16(scale * x): f32 operations, then f32 to f16 to nearest even.
scale is f32(factor * sqrt(3 / inputs)) with inputs = 1 for the embedding and the row length otherwise, and factor 4 for
lm_head and 1 otherwise; the goldens list it per tensor, with a checksum of the f16 bits."""

import math

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from common import DATA, greedy, write_arrays, write_json

MASK = (1 << 64) - 1
CHUNK = 1 << 22
TOKENS = 8
PROMPT = [(37 * k * k + 11 * k + 5) % 1024 for k in range(24)]
CONFIG = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 2,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "head_dim": 128,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "max_position_embeddings": 4096,
    "vocab_size": 1024,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def fnv1a(name):
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = (value ^ byte) * 0x100000001B3 & MASK
    return value


def noise(name, start, stop):
    """x for the elements start..stop."""
    z = np.arange(start + 1, stop + 1, dtype=np.uint64)
    z *= np.uint64(0x9E3779B97F4A7C15)
    z += np.uint64(fnv1a(name))
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    unit = (z >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)
    return (unit - np.float32(0.5)) * np.float32(2)


def scale_of(name, shape):
    inputs = 1 if "embed_tokens" in name else shape[-1]
    factor = 4 if "lm_head" in name else 1
    return np.float32(factor * math.sqrt(3 / inputs))


def fill(name, weight):
    """Writes the tensor; returns what a reader needs to check its own generator."""
    flat, norm = weight.view(-1), weight.dim() == 1
    scale = np.float32(0.1) if norm else scale_of(name, weight.shape)
    first, total = None, 0
    for start in range(0, flat.numel(), CHUNK):
        stop = min(start + CHUNK, flat.numel())
        values = noise(name, start, stop) * scale
        half = (np.float32(1) + values if norm else values).astype(np.float16)
        bits = half.view(np.uint16)
        first = bits[:4].tolist() if first is None else first
        total += int(bits.sum(dtype=np.uint64))
        flat[start:stop] = torch.from_numpy(half.astype(np.float32))
    return {"shape": list(weight.shape), "scale": float(scale), "first_bits": first, "sum_of_bits": total}


def main():
    with torch.device("meta"):
        model = LlamaForCausalLM._from_config(LlamaConfig(**CONFIG), attn_implementation="eager")
    model = model.float().to_empty(device="cpu").eval()
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    tensors = {name: fill(name, weight) for name, weight in model.named_parameters()}
    logits, ids, steps = greedy(model, {"input_ids": torch.tensor([PROMPT])}, TOKENS)
    golden = {"config": CONFIG, "input_ids": PROMPT, "tokens": ids, "steps": steps, "tensors": tensors}
    write_arrays(DATA / "wide.safetensors", {"logits": logits})
    write_json(DATA / "wide.json", golden)


if __name__ == "__main__":
    main()
