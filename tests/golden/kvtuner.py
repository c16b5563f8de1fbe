"""Goldens of the bits of each layer (KVTuner, arXiv 2502.04420): sensitivities, what is left of them, and the front of the search.

    python tests/golden/kvtuner.py

Models run in transformers with a cache of its own kind, which gives back what the codes of `stores.py` give back; everything else, up to
the search over all choices, is written here anew in plain loops."""

import itertools
import json
import math

import numpy as np
import torch
from PIL import Image
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.masking_utils import eager_mask
from transformers.models.llama.modeling_llama import eager_attention_forward

from common import DATA, SCENES, TINY_LLAVA, relative, write_json
from sharing import DEEP, TEXTS, deep, tiny_llava
from stores import divisor, per_channel, per_entry

TRIED = [(k, v) for k in (8, 4, 2) for v in (8, 4, 2)]
QUERIES, BLOCK, GROUP, ALIKE = 64, 32, 32, 0.25
# Of choices whose losses differ by less, another machine may take another one.
FIRM = 0.02

SEEN = {}


def watched(module, query, key, value, mask, **kwargs):
    """Attention that shows its queries, which are rotated already."""
    SEEN[module.layer_idx] = query
    return eager_attention_forward(module, query, key, value, mask, **kwargs)


AttentionInterface.register("watched", watched)
# Without a mask of that name there would be none.
AttentionMaskInterface.register("watched", eager_mask)


class Quantiser:
    def __init__(self, window, keys):
        self.window, self.keys = window, keys

    def settled(self, n, bits):
        """How many of `n` entries that came at once are in few bits."""
        group = GROUP if self.keys == "channel" and bits[0] < 16 else 1
        count = max(0, n - self.window)
        return count // group * group if count >= max(BLOCK, group) else 0

    def through(self, rows, bits, per):
        """`[heads, n, dim]` through codes."""
        x = rows.double().numpy().transpose(1, 0, 2)
        x = per_channel(x, bits, GROUP) if per == "channel" else per_entry(x, bits, divisor(x.shape[-1], GROUP))
        return torch.from_numpy(np.ascontiguousarray(x.transpose(1, 0, 2))).float()

    def __call__(self, keys, values, bits, count):
        keys, values = keys.clone(), values.clone()
        if count:
            keys[:, :count] = self.through(keys[:, :count], bits[0], self.keys)
            values[:, :count] = self.through(values[:, :count], bits[1], "entry")
        return keys, values


class BitsCache(DynamicCache):
    """A prompt is attended in full precision and then stored; what is generated stays whole until there is enough of it."""

    def __init__(self, config, quantiser, pairs):
        super().__init__(config=config)
        self.quantiser, self.pairs = quantiser, pairs
        self.counts, self.stored = {}, {}

    def update(self, keys, values, layer, *args, **kwargs):
        whole = super().update(keys, values, layer, *args, **kwargs)
        if layer not in self.stored:
            return whole
        count, k, v = self.counts[layer], *self.stored[layer]
        return tuple(torch.cat([part[None], all[:, :, count:]], 2) for part, all in zip((k, v), whole))

    def settle(self):
        for layer, bits in enumerate(self.pairs):
            keys, values = self.layers[layer].keys[0], self.layers[layer].values[0]
            before = self.counts.get(layer, 0)
            # Those that are stored stay as they are: groups begin at multiples of their length.
            count = before + self.quantiser.settled(keys.shape[1] - before, bits)
            if count > before:
                k, v = self.quantiser(keys[:, :count], values[:, :count], bits, count)
                self.counts[layer], self.stored[layer] = count, (k, v)


