"""Entries of each layer and head that NVIDIA's kvpress keeps of a prompt, press by press.

    python3.11 -m venv venv && venv/bin/pip install -r tests/golden/requirements-kvpress.txt
    venv/bin/python tests/golden/kvpress.py            # data/kvpress/planted.json
    venv/bin/python tests/golden/kvpress.py smollm2    # data/kvpress/smollm2.json, after `npm run real -- --fetch`

It runs the presses themselves. A press hands back the keys that it keeps; they are found among those it was given, bit by bit. Scores
are the ones that the press ranked by; they tell which entries nearly were exchanged."""

import json
import sys
from dataclasses import dataclass
from importlib.metadata import version

# This file has the name of the package that it needs.
HERE = sys.path.pop(0)
from kvpress import (
    AdaKVPress,
    ChunkKVPress,
    ExpectedAttentionPress,
    KeyDiffPress,
    KnormPress,
    LagKVPress,
    ObservedAttentionPress,
    PyramidKVPress,
    SnapKVPress,
    StreamingLLMPress,
    ThinKPress,
    TOVAPress,
)

sys.path.insert(0, HERE)

import torch
import transformers
from transformers import DynamicCache, LlamaForCausalLM, PreTrainedTokenizerFast

from common import DATA, FIXTURES, ROOT, bits, ranges, relative, write_json

OUT = DATA / "kvpress"
LOOSE = 1e-5
"""Scores that differ by less, relative to the last one kept, are ties: which of them stays is a matter of rounding."""
PLANTED = FIXTURES / "llama-planted"
SMOLLM2 = ROOT / ".cache" / "real" / "models" / "f32"


@dataclass
class Case:
    press: object
    options: dict
    """Ours, `keep` and `channels` from what the press keeps. Without `keep` where sizes are not ours: then the heads of each size are compared with ours at that size."""
    attention: str = "sdpa"


CHUNK = 20
SNAPKV = {"method": "snapkv", "window": 64, "pool": "mean", "poolSize": 5}


def cases(ratio, length):
    """Every press that we have a method for, at one share of entries that go."""
    # A window that begins where a chunk does: the press votes for the window too, and that must not leak into a chunk before it.
    window = 40 + length % CHUNK
    yield Case(KnormPress(ratio), {"method": "knorm", "keep": None})
    yield Case(KeyDiffPress(ratio), {"method": "keydiff", "keep": None})
    yield Case(StreamingLLMPress(ratio), {"method": "streaming", "keep": None})
    yield Case(SnapKVPress(ratio), SNAPKV | {"keep": None})
    yield Case(SnapKVPress(ratio), SNAPKV | {"keep": None}, "eager")
    yield Case(SnapKVPress(ratio, window_size=32, kernel_size=7), SNAPKV | {"window": 32, "poolSize": 7, "keep": None})
    yield Case(PyramidKVPress(ratio, window_size=8, beta=8), SNAPKV | {"window": 8})
    yield Case(AdaKVPress(SnapKVPress(ratio), alpha_safeguard=0), SNAPKV | {"method": "adakv", "floor": 0, "keep": None})
    yield Case(AdaKVPress(SnapKVPress(ratio, window_size=8)), SNAPKV | {"window": 8})
    yield Case(TOVAPress(ratio), {"method": "tova", "keep": None})
    yield Case(ObservedAttentionPress(ratio), {"method": "observedAttention", "keep": None}, "eager")
    # A part of half the default: what is always kept must fit the smaller sizes.
    yield Case(LagKVPress(ratio, lag_size=64), {"method": "lagkv", "lag": 64, "keep": None})
    yield Case(ExpectedAttentionPress(ratio), {"method": "expectedAttention", "keep": None})
    snapkv = SnapKVPress(ratio, window_size=window, kernel_size=1)
    yield Case(ChunkKVPress(snapkv, chunk_length=CHUNK), {"method": "chunkkv", "chunk": CHUNK, "window": window, "keep": None})
    yield Case(ThinKPress(ratio), {"method": "think", "channels": None, "queries": 32, "window": 0})


