"""Goldens of families that cut a picture into tiles: where pictures are cut, pixels, tower, connector, prompts, logits, 32 greedy
tokens, and what is left of a prompt, and answered from it, when entries are freed.

`tiles.py --search` prints a seed per fixture for which greedy decoding is neither dull nor nearly tied."""

import sys

import numpy as np
import torch
from PIL import Image
from transformers import (
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    PreTrainedTokenizerFast,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessorPil,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

import eviction
import rankings
import tiles_models
from common import DATA, IMAGES, greedy, relative, write_arrays, write_json
from generate import TALL, TOKENS, WIDE, flaw, good_seed, loaded, pixel_samples, written
from templates import IMAGE, text, turn

ROWS, PIXELS, FEATURES = 24, 512, 6
SQUARE, SMALL = "odd-337x336.png", "upscale-41x30.png"
CASES = [
    ("image", [WIDE], [turn("user", IMAGE, text("What is in the picture?"))]),
    ("tall", [TALL], [turn("user", IMAGE, text("What is in the picture?"))]),
    ("square", [SQUARE], [turn("user", IMAGE, text("What is in the picture?"))]),
    ("two-images", [WIDE, SMALL], [turn("user", text("Which is larger, "), IMAGE, text(" or "), IMAGE, text("?"))]),
    ("no-image", [], [turn("user", text("Who are you?"))]),
    (
        "second-turn",
        [TALL],
        [turn("user", IMAGE, text("Describe it.")), turn("assistant", text("A ring.")), turn("user", text("And now?"))],
    ),
]
PIL = {SmolVLMForConditionalGeneration: SmolVLMImageProcessorPil, Idefics3ForConditionalGeneration: Idefics3ImageProcessorPil}


class Prompts:
    def __init__(self, fixture):
        self.image_processor = PIL[fixture.model](**{k: v for k, v in fixture.processor.items() if k != "image_processor_type"})
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(fixture.folder)
        template = (fixture.folder / "chat_template.jinja").read_text()
        self.processor = Idefics3Processor(self.image_processor, self.tokenizer, fixture.cells, chat_template=template)

    def inputs(self, images, messages):
        prompt = self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        pictures = [Image.open(IMAGES / name).convert("RGB") for name in images]
        if not pictures:
            return prompt, self.tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        return prompt, self.processor(text=prompt, images=[pictures], return_tensors="pt")

    def grid(self, name):
        found = self.image_processor(Image.open(IMAGES / name).convert("RGB"), return_row_col_info=True)
        return found["rows"][0][0], found["cols"][0][0]


def load(fixture):
    return loaded(fixture.model, fixture.folder, tiles_models.build(fixture))


def features(model, inputs):
    """(what the connector's matrix takes, what it gives), each [tiles * cells, width]."""
    taken = {}
    hook = model.model.connector.modality_projection.register_forward_hook(
        lambda _module, given, made: taken.update(vision=given[0], projected=made)
    )
    model.model.get_image_features(inputs["pixel_values"], inputs["pixel_attention_mask"])
    hook.remove()
    return taken["vision"].flatten(0, 1).numpy(), taken["projected"].flatten(0, 1).numpy()


def search(fixture):
    return good_seed(fixture, Prompts(fixture), CASES, tiles_models)


def spread(count, most):
    return sorted({*range(0, count, -(-count // most)), count - 1})


def make(fixture):
    model, prompts = load(fixture), Prompts(fixture)
    arrays, cases, runs = {}, [], []
    for name, images, messages in CASES:
        prompt, inputs = prompts.inputs(images, messages)
        logits, ids, steps = greedy(model, inputs, TOKENS)
        runs.append((name, ids, steps))
        grids = [prompts.grid(image) for image in images]
        rows = spread(len(logits), ROWS) if name == "two-images" else [len(logits) - 1]
        arrays[f"{name}.logits"] = logits[rows]
        taken = []
        if images:
            vision, projected = features(model, inputs)
            first = 0
            for number, (down, across) in enumerate(grids):
                count = (down * across + 1) * fixture.cells
                own = spread(count, FEATURES)
                taken.append(own)
                at = [first + row for row in own]
                arrays |= {f"{name}.vision.{number}": vision[at], f"{name}.projected.{number}": projected[at]}
                first += count
            assert first == len(vision) == inputs["input_ids"][0].tolist().count(model.config.image_token_id)
            arrays |= pixel_samples(name, inputs["pixel_values"], PIXELS)
        own = dict(grids=grids, image_feature_rows=taken)
        cases.append(written(name, images, messages, prompt, inputs, rows, (ids, steps), prompts.tokenizer, **own))
    assert flaw(fixture, runs, tiles_models.special_ids) is None, (fixture.name, flaw(fixture, runs, tiles_models.special_ids))
    write_arrays(DATA / f"{fixture.name}.safetensors", arrays)
    write_json(DATA / f"{fixture.name}.json", {"model": relative(fixture.folder), "cases": cases})
    return model, prompts


def evicted(fixture, model, prompts):
    """As eviction.py, about a picture in tiles."""
    stack = model.model.text_model
    eviction.IMAGE_TOKEN = rankings.IMAGE_TOKEN = model.config.image_token_id
    llama = eviction.Llama(stack.config, stack.embed_tokens, stack, model.lm_head)
    scenes = []
    for name, images, messages in CASES[:2]:
        _, inputs = prompts.inputs(images, messages)
        ids = inputs["input_ids"][0]
        answer = greedy(model, inputs, TOKENS)[1]
        hidden = llama.embedding[ids].clone()
        hidden[ids == model.config.image_token_id] = torch.from_numpy(features(model, inputs)[1])
        prompt = eviction.Prompt(llama, ids.tolist(), hidden, pictured=True)
        everything = inputs | {"input_ids": torch.cat([ids, torch.tensor(answer)])[None]}
        everything.pop("attention_mask")
        eviction.prove(prompt, answer, model(**everything).logits[0])
        found = eviction.results(name, prompt, answer, OPTIONS)
        scenes.append({"image": relative(IMAGES / images[0])} | found)
    write_json(DATA / "eviction" / f"{fixture.name}.json", {"model": relative(fixture.folder), "scenes": scenes})


OPTIONS = [
    {"method": "streaming", "keep": 0.5},
    {"method": "snapkv", "keep": 0.4},
    {"method": "prefixkv", "keep": 0.5, "variant": "paper"},
    {"method": "h2o", "keep": 0.5},
    {"method": "knorm", "keep": 0.5, "decode": "lowest-score"},
    {"method": "adakv", "keep": 0.4},
    {"method": "vlCache", "keep": 0.5},
]

# Pictures and settings of processors: what is cut, and where.
PICTURES = [WIDE, TALL, SQUARE, SMALL, "one-pixel.png", "tall-1x500.png", "wide-501x1.png", "square-168.png"]
SETTINGS = [
    {},
    {"do_image_splitting": False},
    {"size": {"longest_edge": 100}},
    {"size": {"longest_edge": 32}},
    {"size": {"height": 50, "width": 90}, "resample": 3},
    {"do_resize": False, "resample": 2},
    {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]},
]


def cut(fixture):
    arrays, cases = {}, []
    for number, changed in enumerate(SETTINGS):
        settings = fixture.processor | changed
        processor = SmolVLMImageProcessorPil(**{k: v for k, v in settings.items() if k != "image_processor_type"})
        for name in PICTURES:
            found = processor(Image.open(IMAGES / name).convert("RGB"), return_row_col_info=True)
            flat = np.asarray(found["pixel_values"][0], np.float32)
            chosen = np.sort(np.random.default_rng(number).choice(flat.size, 160, replace=False)).astype(np.uint32)
            key = f"{number}/{name}"
            arrays |= {f"{key}.at": chosen, f"{key}.values": flat.reshape(-1)[chosen]}
            grid = [found["rows"][0][0], found["cols"][0][0]]
            cases.append({"key": key, "settings": settings, "image": relative(IMAGES / name), "grid": grid, "tiles": len(flat)})
    write_arrays(DATA / "tiles.safetensors", arrays)
    write_json(DATA / "tiles.json", {"config": relative(fixture.folder), "pictures": cases})


if __name__ == "__main__":
    chosen = [name for name in sys.argv[1:] if not name.startswith("--")]
    for fixture in [one for one in tiles_models.ALL if not chosen or one.name in chosen]:
        if "--search" in sys.argv:
            print(f"{fixture.name}: seed {search(fixture)}", flush=True)
            continue
        model, prompts = make(fixture)
        if fixture.marks:
            evicted(fixture, model, prompts)
            cut(fixture)
