"""Scores of attention heads, and sizes of heads that follow from such scores, in plain torch: SparseMM (arXiv 2506.05344) and HeadKV (arXiv
2410.19258). Sizes are found by taking out full heads one round after the other. Prompts and answers are those of data/eviction.

    python tests/golden/heads.py"""

import json

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

import planted
import tiny_llava
from common import DATA, FIXTURES, SCENES, TINY_LLAVA, bits, ranges, relative, write_json
from eviction import Llama, Prompt, budget, scene, select, voted
from rankings import images

SCENE_NUMBERS = [2, 10]
QUERIES = 32
FETCHED = 20
# Below this relative distance, the order in which 32-bit floats were added may decide.
UNDECIDED = 1e-5
# A model with layers that have a window, of which nothing is sized.
MIXED, SIZED = "qwen2-mixed", [0, 1]
TEXT = "There is a green star at the top left and a blue ring at the bottom. Where is the green star? The green star is at the top left."


# Scores


def firm(row, chosen, count):
    """Whether the `count` largest of a row are so by more than rounding, or it makes no difference for those `chosen`."""
    order = row.argsort(descending=True)
    if count >= len(order):
        return True
    inside, outside = order[count - 1], order[count]
    near = (row[inside] - row[outside]) <= UNDECIDED * row[inside]
    return not near or bool(chosen[inside] == chosen[outside])


def scored(ids, pictured, attention, measure, last):
    """Mean over the positions that count of what each head does, [heads], and how many count; `attention` is [heads, queries, positions]."""
    ids, n, sums, count = torch.tensor(ids), len(ids), 0, 0
    for at in range(n):
        row = attention[:, at, : at + 1].double()
        if measure == "copies":
            if not n - 1 - last <= at < n - 1 or pictured[at + 1]:
                continue
            chosen = (ids[: at + 1] == ids[at + 1]) & ~pictured[: at + 1]
            chosen[at] = False
            if not chosen.any():
                continue
            assert all(firm(head, chosen, FETCHED) for head in row)
            best = row.topk(min(FETCHED, at + 1)).indices
            found = torch.stack([(head[order] * chosen[order]).sum() for head, order in zip(row, best)])
        else:
            if at < n - last or pictured[at] or not pictured[:at].any():
                continue
            chosen = pictured[: at + 1]
            if measure == "image-mass":
                found = row[:, chosen].sum(1)
            else:
                assert all(firm(head[1:], chosen[1:], 1) for head in row)
                found = chosen[row[:, 1:].argmax(1) + 1].double()
        sums, count = sums + found, count + 1
    return sums / max(count, 1), count


def digits(scores):
    return [[float(f"{score:.3g}") for score in layer] for layer in scores]


def scores_of(samples, measure, layers):
    """`samples`: (ids, pictured, attention by layer) of each."""
    rows, positions = 0, 0
    for ids, pictured, attention in samples:
        found = [scored(ids, pictured, attention[layer], measure, QUERIES) for layer in layers]
        rows, positions = rows + torch.stack([row for row, _ in found]), positions + found[0][1]
    assert float(rows.sum()) > 0
    return {"measure": measure, "positions": positions, "scores": digits((rows / len(samples)).tolist())}


# Sizes


def whole_numbers(wanted, total, least, most):
    """Rounded down, then up where most is missing; or where that is too much, down where there is most too much."""
    counts = [min(max(int(w + 1e-9), low), high) for w, low, high in zip(wanted, least, most)]
    while sum(counts) < total:
        open_ = [i for i in range(len(counts)) if counts[i] < most[i]]
        counts[max(open_, key=lambda i: (wanted[i] - counts[i], -i))] += 1
    while sum(counts) > total:
        open_ = [i for i in range(len(counts)) if counts[i] > least[i]]
        counts[max(open_, key=lambda i: (counts[i] - wanted[i], i))] -= 1
    return counts


