"""Key-value eviction in plain torch: what each method keeps after the prompt, what it drops while answering, and the
log-probabilities that result.

The forward pass is our own, without transformers' cache, and is first shown to give transformers' logits when nothing
is evicted. Everything is computed the slow, obvious way; README.md has the rules in words."""

import json
import math
from dataclasses import dataclass

import torch
from PIL import Image
from torch.nn.functional import max_pool1d, silu
from transformers import LlamaForCausalLM

import planted
import rankings
import tiny_llava
from common import DATA, SCENES, TINY_LLAVA, ranges, relative, vision_features, write_json
from scenes import reference_logprobs

OUT = DATA / "eviction"
SCENE_NUMBERS = [2, 10]
IMAGE_TOKEN = 4
LOOSE = 1e-5


def rms_norm(x, weight, epsilon):
    return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon))


def rotate(x, positions, theta):
    """RoPE of [heads, n, d]: channel c turns together with c + d/2."""
    half = x.shape[-1] // 2
    speeds = 1.0 / theta ** (torch.arange(half, dtype=torch.float32) / half)
    angles = torch.tensor(list(positions), dtype=torch.float32)[:, None] * speeds
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], -1)


def rounded(value):
    return float(f"{value:.7g}")


class Llama:
    """Layers, final norm and head; whoever calls it brings the hidden states and the attention."""

    def __init__(self, config, embedding, stack, head):
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.width, self.theta, self.epsilon = config.head_dim, config.rope_parameters["rope_theta"], config.rms_norm_eps
        self.embedding, self.norm, self.head = embedding.weight, stack.norm.weight, head.weight
        self.layers = [dict(layer.named_parameters()) for layer in stack.layers]

    def __call__(self, hidden, attend):
        """Logits [n, vocab]. `attend(layer, q, k, v)` takes unrotated [heads, n, width], returns [query heads, n, width]."""
        for number, layer in enumerate(self.layers):
            x = rms_norm(hidden, layer["input_layernorm.weight"], self.epsilon)
            q, k, v = (self.split(x @ layer[f"self_attn.{name}_proj.weight"].T) for name in "qkv")
            mixed = attend(number, q, k, v).transpose(0, 1).flatten(1)
            hidden = hidden + mixed @ layer["self_attn.o_proj.weight"].T
            x = rms_norm(hidden, layer["post_attention_layernorm.weight"], self.epsilon)
            gated = silu(x @ layer["mlp.gate_proj.weight"].T) * (x @ layer["mlp.up_proj.weight"].T)
            hidden = hidden + gated @ layer["mlp.down_proj.weight"].T
        return rms_norm(hidden, self.norm, self.epsilon) @ self.head.T

    def split(self, x):
        return x.unflatten(-1, (-1, self.width)).transpose(0, 1)

    def turn(self, x, positions):
        return rotate(x, positions, self.theta)


def attention(q, k, v, mask=None):
    """Probabilities and their mix of v; q [query heads, n, d], k and v [key-value heads, m, d]."""
    group = q.shape[0] // k.shape[0]
    scores = q @ k.repeat_interleave(group, 0).transpose(1, 2) / math.sqrt(q.shape[-1])
    probabilities = (scores if mask is None else scores + mask).softmax(-1)
    return probabilities, probabilities @ v.repeat_interleave(group, 0)


