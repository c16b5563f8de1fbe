"""Small random checkpoints of LLaVA-NeXT and LLaVA-OneVision under fixtures/, and a LLaVA-Interleave, which is a LLaVA with their parts.
`anyres.py --search` finds their seeds."""

import json
import shutil
import sys
from dataclasses import dataclass

import torch
from safetensors.torch import save_file
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
)

import qwen_vl_models
import tokens
from common import FIXTURES
from models import HUB, RUNTIME, renamed, values
from qwen_vl_models import VOCAB

QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"]
MISTRAL = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' }}"
    "{# Render all images first #}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{# Render all text next #}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] }}{% endfor %}"
    "{{ ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'][0]['text'] + '</s> ' }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
# As on the hub: a space behind the role, not a line end.
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ '\n' + content['text'] }}{% endfor %}"
    "{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass
class Anyres:
    name: str
    seed: int
    model: type
    config: dict
    processor: dict
    """of the pictures"""
    template: str
    names: str
    gain: float = 1.6

    @property
    def folder(self):
        return FIXTURES / self.name

    def qwen(self):
        return self.config["text_config"]["model_type"] == "qwen2"

    def vocabulary(self):
        return VOCAB if self.qwen() else 480

    def image_token(self):
        return VOCAB - len(QWEN) + QWEN.index("<image>") if self.qwen() else 478

    def tower(self):
        return self.config["vision_config"]

    def side(self):
        return self.tower()["image_size"] // self.tower()["patch_size"]

    def class_token(self):
        return self.tower()["model_type"] == "clip_vision_model"


