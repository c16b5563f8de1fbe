"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: what transformers computes with the small checkpoints of `qwen_vl_models.py`, and how it reads files.

`qwen_vl.py --search` prints a seed for each checkpoint. Pictures go through the Pillow processor; ids are put together by hand, since the
processors of these families need torchvision for videos."""

import json
import math
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import AutoConfig, PreTrainedTokenizerFast
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

from common import DATA, IMAGES, relative, write_arrays, write_json
from kvzip import INSTRUCTION, chosen
from qwen_vl_models import ALL, FIRST, PAD, build, save_family
from templates import IMAGE, text, turn

STEPS, SECOND = 32, 16
ROWS = 12

WIDE, TALL, SQUARE, ENLARGED, TINY = "photo-300x200.png", "photo-97x211.png", "square-168.png", "upscale-41x30.png", "one-pixel.png"
CASES = [
    ("image", [WIDE], [turn("user", IMAGE, text("What is in the picture?"))]),
    ("text-before", [TALL], [turn("user", text("Look: "), IMAGE, text("what is it?"))]),
    ("two-images", [SQUARE, ENLARGED], [turn("user", IMAGE, IMAGE, text("Which one is larger?"))]),
    (
        "two-turns",
        [TINY, WIDE],
        [turn("user", IMAGE, text("Describe it.")), turn("assistant", text("A ring.")), turn("user", IMAGE, text("And now?"))],
    ),
    ("no-image", [], [turn("user", text("Who are you?"))]),
]
LATER = ([SQUARE], [turn("user", IMAGE, text("What is this?"))]), ([TALL], [turn("user", IMAGE, text("And this one?"))])


class Prompts:
    def __init__(self, family):
        self.family = family
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(family.folder)
        self.processor = Qwen2VLImageProcessorPil.from_pretrained(family.folder)

    def render(self, messages, generation=True):
        return self.tokenizer.apply_chat_template(
            messages, chat_template=self.family.template[1], add_generation_prompt=generation, tokenize=False
        )

    def pictures(self, names):
        """(pixel rows, grids in patches), or nothing."""
        if not names:
            return {}
        made = self.processor(images=[Image.open(IMAGES / name).convert("RGB") for name in names], return_tensors="pt")
        return {"pixel_values": made["pixel_values"], "image_grid_thw": made["image_grid_thw"]}

    def ids(self, prompt, grids):
        """The tokens of a text, each placeholder as often as its image has cells."""
        counts = [int(h * w) // 4 for _, h, w in grids]
        parts = prompt.split("<|image_pad|>")
        assert len(parts) == len(counts) + 1
        whole = parts[0] + "".join("<|image_pad|>" * count + part for count, part in zip(counts, parts[1:]))
        return self.tokenizer.encode(whole, add_special_tokens=False)

    def inputs(self, images, prompt):
        seen = self.pictures(images)
        return inputs(self.ids(prompt, seen.get("image_grid_thw", [])), seen)


def inputs(ids, seen):
    ids = torch.tensor([ids])
    return {"input_ids": ids, **seen} | ({"mm_token_type_ids": (ids == PAD).int()} if seen else {})


def positions(model, given):
    """Phases [n, 3] and the delta."""
    n = given["input_ids"].shape[1]
    if "image_grid_thw" not in given:
        return [[i] * 3 for i in range(n)], 0
    taken = {key: given[key] for key in ("input_ids", "mm_token_type_ids", "image_grid_thw")}
    phases, delta = model.model.get_rope_index(**taken)
    return phases[:, 0].T.tolist(), int(delta[0, 0])


def best_two(row):
    first = int(row.argmax())
    rest = row.clone()
    rest[first] = -torch.inf
    second = int(rest.argmax())
    return {"best": [first, float(row[first])], "second": [second, float(row[second])]}


def greedy(model, given, count, keep=None):
    """Prompt logits, tokens, steps. `keep` says which entries stay behind the prompt; phases go on as if all had."""
    model.model.rope_deltas = None
    _, delta = positions(model, given)
    out = model(**given, use_cache=True)
    n, past = given["input_ids"].shape[1], out.past_key_values
    if keep is not None:
        for layer in past.layers:
            layer.keys, layer.values = layer.keys[:, :, keep], layer.values[:, :, keep]
    logits, row, ids, steps = out.logits[0].float().numpy(), out.logits[0, -1], [], []
    while True:
        steps.append(best_two(row))
        ids.append(steps[-1]["best"][0])
        if len(ids) == count:
            return logits, ids, steps
        phases = torch.full((3, 1, 1), n + delta + len(ids) - 1)
        out = model(input_ids=torch.tensor([[ids[-1]]]), position_ids=phases, past_key_values=past, use_cache=True)
        past, row = out.past_key_values, out.logits[0, -1]


def features(model, given):
    """Per image the rows for the language model, and per level those that its first layers add."""
    made = model.model.get_image_features(given["pixel_values"], given["image_grid_thw"])
    return made.pooler_output, getattr(made, "deepstack_features", None) or []


def prepared(prompts):
    for name, images, messages in CASES:
        prompt = prompts.render(messages)
        yield name, images, messages, prompt, prompts.inputs(images, prompt)


def streaming(n):
    """The first 4 entries and the last, half of the prompt together."""
    kept = (n + 1) // 2
    return [*range(4), *range(n - (kept - 4), n)]


def later(model, prompts):
    """A first turn, its answer, and a second turn with a picture of its own, all read at once."""
    (images, messages), (more, then) = LATER
    prompt = prompts.render(messages)
    first = prompts.inputs(images, prompt)
    _, answer, _ = greedy(model, first, 8)
    # The answer as it would be written: its tokens, not its text, go on.
    then_text = "<|im_end|>\n" + prompts.render(then).split("You are a helpful assistant.<|im_end|>\n")[-1]
    seen = prompts.pictures(images + more)
    second = prompts.ids(then_text, seen["image_grid_thw"][1:])
    ids = first["input_ids"][0].tolist() + answer + second
    logits, tokens, steps = greedy(model, inputs(ids, seen), SECOND)
    case = {"images": images, "text": prompt, "answer": answer, "more": more, "then": then_text, "input_ids": ids}
    return case | {"phases": positions(model, inputs(ids, seen))[0], "tokens": tokens, "steps": steps}, logits[-1]


def embedded(model, given):
    """Embeddings of a prompt with its images, and what each of the first layers adds behind it."""
    ids = given["input_ids"][0]
    rows, deep = features(model, given)
    x = model.model.language_model.embed_tokens(ids)
    x[ids == PAD] = torch.cat(list(rows))
    behind = []
    for level in deep:
        added = torch.zeros_like(x)
        added[ids == PAD] = torch.cat(list(level))
        behind.append(added)
    return x, behind


def by_hand(model, x, behind, phases, narrow=None):
    """Layer by layer: the last logits and the probabilities of each layer, [heads, n, n]. `narrow` says, of the probabilities of the first layer,
    which rows go on behind it."""
    text, seen, kept = model.model.language_model, [], None
    turned = text.rotary_emb(x[None], torch.tensor(phases).T[:, None])
    hidden = x[None]
    for number, layer in enumerate(text.layers):
        hook = layer.self_attn.register_forward_hook(lambda _module, _given, made: seen.append(made[1][0]))
        n = hidden.shape[1]
        mask = torch.full((n, n), -torch.inf).triu(1)[None, None]
        hidden = layer(hidden, attention_mask=mask, position_embeddings=turned)
        hook.remove()
        if number < len(behind):
            hidden = hidden + behind[number]
        if narrow is not None and number == 0:
            kept = narrow(seen[0])
            hidden, turned = hidden[:, kept], tuple(part[..., kept, :] for part in turned)
            behind = [added[kept] for added in behind]
    return model.lm_head(text.norm(hidden))[0, -1], seen, kept


def narrowed(model, given):
    """FastV after the first layer: half of the images' positions, by the attention from the last one."""
    ids, phases = given["input_ids"][0], positions(model, given)[0]
    x, behind = embedded(model, given)
    whole, _, _ = by_hand(model, x, behind, phases)
    assert (whole - model(**given).logits[0, -1]).abs().max() < 1e-5
    margin = []

    def narrow(probabilities):
        marks, shown = probabilities[:, -1].mean(0), [j for j, token in enumerate(ids.tolist()) if token == PAD]
        ranked = sorted(shown, key=lambda j: (-float(marks[j]), j))
        stay = int(0.5 * len(shown) + 0.5)
        margin.append(float(marks[ranked[stay - 1]] / marks[ranked[stay]]) - 1)
        gone = set(ranked[stay:])
        return [j for j in range(len(ids)) if j not in gone]

    logits, _, kept = by_hand(model, x, behind, phases, narrow)
    assert margin[0] > 1e-4, margin
    return {"cache": {"method": "fastv", "layer": 1, "images": 0.5}, "kept": kept}, logits.numpy()