class Prompt:
    """The full prefill: per layer the probabilities, unrotated keys and values; and the logits."""

    def __init__(self, llama, ids, hidden, pictured=False):
        """`pictured` says whether its image tokens stand for a picture."""
        self.llama, self.ids, self.length, self.pictured = llama, ids, len(ids), pictured
        self.hidden = hidden
        self.probabilities, self.queries, self.keys, self.values = [], [], [], []
        self.logits = llama(hidden, self.attend)

    def attend(self, _layer, q, k, v):
        mask = torch.full((self.length, self.length), -torch.inf).triu(1)
        places = range(self.length)
        probabilities, mixed = attention(self.llama.turn(q, places), self.llama.turn(k, places), v, mask)
        self.probabilities.append(probabilities)
        self.queries.append(q)
        self.keys.append(k)
        self.values.append(v)
        return mixed

    def group(self):
        return self.llama.heads // self.llama.kv_heads

    def scores(self, layer, kv_heads, queries=slice(None)):
        """Attention that each position receives from the queries, as a mean over the query heads of these key-value heads."""
        first, last = kv_heads[0] * self.group(), (kv_heads[-1] + 1) * self.group()
        return self.probabilities[layer][first:last, queries].double().sum(1).mean(0)

    def differences(self, layer, kv_heads):
        """Minus the cosine between each rotated key and the mean of all keys of length 1."""
        keys = self.llama.turn(self.keys[layer][kv_heads[0]][None], range(self.length))[0].double()
        anchor = torch.nn.functional.normalize(keys, dim=-1).mean(0, keepdim=True)
        return -torch.nn.functional.cosine_similarity(keys, anchor, dim=-1)

    def norms(self, layer, kv_heads):
        return self.keys[layer][kv_heads[0]].double().norm(dim=-1)


# Which positions stay after the prompt


def select(scores, count, protected, pooled=False):
    """(the protected and the best others, sorted; positions too close to the cut to be sure of).

    Equal scores are no doubt if they are one maximum pooled over neighbours: there the lower position wins everywhere."""
    rest = sorted((j for j in range(len(scores)) if j not in protected), key=lambda j: (-scores[j], j))
    chosen, dropped = rest[: count - len(protected)], rest[count - len(protected) :]
    loose = []
    if chosen and dropped:
        cut = scores[chosen[-1]]
        near = [j for j in rest if abs(scores[j] - cut) <= LOOSE * abs(cut)]
        alike = pooled and len({scores[j] for j in near}) == 1
        if set(near) & set(dropped) and not alike:
            loose = sorted(near)
    return sorted([*protected, *chosen]), loose


def budget(keep, layers, length):
    return math.floor(keep * layers * length + 0.5)


