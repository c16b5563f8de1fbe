"""KVQuant's codebooks and the keys and values that they give back, from the paper's formulas in numpy.

    python tests/golden/kvquant.py

Nothing here reads the package. Calibration and prompt are formulas that the reader repeats; the choices are those of docs/methods/kvquant.md.
"""

import json
import math

import numpy as np

from common import DATA
from stores import HEADS, IMAGE, N, SHOWN, STRIDE, WANTED, WINDOW, half, inputs, noise

# Positions that are calibrated on.
CALIBRATED = 400
CELLS = 65536
f32 = np.float32


def calibration_inputs(layer, dim):
    """[T, heads * d] in f32; cubes, so that numbers crowd in the middle, and a channel with outliers."""
    keys = noise(100 + 10 * layer, CALIBRATED * HEADS * dim).reshape(CALIBRATED, HEADS, dim) ** 3
    values = noise(101 + 10 * layer, CALIBRATED * HEADS * dim).reshape(CALIBRATED, HEADS, dim) ** 3
    keys[..., 3] *= f32(8)
    return keys.reshape(CALIBRATED, -1), values.reshape(CALIBRATED, -1)


def apart(outliers, dim):
    return math.ceil(outliers * dim)


def cover(low, high):
    """Half a range and its middle."""
    return np.maximum((high - low) * f32(0.5), f32(1e-6)), (high + low) * f32(0.5)


def ranges(keys, dim, count, rounds=8):
    """Of each channel, over what is left of the rows of heads when `count` numbers of each lie apart: from the range of all numbers on."""
    rows = keys.reshape(len(keys), HEADS, dim)
    low, high = rows.min(0), rows.max(0)
    for _ in range(rounds if count else 0):
        scale, zero = cover(low, high)
        order = np.argsort(-np.abs((rows - zero) / scale), axis=-1, kind="stable")[..., :count]
        gone = np.zeros(rows.shape, bool)
        np.put_along_axis(gone, order, True, -1)
        least, most = np.where(gone, f32(np.inf), rows).min(0), np.where(gone, f32(-np.inf), rows).max(0)
        none = least > most
        least, most = np.where(none, low, least), np.where(none, high, most)
        same = (least == low).all() and (most == high).all()
        low, high = least, most
        if same:
            break
    scale, zero = cover(low, high)
    return scale.reshape(-1), zero.reshape(-1)


def clusters(numbers, weight, count):
    """Levels for weighted numbers from -1 to 1: Lloyd's iteration over a histogram, from equal parts."""
    weight = np.broadcast_to(weight, numbers.shape)[(numbers >= -1) & (numbers <= 1)]
    numbers = numbers[(numbers >= -1) & (numbers <= 1)].astype(np.float64)
    cell = np.minimum(((numbers + 1) * (CELLS / 2)).astype(int), CELLS - 1)
    n, sums = np.bincount(cell, weight, CELLS), np.bincount(cell, weight * numbers, CELLS)
    n, sums = n[n > 0], sums[n > 0]
    means, seen = sums / n, np.cumsum(n)
    start = [means[np.searchsorted(seen, (i + 0.5) / count * seen[-1], side="right")] for i in range(count)]

    def lloyd(x, weight, levels, rounds=500):
        levels = np.array(levels)
        for _ in range(rounds):
            nearest = np.searchsorted((levels[1:] + levels[:-1]) / 2, x)
            mass, total = np.bincount(nearest, weight, count), np.bincount(nearest, weight * x, count)
            moved = np.where(mass > 0, total / np.where(mass > 0, mass, 1), levels)
            far = np.abs(moved - levels).max()
            levels = moved
            if far < 1e-9:
                break
        return levels

    levels = lloyd(means, n, start)
    # The cells cost nothing: the numbers themselves hardly move the clusters.
    error = lambda levels: (weight * np.square(numbers[:, None] - levels[None]).min(1)).sum()
    assert error(levels) < 1.01 * error(lloyd(numbers, weight, levels)), "the histogram is too coarse"
    assert (np.diff(levels) > 1e-5).all()
    return levels.astype(f32)


