"""Builds the small random checkpoints of families that cut a picture into tiles: SmolVLM and Idefics3.

Their tokenizers are byte-level as SmolLM's, with digits one by one. `smolvlm-tiles` has a token for each mark of a tile,
`idefics3-plain` has none but the frame, so that its marks are text that merges."""

import json
import shutil
import sys
from dataclasses import dataclass

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

from common import FIXTURES
from models import only, values
from tokens import corpus, save, specials

FRAME, IMAGE, END = "<fake_token_around_image>", "<image>", "<end_of_utterance>"
TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


@dataclass
class Tiled:
    name: str
    seed: int
    model: type
    config: dict
    processor: dict
    """of the pictures"""
    cells: int
    marks: bool
    """whether `<row_1_col_1>` and `<global-img>` are tokens"""
    minimal: tuple[str, ...] = ()
    nested: bool = False
    gain: float = 1.6
    vocabulary: int = 320

    @property
    def folder(self):
        return FIXTURES / self.name


def processor(kind, longest, tile):
    half = [0.5, 0.5, 0.5]
    return {
        "image_processor_type": kind,
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"longest_edge": longest},
        "resample": 1,
        "do_image_splitting": True,
        "max_image_size": {"longest_edge": tile},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": half,
        "image_std": half,
        "do_pad": True,
    }


ALL = [
    Tiled(
        "smolvlm-tiles",
        3,
        SmolVLMForConditionalGeneration,
        {
            "scale_factor": 2,
            "vision_config": {
                "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 3,
                "image_size": 32, "patch_size": 8, "model_type": "smolvlm_vision",
            },
            "text_config": {
                "model_type": "llama", "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3,
                "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "rms_norm_eps": 1e-5,
                "rope_theta": 100000.0, "max_position_embeddings": 2048,
            },
        },
        processor("SmolVLMImageProcessor", 128, 32),
        4,
        True,
    ),
    Tiled(
        "idefics3-plain",
        4,
        Idefics3ForConditionalGeneration,
        {
            "scale_factor": 3,
            "vision_config": {
                "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "image_size": 28, "patch_size": 8,
                "model_type": "idefics3_vision",
            },
            "text_config": {
                "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
                "num_attention_heads": 4, "num_key_value_heads": 4, "tie_word_embeddings": False,
            },
        },
        processor("Idefics3ImageProcessor", 84, 28),
        1,
        False,
        # Heads, activation and epsilons are those of the classes.
        minimal=("hidden_size", "intermediate_size", "num_hidden_layers", "image_size", "patch_size", "scale_factor")
        + ("image_token_id", "model_type", "text_config", "vision_config", "vocab_size", "architectures"),
        nested=True,
        gain=2.0,
    ),
]  # fmt: skip


def names(fixture):
    found = ["<|im_start|>", END, FRAME, IMAGE]
    if fixture.marks:
        found += ["<global-img>"] + [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
    return found


def tokenizer(fixture):
    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    found.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=fixture.vocabulary - len(names(fixture)),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # Two line ends are one token, and so are parts of marks.
    found.train_from_iterator(corpus() + ["\n\n"] * 100 + ["<row_1_col_2><global-img>"] * 20, trainer)
    found.add_special_tokens(specials(*names(fixture)))
    assert found.get_vocab_size() == fixture.vocabulary and found.encode("\n\n").tokens == ["ĊĊ"]
    return PreTrainedTokenizerFast(
        tokenizer_object=found, bos_token="<|im_start|>", eos_token=END, pad_token=END, clean_up_tokenization_spaces=False
    )


def special_ids(fixture):
    """They are the last ones."""
    return list(range(fixture.vocabulary - len(names(fixture)), fixture.vocabulary))


def build(fixture, seed=None):
    """The model in f32, its values already rounded to f16."""
    ids = tokenizer(fixture).convert_tokens_to_ids
    kind = SmolVLMConfig if fixture.model is SmolVLMForConditionalGeneration else Idefics3Config
    text = fixture.config["text_config"] | {"vocab_size": fixture.vocabulary}
    config = kind(**(fixture.config | {"image_token_id": ids(IMAGE), "text_config": text}))
    model = fixture.model(config)
    draw = torch.Generator().manual_seed(fixture.seed if seed is None else seed)
    for name, weight in model.named_parameters():
        weight.copy_(values(name, weight.shape, draw, fixture.gain).half())
    model.lm_head.weight.mul_(3)  # louder, so that near-ties are rare; special tokens quieter
    model.lm_head.weight[special_ids(fixture)] *= 0.0625
    model.lm_head.weight.copy_(model.lm_head.weight.half())
    model.set_attn_implementation("eager")
    return model.eval()


def write(fixture, file, value):
    (fixture.folder / file).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def make(fixture):
    shutil.rmtree(fixture.folder, ignore_errors=True)
    fixture.folder.mkdir(parents=True)
    model = build(fixture)
    weights = {name: weight.detach().half().contiguous() for name, weight in model.named_parameters()}
    save_file(weights, fixture.folder / "model.safetensors", {"format": "pt"})
    config = model.config.to_diff_dict() | {"architectures": [type(model).__name__]}
    if fixture.minimal:
        config = only(config, fixture.minimal)
        config["text_config"]["num_attention_heads"] = fixture.config["text_config"]["num_attention_heads"]
    write(fixture, "config.json", config)
    (fixture.folder / "model.safetensors").chmod(0o644)
    end = tokenizer(fixture).convert_tokens_to_ids(END)
    write(fixture, "generation_config.json", {"bos_token_id": special_ids(fixture)[0], "eos_token_id": end, "pad_token_id": end})
    save(tokenizer(fixture), fixture.folder)
    (fixture.folder / "chat_template.jinja").write_text(TEMPLATE)
    whole = {"image_seq_len": fixture.cells, "processor_class": "Idefics3Processor"}
    if fixture.nested:
        write(fixture, "processor_config.json", whole | {"image_processor": fixture.processor})
    else:
        write(fixture, "processor_config.json", whole)
        write(fixture, "preprocessor_config.json", fixture.processor)


if __name__ == "__main__":
    for one in [one for one in ALL if not sys.argv[1:] or one.name in sys.argv[1:]]:
        make(one)
