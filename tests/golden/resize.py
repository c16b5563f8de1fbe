"""Writes data/resize.bin: what Pillow's Image.resize gives for generated RGB images.

Run: python tests/golden/resize.py   (needs numpy and Pillow; the file was made with Pillow 13.0.0)

Per case, five little-endian u16 (width, height, new width, new height, filter number), then the resized pixels.
Case i (from 1) resizes the noise image of seed i; see `noise`.
"""

from pathlib import Path

import numpy as np
from PIL import Image

SIZES = [
    ((1, 1), (5, 4)),
    ((1, 9), (7, 3)),
    ((9, 1), (1, 6)),
    ((64, 48), (1, 1)),
    ((17, 13), (17, 5)),
    ((17, 13), (8, 13)),
    ((17, 13), (17, 13)),
    ((7, 5), (24, 19)),
    ((40, 30), (13, 11)),
    ((33, 65), (29, 12)),
    ((300, 7), (11, 9)),
    ((100, 75), (24, 18)),
    ((21, 20), (22, 21)),
    ((3, 200), (2, 31)),
    ((30, 40), (20, 20)),
    ((30, 41), (20, 20)),
    ((20, 30), (40, 25)),
]
FILTERS = [3, 2, 1, 0, 4]


def noise(width: int, height: int, seed: int) -> Image.Image:
    state, out = seed, bytearray()
    for _ in range(width * height * 3):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        byte = (state >> 16) & 255
        out.append((0 if byte < 128 else 255) if seed % 4 == 0 else byte)
    return Image.frombytes("RGB", (width, height), bytes(out))


if __name__ == "__main__":
    data, seed = bytearray(), 0
    for size, to in SIZES:
        for resample in FILTERS:
            seed += 1
            resized = noise(*size, seed).resize(to, resample)
            data += np.array([*size, *to, resample], dtype="<u2").tobytes() + resized.tobytes()
    target = Path(__file__).parent / "data" / "resize.bin"
    target.write_bytes(data)
    print(f"{target}: {seed} cases, {len(data)} bytes")
