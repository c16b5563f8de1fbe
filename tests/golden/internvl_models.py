"""Builds the small random checkpoints of InternVL: in transformers' layout, and one of them renamed to OpenGVLab's.

Their tokenizers are as Qwen's. `internvl3` has a tower with a norm behind it, layer norms and biases, and the head tied; `internvl3.5` has
what the tower of six billion parameters has, norms by root mean square, also of whole queries and keys. `internvl-original` is the latter
with queries, keys and values in one tensor, no processor, and its tokenizer as vocab.json and merges.txt."""

import json
import shutil
import sys
from dataclasses import dataclass

import torch
from safetensors.torch import load_file, save_file
from transformers import InternVLConfig, InternVLForConditionalGeneration, Qwen2Tokenizer

import qwen_vl_models
from common import FIXTURES
from models import values
from tokens import NASTY, save

CONTEXT, MARKS, END = "<IMG_CONTEXT>", ("<img>", "</img>"), "<|im_end|>"
NAMES = ["<|endoftext|>", "<|im_start|>", END, *MARKS, CONTEXT, "<|video_pad|>"]
VOCABULARY, FIRST = qwen_vl_models.VOCAB, qwen_vl_models.FIRST
assert FIRST + len(NAMES) == VOCABULARY
CONTEXT_ID, END_ID = FIRST + NAMES.index(CONTEXT), FIRST + NAMES.index(END)
CELLS = 9
"""Of a tile."""
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
STRINGS = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""As the original's tokenizer_config.json has it."""


@dataclass
class Family:
    name: str
    seed: int
    config: dict
    processor: dict
    nested: bool
    """one processor_config.json that holds the image processor too, and names as in memory"""
    gain: float

    @property
    def folder(self):
        return FIXTURES / self.name


def processor(**changed):
    """As the hub has it: pictures are cut although `crop_to_patches` is off, since InternVLProcessor asks for it."""
    size = {"height": 24, "width": 24}
    base = {"image_processor_type": "GotOcr2ImageProcessorFast", "crop_to_patches": False, "do_convert_rgb": True, "do_resize": True}
    base |= {"size": size, "resample": 3, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
    return base | {"image_mean": MEAN, "image_std": STD, "min_patches": 1, "max_patches": 6} | changed


TOWER = {"num_hidden_layers": 2, "image_size": [24, 24], "patch_size": [4, 4]}
TEXT = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": VOCABULARY, "eos_token_id": END_ID}
TEXT |= {"bos_token_id": None, "pad_token_id": None}
ALL = [
    Family(
        "internvl3",
        1,
        {
            "text_config": {k: v for k, v in TEXT.items() if k != "head_dim"}
            | {"model_type": "qwen2", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 3}
            | {"max_position_embeddings": 2048, "rope_theta": 1e6, "rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"}},
            "vision_config": TOWER
            | {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "attention_bias": True, "use_mean_pooling": False},
        },
        processor(),
        False,
        2.0,
    ),
    Family(
        "internvl3.5",
        64,
        {
            "text_config": TEXT
            | {"model_type": "qwen3", "hidden_size": 40, "intermediate_size": 64, "num_hidden_layers": 3, "rope_theta": 1e6},
            "vision_config": TOWER
            | {"hidden_size": 48, "intermediate_size": 56, "num_attention_heads": 3, "use_qk_norm": True, "norm_type": "rms_norm"},
            "tie_word_embeddings": False,
        },
        processor(max_patches=12, image_processor_type="GotOcr2ImageProcessor"),
        True,
        1.6,
    ),
]  # fmt: skip
ORIGINAL = FIXTURES / "internvl-original"


def tokenizer():
    named = {"start_image_token": MARKS[0], "end_image_token": MARKS[1], "context_image_token": CONTEXT, "video_token": "<|video_pad|>"}
    return qwen_vl_models.tokenizer(NAMES, extra_special_tokens=named)


def special_ids(_family):
    """They are the last ones."""
    return list(range(FIRST, VOCABULARY))


def build(family, seed=None):
    """The model in f32, its values already rounded to f16."""
    model = InternVLForConditionalGeneration(InternVLConfig(**json.loads(json.dumps(family.config)), image_token_id=CONTEXT_ID))
    draw = torch.Generator().manual_seed(family.seed if seed is None else seed)
    for name, weight in model.named_parameters():
        made = values(name, weight.shape, draw, family.gain)
        if "lambda" in name:
            made = 0.6 + 0.3 * torch.randn(weight.shape, generator=draw)
        if "cls_token" in name or "position_embeddings" in name:
            made = torch.randn(weight.shape, generator=draw)
        weight.copy_(made.half())
    if model.config.tie_word_embeddings:
        model.model.language_model.embed_tokens.weight[FIRST:] *= 0.25
    else:
        model.lm_head.weight.mul_(3)  # louder, so that near-ties are rare; special tokens quieter
        model.lm_head.weight[FIRST:] *= 0.0625
        model.lm_head.weight.copy_(model.lm_head.weight.half())
    model.tie_weights()
    model.set_attn_implementation("eager")
    return model.eval()


def write(folder, file, value):
    (folder / file).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def fresh(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def hub(name):
    """The names before transformers 5."""
    return name.replace("model.language_model.", "language_model.model.").removeprefix("model.")


def store(folder, weights):
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)


