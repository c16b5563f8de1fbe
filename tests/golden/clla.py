"""Latents of two layers (CLLA, arXiv 2410.15252, found by SVD and not trained), and logits behind a cache that is stored so, from transformers
and numpy.

    python tests/golden/clla.py

Hooks take the keys (before their rotary embedding) and values of all layers over two scenes. Then a prompt is read whole, all but the last
entries of a pair of layers are replaced by what is left of them along the first directions of both, those of the other layers by their
codes where there are some, and some tokens follow."""

import base64
import json

import numpy as np
import torch
from PIL import Image
from transformers import DynamicCache

from common import DATA, SCENES, TINY_LLAVA, relative, write_json
from cskv import unit
from lorc import turns
from stores import divisor, per_entry
from tiny_llava import load

N, STEPS, WINDOW, STRIDE, BLOCK = 90, 5, 8, 24, 32
# Whose latents they are, how many directions there are, and with which share and bits they are used.
CASES = [
    ("each", 32, 0.25, None),
    ("each", 32, 0.25, 8),
    ("each", 32, 0.2, 4),
    ("joint", 32, 0.04, None),
]
# The lower layers of the pairs that are stored; more would make the file larger.
LOWER = [6]
# The positions whose rows are shown, and of which layer.
SHOWN, LAYER, APART = [0, 17, 81], 7, 16


def seen(processor, model, text, samples):
    """Keys and values of all positions of all samples, `[positions, kv * dim]`, by layer and side."""
    rows, hooks = {}, []

    def hook(layer, side):
        return lambda _, __, output: rows.setdefault((layer, side), []).append(output[0].double().numpy())

    for index, layer in enumerate(text.layers):
        for side, projection in enumerate((layer.self_attn.k_proj, layer.self_attn.v_proj)):
            hooks.append(projection.register_forward_hook(hook(index, side)))
    for sample in samples:
        model(**processor(text=sample["prompt"], images=Image.open(SCENES / sample["image"]), return_tensors="pt"))
    for each in hooks:
        each.remove()
    return {key: np.concatenate(of) for key, of in rows.items()}


def vectors(parts, heads):
    """Four times `[positions, kv * dim]` as `[blocks, positions, 4 * size]`, one block per head or one of all."""
    cut = [part.reshape(len(part), heads, -1).transpose(1, 0, 2) for part in parts]
    return np.concatenate(cut, axis=2)


def directions(rows, rank):
    """The first right singular vectors of the rows of each block, as codes of 8 bits."""
    found = []
    for block in rows:
        first = np.linalg.svd(block, full_matrices=False)[2][:rank]
        first = first / np.abs(first).max(1, keepdims=True)
        first = first * np.sign(np.take_along_axis(first, np.abs(first).argmax(1)[:, None], 1))
        found.append(np.round(first * 127))
    return np.stack(found).astype(np.int8)


