"""Directions of keys and values (CSKV, arXiv 2409.10593), and logits behind a cache that is stored along them, from transformers and numpy.

    python tests/golden/cskv.py

Hooks take what goes into the projections of keys and values and what comes out of them, over two scenes. Then a prompt is read whole, all
but the last entries of every layer are replaced by what is left of them along the first directions, and some tokens follow."""

import base64
import json

import numpy as np
import torch
from PIL import Image
from transformers import DynamicCache

from common import DATA, SCENES, TINY_LLAVA, relative, write_json
from lorc import turns
from stores import divisor, per_channel, per_entry
from tiny_llava import load

N, STEPS, WINDOW, STRIDE, BLOCK = 90, 5, 8, 24, 32
LEAST = 1e-6
# How they are found, whose they are, the power, how many there are, and with which shares and bits they are used.
CASES = [
    ("covariance", "each", None, 16, 0.5, 0.25, None),
    ("covariance", "each", None, 16, 0.5, 0.25, 8),
    ("covariance", "each", None, 16, 0.25, 0.5, 4),
    ("asvd", "each", 0.5, 8, 0.25, 0.25, None),
    ("covariance", "joint", None, 16, 0.08, 0.04, None),
    ("asvd", "joint", 0.5, 8, 0.04, 0.02, None),
]


def watched(processor, model, text, samples):
    """By layer and side, the sum of products of keys (before their rotary embedding) or values with themselves, `[kv * dim, kv * dim]`, and
    the mean over the samples of the mean magnitude of each channel that they are made from."""
    moments, means, hooks = {}, {}, []

    def hook(layer, side):
        def see(_, inputs, output):
            given, made = inputs[0][0].double().numpy(), output[0].double().numpy()
            moments[layer, side] = moments.get((layer, side), 0) + made.T @ made
            means[layer, side] = means.get((layer, side), 0) + np.abs(given).mean(0) / len(samples)

        return see

    for index, layer in enumerate(text.layers):
        for side, projection in enumerate((layer.self_attn.k_proj, layer.self_attn.v_proj)):
            hooks.append(projection.register_forward_hook(hook(index, side)))
    for sample in samples:
        model(**processor(text=sample["prompt"], images=Image.open(SCENES / sample["image"]), return_tensors="pt"))
    for each in hooks:
        each.remove()
    return moments, means


def directions(matrices, rank):
    """The first directions of symmetric matrices, `[parts, rank, size]`, as codes of 8 bits."""
    parts = []
    for matrix in matrices:
        value, vector = np.linalg.eigh(matrix)
        rows = vector[:, ::-1].T[:rank]
        rows = rows / np.abs(rows).max(1, keepdims=True)
        rows = rows * np.sign(np.take_along_axis(rows, np.abs(rows).argmax(1)[:, None], 1))
        parts.append(np.round(rows * 127))
    return np.stack(parts).astype(np.int8)


def blocks(whole, size):
    return [whole[i : i + size, i : i + size] for i in range(0, len(whole), size)]


def unit(codes):
    """Unit vectors at right angles that span what the rows span, one by one."""
    q, r = np.linalg.qr(codes.astype(np.float64).T)
    return (q * np.sign(np.diag(r))).T


def lost(parts, matrices, width):
    """The share of all squares that is not along the first directions."""
    whole = sum(np.trace(m) for m in matrices)
    kept = sum(np.trace(p[:width] @ m @ p[:width].T) for p, m in zip(parts, matrices))
    return 1 - kept / whole


def left(rows, parts, width, bits, keyed):
    """What is left of `[positions, kv, dim]` along the first `width` directions of each part."""
    pieces = rows.reshape(len(rows), len(parts), -1)
    first = np.stack([part[:width] for part in parts])
    coordinates = np.einsum("npk,pwk->npw", pieces, first)
    if bits:
        coordinates = per_channel(coordinates, bits, BLOCK) if keyed else per_entry(coordinates, bits, divisor(width, BLOCK))
    return np.einsum("npw,pwk->npk", coordinates, first).reshape(rows.shape)


