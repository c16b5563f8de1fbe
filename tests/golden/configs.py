"""Configurations that transformers reads from config.json files as they lie on the hub: sparse, old, new, and with parts missing."""

import tempfile
from pathlib import Path

from transformers import AutoConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from common import DATA, write_json

VICUNA_7B = {
    "_name_or_path": "lmsys/vicuna-7b-v1.5",
    "architectures": ["LlamaForCausalLM"],
    "max_position_embeddings": 4096,
    "model_type": "llama",
    "rms_norm_eps": 1e-05,
    "torch_dtype": "float16",
    "vocab_size": 32064,
}
VICUNA_13B = VICUNA_7B | {
    "_name_or_path": "lmsys/vicuna-13b-v1.5",
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_attention_heads": 40,
    "num_hidden_layers": 40,
    "num_key_value_heads": 40,
}
CLIP_336 = {
    "hidden_size": 1024,
    "image_size": 336,
    "intermediate_size": 4096,
    "model_type": "clip_vision_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "projection_dim": 768,
    "vocab_size": 32000,
}
LLAVA_7B = {
    "architectures": ["LlavaForConditionalGeneration"],
    "ignore_index": -100,
    "image_token_index": 32000,
    "model_type": "llava",
    "pad_token_id": 32001,
    "projector_hidden_act": "gelu",
    "text_config": VICUNA_7B,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.36.0.dev0",
    "vision_config": CLIP_336,
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "vocab_size": 32064,
}
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "max_position_embeddings": 2048,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 22,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 32000,
}
# As configuration classes of transformers 4.4x save what they have read in the old spelling.
LINEAR_BOTH = {"type": "linear", "rope_type": "linear", "factor": 4.0}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
LLAMA3_SCALING = {
    "factor": 32.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}


def without(config, *keys):
    return {key: value for key, value in config.items() if key not in keys}


CONFIGS = {
    "llava-1.5-7b-hf": LLAVA_7B,
    "llava-1.5-13b-hf": LLAVA_7B | {"text_config": VICUNA_13B},
    "llava-image-token-id": without(LLAVA_7B, "image_token_index") | {"image_token_id": 31999},
    "llava-both-image-tokens": LLAVA_7B | {"image_token_id": 31999},
    "llava-no-image-token": without(LLAVA_7B, "image_token_index"),
    "llava-no-vision-config": without(LLAVA_7B, "vision_config"),
    "llava-no-text-config": without(LLAVA_7B, "text_config"),
    "llava-only-model-type": {"model_type": "llava"},
    "llava-sparse-vision": LLAVA_7B | {"vision_config": {"model_type": "clip_vision_model"}},
    "llava-untyped-parts": LLAVA_7B | {"vision_config": {"image_size": 224}, "text_config": {"vocab_size": 32064}},
    "llava-tied-inside": without(LLAVA_7B, "tie_word_embeddings")
    | {"text_config": VICUNA_7B | {"tie_word_embeddings": True}},
    "llava-tied-disagree": LLAVA_7B | {"text_config": VICUNA_7B | {"tie_word_embeddings": True}},
    "llava-tied-outside": LLAVA_7B | {"tie_word_embeddings": True},
    "llava-feature-layers": LLAVA_7B | {"vision_feature_layer": [-2, 5], "vision_feature_select_strategy": "full"},
    "llava-eos-outside": LLAVA_7B | {"eos_token_id": 7, "bos_token_id": 6},
    "llama-rope-theta": LLAMA | {"rope_theta": 500000.0},
    "llama-rope-parameters": without(LLAMA, "rope_scaling")
    | {"rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"}},
    "llama-rope-both": LLAMA | {"rope_theta": 20000.0, "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"}},
    "llama-rope-llama3": LLAMA
    | {"rope_theta": 500000.0, "rope_scaling": LLAMA3_SCALING, "head_dim": 64, "max_position_embeddings": 131072}
    | {"eos_token_id": [128001, 128008, 128009], "bos_token_id": 128000, "tie_word_embeddings": True},
    "llama-rope-linear": LLAMA | {"rope_scaling": {"type": "linear", "factor": 4.0}},
    "llama-rope-linear-new": without(LLAMA, "rope_scaling")
    | {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}},
    "llama-rope-dynamic": LLAMA | {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
    "llama-rope-both-spellings": LLAMA | {"rope_scaling": LINEAR_BOTH},
    "llama-rope-both-spellings-new": without(LLAMA, "rope_scaling") | {"rope_parameters": LINEAR_BOTH},
    "llama-rope-spellings-disagree": LLAMA | {"rope_scaling": LINEAR_BOTH | {"type": "dynamic"}},
    "llama-rope-spellings-default": LLAMA | {"rope_scaling": {"type": "linear", "rope_type": "default", "factor": 4.0}},
    "llama-rope-both-sections": LLAMA
    | {"rope_scaling": LINEAR_BOTH, "rope_parameters": {"rope_type": "linear", "factor": 8.0, "rope_theta": 20000.0}},
    "llama-rope-empty-scaling": LLAMA | {"rope_scaling": {}, "rope_parameters": {"rope_type": "linear", "factor": 8.0}},
    "llama-rope-empty-parameters": LLAMA | {"rope_scaling": LINEAR_BOTH, "rope_parameters": {}},
    "llama-rope-three-thetas": LLAMA
    | {"rope_theta": 20000.0, "rope_scaling": LINEAR_BOTH | {"rope_theta": 30000.0}}
    | {"rope_parameters": {"rope_type": "default", "rope_theta": 40000.0}},
    "llama-rope-llama3-both-spellings": LLAMA | {"rope_theta": 500000.0, "rope_scaling": LLAMA3_SCALING | {"type": "llama3"}},
    "llama-rope-llama3-no-original": LLAMA
    | {"rope_theta": 500000.0, "rope_scaling": without(LLAMA3_SCALING, "original_max_position_embeddings")},
    "llama-rope-llama3-original-outside": LLAMA
    | {"rope_theta": 500000.0, "rope_scaling": LLAMA3_SCALING, "original_max_position_embeddings": 4096},
    "llava-rope-both-spellings": LLAVA_7B | {"text_config": VICUNA_7B | {"rope_scaling": LINEAR_BOTH}},
    "llava-rope-both-sections": LLAVA_7B
    | {"rope_scaling": LINEAR_BOTH | {"factor": 16.0}, "rope_theta": 70000.0}
    | {"text_config": VICUNA_7B | {"rope_parameters": LINEAR_BOTH, "rope_theta": 20000.0}},
    "llama-rope-yarn": LLAMA | {"max_position_embeddings": 131072, "rope_scaling": YARN},
    "llama-rope-yarn-exact": LLAMA | {"rope_scaling": YARN | {"truncate": False, "beta_fast": 16, "beta_slow": 2, "factor": 10.0}},
    "llama-rope-no-theta": without(LLAMA, "rope_scaling") | {"rope_parameters": {"rope_type": "default"}},
    "llama-no-kv-heads": without(LLAMA, "num_key_value_heads"),
    "llama-null-kv-heads": LLAMA | {"num_key_value_heads": None, "head_dim": None},
    "llama-only-model-type": {"model_type": "llama"},
}


