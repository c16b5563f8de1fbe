"""Goldens of layers that read the keys and values of others because a method asks for it (KVSharer, arXiv 2410.18517).

Logits with a map come from transformers with a cache of its own kind: a layer that shares gets what its source holds. The search is
written here anew, in plain loops, and compared with what the library finds: maps, distances and similarities."""

import json

import torch
from PIL import Image
from transformers import DynamicCache, LlamaForCausalLM, PreTrainedTokenizerFast

import models
from common import DATA, FIXTURES, SCENES, TINY_LLAVA, relative, write_arrays, write_json
from tiny_llava import load, user_turn

STEPS, ROWS = 8, 16
DEEP = FIXTURES / models.DEEP.name
TEXTS = [
    "There is a green star at the top left of the picture, and a blue ring beside it.",
    "What color is the ring?",
    "A red square is left of a yellow circle; below them is nothing at all but the grey ground.",
    "Overall the picture contains four objects.",
]


class SharingCache(DynamicCache):
    """Layers by their number, always: the cache class of the published code takes a layer for new when its number is not below the
    number of layers stored, and so loses the history of the last ones that do not share while it generates."""

    def __init__(self, config, sources):
        super().__init__(config=config)
        self.sources = sources

    def update(self, keys, values, layer, *args, **kwargs):
        root = layer
        while root in self.sources:
            root = self.sources[root]
        if root == layer:
            return super().update(keys, values, layer, *args, **kwargs)
        return self.layers[root].keys, self.layers[root].values


class Runner:
    """A model, and what goes into it before the text that it generates."""

    def __init__(self, model, config):
        self.model, self.config = model, config

    def __call__(self, inputs, cache):
        return self.model(**inputs, past_key_values=cache, use_cache=True)

    def run(self, inputs, sources=None):
        """The last hidden states, behind the final norm, [positions, hidden], and the cache."""
        cache = SharingCache(self.config, sources or {})
        return self.model.model(**inputs, past_key_values=cache, use_cache=True).last_hidden_state[0], cache


def tiny_llava():
    processor, model = load()
    model.set_attn_implementation("eager")

    def inputs(sample):
        text = processor.apply_chat_template([user_turn(sample["question"])], add_generation_prompt=True)
        return processor(text=text, images=Image.open(SCENES / sample["image"]), return_tensors="pt")

    return Runner(model.eval(), model.config.get_text_config()), inputs


