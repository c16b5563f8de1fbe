"""Stores of few bits, computed with numpy in float64 and, for floating-point formats, with torch.

- The levels of least mean squared error for the standard normal distribution (Max 1960; Lloyd 1982): each level is the mean of
  the numbers that are nearest to it, iterated until nothing moves, and compared with the four digits of Max's table I.
- TurboQuant (Zandieh et al. 2025, arXiv 2504.19874), its variant for the mean squared error: channels turned, rotated, divided by
  the norm, each replaced by the nearest level, and all of it undone.
- bf16 and E4M3 as torch rounds them.

Inputs come from a formula that the reader shares: number i of the input called seed is splitmix64's output for seed and i, as
`wide.py` has it, mapped to [-1, 1), and every channel 5 is 8 times as large."""

import math

import numpy as np
import torch

from common import DATA, write_arrays, write_json

MASK = (1 << 64) - 1
ENTRIES = 40
# Of the entries, those whose stored numbers are kept here.
ROWS = [0, 7, 31, 39]
DIMS = [64, 128]
# Max 1960, table I, N = 4 and N = 16: the positive levels.
MAX = {2: [0.4528, 1.510], 4: [0.1284, 0.3881, 0.6568, 0.9424, 1.256, 1.618, 2.069, 2.733]}


def lloyd_max(bits):
    """All levels, in order."""
    density = lambda x: 0.0 if math.isinf(x) else math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    above = lambda x: 0.5 * math.erfc(x / math.sqrt(2))
    upper = [3.0 * (i + 0.5) / 2 ** (bits - 1) for i in range(2 ** (bits - 1))]
    for _ in range(100_000):
        edges = [0.0, *((low + high) / 2 for low, high in zip(upper, upper[1:])), math.inf]
        means = [(density(a) - density(b)) / (above(a) - above(b)) for a, b in zip(edges, edges[1:])]
        moved = max(abs(a - b) for a, b in zip(means, upper))
        upper = means
        if moved < 1e-14:
            break
    # Within a unit of the fourth digit: he has 0.9424 for 0.94234.
    assert all(abs(level - four) < 10.0 ** (math.floor(math.log10(four)) - 3) for level, four in zip(upper, MAX[bits]))
    return np.array([-level for level in reversed(upper)] + upper)


def noise(seed, n):
    """In [-1, 1), exact in f32."""
    z = [(seed + (i + 1) * 0x9E3779B97F4A7C15) & MASK for i in range(n)]
    z = [((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK for x in z]
    z = [((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK for x in z]
    return np.array([((x ^ (x >> 31)) >> 40) / 2**24 - 0.5 for x in z]) * 2


def rows(seed, dim):
    x = noise(seed, ENTRIES * dim).reshape(ENTRIES, dim)
    x[:, 5] *= 8
    return x


def signs(dim):
    """MurmurHash3's finaliser (Appleby) of the channel and a fixed seed."""
    def turns(channel):
        h = (channel + 0x25041987) & 0xFFFFFFFF
        h = (h ^ h >> 16) * 0x85EBCA6B & 0xFFFFFFFF
        h = (h ^ h >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
        return (h ^ h >> 16) & 1
    return np.array([-1.0 if turns(channel) else 1.0 for channel in range(dim)])


def rotation(dim):
    """Sylvester's Hadamard matrix, orthonormal, of turned channels."""
    matrix = np.ones((1, 1))
    while len(matrix) < dim:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    rotation = matrix / math.sqrt(dim) * signs(dim)
    assert np.abs(rotation @ rotation.T - np.eye(dim)).max() < 1e-12
    return rotation


def turboquant(x, bits):
    """The rows as they are read back; None where rounding in f32 could have chosen another scale or level."""
    dim = x.shape[1]
    matrix, levels = rotation(dim), lloyd_max(bits)
    y = x @ matrix.T
    exact = np.linalg.norm(y, axis=1) / math.sqrt(dim)
    scale = exact.astype(np.float16).astype(np.float64)
    if (np.abs((exact * (1 + 1e-6)).astype(np.float16) - (exact * (1 - 1e-6)).astype(np.float16)) > 0).any():
        return None
    unit = y / scale[:, None]
    middles = (levels[1:] + levels[:-1]) / 2
    if np.abs(unit[..., None] - middles).min() < 2e-6:
        return None
    codes = np.abs(unit[..., None] - levels).argmin(axis=-1)
    return levels[codes] * scale[:, None] @ matrix


def stored():
    cases, arrays = [], {}
    for dim in DIMS:
        for bits in (4, 2):
            seed = 1
            # Keys of the seed and values of the next one.
            while any(turboquant(rows(of, dim), bits) is None for of in (seed, seed + 1)):
                seed += 2
            name = f"turboquant-{bits}-{dim}"
            cases.append({"name": name, "dim": dim, "bits": bits, "seed": seed})
            for part, of in (("keys", seed), ("values", seed + 1)):
                x = rows(of, dim)
                y = turboquant(x, bits)
                # Theorem 1 of the paper: 0.117 of the square at 2 bits, 0.009 at 4.
                error = ((x - y) ** 2).sum() / (x**2).sum()
                assert error < {4: 0.0115, 2: 0.125}[bits], error
                arrays[f"{name}.{part}"] = y[ROWS].astype(np.float32)
    return cases, arrays


def floats():
    """Numbers of all sizes on both sides of halves, and what they are in bf16 and, within its range, in E4M3."""
    x = noise(11, 600) * 2.0 ** np.repeat(np.arange(-12, 9), 30)[:600]
    e4m3 = torch.arange(0x7F, dtype=torch.uint8).view(torch.float8_e4m3fn).to(torch.float64).numpy()
    x = torch.tensor(np.concatenate([x, e4m3, (e4m3[1:] + e4m3[:-1]) / 2, -e4m3]), dtype=torch.float32)
    return {
        "floats": x.numpy(),
        "floats.bf16": x.to(torch.bfloat16).view(torch.uint16).numpy(),
        "floats.f8": x.clamp(-448, 448).to(torch.float8_e4m3fn).view(torch.uint8).numpy(),
    }


def main():
    levels = {str(bits): [float(level) for level in lloyd_max(bits)] for bits in (2, 4)}
    cases, arrays = stored()
    write_json(DATA / "codebooks.json", {"levels": levels, "entries": ENTRIES, "rows": ROWS, "cases": cases})
    write_arrays(DATA / "codebooks.safetensors", arrays | floats())


if __name__ == "__main__":
    main()
