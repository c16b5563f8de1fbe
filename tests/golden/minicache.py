"""Directions of two layers that are stored once (MiniCache, arXiv 2405.14366), by numpy in f64; and logits behind them, from transformers.

`rows` has what becomes of made-up rows of two layers: which positions stay unmerged, the direction of the others and their sizes. For
`logits` a prompt is read whole; then all but the last entries of the deeper layers are replaced, two layers at a time, and some tokens
follow."""

import numpy as np
import torch
from common import DATA, write_json
from tiny_llava import load
from transformers import DynamicCache

N, STEPS, WINDOW, STRIDE = 90, 5, 8, 24
HEADS, DIM, ROWS, SHOWN = 2, 16, 75, 3


def between(first, second, t):
    """The point of the arc from one direction to the other, of length 1, for rows [..., dim]."""
    sizes = [np.linalg.norm(rows, axis=-1, keepdims=True) for rows in (first, second)]
    a, b = (rows / np.where(size > 0, size, 1) for rows, size in zip((first, second), sizes))
    angle = np.arccos(np.clip((a * b).sum(-1, keepdims=True), -1, 1))
    sine = np.sin(angle)
    arc = sine > 1e-4
    safe = np.where(arc, sine, 1)
    mixed = np.where(arc, np.sin((1 - t) * angle) / safe * a + np.sin(t * angle) / safe * b, (1 - t) * a + t * b)
    mixed = np.where((sizes[0] > 0) & (sizes[1] > 0), mixed, a + b)
    length = np.linalg.norm(mixed, axis=-1, keepdims=True)
    return mixed / np.where(length > 0, length, 1), sizes


def angles(first, second):
    sizes = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    cosine = (first * second).sum(-1) / np.where(sizes > 0, sizes, 1)
    return np.arccos(np.clip(np.where(sizes > 0, cosine, 0), -1, 1)).sum(-1)


def retained(keys, values, share):
    """Positions whose angles are the largest, of rows [2, positions, heads, dim]."""
    far = angles(*keys) + angles(*values)
    count = int(np.floor(share * len(far) + 0.5))
    order = sorted(range(len(far)), key=lambda at: (-far[at], at))
    return sorted(order[:count])


def noise(seed, n):
    i = np.arange(n)
    of = (((i + seed) * 7919 + seed * 104_729) % 10_007).astype(np.float32)
    return ((of / np.float32(10_007) - np.float32(0.5)) * np.float32(2)).astype(np.float64)


def made_up():
    """Rows [2, positions, heads, dim] of two layers, in f32: alike, but for some that are parallel, opposite or nothing."""
    sides = []
    for seed in (1, 3):
        first = noise(seed, ROWS * HEADS * DIM)
        second = (1.5 * first + noise(seed + 20, ROWS * HEADS * DIM)).astype(np.float32).astype(np.float64)
        rows = np.stack([first, second]).reshape(2, ROWS, HEADS, DIM)
        rows[1, 4], rows[1, 5, 0], rows[0, 6] = 2 * rows[0, 4], -rows[0, 5, 0], 0
        sides.append(rows)
    return sides


def of_rows():
    cases = []
    keys, values = made_up()
    for t, share in ((0.6, 0.05), (0.25, 0.2), (1, 0)):
        settled = slice(0, ROWS - WINDOW)
        whole = retained(keys[:, settled], values[:, settled], share)
        merged = [at for at in range(ROWS - WINDOW) if at not in whole]
        case = {"t": t, "retain": share, "window": WINDOW, "retained": whole}
        for name, rows in (("keys", keys), ("values", values)):
            direction, sizes = between(rows[0, merged], rows[1, merged], t)
            case[name] = [[round(float(x), 7) for x in row] for row in direction.reshape(len(merged), -1)[:, ::SHOWN]]
            case[f"{name}Gains"] = [[round(float(x), 6) for x in size.reshape(-1)] for size in sizes]
        cases.append(case)
    return {"heads": HEADS, "dim": DIM, "positions": ROWS, "stride": SHOWN, "cases": cases}


def of_logits():
    _, model = load()
    model.set_attn_implementation("eager")
    config = model.config.get_text_config()
    tokens = [40 + i * 7 % 90 for i in range(N)]
    behind = [41 + i * 11 % 90 for i in range(STEPS)]
    cases = []
    for start, t, share in ((0.5, 0.6, 0.05), (0.25, 0.4, 0.3)):
        cache = DynamicCache(config=config)
        model(input_ids=torch.tensor([tokens]), past_key_values=cache, use_cache=True)
        layers = config.num_hidden_layers
        whole = {}
        for lower in range(int(start * layers), layers - 1, 2):
            pair = [cache.layers[lower], cache.layers[lower + 1]]
            sides = []
            for name in ("keys", "values"):
                held = [getattr(layer, name)[0].transpose(0, 1).double().numpy() for layer in pair]
                sides.append(np.stack(held)[:, : N - WINDOW])
            whole[lower] = retained(*sides, share)
            merged = [at for at in range(N - WINDOW) if at not in whole[lower]]
            for name, rows in zip(("keys", "values"), sides):
                direction, sizes = between(rows[0, merged], rows[1, merged], t)
                for layer, size in zip(pair, sizes):
                    getattr(layer, name)[0][:, merged] = torch.tensor(direction * size).float().transpose(0, 1)
        logits = []
        for token in behind:
            out = model(input_ids=torch.tensor([[token]]), past_key_values=cache, use_cache=True)
            logits.append([round(float(x), 5) for x in out.logits[0, -1, ::STRIDE]])
        given = {"method": "minicache", "from": start, "t": t, "retain": share, "window": WINDOW}
        retained_of = [{"layer": layer, "positions": positions} for layer, positions in whole.items()]
        cases.append({"cache": given, "retained": retained_of, "logits": logits})
    return {"tokens": tokens, "behind": behind, "stride": STRIDE, "cases": cases}


def main():
    write_json(DATA / "minicache.json", {"rows": of_rows(), "logits": of_logits()})


if __name__ == "__main__":
    main()
