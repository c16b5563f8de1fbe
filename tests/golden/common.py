"""Shared by every generator: folders, writing files, and running one prompt through a model."""

import base64
import json
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
from safetensors.numpy import save_file

GOLDEN = Path(__file__).resolve().parent
ROOT = GOLDEN.parent.parent
FIXTURES = GOLDEN / "fixtures"
IMAGES = FIXTURES / "images"
DATA = GOLDEN / "data"
SCENES = ROOT / "data" / "scenes"
TINY_LLAVA = ROOT / "models" / "tiny-llava"

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
torch.set_grad_enabled(False)


def write_json(path, value, indent=1):
    """Lists of numbers stay on one line, so that the files are small and a diff is readable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_dump(value, indent, 0) + "\n", encoding="utf-8")


def _dump(value, indent, depth):
    flat = json.dumps(value, ensure_ascii=False)
    nested = isinstance(value, dict) or (isinstance(value, list) and any(isinstance(v, dict) for v in value))
    if not nested or len(flat) <= 120:
        return flat
    pad, end = "\n" + " " * (depth + 1) * indent, "\n" + " " * depth * indent
    if isinstance(value, dict):
        items = [f"{json.dumps(k, ensure_ascii=False)}: {_dump(v, indent, depth + 1)}" for k, v in value.items()]
        return "{" + pad + ("," + pad).join(items) + end + "}"
    return "[" + pad + ("," + pad).join(_dump(v, indent, depth + 1) for v in value) + end + "]"


def write_arrays(path, arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, path)
    path.chmod(0o644)


def ranges(positions):
    """[0, 1, 2, 5] as "0-2,5"."""
    runs = []
    for position in positions:
        if runs and runs[-1][1] == position - 1:
            runs[-1][1] = position
        else:
            runs.append([position, position])
    return ",".join(f"{a}-{b}" if b > a else f"{a}" for a, b in runs)


def bits(positions, length):
    """Which of `length` positions are there: base64 of a bit each, the first the lowest of the first byte."""
    mask = bytearray(-(-length // 8))
    for position in positions:
        mask[position // 8] |= 1 << (position % 8)
    return base64.b64encode(bytes(mask)).decode()


def relative(path):
    return Path(path).resolve().relative_to(ROOT).as_posix()


def pixels_as_bytes(pixel_values, processor):
    """The 8-bit image from which the slow processor made `pixel_values`: the test may normalise it itself.

    Exact, because that processor resizes and crops in 8 bits and only then computes (v / 255 - mean) / std."""
    mean = np.array(processor.image_mean, np.float64)[:, None, None]
    std = np.array(processor.image_std, np.float64)[:, None, None]
    values = np.asarray(pixel_values, np.float64) * std + mean
    levels = np.rint(values * 255).astype(np.uint8)
    again = (levels / 255.0 - mean) / std
    assert np.abs(again - np.asarray(pixel_values)).max() < 2e-6
    return levels


def greedy(model, inputs, tokens, eos=()):
    """Greedy decoding by hand: prompt logits [rows, vocab], token ids, and per step the two best (id, logit).

    Ties go to the lowest id, as torch.argmax and transformers.generate do on the CPU."""
    out = model(**inputs, use_cache=True)
    prompt_logits = out.logits[0].float().numpy()
    row, ids, steps = out.logits[0, -1], [], []
    while True:
        first = int(row.argmax())
        rest = row.clone()
        rest[first] = -torch.inf
        second = int(rest.argmax())
        ids.append(first)
        steps.append({"best": [first, float(row[first])], "second": [second, float(row[second])]})
        if len(ids) == tokens or first in eos:
            return prompt_logits, ids, steps
        out = model(input_ids=torch.tensor([[first]]), past_key_values=out.past_key_values, use_cache=True)
        row = out.logits[0, -1]


def vision_features(model, pixel_values):
    """(vision tower output as the projector takes it, projector output); each [images, tokens, width]."""
    taken = {}
    hook = model.model.multi_modal_projector.register_forward_hook(
        lambda _module, given, made: taken.update(vision=given[0], projected=made)
    )
    model.model.get_image_features(pixel_values=pixel_values)
    hook.remove()
    return taken["vision"].numpy(), taken["projected"].numpy()


def image_arrays(prefix, pixel_values, image_processor, seed=0):
    """`pixels` (u8, exact) and 256 normalised `pixel_values` at `pixel_indices` (flat, C order)."""
    values = np.asarray(pixel_values, np.float32)
    flat = values.reshape(-1)
    indices = np.sort(np.random.default_rng(seed).choice(flat.size, 256, replace=False)).astype(np.uint32)
    return {
        f"{prefix}.pixels": np.stack([pixels_as_bytes(v, image_processor) for v in values]),
        f"{prefix}.pixel_indices": indices,
        f"{prefix}.pixel_values": flat[indices],
    }