def deep():
    model = LlamaForCausalLM.from_pretrained(DEEP, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(DEEP)
    return Runner(model, model.config), lambda text: tokenizer(text, return_tensors="pt", return_token_type_ids=False)


def steps(runner, inputs, sources):
    """Logits of some rows of the prompt and of as many greedy tokens as are asked for, and these tokens."""
    cache = SharingCache(runner.config, sources)
    logits = runner(inputs, cache).logits[0]
    count = len(logits)
    rows = sorted({*range(0, count, -(-count // ROWS)), count - 1})
    tokens, behind = [], []
    row = logits[-1]
    for _ in range(STEPS):
        tokens.append(int(row.argmax()))
        row = runner({"input_ids": torch.tensor([tokens[-1:]])}, cache).logits[0, -1]
        behind.append(row)
    # One pass over everything, to which generating must come.
    whole = dict(inputs) | {"input_ids": torch.cat([inputs["input_ids"], torch.tensor([tokens])], 1)}
    whole["attention_mask"] = torch.ones_like(whole["input_ids"])
    if "token_type_ids" in whole:
        whole.pop("token_type_ids")
    once = runner(whole, SharingCache(runner.config, sources)).logits[0]
    assert (once[count:] - torch.stack(behind)).abs().max() < 5e-5
    return rows, logits[rows], tokens, torch.stack(behind)


def mean(parts):
    """The mean of `[heads, positions, dim]`, at each position over those that have it."""
    longest = max(part.shape[1] for part in parts)
    total = torch.zeros(parts[0].shape[0], longest, parts[0].shape[2], dtype=torch.float64)
    count = torch.zeros(longest, dtype=torch.float64)
    for part in parts:
        total[:, : part.shape[1]] += part.double()
        count[: part.shape[1]] += 1
    return total / count[None, :, None]


def distance(a, b, variant):
    if variant == "paper":
        return float((a - b).flatten().norm())
    return float((a - b).norm(dim=-1).mean())


def search(runner, samples, layers, threshold, variant):
    """The pairs that are taken, in order, and how many were tried."""
    runs = [runner.run(sample) for sample in samples]
    hidden = [found for found, _ in runs]
    depth = runner.config.num_hidden_layers
    held = [[mean([getattr(cache.layers[layer], part)[0] for _, cache in runs]) for layer in range(depth)] for part in ("keys", "values")]
    pairs = [
        (sum(distance(part[layer], part[source], variant) for part in held) / 2, layer, source)
        for layer in range(depth)
        for source in range(layer)
    ]
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    gaps = [(a[0] - b[0]) / a[0] for a, b in zip(pairs, pairs[1:])]
    taken, tried, near = [], 0, 1.0
    for apart, layer, source in pairs:
        if len(taken) == layers:
            break
        sources = {pair["layer"]: pair["source"] for pair in taken}
        if layer in sources:
            continue
        likeness = []
        for sample, want in zip(samples, hidden):
            got, _ = runner.run(sample, sources | {layer: source})
            likeness.append(float(torch.nn.functional.cosine_similarity(got.double().flatten(), want.double().flatten(), 0)))
        similarity = sum(likeness) / len(likeness)
        tried, near = tried + 1, min(near, abs(similarity - threshold))
        if similarity > threshold:
            taken.append({"layer": layer, "source": source, "distance": apart, "similarity": similarity})
    # Rounding decides nothing: the order of what was looked at, and every comparison with the threshold.
    assert min(gaps) > 2e-6 and near > 1e-4, (min(gaps), near)
    return {"ranking": [list(pair[1:]) for pair in pairs], "pairs": taken, "tried": tried}


def main():
    cases, searches, arrays = [], [], {}
    tiny, scene = tiny_llava()
    llama, text = deep()
    scenes = [{"image": sample["image"], "question": "Describe the image in detail."} for sample in json.loads((SCENES / "samples.json").read_text())]
    for name, runner, model, inputs, sources, sample in (
        # Layers 7 and 8 do not share, and the published cache class would lose their history.
        ("tiny-llava", tiny, TINY_LLAVA, scene, {3: 1, 6: 2, 9: 6}, scenes[0]),
        ("llama-deep", llama, DEEP, text, {4: 0, 9: 4, 11: 2, 12: 11}, TEXTS[0]),
    ):
        given = inputs(sample)
        rows, prompt, tokens, behind = steps(runner, given, sources)
        arrays[f"{name}.prompt"], arrays[f"{name}.steps"] = prompt.numpy(), behind.numpy()
        cases.append({"name": name, "model": relative(model), "sources": sources, "sample": sample, "input_ids": given["input_ids"][0].tolist(), "rows": rows, "tokens": tokens})
    for name, runner, model, inputs, samples, options in (
        ("tiny-llava", tiny, TINY_LLAVA, scene, scenes[:3], (3, 0.5, "paper")),
        ("tiny-llava-official", tiny, TINY_LLAVA, scene, scenes[:3], (3, 0.9, "official")),
        ("llama-deep", llama, DEEP, text, TEXTS, (2, 0.9, "paper")),
        ("llama-deep-official", llama, DEEP, text, TEXTS, (2, 0.85, "official")),
        # Fewer than are asked for.
        ("llama-deep-strict", llama, DEEP, text, TEXTS, (2, 0.95, "official")),
    ):
        layers, threshold, variant = options
        found = search(runner, [inputs(sample) for sample in samples], layers, threshold, variant)
        print(name, found["tried"], [(pair["layer"], pair["source"]) for pair in found["pairs"]])
        searches.append({"name": name, "model": relative(model), "samples": samples, "layers": layers, "threshold": threshold, "variant": variant, **found})
    write_json(DATA / "sharing.json", {"cases": cases, "searches": searches})
    write_arrays(DATA / "sharing.safetensors", arrays)


if __name__ == "__main__":
    main()
