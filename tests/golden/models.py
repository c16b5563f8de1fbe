"""Builds the small random checkpoints under fixtures/: one folder per way in which real checkpoints differ.

Weights are drawn by hand rather than by transformers' initialiser, which leaves every bias at zero and every norm at
one and so would hide a forgotten one. The seeds are chosen (`generate.py --search`) so that greedy decoding wanders
over many tokens and no step is a near-tie."""

import json
import shutil
import sys
from dataclasses import dataclass, field

import torch
from safetensors.torch import save_file
from transformers import (
    CLIPImageProcessorPil,
    AutoConfig,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    MinistralForCausalLM,
    MistralForCausalLM,
    Phi3ForCausalLM,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
    SmolLM3ForCausalLM,
    VipLlavaConfig,
    VipLlavaForConditionalGeneration,
)

from common import FIXTURES
from templates import LLAMA3, LLAVA, VICUNA
from tokens import BYTE_LEVEL, METASPACE, SENTENCEPIECE, save, wrap

DECODERS = {
    "llama": LlamaForCausalLM,
    "mistral": MistralForCausalLM,
    "ministral": MinistralForCausalLM,
    "qwen2": Qwen2ForCausalLM,
    "qwen3": Qwen3ForCausalLM,
    "smollm3": SmolLM3ForCausalLM,
    "phi3": Phi3ForCausalLM,
    "gemma2": Gemma2ForCausalLM,
    "gemma3_text": Gemma3ForCausalLM,
}
IMAGE = {BYTE_LEVEL: 447, METASPACE: 478, SENTENCEPIECE: 478}
HUB, SAVED, FLAT, RUNTIME = "hub", "saved", "flat", "runtime"


@dataclass
class Fixture:
    name: str
    seed: int
    tokenizer: str
    dtype: torch.dtype
    text: dict
    vision: dict | None = None
    llava: dict = field(default_factory=dict)
    names: str = HUB
    template: tuple[str, str] | None = None
    """(where it is kept: "tokenizer", "json" or "jinja"; the template)"""
    shards: int = 1
    minimal: tuple[str, ...] = ()
    """config keys that stay; empty: what transformers writes"""
    nested_processor: bool = False
    """one processor_config.json that holds the image processor too, as transformers 5 saves"""
    gain: float = 1.4
    cases: tuple[str, ...] = ()
    """those of `generate.py` that it has; empty: all"""
    vip: bool = False
    """ViP-LLaVA: a norm before the projector"""

    @property
    def seeing(self):
        return (VipLlavaForConditionalGeneration, VipLlavaConfig) if self.vip else (LlavaForConditionalGeneration, LlavaConfig)

    @property
    def folder(self):
        return FIXTURES / self.name