def read_twice(model, prompts, given):
    """KVzip: what stays by the attention of a second reading, whose images are seen again, where they then are."""
    ids = given["input_ids"][0].tolist()
    between = prompts.tokenizer.encode(INSTRUCTION, add_special_tokens=False)
    grids = given["image_grid_thw"]
    twice = inputs(ids + between + ids[1:], {"pixel_values": torch.cat([given["pixel_values"]] * 2), "image_grid_thw": torch.cat([grids] * 2)})
    x, behind = embedded(model, twice)
    _, seen, _ = by_hand(model, x, behind, positions(model, twice)[0])
    asked = torch.stack([p[:, len(ids) :, : len(ids)] for p in seen]).double()
    scores = asked.unflatten(1, (model.config.text_config.num_key_value_heads, -1)).amax((2, 3))
    found = []
    for options in ({"keep": 0.4}, {"keep": 0.4, "budget": "uniform"}):
        kept, margin = chosen(scores, options)
        assert margin > 1e-4, margin
        found.append({"cache": {"method": "kvzip", **options}, "kept": kept})
    return found


def runs(model, prompts):
    for name, _, _, _, given in prepared(prompts):
        yield name, *greedy(model, given, STEPS)[1:]
    given = next(prepared(prompts))[4]
    yield "evicted", *greedy(model, given, STEPS, streaming(given["input_ids"].shape[1]))[1:]
    case, _ = later(model, prompts)
    yield "later", case["tokens"], case["steps"]


