"""The small random checkpoint of Gemma 3 with a vision tower under fixtures/gemma3-vision. `gemma3.py --search` finds its seed."""

import json
import shutil

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models as bpe, normalizers, pre_tokenizers, trainers
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, PreTrainedTokenizerFast

from common import FIXTURES
from families import GEMMA3
from models import round_scale, values
from tokens import corpus, save, specials, with_bos

NAME, SEED = "gemma3-vision", 12
FOLDER = FIXTURES / NAME
VOCAB = 480
LEADING = ["<pad>", "<eos>", "<bos>", "<unk>"]
TURNS = ["<start_of_turn>", "<end_of_turn>"]
IMAGES = ["<start_of_image>", "<end_of_image>", "<image_soft_token>"]
FIRST = VOCAB - len(TURNS) - len(IMAGES)
START, END, SOFT = (VOCAB - 3 + index for index in range(3))
EOS = [1, FIRST + 1]
CELLS = 16
"""positions of a picture, more than the window"""
WINDOW = 12
GLOBAL = [2, 5]
"""the layers without a window"""
TEXT = {
    "model_type": "gemma3_text", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 7, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": VOCAB, "sliding_window": WINDOW, "sliding_window_pattern": 3, "query_pre_attn_scalar": 24,
    "max_position_embeddings": 2048, "rope_scaling": {"rope_type": "linear", "factor": 8.0},
}  # fmt: skip
VISION = {
    "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 32, "patch_size": 4, "vision_use_head": False,
}  # fmt: skip
TOKENS = {"boi_token_index": START, "eoi_token_index": END, "image_token_index": SOFT, "mm_tokens_per_image": CELLS}
HALF = [0.5, 0.5, 0.5]
PROCESSOR = {
    "do_convert_rgb": None, "do_normalize": True, "do_pan_and_scan": None, "do_rescale": True, "do_resize": True, "image_mean": HALF,
    "image_processor_type": "Gemma3ImageProcessor", "image_seq_length": CELLS, "image_std": HALF, "pan_and_scan_max_num_crops": None,
    "pan_and_scan_min_crop_size": None, "pan_and_scan_min_ratio_to_activate": None, "processor_class": "Gemma3Processor",
    "resample": 2, "rescale_factor": 1 / 255, "size": {"height": 32, "width": 32},
}  # fmt: skip


def tokenizer():
    """As Gemma's: BPE over words with their spaces, bytes for what it does not know, and tokens of several line ends."""
    trained = Tokenizer(bpe.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.pre_tokenizer = pre_tokenizers.Split(Regex("▁"), "merged_with_next")
    lines = corpus() + ["\n\n\n\n", "\n\n", "\n\n\n\n\n\n", "\n\n\n\n"] * 100
    alphabet = sorted({c for line in lines for c in line if c.isascii() and (c.isprintable() or c == "\n")} - {" "}) + ["▁"]
    first = LEADING + [f"<0x{b:02X}>" for b in range(256)]
    size = FIRST - len(first)
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, limit_alphabet=len(alphabet), show_progress=False)
    trained.train_from_iterator(lines, trainer)
    body = json.loads(trained.to_str())["model"]
    pieces = sorted(body["vocab"], key=body["vocab"].get)
    table = {piece: i for i, piece in enumerate(first + pieces)}
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in body["merges"]]
    made = Tokenizer(bpe.BPE(table, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    made.add_special_tokens(specials(*LEADING, *TURNS, *IMAGES))
    with_bos(made, "<bos>")
    assert (made.get_vocab_size(), made.token_to_id(IMAGES[2])) == (VOCAB, SOFT)
    assert made.encode("\n\n\n\n", add_special_tokens=False).tokens == ["\n\n\n\n"]
    extra = {"boi_token": IMAGES[0], "eoi_token": IMAGES[1], "image_token": IMAGES[2]}
    named = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, extra_special_tokens=extra, clean_up_tokenization_spaces=False, **named)


def config():
    text = dict(TEXT)
    return Gemma3Config(text_config=text, vision_config=dict(VISION), tie_word_embeddings=False, **TOKENS)


def build(seed=None):
    """The model in f32, its values already rounded to bf16."""
    model = Gemma3ForConditionalGeneration(config())
    draw = torch.Generator().manual_seed(SEED if seed is None else seed)
    for name, weight in model.named_parameters():
        made = values(name, weight.shape, draw, 2.0)
        if "vision" not in name:
            if "norm" in name:  # whose weights lack one
                made -= 1.0
            if "post_" in name:  # else the embeddings, which are multiplied, would drown what layers add
                made += 1.5
            if "embed_tokens" in name:
                made *= 0.2
        if name == "lm_head.weight":  # louder, so that near-ties are rare; special tokens quieter
            made *= 3
            made[[0, 1, 2, 3, *range(FIRST, VOCAB)]] *= 0.0625
        weight.copy_(made.bfloat16())
    round_scale(torch.bfloat16, model)
    model.set_attn_implementation("eager")
    return model.eval()


def hub(name):
    """The names on the hub."""
    for new, old in (
        ("model.language_model.", "language_model.model."),
        ("model.vision_tower.vision_model.", "vision_tower.vision_model."),
        ("model.vision_tower.", "vision_tower.vision_model."),
        ("model.multi_modal_projector.", "multi_modal_projector."),
        ("lm_head.", "language_model.lm_head."),
    ):
        if name.startswith(new):
            return name.replace(new, old, 1)
    raise ValueError(name)


def write(file, value):
    (FOLDER / file).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def make():
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    model = build()
    weights = {hub(name): weight.detach().bfloat16().contiguous() for name, weight in model.named_parameters()}
    save_file(weights, FOLDER / "model.safetensors", {"format": "pt"})
    (FOLDER / "model.safetensors").chmod(0o644)
    # As on the hub, which leaves out what the classes assume.
    whole = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "torch_dtype": "bfloat16", "eos_token_id": EOS}
    whole["tie_word_embeddings"] = False
    write("config.json", whole | TOKENS | {"text_config": TEXT, "vision_config": VISION})
    write("generation_config.json", {"bos_token_id": 2, "do_sample": True, "eos_token_id": EOS, "pad_token_id": 0, "top_k": 64, "top_p": 0.95})
    write("preprocessor_config.json", PROCESSOR)
    write("processor_config.json", {"image_seq_length": CELLS, "processor_class": "Gemma3Processor"})
    save(tokenizer(), FOLDER)
    write("chat_template.json", {"chat_template": GEMMA3})
    (FOLDER / "chat_template.jinja").unlink(missing_ok=True)


if __name__ == "__main__":
    make()
