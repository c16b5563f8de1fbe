"""ZipVL's sparse prefill (arXiv 2410.08584, algorithm 1) in plain torch, with the choices of docs/methods/zipvl.md: in each layer the probes'
attention says which positions take part, these attend to each other alone, and the others come out of attention as zeros. The passes are those of
eviction.py; entries are stored by the formulas of stores.py, or stay as they are."""

import json
import math

import numpy as np
import torch

import stores
from common import DATA, bits, write_json
from eviction import LOOSE, attention, pictured, worded

DEFAULTS = {"mass": 0.975, "probes": 64, "window": 0}
BLOCK = 100
"""generated tokens that are stored at once"""
WORD = 2**64


def lot(number):
    for _ in range(2):
        number = (number + 0x9E3779B97F4A7C15) % WORD
        number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 % WORD
        number = (number ^ number >> 27) * 0x94D049BB133111EB % WORD
        number ^= number >> 31
    return number


class Run:
    """Prompts and tokens; per layer rotated keys and values `[heads, positions, width]` as they are stored, and who took part last."""

    def __init__(self, llama, options):
        self.llama, self.options, self.seen, self.margin = llama, DEFAULTS | options, 0, 1.0
        self.keys, self.values = [None] * len(llama.layers), [None] * len(llama.layers)
        self.stored, self.part = [0] * len(llama.layers), [None] * len(llama.layers)
        self.others = [set() for _ in llama.layers]

    def probes(self, n):
        last = range(max(0, n - self.options["probes"]), n)
        others = sorted(range(last.start), key=lambda query: (lot(query), query))
        return sorted([*others[: self.options["probes"]], *last])

    def classes(self, probes, probabilities, past):
        """The positions that hold most of the attention, each counted by how many probes see it."""
        sums = probabilities.double().mean(0).sum(0).tolist()
        importance = [total / max(1, sum(query >= j - past for query in probes)) for j, total in enumerate(sums)]
        order = sorted(range(len(sums)), key=lambda j: (-importance[j], j))
        wanted, held, count = self.options["mass"] * sum(importance), 0.0, 0
        if self.options["mass"] == 1:
            return order
        while count < len(order) and held < wanted:
            held += importance[order[count]]
            count += 1
        # Neither the count nor the last one may be a matter of rounding.
        last = importance[order[count - 1]]
        self.margin = min(self.margin, (held - wanted) / wanted, (wanted - held + last) / wanted)
        if count < len(order):
            self.margin = min(self.margin, (last - importance[order[count]]) / last)
        return order[:count]

    def read(self, hidden):
        llama, n, past = self.llama, len(hidden), self.seen
        places = range(past, past + n)
        probes = self.probes(n)

        def attend(layer, q, k, v):
            q, k = llama.turn(q, places), llama.turn(k, places)
            if past:
                k, v = torch.cat([self.keys[layer], k], 1), torch.cat([self.values[layer], v], 1)
            self.keys[layer], self.values[layer] = k, v
            mask = torch.full((n, past + n), -torch.inf).triu(past + 1)
            seen, _ = attention(q[:, probes], k, v, mask[probes])
            first = self.classes(probes, seen, past)
            self.others[layer] = set(range(past + n)) - set(first)
            part = sorted({*first, past + n - 1})
            self.part[layer] = part
            rows = [j - past for j in part if j >= past]
            out = torch.zeros_like(q)
            _, out[:, rows] = attention(q[:, rows], k[:, part], v[:, part], mask[rows][:, part])
            return out

        logits = llama(hidden, attend)[-1]
        self.seen += n
        for layer in range(len(self.part)):
            self.store(layer, self.seen - self.options["window"])
        return logits

    def step(self, token):
        def attend(layer, q, k, v):
            place = [self.seen]
            self.keys[layer] = torch.cat([self.keys[layer], self.llama.turn(k, place)], 1)
            self.values[layer] = torch.cat([self.values[layer], v], 1)
            return attention(self.llama.turn(q, place), self.keys[layer], self.values[layer])[1]

        logits = self.llama(self.llama.embedding[token][None], attend)[0]
        self.seen += 1
        for layer, stored in enumerate(self.stored):
            settled = self.seen - self.options["window"]
            if settled - stored >= BLOCK:
                self.store(layer, settled)
        return logits

    def store(self, layer, end):
        for position in range(self.stored[layer], end):
            for of in (self.keys, self.values):
                row = of[layer][:, position].double().numpy()[None]
                coded = stores.per_entry(row, 2 if position in self.others[layer] else 4, stores.divisor(self.llama.width, 32))
                of[layer][:, position] = torch.from_numpy(np.asarray(coded, np.float32))[0]
        self.stored[layer] = max(self.stored[layer], end)


def results(about, llama, turns, answer, cases):
    """Prompts with tokens between them, and log-probabilities of the answer behind the last one; the first class of the first prompt."""
    found = []
    for options in cases:
        run = Run(llama, options)
        for number, (hidden, said) in enumerate(turns):
            row = run.read(hidden)
            if number == 0:
                first = [bits(sorted(set(range(run.seen)) - others), run.seen) for others in run.others]
            for token in said:
                row = run.step(token)
        counts, logprobs = [len(of) for of in run.part], []
        for token in answer:
            logprobs.append(round(float(row.log_softmax(-1)[token]), 5) or 0.0)
            row = run.step(token)
        assert run.margin > LOOSE, (options, run.margin)
        print(json.dumps(options), counts, f"of {run.seen - len(answer)}, perplexity {math.exp(-sum(logprobs) / len(answer)):.4f}", flush=True)
        found.append({"options": options, "first": first, "logprobs": logprobs[:: max(1, len(answer) // 20)]})
    return about | {"cases": found}


def main():
    llama, about, prompt, answer = pictured()
    plain = {"window": 10000}
    cases = [plain, plain | {"probes": 16}, plain | {"mass": 0.5, "probes": 200}, {}]
    about |= {"again": 0, "said": 0}
    picture = results(about, llama, [(prompt.hidden, [])], answer, cases)

    llama, about, ids, answer = worded()
    hidden = llama.embedding[torch.tensor(ids)]
    about |= {"again": 0, "said": 0}
    text = results(about, llama, [(hidden, [])], answer, [plain, {"mass": 0.9, "window": 40}])
    # The first tokens of the prompt once more, behind it and some of the answer.
    again, said = 300, 7
    about |= {"again": again, "said": said}
    chat = results(about, llama, [(hidden, answer[:said]), (hidden[:again], [])], answer, [plain, {"mass": 0.9}])
    write_json(DATA / "zipvl.json", {"scenes": [picture, text, chat]})


if __name__ == "__main__":
    main()
