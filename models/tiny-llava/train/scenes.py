"""Draws scenes: a few flat objects on a 3x3 grid, over a pale background.

`draw(rng)` returns a `Scene`: the picture, what is in it, and which pixel
belongs to which object, from which the patch labels of the vision loss come.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

SIDE = 168
CELL = SIDE // 3
PATCH = 14
GRID = SIDE // PATCH

SHAPES = ["circle", "rectangle", "triangle", "star", "hexagon", "ring", "cross", "heart", "diamond", "crescent"]
SIZES = ["small", "medium", "large"]
ROWS = ["top", "middle", "bottom"]
COLS = ["left", "center", "right"]

# Two variants of each colour: a model that has seen only pure red does not know brick red.
COLORS = {
    "red": [(255, 0, 0), (228, 25, 28)],
    "green": [(0, 252, 0), (28, 178, 48)],
    "blue": [(0, 0, 255), (40, 80, 225)],
    "yellow": [(255, 255, 0), (236, 220, 20)],
    "orange": [(255, 140, 0), (246, 128, 48)],
    "purple": [(130, 8, 172), (148, 45, 200)],
    "teal": [(0, 128, 128), (22, 148, 142)],
    "brown": [(138, 62, 34), (162, 42, 42)],
    "black": [(4, 4, 4), (20, 22, 28)],
    "gray": [(112, 114, 114), (122, 116, 126)],
    "pink": [(255, 108, 180), (250, 138, 186)],
}
BACKGROUNDS = {
    "pale blue": (208, 227, 252),
    "pale green": (212, 247, 212),
    "pale pink": (252, 221, 228),
    "light gray": (213, 214, 215),
    "white": (254, 254, 254),
    "cream": (254, 244, 216),
    "lavender": (226, 216, 250),
}
RADIUS = {"small": (9, 11.5), "medium": (15, 18), "large": (22, 25)}


@dataclass
class Thing:
    row: int
    col: int
    size: str
    color: str
    shape: str

    @property
    def place(self) -> str:
        return f"{ROWS[self.row]} {COLS[self.col]}"


@dataclass
class Scene:
    things: list[Thing]
    background: tuple[str, str, str] | None
    """kind ("plain", "fade" or "two-tone"), colour at the top, colour at the bottom; None if not known"""
    pixels: np.ndarray = field(repr=False)
    """(168, 168, 3) uint8"""
    owner: np.ndarray = field(repr=False)
    """(168, 168) int8: the index of the thing that owns the pixel, -1 for background"""


def draw(rng: np.random.Generator, fewest: int = 2, most: int = 6) -> Scene:
    things = _pick_things(rng, int(rng.integers(fewest, most + 1)))
    background = _pick_background(rng)
    canvas = _paint_background(rng, background)
    owner = np.full((SIDE, SIDE), -1, np.int8)
    for index, thing in enumerate(things):
        mask = _mask(rng, thing)
        base = COLORS[thing.color][int(rng.integers(2))]
        canvas[mask] = np.asarray(base) + rng.uniform(-8, 8, 3)
        owner[mask] = index
    if rng.random() < 0.4:
        canvas += rng.normal(0, rng.uniform(2, 10), canvas.shape).astype(np.float32)
    return Scene(things, background, canvas.clip(0, 255).astype(np.uint8), owner)


def _pick_things(rng, count: int) -> list[Thing]:
    colors, shapes = list(COLORS), list(SHAPES)
    if rng.random() < 0.5:
        # Few colours and shapes per scene: questions such as "what colour is the star"
        # cannot then be answered from the bag of things in the picture.
        colors = list(rng.choice(colors, int(rng.integers(2, 5)), replace=False))
        shapes = list(rng.choice(shapes, int(rng.integers(2, 5)), replace=False))
    cells = sorted(int(c) for c in rng.choice(9, count, replace=False))
    return [
        Thing(cell // 3, cell % 3, SIZES[int(rng.integers(3))], str(rng.choice(colors)), str(rng.choice(shapes)))
        for cell in cells
    ]


def _pick_background(rng) -> tuple[str, str, str]:
    names = list(BACKGROUNDS)
    top, bottom = (names[i] for i in rng.choice(len(names), 2, replace=False))
    kind = ("plain", "fade", "two-tone")[int(rng.choice(3, p=(0.55, 0.27, 0.18)))]
    return kind, top, top if kind == "plain" else bottom


def _paint_background(rng, background) -> np.ndarray:
    kind, top, bottom = background
    top, bottom = (np.asarray(BACKGROUNDS[n]) + rng.uniform(-4, 4, 3) for n in (top, bottom))
    down = np.arange(SIDE, dtype=np.float32)[:, None]
    if kind == "two-tone":
        share = (down >= rng.integers(70, 97)).astype(np.float32)
    else:
        share = down / (SIDE - 1) if kind == "fade" else np.zeros_like(down)
    column = top * (1 - share) + bottom * share
    return np.repeat(column[:, None, :], SIDE, axis=1).astype(np.float32)


def _mask(rng, thing: Thing) -> np.ndarray:
    r = float(rng.uniform(*RADIUS[thing.size]))
    slack = min(9.0, CELL / 2 - r)
    x = (thing.col + 0.5) * CELL + rng.uniform(-slack, slack)
    y = (thing.row + 0.5) * CELL + rng.uniform(-slack, slack)
    turn = float(rng.uniform(-0.14, 0.14)) if rng.random() < 0.4 else 0.0
    image = Image.new("1", (SIDE, SIDE))
    pen = ImageDraw.Draw(image)

    def disc(cx, cy, radius, fill):
        pen.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), fill=fill)

    def polygon(points):
        c, s = math.cos(turn), math.sin(turn)
        pen.polygon([(x + px * c - py * s, y + px * s + py * c) for px, py in points], fill=1)

    def spokes(angles_and_radii):
        polygon([(q * math.sin(a), -q * math.cos(a)) for a, q in angles_and_radii])

    match thing.shape:
        case "circle":
            disc(x, y, r, 1)
        case "ring":
            disc(x, y, r, 1)
            disc(x, y, r * 0.55, 0)
        case "crescent":
            disc(x, y, r, 1)
            disc(x + r * 0.5 * (1 if rng.random() < 0.5 else -1), y, r * 0.8, 0)
        case "rectangle":
            a, b = r * 0.9, r * (0.9 if rng.random() < 0.3 else float(rng.uniform(0.55, 0.7)))
            w, h = (a, b) if rng.random() < 0.6 else (b, a)
            pen.rectangle((x - w, y - h, x + w, y + h), fill=1)
        case "triangle":
            polygon([(0, -r), (r, r * 0.85), (-r, r * 0.85)])
        case "diamond":
            polygon([(0, -r), (r * 0.7, 0), (0, r), (-r * 0.7, 0)])
        case "hexagon":
            start = math.pi / 6 * int(rng.integers(2))
            spokes([(start + k * math.pi / 3, r) for k in range(6)])
        case "star":
            spokes([(k * math.pi / 5, r * (1 if k % 2 == 0 else 0.42)) for k in range(10)])
        case "cross":
            t = r * 0.3
            pen.rectangle((x - r, y - t, x + r, y + t), fill=1)
            pen.rectangle((x - t, y - r, x + t, y + r), fill=1)
        case "heart":
            q = r * 0.52
            disc(x - q * 0.92, y - q * 0.75, q, 1)
            disc(x + q * 0.92, y - q * 0.75, q, 1)
            pen.polygon([(x - r * 0.93, y - q * 0.3), (x + r * 0.93, y - q * 0.3), (x, y + r * 0.85)], fill=1)
    return np.asarray(image)


def patch_labels(scene: Scene) -> dict[str, np.ndarray]:
    """Class of every patch, row-major, per property; -1 where the property is not asked.

    A patch belongs to the thing that covers a sixth of it. Patches with less
    of a thing than that are neither thing nor background and are not asked.
    """
    pixels = scene.owner.reshape(GRID, PATCH, GRID, PATCH).transpose(0, 2, 1, 3).reshape(GRID * GRID, -1)
    cover = np.stack([(pixels == i).sum(1) for i in range(len(scene.things))], 1)
    best = cover.argmax(1)
    is_thing = cover.max(1) >= PATCH * PATCH / 6
    is_background = cover.max(1) == 0

    color_names, background_names = list(COLORS), list(BACKGROUNDS)
    kind, top, bottom = scene.background
    upper = np.arange(GRID * GRID) < GRID * GRID // 2
    painted = np.where(upper, background_names.index(top), background_names.index(bottom))

    def of_thing(values):
        return np.where(is_thing, np.asarray(values)[best], -1)

    shape = of_thing([SHAPES.index(t.shape) for t in scene.things])
    return {
        "shape": np.where(is_background, len(SHAPES), shape),
        "color": of_thing([color_names.index(t.color) for t in scene.things]),
        "size": of_thing([SIZES.index(t.size) for t in scene.things]),
        "row": of_thing([t.row for t in scene.things]),
        "col": of_thing([t.col for t in scene.things]),
        "background_color": np.where(is_background, painted, -1),
        "background_kind": np.where(is_background, ("plain", "fade", "two-tone").index(kind), -1),
    }
