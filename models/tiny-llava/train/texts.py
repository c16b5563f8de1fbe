"""Texts about a scene: descriptions, questions and their answers.

A question may refer to a thing ("the red star"). Such a phrase is kept as a
`Ref` with the things it fits, because the probe loss of phase D needs to know
where the phrase ends and what it means.
"""

from __future__ import annotations

from dataclasses import dataclass

from scenes import BACKGROUNDS, COLORS, COLS, ROWS, SHAPES, SIZES, Scene, Thing

NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
CONTENT_WORDS = sorted(
    {*COLORS, *SHAPES, *SIZES, *ROWS, *COLS, *NUMBERS}
    | {word for name in BACKGROUNDS for word in name.split()}
    | {"plain", "fades", "yes", "no", "nothing"}
)
DETAIL_QUESTIONS = [
    "Describe the image in detail.",
    "Describe this picture in detail.",
    "Write a detailed description of the image.",
    "Give a detailed description of this scene.",
    "Please describe the scene in detail.",
    "What do you see in this image? Describe it in detail.",
]


@dataclass
class Ref:
    text: str
    fits: list[Thing]


@dataclass
class Turn:
    kind: str
    question: list  # of str and Ref
    answer: str

    @property
    def text(self) -> str:
        return "".join(p.text if isinstance(p, Ref) else p for p in self.question)


def _one_of(rng, options):
    return options[int(rng.integers(len(options)))]


