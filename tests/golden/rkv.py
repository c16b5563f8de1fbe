"""R-KV (arXiv 2505.24133) in plain torch, from the authors' text and their code at d15c976: what each head keeps after the prompt and whenever
some more tokens have come. The whole matrix of cosines is written down, and attention is kept row by row. Prompts and answers are those of
data/eviction."""

import json
import math

import torch
from torch.nn.functional import max_pool1d, normalize

from common import DATA, bits, write_json
from eviction import Prompt, attention, pictured, worded

DEFAULTS = {"every": 32, "window": 8, "attention": 0.1, "alike": 0.5, "spared": 1, "poolSize": 7, "sinks": 1}
# Below these, the order in which 32-bit floats were added may decide: of two scores, relative, and of a cosine.
UNDECIDED, NEAR = 2e-6, 1e-6


class Lane:
    """The entries of a key-value head: positions, unrotated keys, values; and for each of the last queries what it gave them."""

    def __init__(self, keys, values, rows):
        self.positions, self.keys, self.values, self.rows = list(range(len(keys))), keys, values, rows


class Run:
    def __init__(self, prompt, options):
        self.prompt, self.llama, self.options = prompt, prompt.llama, DEFAULTS | options
        self.seen, self.margin, self.closest = prompt.length, 1.0, 1.0
        self.lanes, group = [], prompt.group()
        for layer, (keys, values) in enumerate(zip(prompt.keys, prompt.values)):
            mean = prompt.probabilities[layer].double().unflatten(0, (-1, group)).mean(1)
            self.lanes.append([Lane(k, v, list(a[-64:])) for k, v, a in zip(keys, values, mean)])
        keep, n, layers = self.options["keep"], prompt.length, len(self.lanes)
        if isinstance(keep, dict):
            self.cap = keep["tokens"]
            counts = [min(self.cap, n)] * layers
        else:
            self.cap, total = None, math.floor(keep * layers * n + 0.5)
            counts = [total // layers + (layer < total % layers) for layer in range(layers)]
        self.counts, self.since = counts, None
        for lanes, count in zip(self.lanes, counts):
            for lane in lanes:
                self.shrink(lane, count, self.options["window"])

    def shrink(self, lane, count, tokens):
        """Leaves `count` entries of a lane, by what its last `tokens` queries gave."""
        o, n = self.options, len(lane.positions)
        if count >= n:
            return
        window = min(o["window"], count // 2)
        given = torch.zeros(n, dtype=torch.float64)
        for row in lane.rows[-min(tokens, window if self.since is None else tokens) :]:
            given[: len(row)] += row
        given = given[: n - window] / given[: n - window].sum()
        given = max_pool1d(given[None], o["poolSize"], stride=1, padding=o["poolSize"] // 2)[0]
        unit = normalize(self.llama.turn(lane.keys[None], lane.positions)[0].double(), dim=-1)
        cosines = (unit @ unit.T).fill_diagonal_(0)
        alike = cosines > o["alike"]
        # How many alike entries are newer than each, in its row.
        newer = alike.int().flip(1).cumsum(1).flip(1) - alike.int()
        asked = (newer < o["spared"]) & ~torch.eye(n).bool()
        self.closest = min(self.closest, *(cosines - o["alike"]).abs()[asked].tolist())
        cosines[alike & asked] = 0
        redundancy = cosines.mean(0).softmax(-1)
        scores = (o["attention"] * given - (1 - o["attention"]) * redundancy[: n - window]).tolist()
        safe = [*range(o["sinks"]), *range(n - window, n)]
        order = sorted(range(o["sinks"], n - window), key=lambda j: (-scores[j], j))
        taken = count - len(safe)
        last, first = scores[order[taken - 1]], scores[order[taken]]
        self.margin = min(self.margin, (last - first) / abs(last))
        stay = sorted(safe + order[:taken])
        lane.positions = [lane.positions[i] for i in stay]
        lane.keys, lane.values = lane.keys[stay], lane.values[stay]
        lane.rows = [row[[i for i in stay if i < len(row)]] for row in lane.rows]

    def step(self, token):
        o, number = self.options, self.seen - self.prompt.length
        if self.cap is not None:
            for lanes in self.lanes:
                for lane in lanes:
                    if len(lane.positions) + 1 > self.cap:
                        # Until the first time the lane is full, the prompt's last queries count.
                        tokens = o["window"] + number if number < o["window"] else o["window"]
                        self.since = number
                        self.shrink(lane, self.cap - min(o["every"], self.cap // 2), tokens)
        self.seen += 1
        row = self.llama(self.llama.embedding[token][None], self.attend)[0]
        if self.cap is None and (number + 1) % o["every"] == 0:
            self.since = number
            for lanes, count in zip(self.lanes, self.counts):
                size = len(lanes[0].positions)
                while size * self.prompt.length >= self.seen * count + self.prompt.length:
                    size -= 1
                for lane in lanes:
                    self.shrink(lane, size, min(o["window"], o["every"]))
        return row

    def attend(self, layer, q, k, v):
        mixed, group = [], self.prompt.group()
        for head, lane in enumerate(self.lanes[layer]):
            lane.positions.append(self.seen - 1)
            lane.keys, lane.values = torch.cat([lane.keys, k[head]]), torch.cat([lane.values, v[head]])
            query = self.llama.turn(q[head * group : (head + 1) * group], [self.seen - 1])
            probabilities, mix = attention(query, self.llama.turn(lane.keys[None], lane.positions), lane.values[None])
            lane.rows = [*lane.rows, probabilities[:, 0].double().mean(0)][-64:]
            mixed.append(mix)
        return torch.cat(mixed)


def results(about, prompt, answer, cases, shown):
    found = []
    for options in cases:
        run, row, logprobs = Run(prompt, options), prompt.logits[-1], []
        kept = [[bits(lane.positions, prompt.length) for lane in run.lanes[layer]] for layer in shown]
        for token in answer:
            logprobs.append(round(float(row.log_softmax(-1)[token]), 4) or 0.0)
            row = run.step(token)
        assert run.margin > UNDECIDED and run.closest > NEAR, (options, run.margin, run.closest)
        end = [[bits(lane.positions, prompt.length + len(answer)) for lane in run.lanes[layer]] for layer in shown]
        sizes = [len(lanes[0].positions) for lanes in run.lanes]
        print(json.dumps(options), sizes, f"perplexity {math.exp(-sum(logprobs) / len(answer)):.4f}, nearest {run.margin:.1e}, {run.closest:.1e}", flush=True)
        found.append({"options": options, "kept": kept, "kept_end": end, "logprobs": logprobs[:: max(1, len(answer) // 20)]})
    return about | {"layers": shown, "cases": found}


def main():
    _, about, prompt, answer = pictured()
    cases = [
        {"keep": 0.4, "every": 16, "alike": 0.55},
        {"keep": {"tokens": 60}, "every": 20, "spared": 3, "alike": 0.7, "attention": 0.4, "poolSize": 3},
    ]
    picture = results(about, prompt, answer, cases, [0, 9])

    llama, about, ids, answer = worded()
    prompt = Prompt(llama, ids, llama.embedding[torch.tensor(ids)])
    words = results(about, prompt, answer, [{"keep": 0.3, "every": 12, "sinks": 3}], [0, 3, 5])
    write_json(DATA / "rkv.json", {"scenes": [picture, words]})


if __name__ == "__main__":
    main()
