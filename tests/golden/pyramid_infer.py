"""PyramidInfer (arXiv 2405.12532) in plain torch, from the authors' text and their code at 61ac641: hidden states leave the pass from layer
to layer, and blocks of generated entries shrink. The passes are those of eviction.py, cut open between the layers; attention is looked at
whole, head by head and row by row, and nothing is summed on the way. Prompts and answers are those of data/eviction."""

import json
import math

import torch
from torch.nn.functional import silu

from common import DATA, bits, write_json
from eviction import LOOSE, UNDECIDED, attention, pictured, rms_norm, worded

DEFAULTS = {"share": 0.9, "schedule": "cosine", "interval": 1, "recent": 0.2, "distance": 1.2, "sinks": 4, "least": 64}
DEFAULTS |= {"block": 16, "blockShare": 0.9, "blockLast": 0.1}
VARIANTS = {"small": {}, "medium": {"share": 0.8, "interval": 2}, "large": {"interval": 3}}


def cosine(last, layer, layers):
    return (1.0 - last) * (math.cos(math.pi * layer / layers) + 1) / 2 + last


class Run:
    """A prompt and the tokens behind it; per layer the positions held, unrotated keys and values, and for each query the mean over the
    heads of its attention, by position."""

    def __init__(self, llama, options):
        self.llama, self.options = llama, DEFAULTS | VARIANTS[options.get("variant", "small")] | options
        self.layers, self.held = len(llama.layers), []
        self.margin, self.decided = 1.0, True

    def layer(self, number, hidden, attend):
        layer, llama = self.llama.layers[number], self.llama
        x = rms_norm(hidden, layer["input_layernorm.weight"], llama.epsilon)
        q, k, v = (llama.split(x @ layer[f"self_attn.{name}_proj.weight"].T) for name in "qkv")
        hidden = hidden + attend(q, k, v).transpose(0, 1).flatten(1) @ layer["self_attn.o_proj.weight"].T
        x = rms_norm(hidden, layer["post_attention_layernorm.weight"], llama.epsilon)
        gated = silu(x @ layer["mlp.gate_proj.weight"].T) * (x @ layer["mlp.up_proj.weight"].T)
        return hidden + gated @ layer["mlp.down_proj.weight"].T

    def head(self, hidden):
        return rms_norm(hidden, self.llama.norm, self.llama.epsilon) @ self.llama.head.T

    def read(self, hidden):
        """The logits of the prompt's last position."""
        o, llama, n = self.options, self.llama, len(hidden)
        self.length, positions = n, list(range(n))
        recent = int(n * o["recent"])
        for number in range(self.layers):
            seen = []

            def attend(q, k, v):
                turned = llama.turn(q, positions), llama.turn(k, positions)
                mask = torch.full((len(positions), len(positions)), -torch.inf).triu(1)
                probabilities, mixed = attention(*turned, v, mask)
                seen.append(probabilities.double().mean(0))
                self.held.append({"positions": list(positions), "keys": k, "values": v, "rows": {}})
                return mixed

            hidden = self.layer(number, hidden, attend)
            share = cosine(o["share"], number, self.layers) if o["schedule"] == "cosine" else o["share"]
            if number % o["interval"] or number + 1 == self.layers:
                continue
            window = 1 + recent
            asked = seen[0][-window:, :-window]
            asked = asked * torch.linspace(1.0, o["distance"], window).double()[:, None]
            scores = asked.mean(0).tolist()
            context = len(scores)
            count = int(context * share)
            if count <= o["least"] or count == context:
                continue
            order = sorted(range(context), key=lambda i: (positions[i] >= o["sinks"], -scores[i], i))
            cut = scores[order[count - 1]]
            self.margin = min(self.margin, (cut - scores[order[count]]) / cut)
            stay = sorted(order[:count]) + list(range(context, len(positions)))
            hidden, positions = hidden[stay], [positions[i] for i in stay]
        self.next = self.seen = n
        return self.head(hidden)[-1]

    def step(self, token):
        llama, o, place = self.llama, self.options, self.seen
        hidden = llama.embedding[token][None]
        for number, lane in enumerate(self.held):

            def attend(q, k, v):
                lane["positions"].append(place)
                lane["keys"], lane["values"] = torch.cat([lane["keys"], k], 1), torch.cat([lane["values"], v], 1)
                probabilities, mixed = attention(llama.turn(q, [place]), llama.turn(lane["keys"], lane["positions"]), lane["values"])
                lane["rows"][place] = dict(zip(lane["positions"], probabilities[:, 0].double().mean(0).tolist()))
                return mixed

            hidden = self.layer(number, hidden, attend)
        self.seen += 1
        window = 1 + int(self.seen * o["recent"])
        if o["block"] and self.next + o["block"] + window <= self.seen:
            for number, lane in enumerate(self.held):
                self.shrink(number, lane, range(self.next, self.next + o["block"]))
            self.next += o["block"]
        return self.head(hidden)[0]

    def shrink(self, number, lane, block):
        o = self.options
        behind = range(block.stop, self.seen)
        scores = {j: sum(lane["rows"][i][j] for i in behind) for j in block}
        count = max(int(o["blockShare"] * cosine(o["blockLast"], number, self.layers) * len(block)), 1)
        order = sorted(block, key=lambda j: (-scores[j], j))
        gone = set(order[count:])
        if gone:
            last, first = scores[order[count - 1]], scores[order[count]]
            self.decided &= (last - first) / last >= UNDECIDED
        stay = [i for i, j in enumerate(lane["positions"]) if j not in gone]
        lane["positions"] = [lane["positions"][i] for i in stay]
        lane["keys"], lane["values"] = lane["keys"][:, stay], lane["values"][:, stay]


def results(about, llama, hidden, answer, cases):
    found = []
    for options in cases:
        run = Run(llama, options)
        row, logprobs = run.read(hidden), []
        assert run.margin > LOOSE, (options, run.margin)
        kept = [bits(lane["positions"], run.length) for lane in run.held]
        for token in answer:
            logprobs.append(round(float(row.log_softmax(-1)[token]), 5) or 0.0)
            row = run.step(token)
        assert run.decided, options
        end = [bits([j - run.length for j in lane["positions"] if j >= run.length], len(answer)) for lane in run.held]
        counts = [len(lane["positions"]) for lane in run.held]
        print(json.dumps(options), counts, f"perplexity {math.exp(-sum(logprobs) / len(answer)):.4f}", flush=True)
        found.append({"options": options, "kept": kept, "generated": end, "logprobs": logprobs[:: max(1, len(answer) // 20)]})
    return about | {"cases": found}


def main():
    llama, about, prompt, answer = pictured()
    cases = [
        {},
        {"variant": "medium", "least": 16, "block": 8},
        {"schedule": "constant", "share": 0.7, "recent": 0.1, "least": 0, "sinks": 2, "distance": 3.0, "blockLast": 0.6},
    ]
    picture = results(about, llama, prompt.hidden, answer, cases)

    llama, about, ids, answer = worded()
    cases = [{}, {"variant": "large", "share": 0.5, "recent": 0.02, "block": 8}]
    text = results(about, llama, llama.embedding[torch.tensor(ids)], answer, cases)
    write_json(DATA / "pyramid_infer.json", {"scenes": [picture, text]})


if __name__ == "__main__":
    main()
