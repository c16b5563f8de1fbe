"""Goldens of InternVL: where pictures are cut, pixels, tower, connector, prompts, logits, 32 greedy tokens, and an answer after an eviction.

`internvl.py --search` prints a seed per fixture for which greedy decoding is neither dull nor nearly tied."""

import sys

import numpy as np
import torch
from PIL import Image
from transformers import InternVLForConditionalGeneration, InternVLProcessor, PreTrainedTokenizerFast
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil, get_optimal_tiled_canvas

import internvl_models
from common import DATA, IMAGES, greedy, relative, vision_features, write_arrays, write_json
from generate import TALL, TOKENS, WIDE, flaw, good_seed, loaded, pixel_samples, written
from qwen_vl import best_two, streaming
from templates import IMAGE, text, turn
from tiles import FEATURES, PIXELS, ROWS, SMALL, SQUARE, spread

TIE, ONE = "square-168.png", "one-pixel.png"
CASES = [
    ("image", [WIDE], [turn("user", IMAGE, text("What is in the picture?"))]),
    ("tall", [TALL], [turn("user", IMAGE, text("What is in the picture?"))]),
    ("tie", [TIE], [turn("user", IMAGE, text("What is in the picture?"))]),
    ("one-tile", [ONE], [turn("user", IMAGE, text("What is it?"))]),
    ("two-images", [WIDE, ONE], [turn("user", text("Which is larger, "), IMAGE, text(" or "), IMAGE, text("?"))]),
    ("no-image", [], [turn("user", text("Who are you?"))]),
    (
        "second-turn",
        [TALL, SMALL],
        [turn("user", IMAGE, text("Describe it.")), turn("assistant", text("A ring.")), turn("user", IMAGE, text("And now?"))],
    ),
]


class Pictured(InternVLProcessor):
    """Without films, whose processor needs torchvision."""

    def check_argument_for_proper_class(self, argument_name, argument):
        return None if argument_name == "video_processor" else super().check_argument_for_proper_class(argument_name, argument)


class Prompts:
    """The processor of a fixture, whose file says that pictures are not cut: InternVLProcessor cuts them all the same."""

    def __init__(self, family, **changed):
        settings = {k: v for k, v in (family.processor | changed).items() if k != "image_processor_type"}
        self.image_processor = GotOcr2ImageProcessorPil(**settings)
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(family.folder)
        self.processor = Pictured(
            self.image_processor, self.tokenizer, image_seq_length=internvl_models.CELLS, chat_template=internvl_models.TEMPLATE
        )

    def inputs(self, images, messages):
        prompt = self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return prompt, self.given(images, prompt)

    def given(self, images, prompt):
        if not images:
            return dict(self.tokenizer(prompt, return_tensors="pt", return_token_type_ids=False))
        found = self.processor(text=prompt, images=[Image.open(IMAGES / name).convert("RGB") for name in images], return_tensors="pt")
        return {name: found[name] for name in ("input_ids", "pixel_values")}

    def grid(self, name):
        """Rows and columns; 0 for one tile."""
        picture, processor = Image.open(IMAGES / name), self.image_processor
        size = (processor.size["height"], processor.size["width"])
        columns, rows = (1, 1)
        if processor.max_patches > 1:
            columns, rows = get_optimal_tiled_canvas(picture.size[::-1], size, processor.min_patches, processor.max_patches)
        return (0, 0) if (columns, rows) == (1, 1) else (rows, columns)


def load(family):
    return loaded(InternVLForConditionalGeneration, family.folder, internvl_models.build(family))


def freed(model, given, kept):
    """Tokens and steps of an answer when only the entries `kept` stay behind the prompt; positions go on as if all had."""
    out = model(**given, use_cache=True)
    n, past, row, steps = given["input_ids"].shape[1], out.past_key_values, out.logits[0, -1], []
    for layer in past.layers:
        layer.keys, layer.values = layer.keys[:, :, kept], layer.values[:, :, kept]
    while True:
        steps.append(best_two(row))
        if len(steps) == TOKENS:
            return [step["best"][0] for step in steps], steps
        token, place = torch.tensor([[steps[-1]["best"][0]]]), torch.tensor([[n + len(steps) - 1]])
        row = model(input_ids=token, position_ids=place, past_key_values=past, use_cache=True).logits[0, -1]


def evicted(model, given):
    kept = streaming(given["input_ids"].shape[1])
    return {"case": "image", "keep": len(kept) / given["input_ids"].shape[1], "kept": kept} | dict(
        zip(("tokens", "steps"), freed(model, given, kept))
    )