def _a(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _counted(n: int) -> str:
    return f"{NUMBERS[n]} object" + ("" if n == 1 else "s")


def _plural(shape: str) -> str:
    return shape + ("es" if shape.endswith("s") else "s")


def _full(t: Thing) -> str:
    return f"{t.size} {t.color} {t.shape}"


def background_phrase(rng, background) -> str:
    kind, top, bottom = background
    if kind == "plain":
        return f"a plain {top} background"
    if kind == "fade":
        return f"a background that fades from {top} to {bottom}"
    return f"a background that is {top} at the top and {bottom} at the bottom"


def description(rng, scene: Scene) -> str:
    things, n = scene.things, len(scene.things)
    opener = _one_of(rng, ["The image shows {} on", "The scene has {} on", "This picture contains {} placed on"])
    said = [f"{opener.format(_counted(n))} {background_phrase(rng, scene.background)}."]
    before = None
    for t in things:
        what, u = _a(_full(t)), rng.random()
        if before is not None and u < 0.4:
            beside = "To its right" if t.row == before.row else "Below it"
            said.append(f"{beside}, in the {t.place}, there is {what}.")
        elif u < 0.7:
            said.append(f"In the {t.place} there is {what}.")
        elif u < 0.85:
            said.append(f"The {t.place} holds {what}.")
        else:
            said.append(f"{what[0].upper()}{what[1:]} is placed in the {t.place}.")
        before = t
    items = _listed([_a(f"{t.color} {t.shape}") for t in things])
    if rng.random() < 0.5:
        said.append(f"In total there {'is' if n == 1 else 'are'} {_counted(n)}: {items}.")
    else:
        said.append(f"Overall the picture contains {_counted(n)}, namely {items}.")
    tally = [(s, sum(t.size == s for t in things)) for s in SIZES]
    said.append("Of these, " + _listed([f"{NUMBERS[k]} {'is' if k == 1 else 'are'} {s}" for s, k in tally if k]) + ".")
    return " ".join(said)


def detail_turn(rng, scene: Scene) -> Turn:
    return Turn("description", [_one_of(rng, DETAIL_QUESTIONS)], description(rng, scene))


def _find(scene: Scene, *words: str) -> list[Thing]:
    return [t for t in scene.things if all(w in (t.size, t.color, t.shape) for w in words)]


def _unique_ref(rng, scene: Scene, t: Thing, hide: str = "") -> Ref | None:
    """A shortest-first phrase that fits `t` alone and does not give away `hide`."""
    options = [(t.shape,), (t.color, t.shape), (t.size, t.shape), (t.size, t.color, t.shape), (t.color, "object")]
    hidden = {"color": t.color, "shape": t.shape, "size": t.size}.get(hide)
    fitting = []
    for words in options:
        if hidden in words or (words[-1] == "object" and hide != "shape"):
            continue
        fits = _find(scene, *(w for w in words if w != "object"))
        if len(fits) == 1:
            fitting.append(Ref("the " + " ".join(words), fits))
    return _one_of(rng, fitting) if fitting else None


def _ask_property(rng, scene: Scene, kind: str) -> Turn | None:
    t = _one_of(rng, scene.things)
    ref = _unique_ref(rng, scene, t, kind)
    return ref and Turn(kind, [f"What {kind} is ", ref, "?"], getattr(t, kind))


def _ask_at(rng, scene: Scene) -> Turn:
    r, c = int(rng.integers(3)), int(rng.integers(3))
    if rng.random() < 0.7:
        t = _one_of(rng, scene.things)
        r, c = t.row, t.col
    there = [t for t in scene.things if (t.row, t.col) == (r, c)]
    return Turn("at", [f"What is in the {ROWS[r]} {COLS[c]}?"], _a(_full(there[0])) if there else "nothing")


def _ask_where(rng, scene: Scene) -> Turn | None:
    t = _one_of(rng, scene.things)
    ref = _unique_ref(rng, scene, t)
    return ref and Turn("where", ["Where is ", ref, "?"], t.place)


def _ask_count(rng, scene: Scene) -> Turn:
    u = rng.random()
    if u < 0.25:
        return Turn("count", ["How many objects are there?"], NUMBERS[len(scene.things)])
    t = _one_of(rng, scene.things)
    if u < 0.6:
        shape = t.shape if rng.random() < 0.75 else _one_of(rng, SHAPES)
        return Turn("count", [f"How many {_plural(shape)} are there?"], NUMBERS[len(_find(scene, shape))])
    word = _one_of(rng, [t.color, t.size]) if rng.random() < 0.75 else _one_of(rng, list(COLORS))
    return Turn("count", [f"How many {word} objects are there?"], NUMBERS[len(_find(scene, word))])


def _ask_exist(rng, scene: Scene) -> Turn:
    t = _one_of(rng, scene.things)
    color, shape = t.color, t.shape
    if rng.random() < 0.6:
        # Half-true phrases: the colour and the shape are in the picture, though not on one thing.
        color, shape = _one_of(rng, scene.things).color, _one_of(rng, scene.things).shape
        if rng.random() < 0.5:
            color = _one_of(rng, list(COLORS))
    fits = _find(scene, color, shape)
    ask, end = _one_of(rng, [("Is there ", "?"), ("Is there ", " in the image?"), ("Does the image contain ", "?")])
    return Turn("exist", [ask, Ref(_a(f"{color} {shape}"), fits), end], "yes" if fits else "no")


def _two_refs(rng, scene: Scene):
    if len(scene.things) < 2:
        return None
    i, j = (int(k) for k in rng.choice(len(scene.things), 2, replace=False))
    a, b = scene.things[i], scene.things[j]
    ra, rb = _unique_ref(rng, scene, a, "size"), _unique_ref(rng, scene, b, "size")
    return (a, b, ra, rb) if ra and rb else None


def _ask_rel(rng, scene: Scene) -> Turn | None:
    found = _two_refs(rng, scene)
    if not found:
        return None
    a, b, ra, rb = found
    word, true = _one_of(
        rng,
        [
            ("to the left of", a.col < b.col),
            ("to the right of", a.col > b.col),
            ("above", a.row < b.row),
            ("below", a.row > b.row),
        ],
    )
    return Turn("rel", ["Is ", ra, f" {word} ", rb, "?"], "yes" if true else "no")


def _ask_cmp(rng, scene: Scene) -> Turn | None:
    found = _two_refs(rng, scene)
    if not found or found[0].size == found[1].size:
        return None
    a, b, ra, rb = found
    larger = rng.random() < 0.5
    chosen = a if (SIZES.index(a.size) > SIZES.index(b.size)) == larger else b
    question = ["Which is larger, " if larger else "Which is smaller, ", ra, " or ", rb, "?"]
    return Turn("cmp", question, f"the {chosen.color} {chosen.shape}")


def _ask_bg(rng, scene: Scene) -> Turn:
    kind, top, bottom = scene.background
    return Turn("bg", ["What color is the background?"], top if kind == "plain" else f"{top} and {bottom}")


def _ask_caption(rng, scene: Scene) -> Turn:
    ask = _one_of(rng, ["Write a short caption.", "Give a short caption for this image.", "Describe the image briefly."])
    items = _listed([_a(f"{t.color} {t.shape}") for t in scene.things])
    return Turn("caption", [ask], f"A picture of {items}.")


ASK = {
    "color": lambda r, s: _ask_property(r, s, "color"),
    "shape": lambda r, s: _ask_property(r, s, "shape"),
    "size": lambda r, s: _ask_property(r, s, "size"),
    "at": _ask_at,
    "where": _ask_where,
    "count": _ask_count,
    "exist": _ask_exist,
    "rel": _ask_rel,
    "cmp": _ask_cmp,
    "bg": _ask_bg,
    "caption": _ask_caption,
}
EVEN_MIX = {kind: 1.0 for kind in ASK} | {"caption": 0.4, "bg": 0.6}
HARD_MIX = EVEN_MIX | {"color": 1.6, "shape": 1.4, "where": 1.6, "rel": 2.0, "cmp": 1.4, "count": 1.3, "caption": 0.3}


def ask(rng, scene: Scene, mix: dict[str, float]) -> Turn:
    kinds, weights = list(mix), list(mix.values())
    total = sum(weights)
    while True:
        turn = ASK[str(rng.choice(kinds, p=[w / total for w in weights]))](rng, scene)
        if turn:
            return turn


def qa_dialogue(rng, scene: Scene, mix) -> list[Turn]:
    turns = 1 if rng.random() < 0.8 else int(rng.integers(2, 4))
    return [ask(rng, scene, mix) for _ in range(turns)]


def detail_dialogue(rng, scene: Scene, mix) -> list[Turn]:
    first = detail_turn(rng, scene)
    return [first, ask(rng, scene, mix)] if rng.random() < 0.2 else [first]