def wide(share, size):
    return min(-(-int(np.ceil(share * size - 1e-9)) // BLOCK) * BLOCK, size)


def main():
    processor, model = load()
    model.set_attn_implementation("eager")
    text = model.model.language_model
    config = model.config.get_text_config()
    kv, dim = config.num_key_value_heads, config.head_dim
    scenes = json.loads((SCENES / "samples.json").read_text())[:2]
    samples = [{"image": s["image"], "prompt": f"USER: <image>\n{s['question']} ASSISTANT:"} for s in scenes]
    with torch.no_grad():
        rows = seen(processor, model, text, samples)
    tokens = [40 + i * 7 % 90 for i in range(N)]
    behind = [41 + i * 11 % 90 for i in range(STEPS)]
    turn = turns(config, range(N))
    settled = N - WINDOW
    files, cases = [], []
    for heads, rank, share, bits in CASES:
        blocks = kv if heads == "each" else 1
        size = 4 * kv * dim // blocks
        layers, pairs = [], []
        for first in LOWER:
            parts = [rows[layer, side] for layer in (first, first + 1) for side in (0, 1)]
            sizes = [round(float(np.sqrt(np.mean(part**2))), 6) for part in parts]
            codes = directions(vectors([part / s for part, s in zip(parts, sizes)], blocks), rank)
            pairs.append((first, sizes, [unit(block) for block in codes]))
            cut = codes.reshape(blocks, rank, 4, -1)
            for index in (0, 1):
                of = [base64.b64encode(np.ascontiguousarray(cut[:, :, 2 * index + side]).tobytes()).decode() for side in (0, 1)]
                own = [sizes[2 * index], sizes[2 * index + 1]]
                layers.append({"layer": first + index, "keys": of[0], "values": of[1], "sizes": own})
        calibration = {
            "format": "prefixkv-directions",
            "version": 1,
            "model": {"layers": len(text.layers), "kvHeads": kv, "headDim": dim},
            "init": "covariance",
            "heads": heads,
            "span": "pair",
            "rank": rank,
            "layers": layers,
        }
        if calibration not in files:
            files.append(calibration)
        given = {"method": "clla", "latent": share, "window": WINDOW, "bits": str(bits or "whole")}
        width = wide(share, size)
        assert width <= rank
        cache, shown = DynamicCache(config=config), {}
        with torch.no_grad():
            model(input_ids=torch.tensor([tokens]), past_key_values=cache, use_cache=True)
            for lower, sizes, basis in pairs:
                held = [getattr(cache.layers[lower + layer], side) for layer in (0, 1) for side in ("keys", "values")]
                parts = []
                for part, (of, s) in enumerate(zip(held, sizes)):
                    own = of[0].transpose(0, 1).double().numpy()[:settled]
                    if part % 2 == 0:
                        own = np.einsum("nji,nhj->nhi", turn[:settled], own)
                    parts.append(own.reshape(settled, -1) / s)
                first = np.stack([block[:width] for block in basis])
                coordinates = np.einsum("bns,bws->nbw", vectors(parts, blocks), first)
                if bits:
                    coordinates = per_entry(coordinates, bits, divisor(width, BLOCK))
                again = np.einsum("nbw,bws->bns", coordinates, first).reshape(blocks, settled, 4, -1)
                for part, (of, s) in enumerate(zip(held, sizes)):
                    own = again[:, :, part].transpose(1, 0, 2).reshape(settled, kv, dim) * s
                    if lower + part // 2 == LAYER:
                        shown["keys" if part % 2 == 0 else "values"] = own.reshape(settled, -1)[SHOWN, ::APART]
                    if part % 2 == 0:
                        own = np.einsum("nij,nhj->nhi", turn[:settled], own)
                    of[0, :, :settled] = torch.tensor(own).float().transpose(0, 1)
            stored = {layer["layer"] for layer in layers}
            for layer in (layer for layer in range(len(text.layers)) if bits and layer not in stored):
                for side in ("keys", "values"):
                    of = getattr(cache.layers[layer], side)
                    own = of[0].transpose(0, 1).double().numpy()[:settled]
                    if side == "keys":
                        own = np.einsum("nji,nhj->nhi", turn[:settled], own)
                    own = per_entry(own, bits, divisor(dim, BLOCK))
                    if side == "keys":
                        own = np.einsum("nij,nhj->nhi", turn[:settled], own)
                    of[0, :, :settled] = torch.tensor(own).float().transpose(0, 1)
            logits = []
            for token in behind:
                out = model(input_ids=torch.tensor([[token]]), past_key_values=cache, use_cache=True)
                logits.append([round(float(x), 4) for x in out.logits[0, -1, ::STRIDE]])
        rounded = {name: [[round(float(x), 4) for x in row] for row in of] for name, of in shown.items()}
        cases.append({"file": files.index(calibration), "cache": given, "width": width, **rounded, "logits": logits})
    golden = {"model": relative(TINY_LLAVA), "samples": samples, "files": files, "shown": SHOWN, "layer": LAYER, "apart": APART}
    write_json(DATA / "clla.json", golden | {"tokens": tokens, "behind": behind, "stride": STRIDE, "cases": cases})


if __name__ == "__main__":
    main()