def uniform_counts(total, layers):
    return [total // layers + (layer < total % layers) for layer in range(layers)]


def apportioned(wanted, total, least, most):
    """Whole numbers whose sum is `total`: rounded down, then up where the most is missing; of equal ones the first."""
    counts = [min(max(math.floor(w + 1e-9), low), high) for w, low, high in zip(wanted, least, most)]
    while sum(counts) < total:
        open_ = [i for i in range(len(counts)) if counts[i] < most[i]]
        counts[max(open_, key=lambda i: (wanted[i] - counts[i], -i))] += 1
    assert sum(counts) == total
    return counts


def pyramid_counts(total, layers, length, window=8, beta=20):
    """Sizes that fall in equal steps; beside the window, the last layer keeps the mean over beta."""
    mean = total / layers
    window = min(window, mean / 2)
    last = (mean - window) / beta
    first = min(2 * (mean - window) - last, length - window)
    last = 2 * (mean - window) - first
    wanted = [window + first + (last - first) * layer / (layers - 1) for layer in range(layers)]
    return apportioned(wanted, total, [1] * layers, [length] * layers)


def even_counts(scores, total, objective="least", floor=0.0):
    """Entry by entry, each to the layer that is worst off; sinks and recent are in. Then `floor` of an even split for every layer.

    Worst off is who has kept the least of its attention ("least"), or who gains most by one more entry, in attention kept ("sum") or
    in the square of what is lost ("squares"). Also returns by how much the closest two layers could have swapped their last entry."""
    length, layers = len(scores[0]), len(scores)
    others = [sorted(s[1:-1], reverse=True) for s in scores]
    counts, held, whole = [2] * layers, [s[0] + s[-1] for s in scores], [math.fsum(s) for s in scores]

    def level(layer):
        now, entry = held[layer] / whole[layer], others[layer][counts[layer] - 2] / whole[layer]
        return {"least": now, "sum": -entry, "squares": (1 - now - entry) ** 2 - (1 - now) ** 2}[objective]

    before = {}
    for _ in range(total - 2 * layers):
        layer = min((layer for layer in range(layers) if counts[layer] < length), key=level)
        before[layer] = level(layer)
        held[layer] += others[layer][counts[layer] - 2]
        counts[layer] += 1
    swaps = [level(b) - before[a] for a in before for b in range(layers) if a != b and counts[b] < length]
    if floor > 0:
        wanted = [floor * total / layers + (1 - floor) * count for count in counts]
        counts = apportioned(wanted, total, [2] * layers, [length] * layers)
    return counts, min(swaps)


def searched_counts(scores, keep):
    """The official search: bisects the share of attention that every layer must keep, then fits the evicted counts.

    Also returns how close a curve came to one of the tested shares."""
    length = len(scores[0])
    target = (1 - keep) * (len(scores) * length)
    curves = []
    for s in scores:
        whole, running, curve = math.fsum(s), 0.0, []
        for value in sorted(s, reverse=True):
            running += value
            curve.append(running / whole)
        curves.append(curve)
    low, high, margin = 0.0, 1.0, 1.0
    for _ in range(100):
        threshold = (low + high) / 2
        margin = min(margin, *(abs(c - threshold) for curve in curves for c in curve))
        needed = [next((o for o, c in enumerate(curve, 1) if c >= threshold), length) for curve in curves]
        evicted = [min(max(length - k - 2, 0), length) for k in needed]
        if abs(sum(evicted) - target) < 5:
            break
        if sum(evicted) > target:
            low = threshold
        else:
            high = threshold
    total = sum(evicted)
    return [length - min(int(f * target / total), length - 2) for f in evicted], margin


@dataclass
class Kept:
    """Entries of the prompt that one method leaves; `lanes` are the key-value heads of each lane of a layer."""

    lanes: list
    counts: list
    margin: float | None
    positions: list
    loose: list
    marks: list


def keep(prompt, options):
    llama, method, length = prompt.llama, options["method"], prompt.length
    layers, every = range(len(llama.layers)), range(llama.kv_heads)
    lanes = [every] if method in ("prefixkv", "streaming", "random", *rankings.LAYER_WISE) else [[h] for h in every]

    queries, margin = slice(None), None
    if options.get("score") == "window":
        queries = slice(length - options["window"], None)
    if options.get("score") == "text":
        queries = [j for j, token in enumerate(prompt.ids) if token != IMAGE_TOKEN]

    if method == "prefixkv":
        scores = [attended(prompt, options, layer, every, queries).tolist() for layer in layers]
        if "calibration" in options:
            counts = [length - min(round(rho * length), length - 2) for rho in options["calibration"]]
        elif options.get("variant") == "official":
            counts, margin = searched_counts(scores, options["keep"])
        else:
            total = budget(options["keep"], len(layers), length)
            counts, margin = even_counts(scores, total, options.get("objective", "least"), options.get("floor", 0.0))
    elif method in rankings.CLAIMING:
        total = budget(options["keep"], len(layers), length)
        counts, margin = rankings.claimed_counts(prompt, options, list(every), total, apportioned)
    elif method == "pyramidkv":
        counts = pyramid_counts(budget(options["keep"], len(layers), length), len(layers), length)
    else:
        counts = uniform_counts(budget(options["keep"], len(layers), length), len(layers))

    found = Kept(lanes, counts, margin, [], [], [])
    for layer in layers:
        sizes = [counts[layer]] * len(lanes)
        if method == "adakv":
            sizes = head_counts(prompt, layer, lanes, counts[layer])
        chosen = [choose(prompt, options, layer, lane, size, queries, counts[layer]) for lane, size in zip(lanes, sizes)]
        found.positions.append([c[0] for c in chosen])
        found.loose.append([c[1] for c in chosen])
        found.marks.append([c[2] for c in chosen])
    return found


def attended(prompt, options, layer, lane, queries):
    """PrefixKV's scores."""
    if options.get("score") != "mix":
        return prompt.scores(layer, lane, queries)
    window = options["window"]
    return rankings.mixed(prompt, layer, lane, voted(prompt, layer, lane, window), prompt.length - window)


def voted(prompt, layer, lane, window):
    """SnapKV's scores: attention from the window, pooled before it."""
    rest = prompt.length - window
    scores = prompt.scores(layer, lane, slice(rest, None))
    scores[:rest] = max_pool1d(scores[None, :rest], 7, stride=1, padding=3)[0]
    return scores


def head_counts(prompt, layer, lanes, count, floor=0.2):
    """AdaKV: what each head has among the best of all, and at least a share of an even split."""
    length, window = prompt.length, min(32, count // 2)
    open_ = [(-score, head, j) for head, lane in enumerate(lanes) for j, score in enumerate(voted(prompt, layer, lane, window)[: length - window].tolist())]
    best = sorted(open_)[: (count - window) * len(lanes)]
    found = [window + sum(1 for entry in best if entry[1] == head) for head in range(len(lanes))]
    wanted = [floor * count + (1 - floor) * held for held in found]
    return apportioned(wanted, count * len(lanes), [window] * len(lanes), [length] * len(lanes))


def choose(prompt, options, layer, lane, count, queries, mean):
    """(positions, loose, marks of those positions) of one lane of `count` entries; `mean` is that over the layer's lanes."""
    method, length = options["method"], prompt.length
    alike, loose_ranks = method in ("snapkv", "pyramidkv", "adakv"), []
    if method in rankings.NAMES:
        scores, protected, alike, loose_ranks = rankings.ranked(prompt, options, layer, list(lane), count, mean)
    if method == "prefixkv":
        scores, protected = attended(prompt, options, layer, lane, queries), {0, length - 1}
    if method == "h2o":
        scores, protected = prompt.scores(layer, lane), set(range(length - count // 2, length))
    if method == "streaming":
        scores, protected = torch.arange(length).double(), set(range(4))
    if method == "random":
        scores = torch.tensor([drawn(options.get("seed", 0), layer, place) for place in range(length)]).double()
        protected = {0, length - 1}
    if method == "knorm":
        scores, protected = -prompt.norms(layer, lane), set()
    if method == "keydiff":
        scores, protected = prompt.differences(layer, lane), set()
    if method in ("snapkv", "pyramidkv", "adakv"):
        window = min(8 if method == "pyramidkv" else 32, mean // 2, length)
        scores, protected = voted(prompt, layer, lane, window), set(range(length - window, length))
    if count >= length:
        kept, loose = list(range(length)), []
    else:
        kept, loose = select(scores.tolist(), count, protected, alike)
        loose = sorted({*loose, *loose_ranks})
    return kept, loose, [float(scores[j]) for j in kept]


def drawn(seed, layer, position):
    """The random method's number for an entry: two rounds of splitmix64 (Steele et al. 2014), its upper 24 bits."""
    whole = 2**64 - 1
    z = seed ^ (layer << 48) ^ position
    for _ in range(2):
        z = (z + 0x9E3779B97F4A7C15) & whole
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & whole
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & whole
        z ^= z >> 31
    return (z >> 40) / 2**24


# Answering


@dataclass
class Lane:
    """Entries in order of position; tensors are [key-value heads of the lane, entries, width], keys unrotated."""

    heads: list
    positions: list
    keys: torch.Tensor
    values: torch.Tensor
    marks: list
    margin: float | None = None

    def append(self, position, key, value):
        self.positions.append(position)
        self.keys = torch.cat([self.keys, key], 1)
        self.values = torch.cat([self.values, value], 1)
        self.marks.append(0.0)

    def delete(self, index):
        stay = [i for i in range(len(self.positions)) if i != index]
        self.keys, self.values = self.keys[:, stay], self.values[:, stay]
        del self.positions[index], self.marks[index]


# Methods that evict after the prompt and never again.
ONCE = [name for name in rankings.NAMES if name not in ("tova", "elastic")]

# Relative distance below which the rounding of 32-bit floats may decide which of two entries goes.
UNDECIDED = 1e-5


def due(options, layer, entries, seen, count, length):
    """Whether a lane that keeps the share count / length has an entry too many."""
    if options["method"] in ("snapkv", "pyramidkv", "adakv", "keydiff", *ONCE) or options.get("decode") == "none" or count >= length:
        return False
    if "calibration" in options or options.get("variant") == "official":
        # The published code goes on with the configured share, not with the rounded count.
        evicted = options["calibration"][layer] if "calibration" in options else (length - count) / length
        return int(entries - seen * (1 - evicted)) >= 1
    return entries * length - seen * count >= length


def victim(options, lane, count):
    """(index of the entry to delete, by how much it was chosen relative to the next one, None where only order counts)."""
    entries = len(lane.positions)
    method = options["method"]
    if method == "streaming":
        return 4, None
    if method == "knorm":
        return lowest((-lane.keys[0].double().norm(dim=-1)).tolist(), range(entries))
    if method == "h2o":
        return lowest(lane.marks, range(entries - (entries - 1) // 2))
    if method == "tova":
        return lowest(lane.marks, range(entries - 1))
    if method == "random":
        # Exact numbers: rounding decides nothing.
        return lowest(lane.marks, range(1, entries - 1))[0], None
    if options.get("decode") == "lowest-score":
        return lowest(lane.marks, range(1, entries - 1))
    return count - 25 if count - 25 >= 1 else count // 2, None


def lowest(marks, indices):
    first, *others = sorted(indices, key=lambda i: (marks[i], i))
    return first, (marks[others[0]] - marks[first]) / abs(marks[first]) if others else None


class Cache:
    def __init__(self, prompt, kept, options):
        self.prompt, self.llama, self.options, self.counts = prompt, prompt.llama, options, kept.counts
        self.seen = prompt.length
        self.lanes = []
        for layer, (keys, values) in enumerate(zip(prompt.keys, prompt.values)):
            row = []
            for heads, positions, marks in zip(kept.lanes, kept.positions[layer], kept.marks[layer]):
                heads = list(heads)
                lane = Lane(heads, list(positions), keys[heads][:, positions], values[heads][:, positions], list(marks))
                if options["method"] in ("elastic", "lookM"):
                    lane.keys, lane.values = rankings.merged(options["method"], self.llama, lane, keys[heads], values[heads], self.seen)
                row.append(lane)
            self.lanes.append(row)
        self.decided = True

    def step(self, token):
        """Logits after one more token."""
        self.seen += 1
        return self.llama(self.llama.embedding[token][None], self.attend)[0]

    def attend(self, layer, q, k, v):
        mixed, group = [], self.prompt.group()
        for lane in self.lanes[layer]:
            lane.append(self.seen - 1, k[lane.heads], v[lane.heads])
            ranked = self.options.get("positions") == "cache"
            places = range(len(lane.positions)) if ranked else lane.positions
            asked = q[lane.heads[0] * group : (lane.heads[-1] + 1) * group]
            keys, query = self.llama.turn(lane.keys, places), self.llama.turn(asked, [places[-1]])
            probabilities, mix = attention(query, keys, lane.values)
            mixed.append(mix)
            if self.options["method"] == "random":
                lane.marks[-1] = drawn(self.options.get("seed", 0), layer, self.seen - 1)
            else:
                received = probabilities[:, 0].double().mean(0).tolist()
                if self.options["method"] == "tova":
                    lane.marks = [0.0] * len(lane.marks)
                lane.marks = [mark + more for mark, more in zip(lane.marks, received)]
            count = self.counts[layer]
            if due(self.options, layer, len(lane.positions), self.seen, count, self.prompt.length):
                index, margin = victim(self.options, lane, count)
                lane.delete(index)
                lane.margin = margin if lane.margin is None else min(lane.margin, margin)
                self.decided &= margin is None or margin >= UNDECIDED
        return torch.cat(mixed)


def brief(margin):
    return None if margin is None else float(f"{margin:.2g}")


def written(layers):
    return [[ranges(positions) for positions in lanes] for lanes in layers]


def run(prompt, answer, options):
    kept = keep(prompt, options)
    cache, row, logprobs = Cache(prompt, kept, options), prompt.logits[-1], []
    for number, token in enumerate(answer):
        logprobs.append(round(float(row.log_softmax(-1)[token]), 5) or 0.0)
        # A choice that rounding may turn ends the case: its own step still counts, what it leaves does not.
        if not cache.decided:
            break
        kept_end, seen = [[list(lane.positions) for lane in lanes] for lanes in cache.lanes], cache.seen
        if number + 1 < len(answer):
            row = cache.step(token)
    grown = [[[*positions, *range(prompt.length, seen)] for positions in lanes] for lanes in kept.positions]
    return {
        "options": options,
        "counts": kept.counts,
        "kept": written(kept.positions),
        "loose": written(kept.loose),
        "margins": {"counts": brief(kept.margin), "decode": [[brief(lane.margin) for lane in lanes] for lanes in cache.lanes]},
        # Where nothing is freed while generating, it says nothing new.
        **({} if kept_end == grown else {"kept_end": written(kept_end)}),
        "logprobs": logprobs,
    }


def prove(prompt, answer, expected):
    """Without eviction, the prompt in one pass and the answer token by token give transformers' logits."""
    everything = [[list(range(prompt.length))]] * len(prompt.llama.layers)
    marks = [[[0.0] * prompt.length]] * len(prompt.llama.layers)
    kept = Kept([range(prompt.llama.kv_heads)], [prompt.length] * len(prompt.llama.layers), None, everything, [], marks)
    cache = Cache(prompt, kept, {"method": "prefixkv", "variant": "paper"})
    ours = torch.cat([prompt.logits, torch.stack([cache.step(token) for token in answer])])
    worst = float((ours - expected).abs().max())
    print(f"largest difference to transformers: {worst:.1e}")
    assert worst < 1e-4


def options(calibrations, text):
    prefixkv = {"method": "prefixkv", "variant": "paper"}
    found = [prefixkv | {"keep": 0.5}, prefixkv | {"keep": 0.2}, prefixkv | {"keep": 0.3, "decode": "lowest-score"}]
    found += [prefixkv | {"keep": keep, "variant": "official"} for keep in (0.5, 0.2)]
    found += [prefixkv | {"calibration": calibration} for calibration in calibrations]
    found += [prefixkv | {"keep": 0.5, "score": "window", "window": 16}]
    found += [prefixkv | {"keep": 0.5, "score": "text"}] if text else []
    found += [prefixkv | {"keep": 0.3, "objective": "sum", "floor": 0.5}, prefixkv | {"keep": 0.3, "objective": "squares"}]
    tuned = {"objective": "sum", "floor": 0.5, "score": "mix", "window": 16, "pool": "max", "decode": "lowest-score"}
    found += [prefixkv | {"keep": 0.3} | tuned]
    found += [{"method": "h2o", "keep": keep} for keep in (0.5, 0.2)]
    found += [{"method": "streaming", "keep": keep} for keep in (0.5, 0.2)]
    found += [{"method": "streaming", "keep": 0.3, "positions": "cache"}]
    found += [{"method": "knorm", "keep": 0.5, "decode": "lowest-score"}]
    found += [{"method": "snapkv", "keep": keep} for keep in (0.5, 0.2)]
    found += [{"method": method, "keep": keep} for method in ("pyramidkv", "adakv") for keep in (0.5, 0.2)]
    found += [{"method": "keydiff", "keep": keep} for keep in (0.5, 0.2)]
    own = {"lagkv": {"lag": 32}}
    found += [{"method": method, "keep": 0.4} | own.get(method, {}) for method in rankings.NAMES]
    return found


# Evicted shares per layer: caches that shorten with depth; W-like; layer 0 among the shortest.
TINY_CALIBRATIONS = [
    [0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95],
    [0.3, 0.75, 0.9, 0.75, 0.5, 0.55, 0.8, 0.95, 0.9, 0.6],
    [0.95, 0.9, 0.75, 0.5, 0.6, 0.7, 0.85, 0.9, 0.95, 0.9],
]
PLANTED_CALIBRATIONS = [
    [0.0, 0.2, 0.4, 0.625, 0.875, 0.9],
    [0.4, 0.8, 0.9, 0.55, 0.85, 0.7],
    [0.875, 0.7, 0.95, 0.375, 0.9, 1.0],
]


def scene(llama, processor, model, sample):
    image = Image.open(SCENES / sample["image"])
    inputs, answer, _ = reference_logprobs(processor, model, image, sample)
    ids = inputs["input_ids"][0]
    hidden = llama.embedding[ids].clone()
    hidden[ids == IMAGE_TOKEN] = torch.from_numpy(vision_features(model, inputs["pixel_values"])[1]).flatten(0, 1)
    prompt = Prompt(llama, ids.tolist(), hidden, pictured=True)
    everything = torch.cat([ids, torch.tensor(answer)])[None]
    prove(prompt, answer, model(input_ids=everything, pixel_values=inputs["pixel_values"]).logits[0])
    return prompt, answer


def pictured():
    """The embedded model in plain torch, and one of its scenes: its place in the goldens of eviction, prompt and answer."""
    processor, model = tiny_llava.load()
    text = model.model.language_model
    llama = Llama(text.config, text.embed_tokens, text, model.lm_head)
    sample = json.loads((SCENES / "samples.json").read_text())[2]
    return llama, {"of": "tiny-llava", "name": sample["image"].removesuffix(".png")}, *scene(llama, processor, model, sample)


def worded():
    """The text model with planted heads, likewise; of the prompt its tokens."""
    model = LlamaForCausalLM.from_pretrained(planted.FOLDER, dtype=torch.float32, attn_implementation="eager").eval()
    llama = Llama(model.config, model.model.embed_tokens, model.model, model.lm_head)
    return llama, {"of": "planted", "name": "prompt-0"}, planted.prompt(0)[0], planted.answer(0)


def results(name, prompt, answer, cases):
    found = []
    for case in cases:
        found.append(run(prompt, answer, case))
        ppl = math.exp(-sum(found[-1]["logprobs"]) / len(answer))
        print(f"{name}: {json.dumps(case)}: perplexity {ppl:.4f}", flush=True)
    return {"name": name, "prompt": prompt.ids, "answer": answer, "cases": found}


def write_tiny_llava():
    processor, model = tiny_llava.load()
    text = model.model.language_model
    llama = Llama(text.config, text.embed_tokens, text, model.lm_head)
    samples = json.loads((SCENES / "samples.json").read_text())
    scenes = []
    for number in SCENE_NUMBERS:
        sample = samples[number]
        prompt, answer = scene(llama, processor, model, sample)
        about = {"image": relative(SCENES / sample["image"]), "question": sample["question"]}
        name = sample["image"].removesuffix(".png")
        scenes.append(about | results(name, prompt, answer, options(TINY_CALIBRATIONS, True)))
        if number == SCENE_NUMBERS[0]:
            write_scores(name, prompt)
    write_json(OUT / "tiny-llava.json", {"model": relative(TINY_LLAVA), "scenes": scenes})


def write_scores(name, prompt):
    digits = lambda scores: [rounded(score) for score in scores.tolist()]
    every = range(prompt.llama.kv_heads)
    scores = {
        "model": relative(TINY_LLAVA),
        "scene": name,
        "layers": {str(layer): digits(prompt.scores(layer, every)) for layer in (0, 4, 9)},
        "heads_of_layer_4": [digits(prompt.scores(4, [head])) for head in every],
    }
    write_json(OUT / "scores.json", scores)


def write_planted():
    model = LlamaForCausalLM.from_pretrained(planted.FOLDER, dtype=torch.float32, attn_implementation="eager").eval()
    llama = Llama(model.config, model.model.embed_tokens, model.model, model.lm_head)
    scenes = []
    for number in range(2):
        (ids, important), answer = planted.prompt(number), planted.answer(number)
        prompt = Prompt(llama, ids, llama.embedding[torch.tensor(ids)])
        prove(prompt, answer, model(input_ids=torch.tensor([ids + answer])).logits[0])
        stand_out(prompt, important)
        found = results(f"prompt-{number}", prompt, answer, options(PLANTED_CALIBRATIONS, False))
        scenes.append({"name": found.pop("name"), "important": [ranges(places) for places in important]} | found)
    write_json(OUT / "planted.json", {"model": relative(planted.FOLDER), "scenes": scenes})


def stand_out(prompt, important):
    """Every important position scores five times as much as any other but the first, in every key-value head."""
    for layer, places in enumerate(important):
        for head in range(prompt.llama.kv_heads):
            scores = prompt.scores(layer, [head])
            others = sorted(set(range(1, prompt.length)) - set(places))
            assert scores[places].min() > 5 * scores[others].max(), (layer, head)


def main():
    write_tiny_llava()
    write_planted()


if __name__ == "__main__":
    main()
