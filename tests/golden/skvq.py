"""Goldens of the calibration of SKVQ (arXiv 2405.06219): orders of channels and clips over scenes, from the caches of transformers.

    python tests/golden/skvq.py

What the store gives back with such a calibration is in `stores.py`."""

import json

import numpy as np
import torch
from PIL import Image
from transformers import DynamicCache

from common import DATA, SCENES, TINY_LLAVA, relative, write_json
from orders import clip, errors, orders
from stores import divisor, per_entry
from tiny_llava import load

SINKS = 5


def held(processor, model, sample):
    """Keys and values of every layer, `[T, heads, d]`, without the first positions."""
    prompt = f"USER: <image>\n{sample['question']} ASSISTANT:"
    inputs = processor(text=prompt, images=Image.open(SCENES / sample["image"]), return_tensors="pt")
    cache = DynamicCache(config=model.config.get_text_config())
    model(**inputs, past_key_values=cache, use_cache=True)
    rows = lambda x: x[0].permute(1, 0, 2).double().numpy()[SINKS:]
    return prompt, [(rows(layer.keys), rows(layer.values)) for layer in cache.layers]


def side(samples, group):
    """Order and clips of a side of a layer, and whether the clips are no matter of rounding."""
    found = orders(np.concatenate(samples), group)
    out = {"order": found}
    for seed in range(8):
        nudge = np.random.default_rng(seed)
        moved = [x * (1 + nudge.uniform(-1e-5, 1e-5, x.shape)) for x in samples]
        assert orders(np.concatenate(moved), group) == found, "an order that rounding decides"
    for bits in (2, 4):
        e = np.array(errors(samples, found, bits, group, per_entry))
        out[f"clip{bits}"] = clip(e.tolist())
        out[f"firm{bits}"] = bool((np.sort(e)[1] - e.min()) / e.min() > 1e-4)
    return out


def main():
    processor, model = load()
    scenes = json.loads((SCENES / "samples.json").read_text())[:2]
    found = [held(processor, model, sample) for sample in scenes]
    cases = []
    for asked in (8, 16):
        layers = []
        for index in range(len(found[0][1])):
            parts = [[sample[1][index][part] for sample in found] for part in (0, 1)]
            group = divisor(parts[0][0].shape[-1], asked)
            layers.append({name: side(rows, group) for name, rows in zip(("keys", "values"), parts)})
        firm = [layer[part][f"firm{bits}"] for layer in layers for part in layer for bits in (2, 4)]
        print(asked, sum(firm), "of", len(firm), [(layer["keys"]["clip2"], layer["values"]["clip2"]) for layer in layers])
        assert sum(firm) > len(firm) // 2
        cases.append({"group": asked, "layers": layers})
    samples = [{"image": sample["image"], "prompt": prompt} for sample, (prompt, _) in zip(scenes, found)]
    write_json(DATA / "skvq.json", {"model": relative(TINY_LLAVA), "sinks": SINKS, "samples": samples, "cases": cases})


if __name__ == "__main__":
    main()