def wide(share, size):
    return min(-(-int(np.ceil(share * size - 1e-9)) // 8) * 8, size)


def main():
    processor, model = load()
    model.set_attn_implementation("eager")
    text = model.model.language_model
    config = model.config.get_text_config()
    kv, dim = config.num_key_value_heads, config.head_dim
    scenes = json.loads((SCENES / "samples.json").read_text())[:2]
    samples = [{"image": s["image"], "prompt": f"USER: <image>\n{s['question']} ASSISTANT:"} for s in scenes]
    with torch.no_grad():
        moments, means = watched(processor, model, text, samples)
    tokens = [40 + i * 7 % 90 for i in range(N)]
    behind = [41 + i * 11 % 90 for i in range(STEPS)]
    turn = turns(config, range(N))
    files, cases = [], []
    for init, heads, alpha, rank, keys, values, bits in CASES:
        size = dim * (kv if heads == "joint" else 1)
        layers, found = [], []
        for index, layer in enumerate(text.layers):
            sides = []
            for side, projection in enumerate((layer.self_attn.k_proj, layer.self_attn.v_proj)):
                matrix = moments[index, side]
                if init == "asvd":
                    scaled = projection.weight.detach().double().numpy() * (means[index, side] + LEAST) ** alpha
                    matrix = scaled @ scaled.T
                sides.append(blocks(matrix, size))
            found.append([directions(side, rank) for side in sides])
            text_of = [base64.b64encode(codes.tobytes()).decode() for codes in found[-1]]
            layers.append({"layer": index, "keys": text_of[0], "values": text_of[1]})
            # Eight bits lose next to nothing.
            exact = [np.linalg.eigh(m)[1][:, ::-1].T for m in sides[0]]
            coarse = [unit(codes) for codes in found[-1][0]]
            assert lost(coarse, sides[0], rank) < lost(exact, sides[0], rank) + 2e-4
        calibration = {
            "format": "prefixkv-directions",
            "version": 1,
            "model": {"layers": len(layers), "kvHeads": kv, "headDim": dim},
            "init": init,
            **({"alpha": alpha} if alpha else {}),
            "heads": heads,
            "rank": rank,
            "layers": layers,
        }
        if calibration not in files:
            files.append(calibration)
        given = {"method": "cskv", "keys": keys, "values": values, "window": WINDOW, "bits": str(bits or "whole")}
        widths = [wide(share, size) for share in (keys, values)]
        assert max(widths) <= rank
        settled = (N - WINDOW) // (BLOCK if bits else 1) * (BLOCK if bits else 1)
        cache = DynamicCache(config=config)
        with torch.no_grad():
            model(input_ids=torch.tensor([tokens]), past_key_values=cache, use_cache=True)
            for layer, sides in enumerate(found):
                for side, name in enumerate(("keys", "values")):
                    held = getattr(cache.layers[layer], name)
                    rows = held[0].transpose(0, 1).double().numpy()[:settled]
                    if name == "keys":
                        rows = np.einsum("nji,nhj->nhi", turn[:settled], rows)
                    rows = left(rows, [unit(codes) for codes in sides[side]], widths[side], bits, name == "keys")
                    if name == "keys":
                        rows = np.einsum("nij,nhj->nhi", turn[:settled], rows)
                    held[0, :, :settled] = torch.tensor(rows).float().transpose(0, 1)
            logits = []
            for token in behind:
                out = model(input_ids=torch.tensor([[token]]), past_key_values=cache, use_cache=True)
                logits.append([round(float(x), 5) for x in out.logits[0, -1, ::STRIDE]])
        cases.append({"file": files.index(calibration), "cache": given, "widths": widths, "logits": logits})
    golden = {"model": relative(TINY_LLAVA), "samples": samples, "files": files}
    write_json(DATA / "cskv.json", golden | {"tokens": tokens, "behind": behind, "stride": STRIDE, "cases": cases})


if __name__ == "__main__":
    main()
