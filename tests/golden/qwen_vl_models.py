"""Small random checkpoints of Qwen2-VL, Qwen2.5-VL and Qwen3-VL under fixtures/. `qwen_vl.py --search` finds their seeds."""

import json
import shutil
from dataclasses import dataclass

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models as bpe, normalizers, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from common import FIXTURES
from families import QWEN2_VL
from models import values
from tokens import corpus, save, specials

VOCAB = 320
NAMES = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
FIRST = VOCAB - len(NAMES)
IDS = {name: FIRST + index for index, name in enumerate(NAMES)}
PAD = IDS["<|image_pad|>"]
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PLAIN = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.content is string %}
        {{- message.content }}
    {%- else %}
        {%- for part in message.content %}
            {%- if part.type == 'image' or 'image_url' in part %}
                {{- '<|vision_start|><|image_pad|><|vision_end|>' }}
            {%- elif part.type == 'video' or 'video' in part %}
                {{- '<|vision_start|><|video_pad|><|vision_end|>' }}
            {%- elif 'text' in part %}
                {{- part.text }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
TEXT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
TEXT |= {"head_dim": 16, "vocab_size": VOCAB, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6}
TOWER = {"patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2, "num_heads": 2, "in_channels": 3}
TOKENS = {"image_token_id": PAD, "video_token_id": PAD + 1}
TOKENS |= {"vision_start_token_id": IDS["<|vision_start|>"], "vision_end_token_id": IDS["<|vision_end|>"]}
EOS = [IDS["<|im_end|>"], IDS["<|endoftext|>"]]


@dataclass
class Family:
    name: str
    seed: int
    model: type
    config: dict
    template: tuple[str, str]
    processor: dict
    flat: bool
    """config.json and names of tensors as on the hub before transformers 5"""

    @property
    def folder(self):
        return FIXTURES / self.name


LIMITS = {"min_pixels": 64 * 4, "max_pixels": 64 * 40}
ALL = [
    Family(
        "qwen2-vl",
        495,
        Qwen2VLForConditionalGeneration,
        {
            "text_config": {k: v for k, v in TEXT.items() if k != "head_dim"}
            | {"hidden_size": 64, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}},
            "vision_config": TOWER | {"depth": 2, "embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2},
            "tie_word_embeddings": True,
        },
        ("json", QWEN2_VL),
        LIMITS | {"patch_size": 4},
        True,
    ),
    Family(
        "qwen2.5-vl",
        2,
        Qwen2_5_VLForConditionalGeneration,
        {
            "text_config": {k: v for k, v in TEXT.items() if k != "head_dim"}
            | {"hidden_size": 64, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}},
            "vision_config": TOWER
            | {"depth": 3, "hidden_size": 32, "intermediate_size": 40, "out_hidden_size": 64}
            | {"fullatt_block_indexes": [1], "window_size": 24, "tokens_per_second": 2},
            "tie_word_embeddings": False,
        },
        ("jinja", QWEN2_VL),
        LIMITS | {"patch_size": 4},
        True,
    ),
    Family(
        "qwen3-vl",
        22,
        Qwen3VLForConditionalGeneration,
        {
            "text_config": TEXT
            | {"rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [4, 2, 2], "mrope_interleaved": True}},
            "vision_config": TOWER
            | {"depth": 3, "hidden_size": 32, "intermediate_size": 40, "out_hidden_size": 32}
            | {"num_position_embeddings": 36, "deepstack_visual_indexes": [0, 2]},
            "tie_word_embeddings": False,
        },
        ("jinja", PLAIN),
        {"size": {"shortest_edge": 64 * 4, "longest_edge": 64 * 40}, "patch_size": 4, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
        False,
    ),
]


def tokenizer(names=NAMES, **named):
    """As Qwen's: byte-level BPE behind a normaliser, no token before the text. The last ones are `names`."""
    made = Tokenizer(bpe.BPE())
    made.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=VOCAB - len(names), initial_alphabet=alphabet, show_progress=False))
    made.add_special_tokens(specials(*names))
    assert made.token_to_id(names[0]) == VOCAB - len(names) and made.get_vocab_size() == VOCAB
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|endoftext|>", **named)


def build(family, seed=None):
    kind = {"qwen2-vl": Qwen2VLConfig, "qwen2.5-vl": Qwen2_5_VLConfig, "qwen3-vl": Qwen3VLConfig}[family.name]
    model = family.model(kind(**json.loads(json.dumps(family.config)), **TOKENS))
    draw = torch.Generator().manual_seed(family.seed if seed is None else seed)
    for name, weight in model.named_parameters():
        made = values(name.replace("ln_q", "norm"), weight.shape, draw, 1.6)
        if "pos_embed" in name:
            made = made * 2
        if "merger" in name and not name.endswith("bias") and weight.dim() > 1:
            made = made * 1.5
        weight.copy_(made.half())
    if not model.config.tie_word_embeddings:
        model.lm_head.weight.mul_(3)
        model.lm_head.weight[FIRST:] *= 0.0625
        model.lm_head.weight.copy_(model.lm_head.weight.half())
    model.tie_weights()
    model.set_attn_implementation("eager")
    return model.eval()


def write(family, file, value):
    (family.folder / file).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def hub(name):
    """The names before transformers 5."""
    return name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")


def save_family(family):
    shutil.rmtree(family.folder, ignore_errors=True)
    family.folder.mkdir(parents=True)
    model = build(family)
    weights = {name: weight.detach().half().contiguous() for name, weight in model.named_parameters()}
    if family.flat:
        weights = {hub(name): weight for name, weight in weights.items()}
    save_file(weights, family.folder / "model.safetensors", {"format": "pt"})
    (family.folder / "model.safetensors").chmod(0o644)
    vision = family.config["vision_config"]
    config = {"architectures": [family.model.__name__], "model_type": model.config.model_type, **TOKENS}
    config |= {"tie_word_embeddings": model.config.tie_word_embeddings, "torch_dtype": "float16"}
    if family.flat:
        shape = dict(family.config["text_config"])
        rope = shape.pop("rope_parameters")
        config |= shape | {"rope_theta": rope["rope_theta"], "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]}}
        config |= {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 2, "eos_token_id": EOS[0]}
        # as hub files, which name their channels so, in vain
        config["vision_config"] = {k: v for k, v in vision.items() if k != "in_channels"} | {"in_chans": 3}
    else:
        config |= {"text_config": family.config["text_config"] | {"model_type": "qwen3_vl_text"}}
        config["vision_config"] = vision | {"model_type": "qwen3_vl"}
    write(family, "config.json", config)
    write(family, "generation_config.json", {"do_sample": True, "eos_token_id": EOS, "pad_token_id": EOS[1]})
    kind = "Qwen2VLImageProcessor" if family.flat else "Qwen2VLImageProcessorFast"
    defaults = {"image_mean": Qwen2VLImageProcessorPil.image_mean, "image_std": Qwen2VLImageProcessorPil.image_std}
    cells = {"merge_size": 2, "temporal_patch_size": 2, "image_processor_type": kind}
    write(family, "preprocessor_config.json", defaults | cells | family.processor)
    save(tokenizer(), family.folder)
    (family.folder / "chat_template.jinja").unlink(missing_ok=True)
    where, template = family.template
    if where == "json":
        write(family, "chat_template.json", {"chat_template": template})
    else:
        (family.folder / "chat_template.jinja").write_text(template)


if __name__ == "__main__":
    for family in ALL:
        save_family(family)