def find(layer, dim, bits, outliers):
    keys, values = calibration_inputs(layer, dim)
    scales, zeros = ranges(keys, dim, apart(outliers, dim))
    # How much each position counts.
    weights = np.abs(noise(102 + layer, CALIBRATED)).astype(np.float64) + 0.05
    rows = values.reshape(-1, dim)
    away = np.abs(rows - rows.astype(np.float64).mean(1, keepdims=True).astype(f32))
    order = np.argsort(-away, axis=1, kind="stable")[:, apart(outliers, dim) :]
    left = np.take_along_axis(rows, order, 1)
    scale, zero = cover(left.min(1), left.max(1))
    return {
        "layer": layer,
        "keys": clusters((keys - zeros) / scales, weights[:, None], 2**bits),
        "values": clusters((left - zero[:, None]) / scale[:, None], np.repeat(weights, HEADS)[:, None], 2**bits),
        "scales": scales,
        "zeros": zeros,
    }


def nearest(x, levels):
    return levels[np.abs(x[..., None] - levels).argmin(-1)]


def coded_keys(keys, books, count):
    """[T, heads, d] before their rotary embedding."""
    scale, zero = (books[name].astype(np.float64).reshape(HEADS, -1) for name in ("scales", "zeros"))
    even = (keys - zero) / scale
    back = nearest(even, books["keys"].astype(np.float64)) * scale + zero
    return whole(back, keys, np.abs(even), count)


def coded_values(values, books, count):
    away = np.abs(values - values.mean(-1, keepdims=True))
    left = np.take_along_axis(values, np.argsort(-away, -1, kind="stable")[..., count:], -1)
    low, high = left.min(-1, keepdims=True), left.max(-1, keepdims=True)
    scale, zero = half((high - low) / 2), half((high + low) / 2)
    back = nearest((values - zero) / scale, books["values"].astype(np.float64)) * scale + zero
    return whole(back, values, away, count)


def whole(back, rows, away, count):
    """The `count` numbers of a row that are farthest away, in f16."""
    order = np.argsort(-away, -1, kind="stable")[..., :count]
    np.put_along_axis(back, order, half(np.take_along_axis(rows, order, -1)), -1)
    return back


def store(keys, values, books, count, sinks):
    k, v = keys.copy(), values.copy()
    some = slice(sinks, N - WINDOW)
    k[some], v[some] = coded_keys(keys[some], books, count), coded_values(values[some], books, count)
    return k, v


def rounded(books):
    """As the file has them, and a store uses them."""
    return {name: of.astype(np.float64).round(6).astype(f32) if isinstance(of, np.ndarray) else of for name, of in books.items()}


def plain(books):
    return {name: [round(float(x), 6) for x in of] if isinstance(of, np.ndarray) else of for name, of in books.items()}


def main():
    cases = []
    for dim in (64, 80, 128):
        for bits, outliers, sinks in ((4, 0.01, 1), (2, 0.01, 1), (4, 0.05, 0), (2, 0.0, 3)):
            both = [rounded(find(layer, dim, bits, outliers)) for layer in (0, 1)]
            calibration = {
                "format": "prefixkv-codebooks",
                "version": 1,
                "model": {"layers": 2, "kvHeads": HEADS, "headDim": dim},
                "bits": bits,
                "outliers": outliers,
                "layers": [plain(books) for books in both],
            }
            cache = {"method": "kvquant", "window": WINDOW, "sinks": sinks, "calibration": calibration}
            layers = []
            for layer, books in enumerate(both):
                given = inputs(layer, dim, before=True)
                keys, values = store(*given, books, apart(outliers, dim), sinks)
                firm = np.ones((N, HEADS), bool)
                for seed in range(16):
                    nudge = np.random.default_rng(seed)
                    moved = [x * (1 + nudge.uniform(-1e-5, 1e-5, x.shape)) for x in given]
                    for a, b in zip((keys, values), store(*moved, books, apart(outliers, dim), sinks)):
                        firm &= (np.abs(a - b) < 1e-4).all(2)
                shown = [p for p in WANTED if firm[p, p % HEADS]][:SHOWN]
                assert len(shown) == SHOWN, (dim, bits, len(shown))
                rows = lambda x: [[round(float(v), 6) for v in x[p, p % HEADS, ::STRIDE]] for p in shown]
                layers.append({"shown": shown, "keys": rows(keys), "values": rows(values)})
            cases.append({"dim": dim, "cache": cache, "layers": layers})
    out = {"heads": HEADS, "positions": N, "image": [IMAGE.start, len(IMAGE)], "stride": STRIDE, "cases": cases}
    out["calibrated"] = CALIBRATED
    (DATA / "kvquant.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
