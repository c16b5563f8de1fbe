"""The three losses: next token, patches, probe."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from scenes import BACKGROUNDS, COLORS, COLS, ROWS, SHAPES, SIZES
from tokenizer import word_id

PATCH_WORDS = {
    "shape": [*SHAPES, "background"],
    "color": list(COLORS),
    "size": SIZES,
    "row": ROWS,
    "col": COLS,
    # The last word of "pale blue", "light gray" and so on is enough to tell them apart.
    "background_color": [name.split()[-1] for name in BACKGROUNDS],
    # The words that open the three background phrases.
    "background_kind": ["plain", "fades", "is"],
}
THING_PARTS = ["shape", "color", "size", "row", "col"]


class PatchLoss:
    """Every patch must say, in the language model's own words, what it shows.

    The classifier weights are the tied word embeddings, so the projector
    learns to speak the language before the language model is trained.
    """

    def __init__(self, tokenizer):
        self.words = {k: torch.tensor([word_id(tokenizer, w) for w in ws]) for k, ws in PATCH_WORDS.items()}
        self.shape_weight = torch.tensor([1.0] * len(SHAPES) + [0.1])

    def __call__(self, image, embedding, labels, parts=THING_PARTS):
        """image: (batch, patches, size). Returns the mean loss and the accuracy on things' patches per part."""
        image = F.rms_norm(image.float(), image.shape[-1:], eps=1e-5)
        loss, right = 0.0, {}
        for part in parts:
            label = labels[part].flatten()
            asked = label >= 0
            if not asked.any():
                continue
            logits = image.flatten(0, 1)[asked] @ embedding[self.words[part]].float().T
            label = label[asked]
            hit = logits.argmax(-1) == label
            if part == "shape":
                # Four patches in five are background, and easy: they weigh little and are not counted as right.
                loss = loss + F.cross_entropy(logits, label, self.shape_weight)
                hit = hit[label < len(SHAPES)]
            else:
                loss = loss + F.cross_entropy(logits, label)
            right[part] = hit.float().mean().item()
        return loss / len(parts), right


class Probe(nn.Module):
    """Reads, where a question has just named a thing, what the stream knows of it.

    Training only; nothing of it is saved. Without it, questions about a named
    thing are answered from the bag of things in the picture.
    """

    SIZES = {"count": 7, "color": len(COLORS), "shape": len(SHAPES), "size": 3, "row": 3, "col": 3}

    def __init__(self, size: int = 192):
        super().__init__()
        self.heads = nn.ModuleDict({k: nn.Linear(size, n) for k, n in self.SIZES.items()})

    def forward(self, stream, refs):
        if not refs:
            return stream.new_zeros(()), {}
        rows = torch.tensor([b for b, _, _ in refs]), torch.tensor([i for _, i, _ in refs])
        x = F.rms_norm(stream[rows].float(), stream.shape[-1:], eps=1e-5)
        single = torch.tensor([len(fits) == 1 for _, _, fits in refs])
        things = [fits[0] for _, _, fits in refs if len(fits) == 1]
        labels = {
            "count": [min(len(fits), 6) for _, _, fits in refs],
            "color": [list(COLORS).index(t.color) for t in things],
            "shape": [SHAPES.index(t.shape) for t in things],
            "size": [SIZES.index(t.size) for t in things],
            "row": [t.row for t in things],
            "col": [t.col for t in things],
        }
        loss, right = 0.0, {}
        for part, head in self.heads.items():
            if not labels[part]:
                continue
            logits = head(x if part == "count" else x[single])
            label = torch.tensor(labels[part])
            loss = loss + F.cross_entropy(logits, label)
            right[part] = (logits.argmax(-1) == label).float().mean().item()
        return loss / len(self.heads), right


def token_loss(model, hidden, batch, content_ids):
    """Weighted cross entropy, computed only where a token is trained, and what was guessed right."""
    where = batch.targets >= 0
    logits = model.words(hidden[where]).float()
    target, weight = batch.targets[where], batch.weights[where]
    each = F.cross_entropy(logits, target, reduction="none")
    hit = torch.zeros_like(batch.targets, dtype=torch.bool)
    hit[where] = logits.argmax(-1) == target
    in_text = torch.zeros_like(hit)
    qa_right = qa_all = 0
    for row, spans in enumerate(batch.kinds):
        for kind, a, b in spans:
            if kind in ("description", "caption"):
                in_text[row, a:b] = True
            else:
                qa_all += 1
                qa_right += bool(hit[row, a:b].all())
    content = in_text & torch.isin(batch.targets, content_ids)
    stats = {
        "loss": ((each * weight).sum() / weight.sum()).item(),
        "qa": qa_right / max(qa_all, 1),
        "content": hit[content].float().mean().item() if content.any() else 0.0,
    }
    return (each * weight).sum() / weight.sum(), stats
