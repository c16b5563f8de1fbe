"""How the later eviction methods rank a prompt, size their layers and merge what goes: formulas in plain torch, written from the papers
and the published code, for eviction.py."""

import math

import torch
from torch.nn.functional import avg_pool1d, cosine_similarity, normalize

LAYER_WISE = ("tova", "chunkkv", "tgvKv", "elastic")
HEAD_WISE = ("observedAttention", "lagkv", "expectedAttention", "cake", "vlCache", "mixkv", "lookM", "airCache")
NAMES = LAYER_WISE + HEAD_WISE
CLAIMING = ("cake", "vlCache", "tgvKv", "airCache")
IMAGE_TOKEN = 4
LOOSE = 1e-5
# Puts images behind all text without changing their order.
BEHIND = 1e-15


def images(prompt):
    return torch.tensor([prompt.pictured and token == IMAGE_TOKEN for token in prompt.ids])


def behind_images(prompt):
    """First position behind the last image; the length where there is none."""
    places = images(prompt).nonzero().flatten().tolist()
    return places[-1] + 1 if places else prompt.length


def rows(prompt, layer, kv_heads):
    """Probabilities of the query heads of these key-value heads, [heads, queries, positions], in double."""
    group = prompt.group()
    return prompt.probabilities[layer][kv_heads[0] * group : (kv_heads[-1] + 1) * group].double()


def asking(prompt, options):
    start = behind_images(prompt)
    return start if start < prompt.length else prompt.length - min(options.get("queries", 64), prompt.length)


# Sizes


def claims(prompt, options, every):
    """What each layer claims of the whole, and the entries that each has beside it."""
    method, window = options["method"], 0
    found = []
    for layer in range(len(prompt.llama.layers)):
        a = rows(prompt, layer, every)
        if method == "cake":
            mean = options["keep"] * prompt.length
            w = window_of(prompt, options, mean)
            seen = a[:, -w:, : prompt.length - w]
            entropy = -(seen * (seen + 1e-10).log()).sum()
            found.append(float(entropy * seen.var(dim=1).sum()))
            window = min(32, mean / 2)
        if method == "vlCache":
            start = max(asking(prompt, options), prompt.length - 64)
            asked = a[:, start:]
            causal = torch.ones(prompt.length, prompt.length).tril().bool()[start:]
            high = (asked >= 0.01 * asked.amax(-1, keepdim=True)) & causal
            found.append(int(high.sum()) / int(causal.sum() * a.shape[0]))
        if method == "tgvKv":
            start = behind_images(prompt)
            found.append(float(a.mean(0)[start:, images(prompt)].sum()) if start < prompt.length else 1.0)
    return found, window


def claimed_counts(prompt, options, every, total, apportioned):
    """(entries per layer, how near the rounding was to go another way)."""
    if options["method"] == "airCache":
        found, window = strength_and_skewness(prompt, every), prompt.length - int(images(prompt).sum())
        window = min(window, total / len(found)) if window < prompt.length else 0
    else:
        found, window = claims(prompt, options, every)
    layers, length = len(found), prompt.length
    shared = total - window * layers
    wanted = [window + shared * claim / math.fsum(found) for claim in found]
    counts = apportioned(wanted, total, [1] * layers, [length] * layers)
    fractions = sorted(w - math.floor(w) for w in wanted)
    return counts, min(b - a for a, b in zip(fractions, fractions[1:]))


def strength_and_skewness(prompt, every):
    """AirCache: what a layer's images get, and how few of them get most of it, each as a share of all layers', halves of one."""
    layers, is_image = range(len(prompt.llama.layers)), images(prompt)
    if behind_images(prompt) == prompt.length:
        return [1.0 for _ in layers]
    strengths, skews = [], []
    for layer in layers:
        strength, skew = 0.0, 0.0
        for head in every:
            found = elite(prompt, rows(prompt, layer, [head]))[is_image]
            n, centred = len(found), found - found.mean()
            third = (centred / found.std(unbiased=True)).pow(3).sum() * n / ((n - 1) * (n - 2))
            strength, skew = strength + float(found.sum()), skew + max(float(third), 0.0)
        strengths.append(strength)
        skews.append(skew)
    return [s / sum(strengths) / 2 + k / sum(skews) / 2 for s, k in zip(strengths, skews)]