def scorer(press):
    """The part of a press that ranks."""
    return getattr(press, "press", press)


class Watched:
    """A press at work: per layer what it kept, and the scores it ranked by."""

    def __init__(self, press):
        self.press, self.kept, self.scores, self.unranked = press, [], [], []
        compress, ranking = press.compress, scorer(press)
        if hasattr(ranking, "score"):
            score = ranking.score
            ranking.score = lambda *given, **named: self.ranked(score(*given, **named))

        if isinstance(press, LagKVPress):
            states = press._get_states_score
            press._get_states_score = lambda rows: self.unranked.append(states(rows)) or self.unranked[-1]

        def watched(module, hidden_states, keys, values, attentions, kwargs):
            before = keys.clone()
            after = compress(module, hidden_states, keys, values, attentions, kwargs)
            self.kept.append(self.stayed(module, before[0], after[0][0]))
            return after

        press.compress = watched

    def ranked(self, scores):
        self.scores.append(scores[0].double())
        return scores

    def stayed(self, module, before, after):
        """Per head the positions whose keys stay; for ThinK the channels."""
        if isinstance(self.press, ThinKPress):
            return [head.any(0).nonzero()[:, 0].tolist() for head in after]
        if isinstance(self.press, AdaKVPress):
            _, heads, places = module.masked_key_indices
            masked = set(zip(heads.tolist(), places.tolist()))
            return [[place for place in range(before.shape[1]) if (head, place) not in masked] for head in range(len(before))]
        return [found(old, new) for old, new in zip(before, after)]


def found(before, after):
    """Which rows of `before` those of `after` are, in order. No two are the same: keys are rotated to their positions."""
    where = {row.numpy().tobytes(): place for place, row in enumerate(before)}
    assert len(where) == len(before)
    places = sorted(where[row.numpy().tobytes()] for row in after)
    assert len(set(places)) == len(places)
    return places


def compared(press, scores):
    """The numbers that a press compares, from the scores that it asked for."""
    if not isinstance(press, ChunkKVPress):
        return scores
    # Whole chunks of all heads.
    means = [chunk.mean(-1, keepdim=True).expand_as(chunk) for chunk in scores.mean(0).split(press.chunk_length)]
    return torch.cat(means).expand_as(scores)


def ties(press, scores, kept):
    """Per head the positions that score as the last one kept does, within `LOOSE`, where some of them had to go."""
    scores = compared(press, scores)
    joint = isinstance(press, AdaKVPress) and press.alpha_safeguard == 0
    last = [min((float(row[place]) for place in places), default=torch.inf) for row, places in zip(scores, kept)]
    near = [((row - cut).abs() <= LOOSE * abs(cut)).nonzero()[:, 0].tolist() for row, cut in zip(scores, [min(last)] * len(last) if joint else last)]
    undecided = [bool(set(places) - set(stay)) for places, stay in zip(near, kept)]
    return [places if (any(undecided) if joint else open_) else [] for places, open_ in zip(near, undecided)]


def alike(press, layer, unranked, loose):
    """With the positions of a part whose numbers LagKV could not tell from those of `loose` when it ranked them."""
    keys, values = unranked[2 * layer : 2 * layer + 2]
    numbers = ((keys + values) / 2)[0].flatten(1).double()
    found = [set(places) for places in loose]
    for row, places in zip(numbers, found):
        for place in [place - press.n_sink for place in places if 0 <= place - press.n_sink < len(row)]:
            first = place - place % press.lag_size
            part = row[first : first + press.lag_size]
            near = ((part - row[place]).abs() <= LOOSE * row[place]).nonzero()[:, 0] + first + press.n_sink
            places |= set(near.tolist())
    return [sorted(places) for places in found]