def poor(found):
    """Why these greedy runs make a poor golden; None if they make a good one."""
    made = list(found)
    gaps = [(min(s["best"][1] - s["second"][1] for s in steps), name) for name, _, steps in made]
    if min(gaps)[0] < 0.01:
        return f"gap {min(gaps)}"
    for name, ids, _ in made:
        if len(set(ids)) < (8 if len(ids) == SECOND else 12):
            return f"{name}: {len(set(ids))} tokens"
        if any(token >= FIRST for token in ids):
            return f"{name}: special"
    return "two cases agree" if len({tuple(ids) for _, ids, _ in made}) < len(made) else None


def search(family):
    prompts = Prompts(family)
    for seed in range(5000):
        model, found = build(family, seed), []
        for run in runs(model, prompts):
            found.append(run)
            if poor(found):
                break
        else:
            return seed
    raise SystemExit(f"{family.name}: no good seed")


def sampled(array, seed=0):
    flat = array.reshape(-1)
    indices = np.sort(np.random.default_rng(seed).choice(flat.size, min(256, flat.size), replace=False)).astype(np.uint32)
    return indices, flat[indices]


def make(family):
    prompts = Prompts(family)
    model, report = family.model.from_pretrained(family.folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    assert not any(report.values()), report
    for (name, weight), (_, built) in zip(model.named_parameters(), build(family).named_parameters(), strict=True):
        assert torch.equal(weight, built), name
    assert poor(runs(model.eval(), prompts)) is None, poor(runs(model, prompts))
    arrays, cases = {}, []
    for name, images, messages, prompt, given in prepared(prompts):
        logits, ids, steps = greedy(model, given, STEPS)
        if name != "no-image":
            rows, deep = features(model, given)
            arrays[f"{name}.pixel_indices"], arrays[f"{name}.pixel_values"] = sampled(given["pixel_values"].numpy())
            for index, image in enumerate(rows):
                arrays[f"{name}.{index}.features"] = image.numpy()
                for level, extra in enumerate(deep):
                    arrays[f"{name}.{index}.deepstack.{level}"] = extra[index].numpy()
        count = len(logits)
        kept_rows = sorted({*range(0, count, -(-count // ROWS)), count - 1}) if name == "image" else [count - 1]
        arrays[f"{name}.logits"] = logits[kept_rows]
        phases, delta = positions(model, given)
        assert max(map(max, phases)) + 1 - count == delta
        cases.append(
            {
                "name": name,
                "images": [relative(IMAGES / image) for image in images],
                "messages": messages,
                "text": prompt,
                "input_ids": given["input_ids"][0].tolist(),
                "grids": given["image_grid_thw"][:, 1:].tolist() if images else [],
                "phases": phases,
                "delta": delta,
                "logit_rows": kept_rows,
                "tokens": ids,
                "steps": steps,
            }
        )
    given = next(prepared(prompts))[4]
    kept = streaming(given["input_ids"].shape[1])
    _, ids, steps = greedy(model, given, STEPS, kept)
    evicted = {"case": "image", "cache": {"method": "streaming", "keep": len(kept) / len(given["input_ids"][0]), "decode": "none"}, "kept": kept, "tokens": ids, "steps": steps}
    then, arrays["later.logits"] = later(model, prompts)
    two = next(given for name, *_, given in prepared(prompts) if name == "two-images")
    rows, arrays["narrowed.logits"] = narrowed(model, two)
    twice = read_twice(model, prompts, two)
    for key in ("images", "more"):
        then[key] = [relative(IMAGES / image) for image in then[key]]
    write_arrays(DATA / f"{family.name}.safetensors", arrays)
    golden = {"model": relative(family.folder), "cases": cases, "evicted": evicted, "later": then, "narrowed": rows, "twice": twice}
    write_json(DATA / f"{family.name}.json", golden)


def sizes():
    """What `smart_resize` makes of sizes, with the limits of hub files and others: height and width, or nothing where it refuses."""
    limits = [(28, 3136, 12_845_056), (28, 3136, 1_003_520), (32, 65_536, 16_777_216), (8, 256, 2560), (28, 200_704, 200_704)]
    draw = np.random.default_rng(0)
    some = [(1, 1), (200, 1), (201, 1), (150, 200), (480, 640), (677, 1013), (1200, 300), (1080, 1920), (3, 100), (14, 42), (70, 126), (4000, 6000)]
    some += [tuple(map(int, np.exp(draw.uniform(0, math.log(5000), 2)))) for _ in range(60)]
    found = []
    for factor, least, most in limits:
        made = []
        for height, width in some:
            try:
                made.append([height, width, *smart_resize(height, width, factor, least, most)])
            except ValueError:
                made.append([height, width, 0, 0])
        found.append({"factor": factor, "min_pixels": least, "max_pixels": most, "sizes": made})
    write_json(DATA / "qwen_vl_sizes.json", {"cases": found})


HUB_TOWER = {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "in_chans": 3, "hidden_size": 3584, "patch_size": 14}
HUB_TOWER |= {"spatial_merge_size": 2, "spatial_patch_size": 14, "temporal_patch_size": 2}
MROPE = {"type": "mrope", "mrope_section": [16, 24, 24]}
HUB_2 = {"model_type": "qwen2_vl", "hidden_size": 3584, "intermediate_size": 18944, "max_position_embeddings": 32768}
HUB_2 |= {"max_window_layers": 28, "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4, "rms_norm_eps": 1e-6}
HUB_2 |= {"rope_theta": 1e6, "sliding_window": 32768, "use_sliding_window": False, "tie_word_embeddings": False, "vocab_size": 152064}
HUB_2 |= {"rope_scaling": MROPE, "vision_config": HUB_TOWER, "image_token_id": 151655, "eos_token_id": 151645}
HUB_25 = HUB_2 | {"model_type": "qwen2_5_vl", "hidden_size": 2048, "intermediate_size": 11008, "max_position_embeddings": 128000}
HUB_25 |= {"num_attention_heads": 16, "num_hidden_layers": 36, "num_key_value_heads": 2, "tie_word_embeddings": True, "vocab_size": 151936}
HUB_25 |= {"vision_config": {"depth": 32, "hidden_act": "silu", "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "in_chans": 3}}
HUB_25["vision_config"] |= {"out_hidden_size": 2048, "patch_size": 14, "spatial_merge_size": 2, "window_size": 112, "tokens_per_second": 2}
HUB_25["vision_config"] |= {"fullatt_block_indexes": [7, 15, 23, 31], "temporal_patch_size": 2, "spatial_patch_size": 14}
ROPE_3 = {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"}
TEXT_3 = {"model_type": "qwen3_vl_text", "head_dim": 128, "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36}
TEXT_3 |= {"max_position_embeddings": 262144, "num_attention_heads": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-6}
TEXT_3 |= {"rope_scaling": ROPE_3, "rope_theta": 5e6, "tie_word_embeddings": True, "vocab_size": 151936, "attention_bias": False}
TOWER_3 = {"model_type": "qwen3_vl", "depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "out_hidden_size": 2560}
TOWER_3 |= {"deepstack_visual_indexes": [5, 11, 17], "num_position_embeddings": 2304, "patch_size": 16, "hidden_act": "gelu_pytorch_tanh"}
HUB_3 = {"model_type": "qwen3_vl", "image_token_id": 151655, "tie_word_embeddings": True, "text_config": TEXT_3, "vision_config": TOWER_3}


def without(config, *keys):
    return {key: value for key, value in config.items() if key not in keys}


CONFIGS = {
    "qwen2-vl-7b": HUB_2,
    "qwen2-vl-sparse": without(HUB_2, "rope_theta", "rms_norm_eps", "max_window_layers", "image_token_id", "rope_scaling"),
    "qwen2-vl-bare": {"model_type": "qwen2_vl", "vision_config": {"hidden_size": 8192}},
    "qwen2-vl-resaved": HUB_2 | {"rope_scaling": {"rope_type": "default", "type": "default", "mrope_section": [16, 24, 24]}},
    "qwen2-vl-windows": HUB_2 | {"use_sliding_window": True, "max_window_layers": 20, "sliding_window": 4096},
    "qwen2-vl-null-kv-heads": HUB_2 | {"num_key_value_heads": None},
    "qwen2-vl-stray-head-dim": HUB_2 | {"head_dim": 64},
    "qwen2-vl-nested": {"model_type": "qwen2_vl", "vision_config": HUB_TOWER, "hidden_size": 1234, "tie_word_embeddings": False}
    | {"text_config": without(HUB_2, "vision_config", "model_type", "image_token_id") | {"tie_word_embeddings": True}},
    "qwen2.5-vl-3b": HUB_25,
    "qwen2.5-vl-sparse-tower": HUB_25 | {"vision_config": {"hidden_size": 1280, "out_hidden_size": 2048}},
    "qwen2.5-vl-tower-by-other-names": HUB_25
    | {"vision_config": {"hidden_size": 1280, "out_hidden_size": 2048, "num_attention_heads": 8, "num_hidden_layers": 12}},
    "qwen2.5-vl-bare": {"model_type": "qwen2_5_vl", "vision_config": {"out_hidden_size": 8192}},
    "qwen3-vl-4b": HUB_3,
    "qwen3-vl-bare": {"model_type": "qwen3_vl", "vision_config": {"out_hidden_size": 4096}},
    "qwen3-vl-sparse": HUB_3 | {"text_config": without(TEXT_3, "rope_theta", "rope_scaling", "head_dim", "vocab_size")},
    "qwen3-vl-new-rope": HUB_3
    | {"text_config": without(TEXT_3, "rope_theta", "rope_scaling") | {"rope_parameters": ROPE_3 | {"rope_theta": 5e6}}},
}


def resolved(config):
    text, vision = config.text_config, config.vision_config
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size")
    found = {name: getattr(text, name) for name in (*names, "max_position_embeddings", "rms_norm_eps")}
    kind = config.model_type
    found["head_dim"] = text.head_dim if kind == "qwen3_vl" else text.hidden_size // text.num_attention_heads
    found["theta"] = text.rope_parameters["rope_theta"]
    usual = [24, 20, 20] if kind == "qwen3_vl" else [16, 24, 24]
    found["sections"] = text.rope_parameters.get("mrope_section", usual)
    windows = getattr(text, "layer_types", None) or []
    found["windows"] = [layer for layer, named in enumerate(windows) if named == "sliding_attention"]
    found |= {"tied": config.tie_word_embeddings, "image_token_id": config.image_token_id}
    tower = {name: getattr(vision, name) for name in ("depth", "num_heads", "patch_size", "spatial_merge_size", "temporal_patch_size")}
    tower["width"] = vision.embed_dim if kind == "qwen2_vl" else vision.hidden_size
    tower["inner"] = vision.embed_dim * vision.mlp_ratio if kind == "qwen2_vl" else vision.intermediate_size
    tower["out"] = vision.hidden_size if kind == "qwen2_vl" else vision.out_hidden_size
    tower["theta"] = vision.rope_parameters["rope_theta"]
    tower["act"] = vision.hidden_act
    tower["whole"] = list(getattr(vision, "fullatt_block_indexes", []))
    tower["window"] = getattr(vision, "window_size", None)
    tower["deepstack"] = list(getattr(vision, "deepstack_visual_indexes", []))
    tower["places"] = getattr(vision, "num_position_embeddings", None)
    return found | {"tower": tower}


def configs():
    """How sparse, old and new files resolve."""
    found = []
    for name, value in CONFIGS.items():
        with tempfile.TemporaryDirectory() as folder:
            write_json(Path(folder) / "config.json", value)
            found.append({"name": name, "config": value, "resolved": resolved(AutoConfig.from_pretrained(folder))})
    write_json(DATA / "qwen_vl_configs.json", {"cases": found})


if __name__ == "__main__":
    for family in ALL:
        if "--search" in sys.argv:
            save_family(family)
            print(f"{family.name}: seed {search(family)}", flush=True)
        else:
            make(family)
    if "--search" not in sys.argv:
        sizes()
        configs()
