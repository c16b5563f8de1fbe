"""Keys and values as stores give them back, from the papers' formulas in numpy.

    python tests/golden/stores.py

Nothing here reads the package. Every store takes the same prompt: keys that are rotated to their positions, values, and one layer per
case. Inputs are a formula that the reader repeats; the committed file has some rows of what comes back.
"""

import json

import numpy as np

from common import DATA
from orders import clip as best_clip, errors, ordered, orders, restored

HEADS, N, WINDOW = 2, 300, 20
# Query heads of a KV head.
GROUP = 2
# Of the shown rows every so many channels.
STRIDE = 5
IMAGE = range(10, 200)
# Positions whose rows may come out: of text and of the image, first and last ones of groups, and one in the window; the first eight
# that no last bit decides.
WANTED = [0, 9, 10, 31, 133, 200, 255, 290, *range(1, 300, 31), *range(2, 300, 3)]
SHOWN = 8


def noise(seed, n):
    i = np.arange(n, dtype=np.int64)
    return ((((i + seed) * 7919 + seed * 104729) % 10007).astype(np.float32) / np.float32(10007) - np.float32(0.5)) * np.float32(2)


def rotated(keys):
    """[T, heads, d] in the halves of Llama, theta 10000, by angles in f32 as everybody's."""
    t, _, d = keys.shape
    frequency = np.power(np.float32(10000), (-np.arange(0, d, 2) / d).astype(np.float32))
    angle = (np.arange(t).astype(np.float32)[:, None] * frequency[None]).astype(np.float64)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    low, high = keys[..., : d // 2], keys[..., d // 2 :]
    return np.concatenate([low * cos - high * sin, high * cos + low * sin], -1)


def inputs(layer, dim, before=False):
    """Keys, rotated unless they are stored before that, and values."""
    keys = noise(10 * layer + 1, N * HEADS * dim).reshape(N, HEADS, dim).astype(np.float64)
    values = noise(10 * layer + 2, N * HEADS * dim).reshape(N, HEADS, dim).astype(np.float64)
    # A channel with outliers, as keys have them.
    keys[..., 3] *= 8
    return keys if before else rotated(keys), values


def hadamard(dim):
    h = np.ones((1, 1))
    while len(h) < dim:
        h = np.block([[h, h], [h, -h]])
    return h / np.sqrt(dim)


def half(x):
    return np.asarray(x, np.float64).astype(np.float16).astype(np.float64)


def even(x, bits, axis, clip=1.0):
    """Codes that are spaced evenly, for the numbers along `axis` together."""
    low, high = clip * x.min(axis, keepdims=True), clip * x.max(axis, keepdims=True)
    most = 2**bits - 1
    scale, zero = half((high - low) / most), half(low)
    code = np.where(scale > 0, np.round((x - zero) / np.where(scale > 0, scale, 1)), 0)
    return np.clip(code, 0, most) * scale + zero


def per_entry(x, bits, group, clip=1.0):
    t, heads, d = x.shape
    return even(x.reshape(t, heads, d // group, group), bits, -1, clip).reshape(x.shape)


def per_channel(x, bits, group):
    t, heads, d = x.shape
    return even(x.reshape(t // group, group, heads, d), bits, 1).reshape(x.shape)


def divisor(dim, most):
    """The longest group of channels up to `most`, a multiple of 8, that divides a head."""
    return max(g for g in range(8, min(most, dim) + 1, 8) if dim % g == 0)


def uniform(bits, keys_by, rotate):
    """KIVI (arXiv 2402.02750): keys per channel over 32 entries, values per 32 channels of an entry; or both per entry."""

    def store(keys, values, **_):
        dim = keys.shape[-1]
        h = hadamard(dim) if rotate else np.eye(dim)
        keys, values = keys @ h, values @ h
        settled = (N - WINDOW) // 32 * 32 if keys_by == "channel" else N - WINDOW
        group = divisor(dim, 32)
        k, v = keys.copy(), values.copy()
        k[:settled] = per_channel(keys[:settled], bits, 32) if keys_by == "channel" else per_entry(keys[:settled], bits, group)
        v[:settled] = per_entry(values[:settled], bits, group)
        return k @ h.T, v @ h.T

    return store


def tuned(pairs, keys_by):
    """KVTuner (arXiv 2502.04420): bits of keys and of values by layer, the quantiser as above; 16 leaves them as they are."""

    def store(keys, values, layer, **_):
        key_bits, value_bits = pairs[layer % len(pairs)]
        channel = keys_by == "channel" and key_bits < 16
        settled = (N - WINDOW) // 32 * 32 if channel else N - WINDOW
        group = divisor(keys.shape[-1], 32)
        k, v = keys.copy(), values.copy()
        if key_bits < 16:
            k[:settled] = per_channel(keys[:settled], key_bits, 32) if channel else per_entry(keys[:settled], key_bits, group)
        if value_bits < 16:
            v[:settled] = per_entry(values[:settled], value_bits, group)
        return k, v

    return store


def calibrated(dim, group, sinks):
    """A calibration of SKVQ over the very inputs, as its file has it."""

    def side(rows):
        found = orders(rows[sinks:], group)
        clips = {f"clip{bits}": best_clip(errors([rows[sinks:]], found, bits, group, per_entry)) for bits in (2, 4)}
        return {"order": found} | clips

    layers = [dict(zip(("keys", "values"), map(side, inputs(layer, dim)))) for layer in (0, 1)]
    return {"format": "prefixkv-channels", "version": 1, "model": {"layers": 2}, "group": group, "sinks": sinks, "layers": layers}


def skvq(bits, group, sinks, found, clip=None):
    """SKVQ (arXiv 2405.06219), with the choices of docs/methods/skvq.md."""

    def store(keys, values, layer, **_):
        out = []
        for name, rows in (("keys", keys), ("values", values)):
            of = found["layers"][layer][name] if found else {"order": [list(range(rows.shape[-1]))] * HEADS}
            part = clip if clip is not None else of[f"clip{bits}"]
            x = rows.copy()
            x[sinks : N - WINDOW] = restored(per_entry(ordered(rows, of["order"])[sinks : N - WINDOW], bits, group, part), of["order"])
            out.append(x)
        return tuple(out)

    return store


def akvq(pivots, text_layers, clip, rotate):
    """AKVQ-VL (arXiv 2501.15021), with the choices of docs/methods/akvqVl.md."""

    def store(keys, values, layer, peaks, **_):
        dim = keys.shape[-1]
        h = hadamard(dim) if rotate else np.eye(dim)
        keys, values = keys @ h, values @ h
        whole = set(range(N - WINDOW, N))
        if layer >= max(text_layers, 1):
            whole |= set(np.argsort(-peaks, kind="stable")[:pivots].tolist())
        k, v = keys.copy(), values.copy()
        for position in sorted(set(range(N)) - whole):
            text = layer < text_layers and position not in IMAGE
            bits, part = (4, 1.0) if text else (2, clip)
            for to, rows in ((k, keys), (v, values)):
                to[position] = per_entry(rows[position : position + 1], bits, divisor(dim, 128), part)[0]
        return k @ h.T, v @ h.T

    return store


def zipvl(mass):
    """ZipVL (arXiv 2410.08584), with every query of the prompt a probe."""

    def store(keys, values, sums, **_):
        share = sums / (N - np.arange(N))
        order = np.argsort(-share, kind="stable")
        first = order[: int(np.searchsorted(np.cumsum(share[order]), mass * share.sum())) + 1]
        k, v = keys.copy(), values.copy()
        for position in range(N - WINDOW):
            bits = 4 if position in first else 2
            for to, rows in ((k, keys), (v, values)):
                to[position] = per_entry(rows[position : position + 1], bits, divisor(keys.shape[-1], 32))[0]
        return k, v

    return store


def think(share, queries, bits):
    """ThinK (arXiv 2407.21018): of each head the channels with the largest product of the norms of queries and keys."""

    def store(keys, values, layer, **_):
        dim = keys.shape[-1]
        group = 32 if bits else 1
        settled = (N - WINDOW) // group * group
        width = int(share * dim + 1e-9)
        if bits:
            width = min(-(-width // 8) * 8, dim)
        asked = noise(30 + layer, queries * GROUP * HEADS * dim).reshape(queries, HEADS, GROUP, dim).astype(np.float64)
        score = (asked**2).sum((0, 2)) * (keys[:settled] ** 2).sum(0)
        k, v = keys.copy(), values.copy()
        for head in range(HEADS):
            out = np.argsort(-score[head], kind="stable")[width:]
            k[:settled, head, out] = 0
        if bits:
            coded = per_channel(k[:settled], bits, 32)
            k[:settled] = np.where(k[:settled] == 0, 0, coded)
            v[:settled] = per_entry(values[:settled], bits, divisor(dim, 32))
        return k, v

    return store


def main():
    peaks = np.abs(noise(5, N)).astype(np.float64)
    cases = []
    for dim in (64, 80, 128):
        for name, bits in (("int8", 8), ("int4", 4), ("int2", 2)) if dim == 64 else (("int4", 4),):
            for keys in ("channel", "entry"):
                for rotate in (False, True):
                    if (rotate and dim == 80) or (dim != 64 and keys == "entry"):
                        continue
                    cache = {"method": name, "window": WINDOW, "keys": keys, "rotate": rotate}
                    cases.append((dim, cache, uniform(bits, keys, rotate)))
        for bits in (2, 4):
            cases.append((dim, {"method": "kivi", "window": WINDOW, "bits": bits}, uniform(bits, "channel", False)))
        before = {"method": "int2", "window": WINDOW, "rope": "before"}
        cases.append((dim, before, uniform(2, "channel", False)))
        for pairs in ([[8, 4]], [[8, 2], [2, 4]], [[16, 4], [4, 16]]) if dim != 128 else ([[4, 2], [2, 8]],):
            for keys in ("channel", "entry"):
                cache = {"method": "kvtuner", "window": WINDOW, "pairs": pairs, "keys": keys}
                cases.append((dim, cache, tuned(pairs, keys)))
        for bits in (2, 4):
            group, sinks = divisor(dim, 64 if dim == 128 else 16), 5
            found = calibrated(dim, group, sinks)
            cache = {"method": "skvq", "window": WINDOW, "bits": bits, "calibration": found}
            cases.append((dim, cache, skvq(bits, group, sinks, found)))
        plain = {"method": "skvq", "window": WINDOW, "sinks": 40, "clip": 0.9, "group": 128}
        cases.append((dim, plain, skvq(2, divisor(dim, 128), 40, None, 0.9)))
        for pivots, text_layers, clip, rotate in ((15, 1, 0.8, True), (0, 0, 1.0, False), (15, 0, 0.8, True), (4, 1, 0.9, False)):
            if rotate and dim == 80:
                continue
            cache = {"method": "akvqVl", "window": WINDOW, "pivots": pivots, "textLayers": text_layers, "clip": clip, "hadamard": rotate}
            cases.append((dim, cache, akvq(pivots, text_layers, clip, rotate)))
        for mass in (0.5, 0.975):
            cases.append((dim, {"method": "zipvl", "window": WINDOW, "mass": mass, "probes": N}, zipvl(mass)))
        for share, queries, bits in ((0.6, 32, None), (0.25, 7, None), (0.5, 32, 4)):
            cache = {"method": "think", "window": WINDOW, "channels": share, "queries": queries}
            cases.append((dim, cache | ({"bits": str(bits)} if bits else {}), think(share, queries, bits)))
    out = []
    for dim, cache, store in cases:
        layers = []
        for layer in (0, 1):
            given = inputs(layer, dim, cache.get("rope") == "before")
            # Attention that the entries have got from all queries, the same for all heads.
            signals = {"layer": layer, "peaks": peaks, "sums": np.abs(noise(70 + layer, N)).astype(np.float64)}
            keys, values = store(*given, **signals)
            # A code, a scale or a zero that is about to be the next one is another on another machine.
            firm = np.ones((N, HEADS), bool)
            for seed in range(16):
                nudge = np.random.default_rng(seed)
                moved = [x * (1 + nudge.uniform(-1e-5, 1e-5, x.shape)) for x in given]
                for a, b in zip((keys, values), store(*moved, **signals)):
                    firm &= (np.abs(a - b) < 1e-4).all(2)
            shown = [p for p in WANTED if firm[p, p % HEADS]][:SHOWN]
            assert len(shown) == SHOWN, (cache, dim)
            rows = lambda x: [[round(float(v), 6) for v in x[p, p % HEADS, ::STRIDE]] for p in shown]
            layers.append({"shown": shown, "keys": rows(keys), "values": rows(values)})
        out.append({"dim": dim, "cache": cache, "layers": layers})
    whole = {"heads": HEADS, "positions": N, "image": [IMAGE.start, len(IMAGE)], "stride": STRIDE, "cases": out}
    (DATA / "stores.json").write_text(json.dumps(whole, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