def runs(model, prepared):
    for name, given in prepared:
        yield name, *greedy(model, given, TOKENS)[1:]
    yield "evicted", *freed(model, prepared[0][1], streaming(prepared[0][1]["input_ids"].shape[1]))


def search(family):
    return good_seed(family, Prompts(family), CASES, internvl_models, runs)


def make(family):
    model, prompts = load(family), Prompts(family)
    arrays, cases = {}, []
    for name, images, messages in CASES:
        prompt, inputs = prompts.inputs(images, messages)
        logits, ids, steps = greedy(model, inputs, TOKENS)
        grids, taken, cells = [prompts.grid(image) for image in images], [], internvl_models.CELLS
        rows = spread(len(logits), ROWS) if name == "two-images" else [len(logits) - 1]
        arrays[f"{name}.logits"] = logits[rows]
        if images:
            vision, projected = (each.reshape(-1, each.shape[-1]) for each in vision_features(model, inputs["pixel_values"]))
            first = 0
            for number, (down, across) in enumerate(grids):
                count = (down * across + 1) * cells
                taken.append(spread(count, FEATURES + 5))
                at = [first + row for row in taken[-1]]
                arrays |= {f"{name}.vision.{number}": vision[at], f"{name}.projected.{number}": projected[at]}
                first += count
            assert first == len(vision) == inputs["input_ids"][0].tolist().count(model.config.image_token_id)
            arrays |= pixel_samples(name, inputs["pixel_values"], PIXELS)
        own = dict(grids=grids, image_feature_rows=taken)
        cases.append(written(name, images, messages, prompt, inputs, rows, (ids, steps), prompts.tokenizer, **own))
    after = evicted(model, prompts.inputs(CASES[0][1], CASES[0][2])[1])
    made = [(case["name"], case["tokens"], case["steps"]) for case in cases] + [("evicted", after["tokens"], after["steps"])]
    assert flaw(family, made, internvl_models.special_ids) is None, (family.name, flaw(family, made, internvl_models.special_ids))
    write_arrays(DATA / f"{family.name}.safetensors", arrays)
    write_json(DATA / f"{family.name}.json", {"model": relative(family.folder), "cases": cases, "evicted": after})
    return arrays, cases


def renamed(arrays, cases):
    """The renamed checkpoint computes the same."""
    some = [case for case in cases if case["name"] in ("tie", "two-images")]
    names = tuple(f"{case['name']}." for case in some)
    write_arrays(DATA / "internvl-original.safetensors", {name: array for name, array in arrays.items() if name.startswith(names)})
    write_json(DATA / "internvl-original.json", {"model": relative(internvl_models.ORIGINAL), "cases": some})


# Pictures and settings of processors: what is cut, and where.
PICTURES = [WIDE, TALL, SQUARE, SMALL, ONE, TIE, "tall-1x500.png", "wide-501x1.png"]
SETTINGS = [
    {},
    {"crop_to_patches": True, "max_patches": 12},
    {"min_patches": 3, "max_patches": 4, "resample": 1},
    {"min_patches": 5, "max_patches": 4},
    {"max_patches": 1, "resample": 2},
    {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4], "do_resize": False},
]


def cut(family):
    arrays, cases = {}, []
    for number, changed in enumerate(SETTINGS):
        prompts = Prompts(family, **changed)
        for name in PICTURES:
            flat = np.asarray(prompts.given([name], internvl_models.CONTEXT)["pixel_values"], np.float32)
            chosen = np.sort(np.random.default_rng(number).choice(flat.size, 120, replace=False)).astype(np.uint32)
            key = f"{number}/{name}"
            arrays |= {f"{key}.at": chosen, f"{key}.values": flat.reshape(-1)[chosen]}
            settings, grid = family.processor | changed, prompts.grid(name)
            cases.append({"key": key, "settings": settings, "image": relative(IMAGES / name), "grid": grid, "tiles": len(flat)})
    write_arrays(DATA / "internvl_tiles.safetensors", arrays)
    write_json(DATA / "internvl_tiles.json", {"config": relative(family.folder), "pictures": cases})


if __name__ == "__main__":
    chosen = [name for name in sys.argv[1:] if not name.startswith("--")]
    for family in [one for one in internvl_models.ALL if not chosen or one.name in chosen]:
        if "--search" in sys.argv:
            print(f"{family.name}: seed {search(family)}", flush=True)
            continue
        made = make(family)
        if family.nested:
            renamed(*made)
        else:
            cut(family)
