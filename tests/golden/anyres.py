"""Goldens of LLaVA-NeXT and LLaVA-OneVision, and of a LLaVA-Interleave: sizes, pixels, tower, connector, the rows of a picture, prompts,
logits, 32 greedy tokens, and what is left of a prompt, and answered from it, when entries are freed.

`anyres.py --search` prints a seed per fixture for which greedy decoding is neither dull nor nearly tied."""

import math
import sys
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image
from transformers import (
    LlavaForConditionalGeneration,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionProcessor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches, unpad_image
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

import anyres_models
import eviction
import rankings
from common import DATA, IMAGES, greedy, relative, write_arrays, write_json
from generate import TALL, TOKENS, WIDE, flaw, good_seed, loaded, pixel_samples, written
from templates import IMAGE, text, turn
from tiles import FEATURES, OPTIONS, PIXELS, SMALL, SQUARE, spread

ROWS = 12
SLIVER = "wide-501x1.png"
CASES = [
    ("image", [WIDE], [turn("user", IMAGE, text("What is in the picture?"))]),
    ("tall", [TALL], [turn("user", IMAGE, text("What is in the picture?"))]),
    ("square", [SQUARE], [turn("user", IMAGE, text("What is in the picture?"))]),
    ("sliver", [SLIVER], [turn("user", IMAGE, text("What is this line?"))]),
    ("two-images", [WIDE, SMALL], [turn("user", IMAGE, IMAGE, text("Which one is larger?"))]),
    ("no-image", [], [turn("user", text("Who are you?"))]),
    (
        "second-turn",
        [TALL],
        [turn("user", IMAGE, text("Describe it.")), turn("assistant", text("A ring.")), turn("user", text("And now?"))],
    ),
]
PIL = {
    LlavaNextForConditionalGeneration: LlavaNextImageProcessorPil,
    LlavaOnevisionForConditionalGeneration: LlavaOnevisionImageProcessorPil,
    LlavaForConditionalGeneration: SiglipImageProcessorPil,
}


def pictures_of(fixture, **changed):
    settings = fixture.processor | changed
    return PIL[fixture.model](**{key: value for key, value in settings.items() if key != "image_processor_type"})


class Pictured(LlavaOnevisionProcessor):
    """Without a processor of videos, which needs torchvision."""

    def check_argument_for_proper_class(self, name, given):
        assert name != "video_processor" or given is None


class Prompts:
    def __init__(self, fixture):
        self.fixture = fixture
        self.image_processor = pictures_of(fixture)
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(fixture.folder)
        self.several = fixture.model is LlavaOnevisionForConditionalGeneration
        strategy = fixture.config.get("vision_feature_select_strategy", "full" if self.several else "default")
        about = {"vision_feature_select_strategy": strategy, "chat_template": fixture.template}
        if self.several:
            ratio = fixture.config["vision_aspect_ratio"]
            self.processor = Pictured(
                self.image_processor, self.tokenizer, None, num_image_tokens=fixture.side() ** 2, vision_aspect_ratio=ratio, **about
            )
        else:
            kind = LlavaNextProcessor if fixture.model is LlavaNextForConditionalGeneration else LlavaProcessor
            extra = int(fixture.class_token())
            self.processor = kind(self.image_processor, self.tokenizer, patch_size=8, num_additional_image_tokens=extra, **about)

    def inputs(self, images, messages):
        prompt = self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        pictures = [Image.open(IMAGES / name).convert("RGB") for name in images]
        if not pictures:
            return prompt, self.tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        # OneVision takes the pictures of each conversation in a list of its own.
        return prompt, self.processor(text=prompt, images=[pictures] if self.several else pictures, return_tensors="pt")

    def tiles(self, inputs):
        """How many tiles each picture has."""
        if "image_sizes" not in inputs:
            return [1] * len(inputs["pixel_values"])
        sizes = inputs["image_sizes"].tolist()
        if self.several and len(sizes) > 1:
            return [1] * len(sizes)
        side = self.fixture.tower()["image_size"]
        return [image_size_to_num_patches(size, self.fixture.config["image_grid_pinpoints"], side) for size in sizes]


def load(fixture):
    return loaded(fixture.model, fixture.folder, anyres_models.build(fixture))


def features(model, inputs):
    """(what the projector takes of all tiles [tiles * cells, width]; the rows of each picture [positions, hidden])."""
    taken = {}
    hook = model.model.multi_modal_projector.register_forward_hook(lambda _module, given, made: taken.update(vision=given[0]))
    about = {key: inputs[key] for key in ("pixel_values", "image_sizes", "batch_num_images") if key in inputs}
    rows = model.model.get_image_features(**about).pooler_output
    hook.remove()
    return taken["vision"].flatten(0, 1).numpy(), [picture.flatten(0, -2).numpy() for picture in rows]


def search(fixture):
    return good_seed(fixture, Prompts(fixture), CASES, anyres_models)


def make(fixture):
    model, prompts = load(fixture), Prompts(fixture)
    arrays, cases, runs = {}, [], []
    for name, images, messages in CASES:
        prompt, inputs = prompts.inputs(images, messages)
        logits, ids, steps = greedy(model, inputs, TOKENS)
        runs.append((name, ids, steps))
        rows = spread(len(logits), ROWS) if name == "two-images" else [len(logits) - 1]
        arrays[f"{name}.logits"] = logits[rows]
        vision_rows, projected_rows = [], []
        if images:
            vision, projected = features(model, inputs)
            tiles, first, pixels = prompts.tiles(inputs), 0, []
            for number, count in enumerate(tiles):
                own = spread(count * fixture.side() ** 2, FEATURES)
                # The last ones too: rows and newlines are counted from all before them.
                taken = sorted({*spread(len(projected[number]), 2 * FEATURES), *range(len(projected[number]))[-8:]})
                vision_rows.append(own)
                projected_rows.append(taken)
                arrays[f"{name}.vision.{number}"] = vision[[first + row for row in own]]
                arrays[f"{name}.projected.{number}"] = projected[number][taken]
                first += count * fixture.side() ** 2
                picture = inputs["pixel_values"][number]
                pixels.append(np.asarray(picture[:count] if "image_sizes" in inputs else picture, np.float32).reshape(-1))
            assert first == len(vision)
            assert sum(map(len, projected)) == inputs["input_ids"][0].tolist().count(fixture.image_token())
            arrays |= pixel_samples(name, np.concatenate(pixels), PIXELS)
        own = dict(image_feature_rows=vision_rows, projected_rows=projected_rows)
        cases.append(written(name, images, messages, prompt, inputs, rows, (ids, steps), prompts.tokenizer, **own))
    found = flaw(fixture, runs, anyres_models.special_ids)
    assert found is None, (fixture.name, found)
    write_arrays(DATA / f"{fixture.name}.safetensors", arrays)
    write_json(DATA / f"{fixture.name}.json", {"model": relative(fixture.folder), "cases": cases})
    return model, prompts


def evicted(fixture, model, prompts):
    """As eviction.py, about pictures in tiles with marks of line ends."""
    stack = model.model.language_model
    eviction.IMAGE_TOKEN = rankings.IMAGE_TOKEN = fixture.image_token()
    llama = eviction.Llama(stack.config, stack.embed_tokens, stack, model.lm_head)
    scenes = []
    for name, images, messages in CASES[:2]:
        _, inputs = prompts.inputs(images, messages)
        ids = inputs["input_ids"][0]
        answer = greedy(model, inputs, TOKENS)[1]
        hidden = llama.embedding[ids].clone()
        hidden[ids == fixture.image_token()] = torch.from_numpy(np.concatenate(features(model, inputs)[1]))
        prompt = eviction.Prompt(llama, ids.tolist(), hidden, pictured=True)
        everything = inputs | {"input_ids": torch.cat([ids, torch.tensor(answer)])[None]}
        everything.pop("attention_mask")
        eviction.prove(prompt, answer, model(**everything).logits[0])
        found = eviction.results(name, prompt, answer, OPTIONS)
        scenes.append({"image": relative(IMAGES / images[0])} | found)
    write_json(DATA / "eviction" / f"{fixture.name}.json", {"model": relative(fixture.folder), "scenes": scenes})


# The hub's, and those of small fixtures; (tile, cells along its side, sizes, tiles whose cells a grid may have)
HUB_NEXT = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
HUB_ONEVISION = [[384 * down, 384 * across] for down in range(1, 7) for across in range(1, 7)]
SETTINGS = [
    (336, 24, HUB_NEXT, None),
    (384, 27, [[384 * down, 384 * across] for down, across in ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3), (1, 4), (4, 1))], None),
    (384, 27, HUB_ONEVISION, 9),
    (384, 27, HUB_ONEVISION, 4),
    (40, 5, anyres_models.ONEVISION, 2),
    (32, 4, anyres_models.NEXT, None),
]
KNOWN = [(200, 150), (640, 480), (1013, 677), (300, 1200), (1920, 1080), (336, 336), (337, 336), (1, 1), (1, 5000), (5000, 1), (4096, 4096)]


