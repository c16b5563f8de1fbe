"""Logits behind keys and values of low rank (LoRC, arXiv 2410.03111), from transformers and numpy's singular values.

The prompt is read whole. Then all but the last entries of every layer are replaced by what is left of them along the first singular
vectors of the weights, before or behind the rotary embedding, of each head or of all heads together; and some tokens follow."""

import numpy as np
import torch
from common import DATA, TINY_LLAVA, write_json
from tiny_llava import load
from transformers import DynamicCache

N, STEPS, WINDOW, POSITIONS, STRIDE = 90, 5, 8, 4096, 24
MOST, LEAST = 0.6, 0.3
EACH, JOINT = "each", "joint"


def turns(config, positions):
    """Rotations of a head, [positions, dim, dim]."""
    dim, theta = config.head_dim, config.rope_parameters["rope_theta"]
    half = dim // 2
    frequency = (1.0 / theta ** (np.arange(0, dim, 2, dtype=np.float32) / dim)).astype(np.float32).astype(np.float64)
    angle = np.asarray(positions, np.float64)[:, None] * frequency
    out = np.zeros((len(angle), dim, dim))
    i = np.arange(half)
    out[:, i, i] = out[:, i + half, i + half] = np.cos(angle)
    out[:, i, i + half], out[:, i + half, i] = -np.sin(angle), np.sin(angle)
    return out


def averaged(gram, config):
    """The mean of R G R^T over positions. A head's pair of channels is a complex number, and what one pair does to another a complex
    number that multiplies and one that multiplies the conjugate."""
    dim, theta = config.head_dim, config.rope_parameters["rope_theta"]
    half, heads = dim // 2, len(gram) // dim
    frequency = (1.0 / theta ** (np.arange(0, dim, 2, dtype=np.float32) / dim)).astype(np.float32).astype(np.float64)
    turned = np.exp(1j * np.arange(POSITIONS)[:, None] * frequency)
    apart = (turned.T @ turned.conj() / POSITIONS)[None, :, None, :]
    together = (turned.T @ turned / POSITIONS)[None, :, None, :]
    g = gram.reshape(heads, 2, half, heads, 2, half)
    aa, ab, ba, bb = g[:, 0, :, :, 0], g[:, 0, :, :, 1], g[:, 1, :, :, 0], g[:, 1, :, :, 1]
    z = ((aa + bb) + 1j * (ba - ab)) / 2 * apart
    w = ((aa - bb) + 1j * (ba + ab)) / 2 * together
    out = np.empty_like(g)
    out[:, 0, :, :, 0], out[:, 1, :, :, 1] = (z + w).real, (z - w).real
    out[:, 1, :, :, 0], out[:, 0, :, :, 1] = (z + w).imag, (w - z).imag
    return out.reshape(gram.shape)


def directions(weights, config, heads, turned):
    """Orthonormal rows by falling singular value, [parts, size, size], and all singular values."""
    size = config.head_dim * (config.num_key_value_heads if heads == JOINT else 1)
    parts, values = [], []
    for rows in weights.reshape(-1, size, weights.shape[1]):
        gram = rows @ rows.T
        if turned:
            gram = averaged(gram, config)
        value, vector = np.linalg.eigh(gram)
        parts.append(vector[:, ::-1].T)
        values.extend(np.sqrt(np.maximum(value, 0)))
    return np.stack(parts), np.array(values)


def widths(conditions, channels):
    behind = np.cumsum(conditions[::-1])[::-1]
    share = MOST * (1 - (behind.max() - behind) / (behind.max() - behind.min()) * (1 - LEAST / MOST))
    return [min(-(-int(np.ceil(s * channels - 1e-9)) // 8) * 8, channels) for s in share]


def kept(rows, parts, width):
    """What is left of [positions, kv * dim] along the first `width` rows of each part."""
    size = parts.shape[2]
    pieces = rows.reshape(len(rows), -1, size)
    first = parts[:, :width]
    return np.einsum("npk,pwk,pwj->npj", pieces, first, first, optimize=True).reshape(rows.shape)


def main():
    _, model = load()
    model.set_attn_implementation("eager")
    text = model.model.language_model
    config = model.config.get_text_config()
    tokens = [40 + i * 7 % 90 for i in range(N)]
    behind = [41 + i * 11 % 90 for i in range(STEPS)]
    kv, dim = config.num_key_value_heads, config.head_dim
    turn = turns(config, range(N))
    weights = [
        [w.weight.detach().double().numpy() for w in (layer.self_attn.k_proj, layer.self_attn.v_proj)]
        for layer in text.layers
    ]
    cases = []
    for heads in (EACH, JOINT):
        for rope in ("after", "before"):
            found = [(directions(k, config, heads, rope == "after"), directions(v, config, heads, False)) for k, v in weights]
            conditions = np.array([sum(np.log(v.max() / v.min()) for _, v in sides) for sides in found])
            wide = widths(conditions, dim * (kv if heads == JOINT else 1))
            cache = DynamicCache(config=config)
            model(input_ids=torch.tensor([tokens]), past_key_values=cache, use_cache=True)
            for layer, (sides, width) in enumerate(zip(found, wide)):
                for name, (parts, _) in zip(("keys", "values"), sides):
                    held = getattr(cache.layers[layer], name)
                    rows = held[0].transpose(0, 1).double().numpy()
                    back = turn if name == "keys" and rope == "before" else None
                    if back is not None:
                        rows = np.einsum("nji,nhj->nhi", back, rows)
                    left = kept(rows.reshape(N, kv * dim), parts, width).reshape(N, kv, dim)
                    if back is not None:
                        left = np.einsum("nij,nhj->nhi", back, left)
                    held[0, :, : N - WINDOW] = torch.tensor(left[: N - WINDOW]).float().transpose(0, 1)
            logits = []
            for token in behind:
                out = model(input_ids=torch.tensor([[token]]), past_key_values=cache, use_cache=True)
                logits.append([round(float(x), 5) for x in out.logits[0, -1, ::STRIDE]])
            given = {"method": "lorc", "most": MOST, "least": LEAST, "window": WINDOW, "heads": heads, "rope": rope}
            cases.append({"cache": given, "widths": wide, "logits": logits})
    write_json(DATA / "lorc.json", {"tokens": tokens, "behind": behind, "stride": STRIDE, "cases": cases})


if __name__ == "__main__":
    main()
