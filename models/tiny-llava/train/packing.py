"""From scenes and dialogues to tensors.

The image prefix (`<s>USER: <image>\\n`, 149 tokens) is the costly part of a
sample. So one prefix is followed by as many dialogues as fit; each sees the
prefix and itself, never a neighbour, and its positions restart after the prefix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

import texts
from scenes import Scene, draw, patch_labels
from texts import CONTENT_WORDS, Ref, Turn

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])
IMAGE_TOKENS = 144
END = 2
PAD = 3


@dataclass
class Weights:
    """How much a trained token counts."""

    answer: float = 5.0
    content: float = 2.0
    other: float = 0.5


@dataclass
class Batch:
    pixels: torch.Tensor
    ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    """additive, (batch, 1, tokens, tokens)"""
    targets: torch.Tensor
    """the next token where it is trained, else -100"""
    weights: torch.Tensor
    kinds: list[list[tuple[str, int, int]]]
    """per sample: (kind of turn, first, one past last) over `targets`"""
    refs: list[tuple[int, int, list]]
    """(sample, token, things the phrase fits)"""
    scenes: list[Scene]
    labels: dict[str, torch.Tensor] | None


def to_pixels(scenes: list[Scene]) -> torch.Tensor:
    x = torch.from_numpy(np.stack([s.pixels for s in scenes])).float() / 255
    return ((x - MEAN) / STD).permute(0, 3, 1, 2).contiguous()


def to_labels(scenes: list[Scene]) -> dict[str, torch.Tensor]:
    each = [patch_labels(s) for s in scenes]
    return {k: torch.from_numpy(np.stack([e[k] for e in each])).long() for k in each[0]}


class Packer:
    def __init__(self, tokenizer, length: int = 384, weights: Weights | None = None):
        self.tokenizer, self.length, self.weights = tokenizer, length, weights or Weights()
        encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
        self.encode = encode
        self.prefix = [1, *encode("USER: "), *[4] * IMAGE_TOKENS, *encode("\n")]
        self.content = {encode(" " + w)[0] for w in CONTENT_WORDS}

    def dialogue(self, turns: list[Turn]):
        """ids, targets, weights, spans and refs of one dialogue, counted from its own start."""
        ids, targets, weights, spans, refs = [], [], [], [], []
        for number, turn in enumerate(turns):
            start = "USER: " if number else ""
            asked = self.tokenizer.encode(f"{start}{turn.text} ASSISTANT:", add_special_tokens=False)
            ends, at = [], len(start)
            for part in turn.question:
                at += len(part.text if isinstance(part, Ref) else part)
                if isinstance(part, Ref):
                    ends.append((at, part.fits))
            for end, fits in ends:
                refs.append((len(ids) + next(i for i, o in enumerate(asked.offsets) if o[1] == end), fits))
            ids += asked.ids
            answer = self.encode(" " + turn.answer) + [END]
            spans.append((turn.kind, len(ids) - 1, len(ids) - 1 + len(answer)))
            ids += answer
            targets += [-100] * (len(ids) - len(answer) - 1 - len(targets)) + answer
            weights += [0.0] * (len(targets) - len(answer) - len(weights))
            weights += [self._weight(turn.kind, t) for t in answer]
        return ids, targets + [-100], weights + [0.0], spans, refs

    def _weight(self, kind, token):
        w = self.weights
        if token == END:
            return w.other
        if kind not in ("description", "caption"):
            return w.answer
        return w.content if token in self.content else w.other

    def sample(self, dialogues: list[list[Turn]]):
        """Packs the dialogues that fit; the first one always goes in."""
        n = len(self.prefix)
        ids, positions, owner = list(self.prefix), list(range(n)), [0] * n
        targets, weights, spans, refs = [-100] * n, [0.0] * n, [], []
        for number, turns in enumerate(dialogues, 1):
            d_ids, d_targets, d_weights, d_spans, d_refs = self.dialogue(turns)
            if number > 1 and len(ids) + len(d_ids) > self.length:
                continue
            at = len(ids)
            ids += d_ids
            positions += range(n, n + len(d_ids))
            owner += [number] * len(d_ids)
            targets += d_targets
            weights += d_weights
            spans += [(k, at + a, at + b) for k, a, b in d_spans]
            refs += [(at + i, fits) for i, fits in d_refs]
        return ids, positions, owner, targets, weights, spans, refs

    def batch(self, scenes: list[Scene], dialogues: list[list[list[Turn]]]) -> Batch:
        packed = [self.sample(d) for d in dialogues]
        # A multiple of 32 keeps the set of shapes small.
        length = -(-max(len(p[0]) for p in packed) // 32) * 32

        def column(index, fill, dtype):
            return torch.tensor([p[index] + [fill] * (length - len(p[0])) for p in packed], dtype=dtype)

        owner = column(2, -1, torch.long)
        same = owner[:, :, None] == owner[:, None, :]
        shared = (owner == 0)[:, None, :]
        past = torch.ones(length, length, dtype=torch.bool).tril()
        mask = torch.zeros(len(packed), 1, length, length)
        mask.masked_fill_(~((same | shared) & past)[:, None], -1e4)
        return Batch(
            pixels=to_pixels(scenes),
            ids=column(0, PAD, torch.long),
            positions=column(1, 0, torch.long),
            mask=mask,
            targets=column(3, -100, torch.long),
            weights=column(4, 0.0, torch.float32),
            kinds=[p[5] for p in packed],
            refs=[(b, i, fits) for b, p in enumerate(packed) for i, fits in p[6]],
            scenes=scenes,
            labels=to_labels(scenes) if all(s.background for s in scenes) else None,
        )

    def random_batch(self, rng, size, fewest, most, described, mix) -> Batch:
        scenes = [draw(rng, fewest, most) for _ in range(size)]
        dialogues = []
        for scene in scenes:
            first = [texts.detail_dialogue(rng, scene, mix)] if rng.random() < described else []
            dialogues.append(first + [texts.qa_dialogue(rng, scene, mix) for _ in range(16)])
        return self.batch(scenes, dialogues)