def sizes():
    """Where pictures of all shapes are brought, and what is left of their grids."""
    draw, found = np.random.default_rng(7), []
    for tile, side, choices, most in SETTINGS:
        drawn = [tuple(np.exp(draw.uniform(0, math.log(6000), 2)).astype(int).tolist()) for _ in range(70)]
        about = SimpleNamespace(vision_aspect_ratio=f"anyres_max_{most}")
        count = (LlavaNextProcessor if most is None else LlavaOnevisionProcessor)._get_unpadded_features
        made = []
        for width, height in [*KNOWN, *drawn]:
            high, wide = select_best_resolution((height, width), choices)
            empty = np.broadcast_to(np.zeros(1, np.uint8), (3, height, width))
            resized = get_patch_output_size(empty, (high, wide), "channels_first")
            cut = unpad_image(torch.zeros(1, high // tile * side, wide // tile * side), (height, width)).shape[1:]
            cells, newlines = count(about, height, width, side, side, high // tile, wide // tile)
            positions = side**2 + cells + newlines
            made.append([width, height, resized[1], resized[0], wide, high, *cut, positions])
        found.append({"tile": tile, "side": side, "choices": choices, "most": most, "sizes": made})
    write_json(DATA / "anyres_sizes.json", {"cases": found})


# Pictures and settings of processors: what is cut, and where.
PICTURES = [WIDE, TALL, SQUARE, SMALL, "one-pixel.png", "tall-1x500.png", SLIVER, "square-168.png"]
CHANGED = [{}, {"resample": 2, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}, {"resample": 0, "do_normalize": False}]


def cut(fixtures):
    arrays, cases = {}, []
    for fixture in fixtures:
        several = fixture.model is LlavaOnevisionForConditionalGeneration
        for number, changed in enumerate(CHANGED):
            processor = pictures_of(fixture, **changed)
            for name in PICTURES:
                picture = Image.open(IMAGES / name).convert("RGB")
                for beside in [False, True] if several else [False]:
                    given = [[picture, picture]] if beside else [[picture]] if several else [picture]
                    flat = np.asarray(processor(given)["pixel_values"][0], np.float32)
                    chosen = np.sort(np.random.default_rng(number).choice(flat.size, 64, replace=False)).astype(np.uint32)
                    key = f"{fixture.name}/{number}/{name}{'/beside' if beside else ''}"
                    arrays |= {f"{key}.at": chosen, f"{key}.values": flat.reshape(-1)[chosen]}
                    tiles = 1 if beside else len(flat)
                    about = {"config": relative(fixture.folder), "settings": fixture.processor | changed}
                    cases.append({"key": key} | about | {"image": relative(IMAGES / name), "beside": beside, "tiles": tiles})
    write_arrays(DATA / "anyres.safetensors", arrays)
    write_json(DATA / "anyres.json", {"pictures": cases})


if __name__ == "__main__":
    chosen = [name for name in sys.argv[1:] if not name.startswith("--")]
    for fixture in [one for one in anyres_models.ALL if not chosen or one.name in chosen]:
        if "--search" in sys.argv:
            print(f"{fixture.name}: seed {search(fixture)}", flush=True)
            continue
        model, prompts = make(fixture)
        if fixture.name == "llava-next":
            evicted(fixture, model, prompts)
    if not chosen:
        sizes()
        cut([one for one in anyres_models.ALL if one.model is not LlavaForConditionalGeneration])
