"""Builds fixtures/llama-planted: a random Llama whose attention lands on known positions, different ones in each layer.

A token is of one kind at most; kind l carries a marker channel that only layer l's keys read, and layer l's keys turn
it into the direction u. A constant channel of every embedding becomes u in all queries, so that every query looks for
the markers. u lies in the two slowest RoPE pairs and so hardly turns over a prompt. Nothing writes to these channels
after the embedding, so the markers reach the last layer; all other channels are as random as in any fixture."""

import json
import math
import shutil

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from common import FIXTURES
from models import values
from tokens import BYTE_LEVEL, save, wrap

FOLDER = FIXTURES / "llama-planted"
SEED = 6
HIDDEN, HEAD, LENGTH = 48, 32, 700
COUNTS = [40, 120, 4, 300, 2, 12]
"""important positions per layer, besides the first token, which is a sink in all of them"""
QUIET_TAIL = 150
"""last prompt positions without important ones: few queries would see those, so their score would be small"""
CONSTANT, SINK, MARKERS, FREE = 0, 1, 2, 8
"""channels: the constant, the first token's mark, one marker per layer, then the free ones"""
LOUD = 3.0
DIRECTION = [14, 15, 30, 31]
OUTLIERS = {12: 9.0, 21: -7.0, 29: 12.0}
"""key channel of a head -> about which value it has in every key"""
TAILS = [1e-2, 4e-3, 2e-5, 1e-3, 1e-4, 2.5e-2]
"""about which share of a layer's attention falls on all other positions"""
BOS, VOCAB = 256, 262
KINDS = [range(16 * layer, 16 * layer + 16) for layer in range(len(COUNTS))]
PLAIN = range(96, 256)


def config():
    return LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=len(COUNTS),
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=HEAD,
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        bos_token_id=BOS,
        eos_token_id=260,
        tie_word_embeddings=False,
    )


def build():
    """The model in f32, its values already rounded to f16."""
    model = LlamaForCausalLM(config())
    draw = torch.Generator().manual_seed(SEED)
    for name, weight in model.named_parameters():
        weight.copy_(values(name, weight.shape, draw, 1.0))
    embedding = model.model.embed_tokens.weight
    embedding[:, FREE:] *= 0.7
    embedding[:, :FREE] = 0
    embedding[:, CONSTANT] = LOUD
    embedding[BOS, SINK] = LOUD
    for layer, kind in enumerate(KINDS):
        embedding[list(kind), MARKERS + layer] = LOUD
    for number, layer in enumerate(model.model.layers):
        plant(layer, number)
    model.model.norm.weight[:FREE] = 0.1
    model.lm_head.weight.mul_(2)
    for weight in model.parameters():
        weight.copy_(weight.half())
    model.set_attn_implementation("eager")
    return model.eval()


def plant(layer, number):
    attention, mlp = layer.self_attn, layer.mlp
    layer.input_layernorm.weight[:FREE] = 1
    for weight in (attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight):
        weight[:, :FREE] = 0
    attention.q_proj.weight.mul_(0.4)
    attention.k_proj.weight.mul_(0.4)
    for weight in (attention.o_proj.weight, mlp.down_proj.weight):
        weight.mul_(0.4)
        weight[:FREE] = 0
    normed = LOUD / (0.85 + 0.045 * number)  # by the hidden states' root mean square, which grows
    query = 8.0
    above = math.log(LENGTH / COUNTS[number] / TAILS[number])  # important logits above the others
    key = above * math.sqrt(HEAD) / query
    for channel in DIRECTION:
        share = 1 / math.sqrt(len(DIRECTION))
        attention.q_proj.weight[channel::HEAD, CONSTANT] = query * share / normed
        attention.k_proj.weight[channel::HEAD, [SINK, MARKERS + number]] = key * share / normed
    for channel, value in OUTLIERS.items():
        attention.k_proj.weight[channel::HEAD, CONSTANT] = value / normed


def prompt(number):
    """(token ids, important positions of each layer)."""
    draw = torch.Generator().manual_seed(100 + number)
    pick = lambda ids: ids[int(torch.randint(len(ids), (1,), generator=draw))]
    places = (torch.randperm(LENGTH - 1 - QUIET_TAIL, generator=draw) + 1).tolist()
    ids = [BOS] + [pick(PLAIN) for _ in range(LENGTH - 1)]
    important = []
    for kind, count in zip(KINDS, COUNTS):
        chosen, places = sorted(places[:count]), places[count:]
        important.append(chosen)
        for place in chosen:
            ids[place] = pick(kind)
    return ids, important


def answer(number, length=40):
    return torch.randint(256, (length,), generator=torch.Generator().manual_seed(200 + number)).tolist()


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    model = build()
    weights = {name: weight.detach().half().contiguous() for name, weight in model.named_parameters()}
    save_file(weights, FOLDER / "model.safetensors", {"format": "pt"})
    settings = model.config.to_diff_dict() | {"architectures": ["LlamaForCausalLM"], "torch_dtype": "float16"}
    for key in ("dtype", "_name_or_path"):
        settings.pop(key, None)
    (FOLDER / "model.safetensors").chmod(0o644)
    (FOLDER / "config.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    tokenizer = wrap(BYTE_LEVEL, vocab=VOCAB)
    assert len(tokenizer) == VOCAB and tokenizer.bos_token_id == BOS and tokenizer.eos_token_id == 260
    save(tokenizer, FOLDER)


if __name__ == "__main__":
    main()