def keep_of(kept, length, ratio):
    """Our `keep`: the share where it comes to as many entries as the press keeps, or else their number."""
    layers = len(kept)
    of_layers = {sum(map(len, heads)) / len(heads) for heads in kept}
    assert len(of_layers) == 1
    count = int(of_layers.pop())
    share = round(1 - ratio, 9)
    return share if int(share * layers * length + 0.5) == count * layers else {"tokens": count}


def run(model, ids, ratio, case, written):
    model.set_attn_implementation(case.attention)
    watched = Watched(case.press)
    with case.press(model):
        model(torch.tensor([ids]), past_key_values=DynamicCache(), use_cache=True, logits_to_keep=1)
    kept, options = watched.kept, dict(case.options)
    assert len(kept) == model.config.num_hidden_layers
    if "keep" in options:
        options["keep"] = keep_of(kept, len(ids), ratio)
    if "channels" in options:
        options["channels"] = len(kept[0][0]) / model.config.head_dim
    found = {"press": repr(case.press), "attention": case.attention, "options": options}
    found["channels" if isinstance(case.press, ThinKPress) else "kept"] = [[written(places) for places in heads] for heads in kept]
    loose = [ties(case.press, *layer) for layer in zip(watched.scores, kept)]
    if isinstance(case.press, LagKVPress):
        loose = [alike(case.press, layer, watched.unranked, heads) for layer, heads in enumerate(loose)]
    found["ties"] = sum(len(places) for heads in loose for places in heads)
    found["loose"] = [[layer, head, ranges(places)] for layer, heads in enumerate(loose) for head, places in enumerate(heads) if places]
    print(f"{len(ids)} tokens, {found['press']}: {json.dumps(options)}, {found['ties']} ties", flush=True)
    return found


def prompts_of(model, prompts, ratios, written, wanted=lambda _case: True):
    """Every press on every prompt of `name: ids`."""
    for name, ids in prompts.items():
        todo = [(ratio, case) for ratio in ratios for case in cases(ratio, len(ids)) if wanted(case)]
        yield {"name": name, "prompt": ids, "cases": [run(model, ids, ratio, case, written(len(ids))) for ratio, case in todo]}


def versions():
    return {"kvpress": version("kvpress"), "transformers": transformers.__version__, "torch": torch.__version__}


def planted():
    """Prompts of the golden of eviction; one is cut so that no share of its length is whole."""
    scenes = json.loads((DATA / "eviction" / "planted.json").read_text())["scenes"]
    prompts = {"whole": scenes[0]["prompt"], "cut": scenes[1]["prompt"][:653]}
    model = load(PLANTED)
    found = list(prompts_of(model, prompts, (0.5, 0.8), lambda _length: ranges))
    write_json(OUT / "planted.json", {"model": relative(PLANTED), "versions": versions(), "prompts": found})


def smollm2():
    """The first prompt of the tests with real weights."""
    scene = json.loads((ROOT / "tests" / "real" / "golden" / "methods.json").read_text())["scenes"][0]
    model = load(SMOLLM2)
    ids = PreTrainedTokenizerFast.from_pretrained(SMOLLM2)(scene["prompt"], add_special_tokens=False)["input_ids"]
    assert len(ids) == scene["prompt_tokens"]
    masks = lambda length: lambda places: bits(places, length)
    # A size for every head would take ninety runs of ours, and channels are not seen from outside.
    wanted = lambda case: "keep" in case.options or isinstance(case.press, PyramidKVPress)
    (found,) = prompts_of(model, {scene["name"]: ids}, (0.5, 0.75), masks, wanted)
    write_json(OUT / "smollm2.json", {"versions": versions()} | found | {"prompt": scene["prompt"], "prompt_tokens": len(ids)})


def load(folder):
    transformers.utils.logging.disable_progress_bar()
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


if __name__ == "__main__":
    for part in sys.argv[1:] or ["planted"]:
        {"planted": planted, "smollm2": smollm2}[part]()