def clip(**changed):
    base = {"model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3}
    return base | {"num_attention_heads": 2, "image_size": 56, "patch_size": 14, "projection_dim": 32} | changed


def llama(**changed):
    base = {"model_type": "llama", "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3}
    return base | {"num_attention_heads": 4, "num_key_value_heads": 4, "rms_norm_eps": 1e-5} | changed


ALL = [
    Fixture(
        "llava-gqa64",
        2,
        SENTENCEPIECE,
        torch.float16,
        llama(hidden_size=24, num_attention_heads=6, num_key_value_heads=2, head_dim=64, num_hidden_layers=2, intermediate_size=64),
        clip(),
        names=HUB,
        template=("json", LLAVA),
    ),
    Fixture(
        "llava-head128",
        0,
        METASPACE,
        torch.bfloat16,
        llama(hidden_size=32, num_attention_heads=2, num_key_value_heads=1, head_dim=128, num_hidden_layers=2, tie_word_embeddings=True),
        clip(image_size=70, hidden_act="gelu", layer_norm_eps=1e-6),
        {"vision_feature_select_strategy": "full"},
        names=SAVED,
        template=("jinja", VICUNA),
        nested_processor=True,
        gain=2.0,
    ),
    Fixture(
        "llava-layers-sharded",
        3,
        SENTENCEPIECE,
        torch.float32,
        llama(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_key_value_heads=2),
        clip(hidden_size=24, patch_size=16, image_size=64, intermediate_size=48),
        {"vision_feature_layer": [-2, 1, -1], "multimodal_projector_bias": False},
        names=RUNTIME,
        template=("tokenizer", VICUNA),
        shards=4,
    ),
    Fixture(
        "llava-bare",
        0,
        SENTENCEPIECE,
        torch.float16,
        llama(hidden_size=48, intermediate_size=80, num_hidden_layers=3, rms_norm_eps=1e-6),
        clip(hidden_size=16, intermediate_size=32, num_attention_heads=4, image_size=42),
        {"vision_feature_layer": -2},
        names=FLAT,
        minimal=("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size")
        + ("image_token_index", "model_type", "text_config", "vision_config", "projection_dim", "vocab_size"),
    ),
    Fixture(
        "vip-llava",
        0,
        SENTENCEPIECE,
        torch.float16,
        llama(hidden_size=24, num_attention_heads=3, num_key_value_heads=3, intermediate_size=48, num_hidden_layers=2),
        clip(hidden_size=16, intermediate_size=32, num_hidden_layers=4),
        {"vision_feature_layer": [-2, -3, 1], "projector_layernorm_eps": 1e-3},
        names=HUB,
        cases=("image", "two-images"),
        template=("json", LLAVA),
        vip=True,
    ),
    Fixture(
        "llava-mistral",
        4,
        METASPACE,
        torch.bfloat16,
        llama(model_type="mistral", hidden_size=32, num_key_value_heads=2, intermediate_size=48, num_hidden_layers=2, sliding_window=None),
        clip(hidden_size=16, intermediate_size=32),
        names=HUB,
        cases=("image", "two-images"),
        template=("jinja", VICUNA),
    ),
    Fixture(
        "llava-phi3",
        1,
        SENTENCEPIECE,
        torch.float16,
        llama(
            model_type="phi3",
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            sliding_window=20,
            pad_token_id=None,
            bos_token_id=None,
            eos_token_id=None,
        ),
        clip(hidden_size=16, intermediate_size=32),
        names=HUB,
        cases=("image", "two-images"),
        template=("json", LLAVA),
    ),
    Fixture(
        "llama3-rope",
        0,
        BYTE_LEVEL,
        torch.bfloat16,
        llama(
            attention_bias=True,
            mlp_bias=True,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=256,
            bos_token_id=442,
            eos_token_id=[443, 446],
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": 500.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        ),
        template=("tokenizer", LLAMA3),
    ),
    Fixture(
        "llama-linear-tied",
        1,
        METASPACE,
        torch.float32,
        llama(
            hidden_size=32,
            num_hidden_layers=2,
            num_key_value_heads=1,
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
        ),
        shards=2,
        gain=2.0,
    ),
    Fixture(
        "mistral-window",
        1,
        BYTE_LEVEL,
        torch.float16,
        llama(model_type="mistral", num_key_value_heads=2, head_dim=16, intermediate_size=64, sliding_window=12),
    ),
    Fixture(
        "ministral-types",
        1,
        BYTE_LEVEL,
        torch.float16,
        llama(
            model_type="ministral",
            num_key_value_heads=2,
            head_dim=16,
            intermediate_size=64,
            sliding_window=9,
            layer_types=["full_attention", "sliding_attention", "sliding_attention"],
        ),
    ),
    Fixture(
        "qwen2-mixed",
        1,
        BYTE_LEVEL,
        torch.float16,
        llama(
            model_type="qwen2",
            hidden_size=64,
            num_key_value_heads=2,
            intermediate_size=64,
            num_hidden_layers=4,
            use_sliding_window=True,
            sliding_window=10,
            max_window_layers=2,
            tie_word_embeddings=True,
        ),
        gain=2.0,
    ),
    Fixture(
        "qwen3-norms",
        0,
        BYTE_LEVEL,
        torch.float16,
        llama(model_type="qwen3", num_key_value_heads=2, head_dim=32, intermediate_size=64, num_hidden_layers=2),
    ),
    Fixture(
        "smollm3-nope",
        0,
        BYTE_LEVEL,
        torch.float16,
        llama(
            model_type="smollm3",
            hidden_size=64,
            num_key_value_heads=2,
            intermediate_size=64,
            num_hidden_layers=4,
            no_rope_layer_interval=2,
            pad_token_id=None,
            bos_token_id=None,
            eos_token_id=None,
        ),
        gain=2.0,
    ),
    Fixture(
        "phi3-fused",
        1,
        BYTE_LEVEL,
        torch.float16,
        llama(
            model_type="phi3",
            hidden_size=32,
            num_key_value_heads=2,
            intermediate_size=48,
            num_hidden_layers=2,
            sliding_window=14,
            pad_token_id=None,
            bos_token_id=None,
            eos_token_id=None,
        ),
    ),
    Fixture(
        "phi3-long",
        0,
        BYTE_LEVEL,
        torch.float16,
        llama(
            model_type="phi3",
            hidden_size=64,
            num_key_value_heads=2,
            intermediate_size=48,
            num_hidden_layers=2,
            max_position_embeddings=1024,
            original_max_position_embeddings=256,
            partial_rotary_factor=0.75,
            rope_scaling={"type": "longrope", "short_factor": [1.0, 1.1, 1.3, 1.6, 2.0, 2.5], "long_factor": [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]},
            pad_token_id=None,
            bos_token_id=None,
            eos_token_id=None,
        ),
    ),
    Fixture(
        "gemma2-caps",
        0,
        BYTE_LEVEL,
        torch.float16,
        llama(
            model_type="gemma2",
            hidden_size=32,
            num_key_value_heads=2,
            head_dim=16,
            intermediate_size=64,
            num_hidden_layers=4,
            sliding_window=10,
            query_pre_attn_scalar=24,
            attn_logit_softcapping=3.0,
            final_logit_softcapping=25.0,
            tie_word_embeddings=False,
        ),
        gain=2.0,
    ),
    Fixture(
        "gemma3-local",
        83,
        BYTE_LEVEL,
        torch.bfloat16,
        llama(
            model_type="gemma3_text",
            hidden_size=48,
            num_key_value_heads=2,
            head_dim=16,
            intermediate_size=64,
            num_hidden_layers=7,
            sliding_window=8,
            query_pre_attn_scalar=24,
            rope_scaling={"rope_type": "linear", "factor": 8.0},
        ),
        gain=2.0,
    ),
]
DEEP = Fixture(
    "llama-deep",
    0,
    BYTE_LEVEL,
    torch.float16,
    llama(hidden_size=32, num_key_value_heads=2, intermediate_size=48, num_hidden_layers=14, tie_word_embeddings=True),
    gain=1.1,
)
"""Many layers for `sharing.py`, without a golden of its own"""


def vocabulary(fixture):
    return {BYTE_LEVEL: 448, METASPACE: 480, SENTENCEPIECE: 480}[fixture.tokenizer]


def special_ids(fixture):
    return list(range(442, 448)) if fixture.tokenizer == BYTE_LEVEL else [0, 1, 2, 478, 479]


def build(fixture, seed=None):
    """The model in f32, its values already rounded to the fixture's storage type."""
    text = fixture.text | {"vocab_size": vocabulary(fixture)}
    if fixture.vision is None:
        model = DECODERS[text["model_type"]](AutoConfig.for_model(**text))
    else:
        token = {"image_token_index": IMAGE[fixture.tokenizer]}
        kind, config = fixture.seeing
        model = kind(config(vision_config=fixture.vision, text_config=text, **token, **fixture.llava))
    draw = torch.Generator().manual_seed(fixture.seed if seed is None else seed)
    for name, weight in model.named_parameters():
        made = values(name, weight.shape, draw, fixture.gain)
        if text["model_type"].startswith("gemma"):
            if "norm" in name:  # whose weights lack one
                made -= 1.0
            if "post_" in name:  # else the embeddings, which are multiplied, would drown what layers add
                made += 1.5
            if "embed_tokens" in name:
                made *= 0.2
        weight.copy_(made.to(fixture.dtype))
    round_scale(fixture.dtype, model)
    if not model.config.tie_word_embeddings:  # louder, so that near-ties are rare; special tokens quieter
        model.lm_head.weight.mul_(3)
        model.lm_head.weight[special_ids(fixture)] *= 0.0625
        model.lm_head.weight.copy_(model.lm_head.weight.to(fixture.dtype))
    model.tie_weights()
    model.set_attn_implementation("eager")
    return model.eval()


def round_scale(dtype, model):
    """Gemma's factor of embeddings as a model has it that is loaded in the type of its file."""
    table = model.get_input_embeddings()
    if hasattr(table, "embed_scale"):
        table.embed_scale = table.embed_scale.to(dtype).float()


def values(name, shape, draw, gain):
    noise = torch.randn(shape, generator=draw)
    if "norm" in name or "layrnorm" in name:
        return noise * 0.15 + (1.0 if name.endswith("weight") else 0.0)
    if name.endswith("bias"):
        return noise * 0.2
    if "embed" in name and "patch" not in name:
        return noise * (1.0 if "embed_tokens" in name else 0.4)
    fan_in = torch.Size(shape[1:]).numel()
    return noise * gain / fan_in**0.5


def renamed(name, layout):
    """transformers 5 runs with `model.language_model.layers`, `model.vision_tower.encoder`, `lm_head`.

    hub: as llava-hf's files; saved: what save_pretrained of transformers 5 writes for a new model; flat: what 4.52 and
    later wrote with `model.`; runtime: as in memory."""
    if layout == RUNTIME:
        return name
    if layout in (HUB, FLAT):
        name = name.replace("vision_tower.", "vision_tower.vision_model.")
    if layout in (HUB, SAVED):
        name = name.replace("model.language_model.", "language_model.model.").replace("lm_head.", "language_model.lm_head.")
        name = name.removeprefix("model.")
    return name


def save_weights(fixture, model):
    weights = {name: weight.detach().to(fixture.dtype).contiguous() for name, weight in model.named_parameters()}
    if fixture.vision is not None:
        weights = {renamed(name, fixture.names): weight for name, weight in weights.items()}
    if fixture.shards == 1:
        save_file(weights, fixture.folder / "model.safetensors", {"format": "pt"})
        return
    names, index = sorted(weights), {}
    size = -(-len(names) // fixture.shards)
    for shard in range(fixture.shards):
        file = f"model-{shard + 1:05}-of-{fixture.shards:05}.safetensors"
        part = {name: weights[name] for name in names[shard * size : (shard + 1) * size]}
        save_file(part, fixture.folder / file, {"format": "pt"})
        index |= dict.fromkeys(part, file)
    total = sum(weight.nbytes for weight in weights.values())
    write(fixture, "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": index})


def save_config(fixture, model):
    dtype = str(fixture.dtype).removeprefix("torch.")
    config = model.config.to_diff_dict() | {"architectures": [type(model).__name__]}
    for part in (config, config.get("text_config"), config.get("vision_config")):
        if part:
            part.pop("dtype", None)
            part.pop("_name_or_path", None)
    if fixture.minimal:
        config = only(config, fixture.minimal)
    elif fixture.names in (HUB, SAVED):
        config["torch_dtype"] = dtype
    else:
        config["dtype"] = dtype
    if fixture.name == "llama-linear-tied":  # the spelling before transformers 5
        rope = config.pop("rope_parameters")
        config |= {"rope_theta": rope["rope_theta"], "rope_scaling": {"type": "linear", "factor": rope["factor"]}}
    if fixture.name == "gemma3-local":  # as on the hub: no types of layers, and what the class assumes is left out
        config.pop("layer_types")
        config["rope_scaling"] = config.pop("rope_parameters")["full_attention"]
        config["rope_scaling"].pop("rope_theta")
        assumed = type(model.config)().to_dict()
        config = {key: value for key, value in config.items() if key == "model_type" or assumed.get(key, ...) != value}
    write(fixture, "config.json", config)


def only(config, keys):
    kept = {key: value for key, value in config.items() if key in keys}
    return {key: only(value, keys) if isinstance(value, dict) else value for key, value in kept.items()}


def save_processor(fixture):
    tokenizer = wrap(fixture.tokenizer)
    where, template = fixture.template or (None, None)
    if where == "tokenizer":
        tokenizer.chat_template = template
    save(tokenizer, fixture.folder)
    (fixture.folder / "chat_template.jinja").unlink(missing_ok=True)
    if where == "tokenizer":  # as checkpoints before transformers 5 keep it
        settings = json.loads((fixture.folder / "tokenizer_config.json").read_text())
        write(fixture, "tokenizer_config.json", settings | {"chat_template": template})
    if where == "json":
        write(fixture, "chat_template.json", {"chat_template": template})
    if where == "jinja":
        (fixture.folder / "chat_template.jinja").write_text(template)
    if fixture.vision is None:
        return
    side = fixture.vision["image_size"]
    image = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    strategy = fixture.llava.get("vision_feature_select_strategy", "default")
    processor = LlavaProcessor(
        image,
        tokenizer,
        patch_size=fixture.vision["patch_size"],
        vision_feature_select_strategy=strategy,
        num_additional_image_tokens=1,
    )
    settings = processor.to_dict()
    settings.pop("tokenizer", None)
    if not fixture.nested_processor:
        settings.pop("image_processor")
        write(fixture, "preprocessor_config.json", image.to_dict() | {"processor_class": "LlavaProcessor"})
    write(fixture, "processor_config.json", settings)


def write(fixture, file, value):
    (fixture.folder / file).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main(chosen=()):
    for fixture in [one for one in [*ALL, DEEP] if not chosen or one.name in chosen]:
        shutil.rmtree(fixture.folder, ignore_errors=True)
        fixture.folder.mkdir(parents=True)
        model = build(fixture)
        save_weights(fixture, model)
        save_config(fixture, model)
        save_processor(fixture)


if __name__ == "__main__":
    main(sys.argv[1:])