def frequencies(text):
    """The first, the middle and the last frequency of rotary embedding, within the positions that the model was made for."""
    every = LlamaRotaryEmbedding(text).inv_freq.tolist()
    return [every[0], every[len(every) // 2], every[-1]]


def resolved(config):
    text = config.get_text_config()
    out = {
        "model_type": config.model_type,
        "hidden_size": text.hidden_size,
        "intermediate_size": text.intermediate_size,
        "num_hidden_layers": text.num_hidden_layers,
        "num_attention_heads": text.num_attention_heads,
        "num_key_value_heads": text.num_key_value_heads,
        "head_dim": text.head_dim,
        "hidden_act": text.hidden_act,
        "rms_norm_eps": text.rms_norm_eps,
        "rope": text.rope_parameters,
        "frequencies": frequencies(text),
        "max_position_embeddings": text.max_position_embeddings,
        "vocab_size": text.vocab_size,
        "tie_word_embeddings": config.tie_word_embeddings,
        "attention_bias": text.attention_bias,
        "mlp_bias": text.mlp_bias,
        "bos_token_id": text.bos_token_id,
        "eos_token_id": text.eos_token_id,
    }
    if config.model_type != "llava":
        return out
    vision = config.vision_config
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size")
    names += ("num_channels", "hidden_act", "layer_norm_eps")
    outer = ("image_token_index", "projector_hidden_act", "multimodal_projector_bias")
    outer += ("vision_feature_layer", "vision_feature_select_strategy")
    return out | {name: getattr(config, name) for name in outer} | {"vision": {name: getattr(vision, name) for name in names}}


def read(value):
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / "config.json", value)
        return AutoConfig.from_pretrained(folder)


def main():
    for name, value in CONFIGS.items():
        try:
            outcome = {"resolved": resolved(read(value))}
        except Exception as error:  # whatever stops transformers is the golden
            outcome = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        write_json(DATA / "configs" / f"{name}.json", {"config": value} | outcome)


if __name__ == "__main__":
    main()
