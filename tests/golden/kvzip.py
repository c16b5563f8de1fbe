"""KVzip's scores and the entries that they leave, in plain torch: the prompt is read a second time behind itself, and of the attention of that
second reading each entry's most counts. Written from the paper and the published code; README.md has the rules in words."""

import json
import math

import torch
from tokenizers import Tokenizer

import planted
from common import DATA, TINY_LLAVA, write_json
from eviction import Cache, Kept, Prompt, budget, pictured, uniform_counts, worded
from rkv import bits

INSTRUCTION = "\n\nRepeat the previous context exactly."
SINKS, RECENT = 4, 1
# Relative distance below which the rounding of 32-bit floats may decide which of two entries stays.
UNDECIDED = 1e-5


def received(prompt, folder):
    """[layers, key-value heads, positions], double."""
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(INSTRUCTION, add_special_tokens=False).ids
    again = torch.cat([prompt.hidden, prompt.llama.embedding[torch.tensor(ids)], prompt.hidden[1:]])
    whole = Prompt(prompt.llama, [0] * len(again), again)
    asked = torch.stack([p[:, prompt.length :, : prompt.length] for p in whole.probabilities]).double()
    return asked.unflatten(1, (prompt.llama.kv_heads, -1)).amax((2, 3)), len(ids)


def chosen(scores, options):
    """(positions per layer and head, by how much the last entry that stays beats the first that goes)."""
    layers, heads, length = scores.shape
    safe = [*range(SINKS), *range(length - RECENT, length)]
    open_ = [j for j in range(length) if j not in safe]
    total, margin = budget(options["keep"], layers, length), math.inf
    if options.get("budget") == "uniform":
        groups = [([(layer, head)], count) for layer, count in enumerate(uniform_counts(total, layers)) for head in range(heads)]
    else:
        groups = [([(layer, head) for layer in range(layers) for head in range(heads)], total * heads)]
    kept = {(layer, head): list(safe) for layer in range(layers) for head in range(heads)}
    for lanes, count in groups:
        ranked = sorted(((-float(scores[lane][j]), *lane, j) for lane in lanes for j in open_))
        best = count - len(lanes) * len(safe)
        for _, layer, head, j in ranked[:best]:
            kept[layer, head].append(j)
        margin = min(margin, ranked[best][0] / ranked[best - 1][0] * -1 + 1)
    return [[sorted(kept[layer, head]) for head in range(heads)] for layer in range(layers)], margin


def results(about, prompt, answer, folder, shown):
    scores, tokens = received(prompt, folder)
    found = []
    for options in ({"keep": 0.4}, {"keep": 0.4, "budget": "uniform"}):
        positions, margin = chosen(scores, options)
        assert margin > UNDECIDED, (options, margin)
        heads = prompt.llama.kv_heads
        marks = [[[0.0] * len(kept) for kept in lanes] for lanes in positions]
        kept = Kept([[head] for head in range(heads)], [prompt.length] * len(positions), None, positions, [], marks)
        cache, row, logprobs = Cache(prompt, kept, {"method": "snapkv"}), prompt.logits[-1], []
        for token in answer:
            logprobs.append(round(float(row.log_softmax(-1)[token]), 4) or 0.0)
            row = cache.step(token)
        print(json.dumps(options), f"perplexity {math.exp(-sum(logprobs) / len(answer)):.4f}, nearest {margin:.1e}", flush=True)
        sizes = [[len(kept) for kept in lanes] for lanes in positions]
        told = [[bits(kept, prompt.length) for kept in positions[layer]] for layer in shown]
        found.append({"options": options, "sizes": sizes, "kept": told, "logprobs": logprobs[:: max(1, len(answer) // 20)]})
    return about | {"layers": shown, "instruction": tokens, "cases": found}


def main():
    _, about, prompt, answer = pictured()
    picture = results(about, prompt, answer, TINY_LLAVA, [0, 4, 9])

    llama, about, ids, answer = worded()
    prompt = Prompt(llama, ids, llama.embedding[torch.tensor(ids)])
    words = results(about, prompt, answer, planted.FOLDER, [0, 3, 5])
    write_json(DATA / "kvzip.json", {"scenes": [picture, words]})


if __name__ == "__main__":
    main()