class Case:
    def __init__(self, runner, samples, quantiser):
        self.runner, self.samples, self.quantiser = runner, samples, quantiser
        self.known, self.read = {}, []
        for inputs, _ in samples:
            cache = DynamicCache(config=runner.config)
            row = runner(inputs, cache).logits[0, -1]
            self.read.append((row, [(layer.keys, layer.values) for layer in cache.layers]))
        self.full = [self.logits(index, None) for index in range(len(samples))]

    def logits(self, index, pairs):
        """Of each token of the answer, as generation meets it."""
        answer, (row, held) = self.samples[index][1], self.read[index]
        cache = BitsCache(self.runner.config, self.quantiser, pairs or [])
        for layer, (keys, values) in enumerate(held):
            cache.update(keys, values, layer)
        cache.settle()
        rows = [row]
        for token in answer[:-1]:
            rows.append(self.runner({"input_ids": torch.tensor([[token]])}, cache).logits[0, -1])
            cache.settle()
        return torch.stack(rows).double()

    def loss(self, pairs):
        """The divergence from the full cache, per token."""
        if pairs not in self.known:
            total, tokens = 0.0, 0
            for index, full in enumerate(self.full):
                p, q = full.log_softmax(-1), self.logits(index, pairs).log_softmax(-1)
                total, tokens = total + float((p.exp() * (p - q)).sum(-1).clamp(min=0).sum()), tokens + len(p)
            self.known[pairs] = total / tokens
        return self.known[pairs]

    def sensitivity(self):
        """[layers][tried], the mean over the samples."""
        sums = None
        for index, (inputs, _) in enumerate(self.samples):
            cache = DynamicCache(config=self.runner.config)
            self.runner.model.set_attn_implementation({"text_config": "watched"} if hasattr(self.runner.model.config, "text_config") else "watched")
            row = self.runner(inputs, cache).logits[0, -1]
            assert (row - self.read[index][0]).abs().max() < 1e-4
            self.runner.model.set_attn_implementation("eager")
            found = [self.errors(SEEN[layer][0], cache.layers[layer].keys[0], cache.layers[layer].values[0]) for layer in range(len(cache.layers))]
            sums = np.array(found) if sums is None else sums + np.array(found)
        return (sums / len(self.samples)).tolist()

    def errors(self, queries, keys, values):
        n, last = keys.shape[1], min(QUERIES, queries.shape[1])
        group = queries.shape[0] // keys.shape[0]
        hidden = torch.arange(n)[None] > torch.arange(n - last, n)[:, None]

        def results(k, v):
            k, v = (x.double().repeat_interleave(group, 0) for x in (k, v))
            scores = queries[:, -last:].double() @ k.transpose(1, 2) / math.sqrt(k.shape[-1])
            return scores.masked_fill(hidden, -math.inf).softmax(-1) @ v

        whole = results(keys, values)
        out = []
        for bits in TRIED:
            # Keys and values each in their own bits, by the rule of a store whose keys and values have the same.
            k, _ = self.quantiser(keys, values, (bits[0], bits[0]), self.quantiser.settled(n, (bits[0], bits[0])))
            _, v = self.quantiser(keys, values, (bits[1], bits[1]), self.quantiser.settled(n, (bits[1], bits[1])))
            out.append(float((results(k, v) - whole).norm() / whole.norm()))
        return out


def left(errors):
    """The pairs that no other one beats, by rising bits."""
    keep = []
    for i, (bits, error) in enumerate(zip(TRIED, errors)):
        beaten = any(
            sum(other) <= sum(bits) and e <= error and (sum(other) < sum(bits) or e < error or j < i)
            for j, (other, e) in enumerate(zip(TRIED, errors))
            if j != i
        )
        if not beaten:
            keep.append(bits)
    return sorted(keep, key=sum)


def groups_of(sensitivity, most):
    kept = [left(errors) for errors in sensitivity]
    groups = [[layer] for layer in range(len(kept))]

    def apart(a, b):
        if kept[a] != kept[b]:
            return math.inf
        return max(abs(math.log(sensitivity[a][TRIED.index(p)] / sensitivity[b][TRIED.index(p)])) for p in kept[a])

    near = []
    while True:
        # The two groups whose layers are all the nearest.
        found = sorted((max(apart(a, b) for a in x for b in y), i, j) for (i, x), (j, y) in itertools.combinations(enumerate(groups), 2))
        best = found[0] if found else (math.inf,)
        if best[0] == math.inf or (best[0] > ALIKE and len(groups) <= most):
            break
        near.append(best[0])
        # Rounding decides nothing.
        assert len(found) == 1 or found[1][0] - best[0] > 1e-4
        groups[best[1]] = sorted(groups[best[1]] + groups.pop(best[2]))
    assert all(abs(d - ALIKE) > 1e-3 for d in near) and (best[0] == math.inf or abs(best[0] - ALIKE) > 1e-3)
    groups.sort()
    return [(layers, kept[layers[0]]) for layers in groups]