def make(family):
    fresh(family.folder)
    weights = {name: weight.detach().half().contiguous() for name, weight in build(family).named_parameters()}
    store(family.folder, weights if family.nested else {hub(name): weight for name, weight in weights.items()})
    config = {"architectures": ["InternVLForConditionalGeneration"], "model_type": "internvl", "image_token_id": CONTEXT_ID}
    write(family.folder, "config.json", config | family.config | {"torch_dtype": "float16"})
    write(family.folder, "generation_config.json", {"eos_token_id": END_ID})
    save(tokenizer(), family.folder)
    (family.folder / "chat_template.jinja").write_text(TEMPLATE)
    whole = {"image_seq_length": CELLS, "processor_class": "InternVLProcessor"}
    if family.nested:
        write(family.folder, "processor_config.json", whole | {"image_processor": family.processor})
    else:
        write(family.folder, "processor_config.json", whole)
        write(family.folder, "preprocessor_config.json", family.processor)


TOWER_NAMES = {
    "embeddings.cls_token": "embeddings.class_embedding",
    "embeddings.position_embeddings": "embeddings.position_embedding",
    "embeddings.patch_embeddings.projection": "embeddings.patch_embedding",
    "encoder.layer.": "encoder.layers.",
    "attention.projection_layer": "attn.proj",
    "attention.": "attn.",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "lambda_1": "ls1",
    "lambda_2": "ls2",
}


def original(name):
    name = name.removeprefix("model.")
    if name.startswith("vision_tower."):
        for ours, theirs in TOWER_NAMES.items():
            name = name.replace(ours, theirs)
        return name.replace("vision_tower.", "vision_model.")
    for ours, theirs in {"layer_norm": "0", "linear_1": "1", "linear_2": "3"}.items():
        name = name.replace(f"multi_modal_projector.{ours}", f"mlp1.{theirs}")
    if name.startswith("lm_head"):
        return f"language_model.{name}"
    return name.replace("language_model.", "language_model.model.") if name.startswith("language_model.") else name


def fuse(weights):
    """Queries, keys and values of the tower one below the other."""
    made = {}
    for name, weight in weights.items():
        if ".attn.q_proj" in name:
            parts = [weights[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            made[name.replace("q_proj", "qkv")] = torch.cat(parts).contiguous()
        elif ".attn.k_proj" not in name and ".attn.v_proj" not in name:
            made[name] = weight
    return made


def rename(family):
    """The checkpoint of `family` as OpenGVLab would have it."""
    fresh(ORIGINAL)
    weights = {original(name): weight for name, weight in load_file(family.folder / "model.safetensors").items()}
    store(ORIGINAL, fuse(weights))
    vision, text = family.config["vision_config"], family.config["text_config"]
    config = {
        "architectures": ["InternVLChatModel"],
        "model_type": "internvl_chat",
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "force_image_size": 24,
        "llm_config": text | {"architectures": ["Qwen3ForCausalLM"], "tie_word_embeddings": False},
        "max_dynamic_patch": family.processor["max_patches"],
        "min_dynamic_patch": 1,
        "pad2square": False,
        "ps_version": "v2",
        "select_layer": -1,
        "template": "internvl2_5",
        "torch_dtype": "float16",
        "use_backbone_lora": 0,
        "use_llm_lora": 0,
        "use_thumbnail": True,
        "vision_config": {
            "architectures": ["InternVisionModel"],
            "model_type": "intern_vit_6b",
            "hidden_act": "gelu",
            "hidden_size": vision["hidden_size"],
            "image_size": 24,
            "intermediate_size": vision["intermediate_size"],
            "layer_norm_eps": 1e-6,
            "norm_type": "rms_norm",
            "num_attention_heads": vision["num_attention_heads"],
            "num_hidden_layers": vision["num_hidden_layers"],
            "patch_size": 4,
            "qk_normalization": True,
            "qkv_bias": False,
        },
    }
    write(ORIGINAL, "config.json", config)
    clip = {"crop_size": 24, "do_center_crop": True, "do_normalize": True, "do_resize": True, "feature_extractor_type": "CLIPFeatureExtractor"}
    write(ORIGINAL, "preprocessor_config.json", clip | {"image_mean": MEAN, "image_std": STD, "resample": 3, "size": 24})
    slow()


def slow():
    """The tokenizer without a tokenizer.json; transformers reads the same from it."""
    whole = tokenizer()
    model = json.loads(whole.backend_tokenizer.to_str())["model"]
    # Added tokens are not in the files of the vocabulary.
    vocabulary = {token: id for token, id in model["vocab"].items() if id < FIRST}
    (ORIGINAL / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False) + "\n", encoding="utf-8")
    merges = "".join(f"{left} {right}\n" for left, right in model["merges"])
    (ORIGINAL / "merges.txt").write_text("#version: 0.2\n" + merges, encoding="utf-8")
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    added = {str(FIRST + number): {"content": name} | flags for number, name in enumerate(NAMES)}
    config = {"added_tokens_decoder": added, "chat_template": STRINGS, "eos_token": END, "pad_token": NAMES[0]}
    write(ORIGINAL, "tokenizer_config.json", config | {"tokenizer_class": "Qwen2Tokenizer", "unk_token": None, "errors": "replace"})
    read = Qwen2Tokenizer.from_pretrained(ORIGINAL)
    for text in [*NASTY, *NAMES, f"<|im_start|>user\n<img>{CONTEXT * 3}</img>\nWhat?<|im_end|>\n"]:
        assert read.encode(text) == whole.encode(text), text


if __name__ == "__main__":
    for one in [one for one in ALL if not sys.argv[1:] or one.name in sys.argv[1:]]:
        make(one)
    rename(ALL[1])