def head_sizes(scores, kv_heads, length, keep, window, even):
    """(entries of each layer, of each of its heads) from scores [layer][query head]."""
    layers, group = len(scores), len(scores[0]) // kv_heads
    total = budget(keep, layers, length)
    mean = total / layers
    own = min(window, mean / 2)
    base = own + even * (mean - own)
    claims = {(l, h): sum(scores[l][h * group : (h + 1) * group]) for l in range(layers) for h in range(kv_heads)}
    sizes = {}
    while True:
        free = {head: claim for head, claim in claims.items() if head not in sizes}
        left = total * kv_heads - length * len(sizes) - base * len(free)
        found = {head: base + left * claim / sum(free.values()) for head, claim in free.items()}
        full = [head for head, size in found.items() if size > length]
        if not full:
            break
        sizes |= {head: length for head in full}
    sizes |= found
    wanted = [[sizes[l, h] for h in range(kv_heads)] for l in range(layers)]
    counts = whole_numbers([sum(heads) / kv_heads for heads in wanted], total, [1] * layers, [length] * layers)
    of = lambda heads, count: whole_numbers(heads, count * kv_heads, [min(window, count // 2)] * kv_heads, [length] * kv_heads)
    return counts, [of(heads, count) for heads, count in zip(wanted, counts)]


def results(about, prompt, scores, cases, shown):
    """What is kept in the layers that are `shown`."""
    kv_heads, found = prompt.llama.kv_heads, []
    for options in cases:
        even = options["ratio"] if "ratio" in options else 1 - 1 / options["beta"]
        counts, sizes = head_sizes(scores, kv_heads, prompt.length, options["keep"], options["window"], even)
        kept, loose = [], {}
        for layer in shown:
            window, row = min(options["window"], counts[layer] // 2), []
            for head in range(kv_heads):
                votes = voted(prompt, layer, [head], window).tolist()
                protected = set(range(prompt.length - window, prompt.length))
                positions, near = select(votes, sizes[layer][head], protected, True)
                row.append(bits(positions, prompt.length))
                if near:
                    loose[f"{layer}/{head}"] = ranges(near)
            kept.append(row)
        print(json.dumps(options), sizes, loose, flush=True)
        found.append({"options": options, "sizes": sizes, "kept": kept, "loose": loose})
    return about | {"layers": shown, "cases": found}


def main():
    processor, model = tiny_llava.load()
    text = model.model.language_model
    llama = Llama(text.config, text.embed_tokens, text, model.lm_head)
    samples = [json.loads((SCENES / "samples.json").read_text())[number] for number in SCENE_NUMBERS]
    prompts = [scene(llama, processor, model, sample) for sample in samples]
    answered = []
    for prompt, answer in prompts:
        hidden = torch.cat([prompt.hidden, llama.embedding[torch.tensor(answer)]])
        whole = Prompt(llama, prompt.ids + answer, hidden, pictured=True)
        answered.append((whole.ids, images(whole), whole.probabilities))
    layers = range(len(llama.layers))
    pictures = {
        "model": relative(TINY_LLAVA),
        "scenes": SCENE_NUMBERS,
        "found": [scores_of(answered, measure, layers) for measure in ("image-hits", "image-mass", "copies")],
    }

    folder = FIXTURES / MIXED
    mixed = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    ids = AutoTokenizer.from_pretrained(folder)(TEXT, return_tensors="pt")["input_ids"]
    attention = [layer[0] for layer in mixed(ids, output_attentions=True).attentions]
    none = torch.zeros(ids.shape[1], dtype=torch.bool)
    words = {
        "model": relative(folder),
        "prompt": TEXT,
        "found": [scores_of([(ids[0].tolist(), none, attention)], "copies", SIZED)],
    }

    sparse, head = {"method": "sparseMm", "window": 32, "ratio": 0.1}, {"method": "headKv", "window": 8, "beta": 1.5}
    about = {"of": "tiny-llava", "name": samples[0]["image"].removesuffix(".png")}
    cases = [sparse | {"keep": 0.15}, head | {"keep": 0.4}, head | {"keep": 0.15, "beta": 1.005}]
    picture = results(about, prompts[0][0], pictures["found"][0]["scores"], cases, [7])

    model = LlamaForCausalLM.from_pretrained(planted.FOLDER, dtype=torch.float32, attn_implementation="eager").eval()
    llama = Llama(model.config, model.model.embed_tokens, model.model, model.lm_head)
    ids = planted.prompt(0)[0]
    prompt = Prompt(llama, ids, llama.embedding[torch.tensor(ids)])
    # One head of two layers would have more than there is.
    scores = [[0.2, 0.1, 0, 0], [4, 5, 0.5, 0], [1, 1, 1, 1], [0, 0, 0.3, 0.3], [0, 0.05, 9, 3], [0.7, 0.1, 0.2, 0.4]]
    grouped = {"scores": scores} | results({"of": "planted", "name": "prompt-0"}, prompt, scores, [sparse | {"keep": 0.3}, head | {"keep": 0.5}], [4])
    write_json(DATA / "heads.json", {"measured": [pictures, words], "queries": QUERIES, "sized": [picture, grouped]})


if __name__ == "__main__":
    main()
