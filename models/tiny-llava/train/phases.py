"""The phases of the training as a table, and the plans that string them together."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from losses import THING_PARTS
from packing import Weights
from texts import EVEN_MIX, HARD_MIX


@dataclass
class Phase:
    about: str
    steps: int
    batch: int = 8
    joint: bool = True
    """False: only the vision tower, the projector and the word embeddings, on patches"""
    muon: float = 2e-3
    adam: float = 1.5e-3
    vision_share: float = 0.25
    """what the vision tower and the projector get of the learning rates"""
    warmup: int = 40
    decay_from: float = 0.5
    """share of the phase after which the learning rate falls to zero"""
    curriculum: list[tuple[float, int, int]] = field(default_factory=lambda: [(1.0, 2, 6)])
    """up to this share of the phase: fewest and most things in a scene"""
    described: float = 1.0
    """share of the pictures that come with a detailed description"""
    mix: dict[str, float] = field(default_factory=lambda: EVEN_MIX)
    weights: Weights = field(default_factory=Weights)
    patch_weight: float = 0.3
    patch_parts: list[str] = field(default_factory=lambda: THING_PARTS)
    probe_weight: float = 0.0


PHASES = {
    "V": Phase(
        about="the vision tower learns to say what each patch shows",
        steps=1338, batch=32, joint=False, muon=3e-3, adam=2e-3, vision_share=1.0, patch_weight=1.0,
    ),
    "A": Phase(
        about="everything together, from few things to many",
        steps=1760, curriculum=[(0.25, 1, 3), (0.6, 1, 5), (1.0, 2, 6)], weights=Weights(answer=2.5),
    ),
    "B": Phase(
        about="more questions; patches of background name their colour",
        steps=1300, described=0.5, patch_parts=[*THING_PARTS, "background_color"],
    ),
    "C": Phase(
        about="patches of background also name the kind of background; harder questions",
        steps=1450, described=0.5, mix=HARD_MIX,
        patch_parts=[*THING_PARTS, "background_color", "background_kind"],
    ),
    "D": Phase(
        about="a probe where a question names a thing",
        steps=2339, described=0.5, mix=HARD_MIX, probe_weight=0.3,
        patch_parts=[*THING_PARTS, "background_color", "background_kind"],
    ),
}  # fmt: skip

# The proof shortens V and A to what a few minutes can show: smaller batches, so that
# there are enough steps, and scenes of one to three things throughout.
PHASES["v"] = replace(PHASES["V"], about="V, shortened for the proof", steps=220, batch=16, warmup=10)
PHASES["a"] = replace(
    PHASES["A"], about="A, shortened for the proof", steps=160, batch=4, warmup=10, curriculum=[(1.0, 1, 3)],
)  # fmt: skip

PLANS = {
    "full": [("V", 0.08), ("A", 0.30), ("B", 0.14), ("C", 0.15), ("D", 0.33)],
    "proof": [("v", 0.4), ("a", 0.6)],
}
"""phases in order, each with its share of the time when a plan is given minutes"""


def plan(name: str) -> list[tuple[str, float]]:
    """A named plan, or letters such as "V,A"."""
    if name in PLANS:
        return PLANS[name]
    letters = name.split(",")
    unknown = [x for x in letters if x not in PHASES]
    if unknown:
        raise SystemExit(f"no phase {unknown[0]!r}; there are {', '.join(PHASES)} and the plans {', '.join(PLANS)}")
    total = sum(PHASES[x].steps for x in letters)
    return [(x, PHASES[x].steps / total) for x in letters]