def tower(kind, size, **changed):
    base = {"model_type": f"{kind}_vision_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    return base | {"num_attention_heads": 2, "image_size": size, "patch_size": 8} | changed


def text(kind, **changed):
    base = {"model_type": kind, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    return base | {"num_key_value_heads": 2, "max_position_embeddings": 2048} | changed


def multiples(tile, *sizes):
    return [[tile * down, tile * across] for down, across in sizes]


NEXT = multiples(32, (1, 2), (2, 1), (2, 2), (3, 1), (1, 3))
GRANITE = multiples(28, (1, 1), (1, 2), (2, 1), (2, 2))
ONEVISION = [[40 * down, 40 * across] for down in range(1, 4) for across in range(1, 4)]
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
ALL = [
    Anyres(
        "llava-next",
        6,
        LlavaNextForConditionalGeneration,
        {
            "vision_config": tower("clip", 32, num_hidden_layers=3, projection_dim=32),
            "text_config": text("mistral", head_dim=16, sliding_window=None, rope_parameters={"rope_type": "default", "rope_theta": 1e6}),
            "image_grid_pinpoints": NEXT,
        },
        {
            "image_processor_type": "LlavaNextImageProcessor",
            "size": {"shortest_edge": 32},
            "crop_size": {"height": 32, "width": 32},
            "image_grid_pinpoints": NEXT,
        },
        MISTRAL,
        HUB,
    ),
    Anyres(
        "llava-next-siglip",
        2,
        LlavaNextForConditionalGeneration,
        {
            "vision_config": tower("siglip", 28),
            "text_config": text("llama", hidden_size=32, num_hidden_layers=2),
            "image_grid_pinpoints": GRANITE,
            "vision_feature_layer": [-1, 1],
            "vision_feature_select_strategy": "full",
        },
        {
            "image_processor_type": "LlavaNextImageProcessor",
            "size": {"height": 28, "width": 28},
            "crop_size": {"height": 28, "width": 28},
            "image_grid_pinpoints": GRANITE,
        }
        | HALF,
        MISTRAL,
        RUNTIME,
    ),
    Anyres(
        "llava-onevision",
        17,
        LlavaOnevisionForConditionalGeneration,
        {
            "vision_config": tower("siglip", 40, vision_use_head=False),
            "text_config": text("qwen2", num_attention_heads=6, tie_word_embeddings=True),
            "image_grid_pinpoints": ONEVISION,
            "vision_aspect_ratio": "anyres_max_2",
        },
        {
            "image_processor_type": "LlavaOnevisionImageProcessor",
            "size": {"height": 40, "width": 40},
            "image_grid_pinpoints": ONEVISION,
        }
        | HALF,
        CHATML,
        HUB,
        gain=2.0,
    ),
    Anyres(
        "llava-interleave",
        4,
        LlavaForConditionalGeneration,
        {
            "vision_config": tower("siglip", 40, vision_use_head=False),
            "text_config": text("qwen2", hidden_size=32, num_hidden_layers=2),
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
        },
        {"image_processor_type": "SiglipImageProcessor", "size": {"height": 40, "width": 40}} | HALF,
        CHATML,
        HUB,
        gain=2.0,
    ),
]
CONFIGS = {
    LlavaNextForConditionalGeneration: LlavaNextConfig,
    LlavaOnevisionForConditionalGeneration: LlavaOnevisionConfig,
    LlavaForConditionalGeneration: LlavaConfig,
}


def tokenizer(fixture):
    return qwen_vl_models.tokenizer(QWEN) if fixture.qwen() else tokens.wrap(tokens.SENTENCEPIECE)


def special_ids(fixture):
    """Those that say something about a conversation."""
    return list(range(VOCAB - len(QWEN), VOCAB)) if fixture.qwen() else [0, 1, 2, 478, 479]


def build(fixture, seed=None):
    """The model in f32, its values already rounded to f16."""
    config = json.loads(json.dumps(fixture.config))
    config["text_config"]["vocab_size"] = fixture.vocabulary()
    model = fixture.model(CONFIGS[fixture.model](**config, image_token_index=fixture.image_token()))
    draw = torch.Generator().manual_seed(fixture.seed if seed is None else seed)
    for name, weight in model.named_parameters():
        weight.copy_(values(name, weight.shape, draw, fixture.gain).half())
    if not model.config.tie_word_embeddings:  # louder, so that near-ties are rare; special tokens quieter
        model.lm_head.weight.mul_(3)
        model.lm_head.weight[special_ids(fixture)] *= 0.0625
        model.lm_head.weight.copy_(model.lm_head.weight.half())
    model.tie_weights()
    model.set_attn_implementation("eager")
    return model.eval()


def write(fixture, file, value):
    (fixture.folder / file).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def make(fixture):
    shutil.rmtree(fixture.folder, ignore_errors=True)
    fixture.folder.mkdir(parents=True)
    model = build(fixture)
    weights = {name: weight.detach().half().contiguous() for name, weight in model.named_parameters()}
    weights = {renamed(name, fixture.names): weight for name, weight in weights.items()}
    save_file(weights, fixture.folder / "model.safetensors", {"format": "pt"})
    (fixture.folder / "model.safetensors").chmod(0o644)
    config = {"architectures": [fixture.model.__name__], "model_type": model.config.model_type}
    config |= {"image_token_index": fixture.image_token()} | json.loads(json.dumps(fixture.config))
    config["text_config"]["vocab_size"] = fixture.vocabulary()
    write(fixture, "config.json", config)
    end = tokenizer(fixture).eos_token_id
    write(fixture, "generation_config.json", {"eos_token_id": end, "pad_token_id": end})
    tokens.save(tokenizer(fixture), fixture.folder)
    (fixture.folder / "chat_template.jinja").unlink(missing_ok=True)
    write(fixture, "chat_template.json", {"chat_template": fixture.template})
    write(fixture, "preprocessor_config.json", fixture.processor)
    strategy = getattr(model.config, "vision_feature_select_strategy")
    settings = {"image_token": "<image>", "vision_feature_select_strategy": strategy}
    if fixture.model is LlavaOnevisionForConditionalGeneration:
        settings |= {"num_image_tokens": fixture.side() ** 2, "vision_aspect_ratio": model.config.vision_aspect_ratio}
    else:
        settings |= {"patch_size": 8, "num_additional_image_tokens": int(fixture.class_token())}
    write(fixture, "processor_config.json", settings)


if __name__ == "__main__":
    for one in [one for one in ALL if not sys.argv[1:] or one.name in sys.argv[1:]]:
        make(one)
