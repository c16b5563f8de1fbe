"""Goldens of kinds of layers: layers that read the keys and values of another, a soft cap, YaRN, phases along three axes, and
entries that a method has freed.

The weights are those of fixtures; what is changed is the attention, or the family that reads them. Every row of logits comes from one
pass over the whole text, without a cache."""

import json

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLTextConfig
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLTextModel
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextModel

import models
from common import DATA, FIXTURES, relative, write_arrays, write_json

PROMPT, STEPS = 30, 8
CHANGED = {"sources": None, "softcap": None, "kept": None}
HELD = {}


def attend(module, query, key, value, mask, scaling, **kwargs):
    """Eager attention with a cap on the scores, with the keys and values of another layer, and, in layers without a window, with the first
    and the last of what lies before an answer alone."""
    layer, sources = module.layer_idx, CHANGED["sources"]
    HELD[layer] = (key, value)
    if sources is not None:
        key, value = HELD[sources[layer]]
    key = key.repeat_interleave(module.num_key_value_groups, 1)
    value = value.repeat_interleave(module.num_key_value_groups, 1)
    scores = query @ key.transpose(2, 3) * scaling
    cap = CHANGED["softcap"] or kwargs.get("softcap")
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    if CHANGED["kept"] is not None and kwargs.get("sliding_window") is None:
        first, last = CHANGED["kept"]
        row, entry = torch.arange(scores.shape[-2])[:, None], torch.arange(scores.shape[-1])
        scores = scores.masked_fill((row >= PROMPT) & (entry >= first) & (entry < row - last), -torch.inf)
    weights = (scores + mask[:, :, :, : key.shape[-2]]).softmax(-1)
    return (weights @ value).transpose(1, 2).contiguous(), weights


AttentionInterface.register("changed", attend)
AttentionMaskInterface.register("changed", eager_mask)


def tokens(seed):
    return torch.randint(0, 440, (PROMPT + STEPS,), generator=torch.Generator().manual_seed(seed)).tolist()


def weights(fixture):
    return {name: weight.float() for name, weight in load_file(FIXTURES / fixture / "model.safetensors").items()}


def decoder(fixture, changes=()):
    config = json.loads((FIXTURES / fixture / "config.json").read_text()) | dict(changes)
    model = models.DECODERS[config["model_type"]](AutoConfig.for_model(**config))
    model.load_state_dict(weights(fixture), strict=False)
    model.tie_weights()
    models.round_scale(getattr(torch, config["torch_dtype"]), model)
    model.set_attn_implementation("changed")
    return lambda ids: model.eval()(input_ids=torch.tensor([ids])).logits[0]


def placed(fixture, kind, rope):
    """The text model of a vision family with the weights of a text family."""
    config = json.loads((FIXTURES / fixture / "config.json").read_text())
    drop = ("model_type", "architectures", "layer_types", "use_sliding_window", "sliding_window", "max_window_layers", "torch_dtype")
    text = {name: value for name, value in config.items() if name not in drop}
    settings, build = (Qwen2VLTextConfig, Qwen2VLTextModel) if kind == "qwen2" else (Qwen3VLTextConfig, Qwen3VLTextModel)
    model = build(settings(**(text | {"rope_parameters": config["rope_parameters"] | rope})))
    held = weights(fixture)
    report = model.load_state_dict({name.removeprefix("model."): value for name, value in held.items() if name != "lm_head.weight"})
    assert not report.missing_keys and not report.unexpected_keys, report
    model.set_attn_implementation("eager")
    head = held.get("lm_head.weight", held["model.embed_tokens.weight"])

    def run(ids, phases):
        positions = torch.tensor(phases).T[:, None, :]
        return model.eval()(input_ids=torch.tensor([ids]), position_ids=positions).last_hidden_state[0] @ head.T

    return run


def phases():
    """A prompt of text, 3 x 4 cells, text and 2 x 2 cells, and what is generated behind it."""
    out, counter = [], 0
    for part in (5, (3, 4), 6, (2, 2), 3):
        if isinstance(part, int):
            out += [[counter + i] * 3 for i in range(part)]
            counter += part
        else:
            rows, columns = part
            out += [[counter, counter + row, counter + column] for row in range(rows) for column in range(columns)]
            counter += max(part)
    assert len(out) == PROMPT
    return out + [[counter + i] * 3 for i in range(STEPS)], counter


def main():
    cases, arrays = [], {}

    def add(name, fixture, config, ids, logits, **more):
        arrays[name] = logits[PROMPT - 1 :].detach().float().numpy()
        cases.append({"name": name, "fixture": relative(FIXTURES / fixture), "config": config, "prompt": PROMPT, "tokens": ids, **more})

    for name, fixture, sources, cap in (
        ("shared", "qwen2-mixed", [0, 0, 2, 2], None),
        ("shared-far", "mistral-window", [0, 1, 0], None),
        ("softcap", "qwen3-norms", None, 1.5),
        ("shared-softcap", "qwen3-norms", [0, 0], 0.7),
    ):
        CHANGED["sources"], CHANGED["softcap"] = sources, cap
        changes = {"kv_sources": sources} if sources else {}
        changes |= {"attn_logit_softcapping": cap} if cap else {}
        ids = tokens(len(name))
        add(name, fixture, changes, ids, decoder(fixture)(ids))
    CHANGED["sources"], CHANGED["softcap"] = None, None
    yarn = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}
    for name, fixture, more in (
        ("yarn", "qwen2-mixed", {}),
        ("yarn-ramp", "qwen3-norms", {"rope_theta": 50.0, "beta_fast": 3.0, "truncate": False, "attention_factor": 1.3}),
        ("yarn-mscale", "mistral-window", {"factor": 8.0, "mscale": 0.8, "mscale_all_dim": 0.3}),
    ):
        changes = {"rope_parameters": yarn | more}
        ids = tokens(len(name))
        add(name, fixture, changes, ids, decoder(fixture, changes)(ids))
    for name, fixture in (("evicted-caps", "gemma2-caps"), ("evicted-local", "gemma3-local")):
        # A cap in entries counts the token that is being read, so 7 before it.
        CHANGED["kept"] = (4, 7)
        ids = tokens(len(name))
        method = {"method": "streaming", "sinks": 4, "keep": {"tokens": 12}}
        add(name, fixture, {}, ids, decoder(fixture)(ids), method=method)
    CHANGED["kept"] = None
    for name, fixture, kind, rope in (
        ("sections", "qwen2-mixed", "qwen2", {"mrope_section": [2, 3, 3]}),
        ("sections-interleaved", "qwen3-norms", "qwen3", {"mrope_section": [6, 5, 5], "mrope_interleaved": True}),
    ):
        all_phases, advance = phases()
        ids = tokens(len(name))
        config = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, **rope}, "use_sliding_window": False}
        logits = placed(fixture, kind, rope)(ids, all_phases)
        add(name, fixture, config | {"layer_types": None}, ids, logits, phases=all_phases[:PROMPT], advance=advance)
    write_json(DATA / "layers.json", {"cases": cases})
    write_arrays(DATA / "layers.safetensors", arrays)


if __name__ == "__main__":
    main()