def search(case, sensitivity, groups):
    layers = len(sensitivity)
    choices = [tuple(bits for _ in range(layers)) for bits in TRIED]
    for choice in itertools.product(*(pairs for _, pairs in groups)):
        pairs = [None] * layers
        for bits, (members, _) in zip(choice, groups):
            for layer in members:
                pairs[layer] = bits
        choices.append(tuple(pairs))
    mean = lambda pairs: sum(map(sum, pairs)) / (2 * layers)
    choices = sorted(set(choices), key=lambda pairs: (mean(pairs), case.loss(pairs)))
    points = []
    for pairs in choices:
        loss = case.loss(pairs)
        if points and loss >= points[-1]["loss"]:
            continue
        # Whether no other choice within these bits is as good but for rounding.
        rivals = [case.loss(other) for other in choices if other != pairs and mean(other) <= mean(pairs)]
        firm = all(rival > loss * (1 + FIRM) + 1e-6 for rival in rivals)
        points.append({"bits": mean(pairs), "loss": loss, "firm": firm, "pairs": [list(bits) for bits in pairs]})
    return {"trials": len(choices), "points": points}


def main():
    out = []
    tiny, _ = tiny_llava()
    llama, text = deep()
    processor = __import__("tiny_llava").load()[0]
    scenes = json.loads((SCENES / "samples.json").read_text())[:2]

    def seen(sample):
        prompt = f"USER: <image>\n{sample['question']} ASSISTANT:"
        answer = " " + sample["answer"].split(".")[1].strip() + "."
        image = Image.open(SCENES / sample["image"])
        inputs, whole = (processor(text=t, images=image, return_tensors="pt") for t in (prompt, prompt + answer))
        n = inputs["input_ids"].shape[1]
        assert whole["input_ids"][0, :n].tolist() == inputs["input_ids"][0].tolist()
        return {"image": sample["image"], "prompt": prompt, "answer": answer}, (inputs, whole["input_ids"][0, n:].tolist())

    def said(order):
        parts = [TEXTS[i] for i in order]
        prompt, answer = " ".join(parts * 2), " " + parts[0]
        inputs, whole = text(prompt), text(prompt + answer)
        n = inputs["input_ids"].shape[1]
        assert whole["input_ids"][0, :n].tolist() == inputs["input_ids"][0].tolist()
        return {"prompt": prompt, "answer": answer}, (inputs, whole["input_ids"][0, n:].tolist())

    for name, runner, model, samples, window, keys, most in (
        ("tiny-llava", tiny, TINY_LLAVA, [seen(sample) for sample in scenes], 32, "channel", 3),
        ("llama-deep", llama, DEEP, [said(order) for order in ([0, 1, 2, 3], [2, 0, 3, 1])], 16, "entry", 3),
    ):
        case = Case(runner, [sample for _, sample in samples], Quantiser(window, keys))
        sensitivity = case.sensitivity()
        groups = groups_of(sensitivity, most)
        found = search(case, sensitivity, groups)
        print(name, [len(inputs["input_ids"][0]) for _, (inputs, _) in samples], groups, found["trials"], flush=True)
        for point in found["points"]:
            print("  ", round(point["bits"], 3), point["loss"], point["firm"], flush=True)
        assert sum(point["firm"] for point in found["points"]) >= 4
        out.append(
            {"name": name, "model": relative(model), "samples": [sample for sample, _ in samples], "window": window, "keys": keys, "groups": most}
            | {"sensitivity": [[float(f"{e:.7g}") for e in errors] for errors in sensitivity], "found": [{"layers": l, "pairs": [list(p) for p in ps]} for l, ps in groups]}
            | found
        )
    write_json(DATA / "kvtuner.json", out)


if __name__ == "__main__":
    main()