def elite(prompt, a, threshold=0.9):
    """Mean over the query heads `a` [heads, positions, positions] of what the text that the last position looks at pays to images."""
    start, is_image = behind_images(prompt), images(prompt)
    found = 0
    for head in a:
        own = head[-1, start:]
        chosen = [start + j for j in range(len(own)) if own[j] >= threshold * own.max()]
        among = is_image.clone()
        among[chosen] = True
        asked = head[chosen] * among
        asked = asked / asked.sum(-1, keepdim=True)
        found = found + asked.mean(0) * is_image / len(a)
    return found


# Scores


def window_of(prompt, options, count):
    return min(32, int(count // 2), prompt.length)


def ranked(prompt, options, layer, lane, count, mean):
    """(scores, protected positions, whether equal scores are no doubt, positions that rounding may exchange)."""
    method, length = options["method"], prompt.length
    a = rows(prompt, layer, lane)
    if method == "tova":
        return a[:, -1].mean(0), {length - 1}, False, []
    if method == "observedAttention":
        return a.sum(1).mean(0) / torch.arange(length, 0, -1), set(), False, []
    if method == "lagkv":
        scores, loose = lagged(prompt, layer, lane[0], options.get("lag", 128))
        return scores, set(range(4)), True, loose
    if method == "expectedAttention":
        return expected(prompt, layer, lane[0]), set(range(4)), False, []
    if method == "chunkkv":
        window = window_of(prompt, options, mean)
        votes = a[:, length - window :].sum(1).mean(0)
        scores = torch.cat([chunk.mean().expand(len(chunk)) for chunk in votes.split(20)])
        return scores, set(range(length - window, length)), True, []
    if method == "cake":
        # The window, which is protected, follows from the mean size of the layers.
        window = window_of(prompt, options, options["keep"] * length)
        seen = a[:, length - window :]
        scores = (seen.mean(1) + 200 * seen.var(1)).mean(0)
        before = length - window
        scores[:before] = avg_pool1d(scores[None, :before], 5, stride=1, padding=2)[0]
        return scores, set(range(before, length)), False, []
    if method == "vlCache":
        return a[:, asking(prompt, options) :].sum(1).mean(0), set(range(length - int(options["keep"] * length * 0.1), length)), False, []
    if method == "tgvKv":
        return text_guided(prompt, a.mean(0)), {length - 1}, False, []
    if method == "mixkv":
        before = length - window_of(prompt, options, mean)
        votes = a[:, before:].sum(1).mean(0)
        votes[:before] = avg_pool1d(votes[None, :before], 5, stride=1, padding=2)[0]
        return mixed(prompt, layer, lane, votes, before), set(range(before, length)), False, []
    if method == "lookM":
        scores = a.sum(1).mean(0) * torch.where(images(prompt), BEHIND, 1.0)
        return scores, set(range(length - count // 2, length)), False, []
    if method == "airCache":
        start = behind_images(prompt)
        text = a[:, start if start < length else length - min(128, length) :].sum(1).mean(0)
        scores = torch.where(images(prompt), elite(prompt, a) * BEHIND, text) if start < length else text
        return scores, {length - 1}, False, []
    if method == "elastic":
        return a.sum(1).mean(0), {0, length - 1}, False, []
    raise KeyError(method)


def lagged(prompt, layer, head, lag, sinks=4):
    length = prompt.length
    parts = (length - sinks) // lag
    if parts < 2:
        later = torch.arange(length - sinks).double() / (length - sinks)
        return torch.cat([torch.ones(sinks).double(), later]), []
    end = sinks + parts * lag
    keys = prompt.llama.turn(prompt.keys[layer][head][None], range(length))[0].double()
    shares = 0
    for x in (keys, prompt.values[layer][head].double()):
        x = x[sinks:end].unflatten(0, (parts, lag))
        low, high = x[1:].amin(1, keepdim=True), x[1:].amax(1, keepdim=True)
        shares = shares + ((x[:-1] - low) / (high - low)).std(-1).softmax(-1) / 2
    ranks = shares.argsort(-1).argsort(-1) / lag
    scores = torch.cat([torch.ones(sinks), ranks.flatten(), torch.ones(lag + length - end)]).double()
    # Neighbours in rank whose numbers are nearly equal may change places.
    loose = []
    for part, row in enumerate(shares):
        order = row.argsort()
        near = ((row[order][1:] - row[order][:-1]) <= LOOSE * row[order][1:]).nonzero().flatten().tolist()
        loose += [sinks + part * lag + int(order[i + step]) for i in near for step in (0, 1)]
    return scores, loose


def expected(prompt, layer, head, sinks=4, ahead=512):
    """What queries of the prompt's mean and covariance are expected to look at, times the norm of the value."""
    length, group, width = prompt.length, prompt.group(), prompt.keys[layer].shape[-1]
    keys = prompt.llama.turn(prompt.keys[layer][head][None], range(length))[0].double()[sinks:]
    queries = prompt.queries[layer][head * group : (head + 1) * group, sinks:].double()
    # Its columns are the means of where each unit vector is turned to.
    units = torch.eye(width)[:, None].expand(width, ahead, width)
    turn = prompt.llama.turn(units, range(length, length + ahead)).double().mean(1).T
    shares = 0
    for q in queries:
        mean, centred = turn @ q.mean(0), (q - q.mean(0)) @ turn.T
        logs = keys @ mean / math.sqrt(width) + (keys @ centred.T).pow(2).sum(-1) / len(q) / (2 * width)
        shares = shares + logs.softmax(-1) / group
    shares = shares * prompt.values[layer][head, sinks:].double().norm(dim=-1)
    return torch.cat([(shares.max() + 1).expand(sinks), shares])


def text_guided(prompt, a):
    """a: mean over the heads, [positions, positions]."""
    is_image = images(prompt)
    scores = a[~is_image].sum(0)
    start = behind_images(prompt)
    if start == prompt.length:
        return scores
    text = a[start:]
    weights = torch.stack([text[j:, start + j].mean() for j in range(len(text))])
    guided = weights @ text
    return torch.where(is_image, guided * BEHIND, scores)


def mixed(prompt, layer, heads, votes, before):
    """Votes for the first positions with the size of their values and the difference of their keys, as a mean over these key-value heads."""
    attended, found = votes[:before], []

    def scaled(x):
        x = (x - x.min()) / (x.max() - x.min() + 1e-8)
        return x * attended.mean() / (x.mean() + 1e-8)

    for head in heads:
        keys = prompt.llama.turn(prompt.keys[layer][head][None], range(prompt.length))[0].double()
        unit = normalize(keys, dim=-1)
        alike = (unit @ unit.T).fill_diagonal_(0).sum() / (prompt.length * (prompt.length - 1))
        alike = float(alike.clamp(0, 1))
        different = -(unit[:before] @ unit.mean(0))
        norms = prompt.values[layer][head][:before].double().norm(dim=-1)
        found.append((1 - alike) * (attended + scaled(norms)) + alike * scaled(different))
    return torch.cat([torch.stack(found).mean(0), votes[before:]])


# Merging


def merged(method, llama, lane, keys, values, length):
    """Unrotated keys and values of a lane after what goes was merged; `keys` and `values` are of all positions."""
    kept = lane.positions
    gone = [j for j in range(length) if j not in set(kept)]
    turned = llama.turn(keys, range(length))
    into = {}
    for j in gone:
        if method == "elastic":
            target = min(range(len(kept)), key=lambda i: (abs(kept[i] - j), i))
        else:
            alike = cosine_similarity(turned[0, kept].double(), turned[0, j].double()[None], dim=-1)
            target = max(range(len(kept)), key=lambda i: (float(alike[i]), -i))
        into.setdefault(target, []).append(j)
    found = []
    for x in (turned, values):
        rows_ = x[:, kept].clone()
        for target, sources in into.items():
            own = x[:, kept[target]]
            halves = [x[:, j] if method == "elastic" else (x[:, j] + own) / 2 for j in sources]
            rows_[:, target] = torch.stack([own, *halves]).mean(0)
        found.append(rows_)
    return llama.turn(found[0], [-position for position in kept]), found[1]
