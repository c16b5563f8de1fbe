"""Measures what a checkpoint can do, on scenes it was not trained on.

    python evaluate.py FOLDER                     60 fresh scenes
    python evaluate.py FOLDER --samples SCENES    the scenes and texts of a samples.json

Three views: the patches (what the vision tower names), the text under teacher
forcing (perplexity, content words, questions answered exactly), and free greedy
descriptions made by transformers from the saved folder.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import tokenizer as bpe
from losses import THING_PARTS, PatchLoss
from model import TinyLlava
from packing import Packer, to_labels, to_pixels
from scenes import COLORS, COLS, ROWS, SHAPES, SIZES, Scene, Thing, draw
from texts import ASK, Turn, detail_turn

HELD_OUT_SEED = 2_000_003
SAID = re.compile(rf"({'|'.join(SIZES)}) ({'|'.join(COLORS)}) ({'|'.join(SHAPES)})\b")
PLACE = re.compile(rf"({'|'.join(ROWS)}) ({'|'.join(COLS)})")


def held_out(count: int, fewest: int, most: int) -> list[Scene]:
    rng = np.random.default_rng(HELD_OUT_SEED)
    return [draw(rng, fewest, most) for _ in range(count)]


def measure_patches(model, tokenizer, scenes) -> dict[str, float]:
    with torch.no_grad():
        image = model.see(to_pixels(scenes))
        words = model.language_model.model.embed_tokens.weight
        return PatchLoss(tokenizer)(image, words, to_labels(scenes), THING_PARTS)[1]


@torch.no_grad()
def measure_text(model, tokenizer, scenes, references: list[Turn], questions: int = 12) -> dict:
    """Perplexity of the references (also with a wrong and a blank picture), content words, questions."""
    rng = np.random.default_rng(HELD_OUT_SEED + 1)
    packer = Packer(tokenizer, length=640)
    content_ids = torch.tensor(sorted(packer.content))
    nats = defaultdict(float)
    tokens = content = content_right = 0
    asked, right = defaultdict(int), defaultdict(int)
    for start in range(0, len(scenes), 4):
        some = scenes[start : start + 4]
        batch = packer.batch(some, [[[r]] for r in references[start : start + 4]])
        where = batch.targets >= 0
        target = batch.targets[where]
        others = [scenes[(start + i + 1) % len(scenes)] for i in range(len(some))]
        views = {"right": batch.pixels, "wrong": to_pixels(others), "blank": torch.zeros_like(batch.pixels)}
        for view, pixels in views.items():
            hidden, _ = model.read(batch.ids, model.see(pixels), batch.positions, batch.mask)
            logits = model.words(hidden[where])
            nats[view] += F.cross_entropy(logits, target, reduction="sum").item()
            if view == "right":
                telling = torch.isin(target, content_ids)
                tokens, content = tokens + len(target), content + int(telling.sum())
                content_right += int((logits.argmax(-1) == target)[telling].sum())
        if not questions:
            continue
        dialogues = []
        for scene in some:
            turns = [ASK[str(k)](rng, scene) for k in rng.permutation([k for k in ASK if k != "caption"] * 2)]
            dialogues.append([[t] for t in turns if t][:questions])
        batch = packer.batch(some, dialogues)
        hidden, _ = model.read(batch.ids, model.see(batch.pixels), batch.positions, batch.mask)
        hit = model.words(hidden).argmax(-1) == batch.targets
        for row, spans in enumerate(batch.kinds):
            for kind, a, b in spans:
                asked[kind] += 1
                # All tokens right under teacher forcing is the same as the greedy answer being right.
                right[kind] += bool(hit[row, a:b].all())
    found = {
        "perplexity": {view: round(math.exp(n / tokens), 3) for view, n in nats.items()},
        "content_words_right": round(content_right / content, 4),
    }
    if asked:
        found["questions"] = sum(asked.values())
        found["questions_right"] = round(sum(right.values()) / sum(asked.values()), 4)
        found["right_by_kind"] = {k: round(right[k] / asked[k], 3) for k in sorted(asked)}
    return found


@torch.no_grad()
def measure_descriptions(folder, tokenizer, scenes, longest: int = 200) -> dict:
    """Greedy descriptions by transformers; a thing is right when one sentence gives its place, colour and shape."""
    from transformers import LlavaForConditionalGeneration

    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    packer = Packer(tokenizer)
    ids = packer.prefix + packer.encode("Describe the image in detail. ASSISTANT:")
    texts = []
    for start in range(0, len(scenes), 16):
        some = scenes[start : start + 16]
        prompt = torch.tensor([ids] * len(some))
        out = model.generate(
            input_ids=prompt, attention_mask=torch.ones_like(prompt), pixel_values=to_pixels(some),
            max_new_tokens=longest, do_sample=False,
        )  # fmt: skip
        texts += [tokenizer.decode(o[len(ids) :].tolist()) for o in out]
    total = said_total = whole = color = shape = 0
    for scene, text in zip(scenes, texts):
        said = {}
        for sentence in text.split("."):
            place, what = PLACE.search(sentence), SAID.search(sentence)
            if place and what:
                said[place.group()] = what.groups()
        total, said_total = total + len(scene.things), said_total + len(said)
        for t in scene.things:
            _, c, s = said.get(t.place, ("", "", ""))
            color, shape = color + (c == t.color), shape + (s == t.shape)
            whole += (c, s) == (t.color, t.shape)
    return {
        "things": total,
        "place_color_shape_right": round(whole / total, 4),
        "place_color_right": round(color / total, 4),
        "place_shape_right": round(shape / total, 4),
        "precision": round(whole / said_total, 4) if said_total else 0.0,
        "example": texts[0].strip(),
    }


def evaluate(model, tokenizer, folder=None, count=60, fewest=3, most=6) -> dict:
    """`folder`, if given, must hold `model` as a checkpoint; it is then also asked to describe freely."""
    scenes = held_out(count, fewest, most)
    rng = np.random.default_rng(HELD_OUT_SEED + 2)
    found = {"scenes": count, "patches_right": measure_patches(model, tokenizer, scenes)}
    found["patches_right"] = {k: round(v, 4) for k, v in found["patches_right"].items()}
    found |= measure_text(model, tokenizer, scenes, [detail_turn(rng, s) for s in scenes])
    if folder:
        found["descriptions"] = measure_descriptions(folder, tokenizer, scenes)
    return found


def from_samples(folder: Path) -> tuple[list[Scene], list[Turn]]:
    scenes, references = [], []
    for s in json.loads((folder / "samples.json").read_text()):
        pixels = np.asarray(Image.open(folder / s["image"]).convert("RGB"))
        things = [Thing(o["row"], o["col"], o["size"], o["color"], o["shape"]) for o in s["objects"]]
        # The file tells neither the background nor which pixel is whose.
        scenes.append(Scene(things, None, pixels, np.full(pixels.shape[:2], -1, np.int8)))
        references.append(Turn("description", [s["question"]], s["answer"]))
    return scenes, references


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--samples", type=Path, help="folder of a samples.json and its pictures")
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--objects", type=int, nargs=2, default=(3, 6), metavar=("FEWEST", "MOST"))
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))
    model, tokenizer = TinyLlava.load(args.folder), bpe.load(args.folder / "tokenizer.json")
    if args.samples:
        scenes, references = from_samples(args.samples)
        scenes, references = scenes[: args.scenes], references[: args.scenes]
        found = measure_text(model, tokenizer, scenes, references, questions=0)
        found["descriptions"] = measure_descriptions(args.folder, tokenizer, scenes)
    else:
        found = evaluate(model, tokenizer, args.folder, args.scenes, *args.objects)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
