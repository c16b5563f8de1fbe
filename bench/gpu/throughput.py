"""Speed of a large model with random f16 weights, several requests decoded together, at several sizes of the cache."""

import math
import os
import time

import device as machine
import models
import words
from abi import EngineError, Library, Model
from parts import NotRun

KEEPS = [1, 0.2, 0.6, 0.8, 0.4]
SHORT = 64
# Beside weights and cache: activations of a prompt, buffers of cuBLAS, the context.
WORKING = 3 << 30


def plan(small, first=False):
    """
    `(batch, prompt, tokens, steps, keep)`, the most telling first: one request alone, then the batches of the paper. With `steps`
    the run ends after so many steps in which all requests are at work, without it after all tokens. `keep` None is the plain cache.
    `first` asks for few of them: each batch once, whole and small.
    """
    sizes = [(1, 128, 16), (2, 96, 16), (3, 64, 8)]
    if not small:
        sizes = [(1, 1024, 512)] + [(b, *t) for t in ((1024, 512), (624, 256)) for b in (16, 48, 8)]
    short = 8 if small else SHORT
    if first:
        return [(*size, short, keep) for size in sizes[:3] for keep in (None, 0.2, 1)]
    alone, paper, rest = sizes[0], sizes[1], sizes[2:]
    found = [(*alone, short, keep) for keep in (None, 0.2, 1)]
    found += [(*paper, short, keep) for keep in [None, *KEEPS]]
    found += [(*paper, None, keep) for keep in (1, 0.2)]
    for size in rest:
        found += [(*size, short, keep) for keep in KEEPS]
    for size in rest:
        found += [(*size, None, keep) for keep in (1, 0.2)]
    return found


def needed(shape, batch, positions, keep):
    """Bytes on the card for a setting: prompts are read one by one, so one sequence at a time holds all its entries."""
    held = positions * words.kv_bytes(shape)
    return models.file_bytes(shape) + int((batch * (keep or 1) + 1) * held) + WORKING


def prepare(spec, report):
    """The model's folder and shape; the folder is written unless an earlier part has."""
    shape = models.SHAPES[spec["shape"]]
    if spec["scratch"] is None:
        raise NotRun(f"no folder has room for {models.file_bytes(shape) / 1e9:.0f} GB of weights")
    folder = os.path.join(spec["scratch"], spec["shape"])
    start = time.monotonic()
    size = models.write(folder, shape, os.path.join(spec["root"], "models", "tiny-llava"))
    report.set("written", {"bytes": size, "seconds": round(time.monotonic() - start, 2), "folder": spec["scratch"]})
    return folder, shape


def run(spec, report):
    library, device = Library(spec["library"]), spec["device"]
    library.need(device)
    folder, shape = prepare(spec, report)
    runs = plan(spec["small"], spec["first"])
    with Model(library, folder, device=device, weights="f16", batch=max(size[0] for size in runs)) as model:
        report.set("load", {"seconds": round(model.load_seconds, 2), "batch": model.batch, "info": model.info})
        probe(model, report)
        if model.refused:
            report.not_run("several requests at once", f"the library loads no batches: {model.refused}")
            runs = list(dict.fromkeys((1, *one[1:]) for one in runs))
        measure_all(spec, report, model, shape, runs)


def probe(model, report):
    """Log-probabilities of a text, for the PyTorch loop to find again from the same weights."""
    prompt, answer = words.prompt_of(48, 5), words.prompt_of(17, 6)
    scored = model.ask({"op": "score", "prompt": prompt, "answer": answer})
    tokens = model.ask({"op": "tokenize", "text": prompt})["tokens"]
    report.set("probe", {"prompt": tokens, "answer": scored["tokens"], "logprobs": scored["logprobs"]})


def request(prompt, tokens, seed, keep):
    cache = {"method": "full"} if keep is None else {"method": "prefixkv", "keep": keep}
    text = words.prompt_of(prompt, seed)
    return {"op": "generate", "prompt": text, "maxTokens": tokens, "ignoreEos": True, "cache": cache}


def measure_all(spec, report, model, shape, runs):
    used = machine.counter(spec["device"])[1] if spec["device"] != "cpu" else None
    card, warm = machine.total(spec["device"]), set()
    # Seconds per token of a prompt and per byte that a step reads, from the runs before; a guess until there is one.
    pace = {"prompt": words.prefill_flops(shape, 1) / 5e13, "byte": 1e-12, "lead": 0.0}
    texts = None
    for batch, prompt, tokens, steps, keep in runs:
        # Where prompts are read between steps, the first request is ahead by the time the last has begun.
        asked = min(tokens, steps + 1 + math.ceil(pace["lead"] * (batch - 1))) if steps else tokens
        bytes_of_step = words.step_weight_bytes(shape) + batch * prompt * words.kv_bytes(shape) * (keep or 1)
        seconds = batch * prompt * pace["prompt"] + asked * bytes_of_step * pace["byte"]
        what = f"batch {batch}, {prompt}+{tokens}, keep {keep}, {'all' if steps is None else steps} steps"
        if report.left() < 1.2 * seconds + 3:
            report.not_run(what, f"needs about {seconds:.0f} s, {report.left():.0f} s are left")
            continue
        room = needed(shape, batch, prompt + asked, keep)
        if card and room > card:
            report.not_run(what, f"needs about {room / 1e9:.0f} GB, the card has {card / 1e9:.0f}")
            continue
        try:
            if batch not in warm:
                # Some things are set up once for each number of rows, the kernels of products among them.
                model.ask_all([(request(min(64, prompt), 4, seed, None), ()) for seed in range(batch)])
                warm.add(batch)
            found, said = measure(model, shape, used, batch, prompt, asked, keep)
        except EngineError as error:
            report.fail(f"{what}: {error}")
            continue
        found["tokens"], found["whole"] = tokens, steps is None
        for reason in wrong(found, batch, prompt, asked, keep):
            report.fail(f"{what}: {reason}")
        if keep is None:
            texts = said
        elif keep == 1 and texts and len(texts) == batch:
            same = sum(a[: len(b)] == b[: len(a)] for a, b in zip(texts, said))
            report.set("keep1SameAsFull", {"same": same, "of": batch})
        report.add("runs", found)
        pace["prompt"] = found["allPromptsSeconds"] / (batch * prompt)
        if found["stepSeconds"]:
            pace["byte"] = found["stepSeconds"] / sum(found["stepBytes"].values())
        if batch > 1:
            pace["lead"] = max(pace["lead"], found["lead"] / (batch - 1))


def measure(model, shape, used, batch, prompt, asked, keep):
    """One setting: all requests are submitted at once, and a step counts while all of them generate."""
    requests = [(request(prompt, asked, seed, keep), ()) for seed in range(batch)]
    sampler = machine.Sampler(used, 0.05) if used else None
    base = used() if used else None
    start = time.monotonic()
    if sampler:
        with sampler:
            heard = model.ask_all(requests)
    else:
        heard = model.ask_all(requests)
    end = max(events[-1][0] for events in heard)
    times = [[now for now, event in events if event["type"] == "token"] for events in heard]
    ends = [events[-1][1] for events in heard]
    steady = window(times)
    steps, step = steady["steps"], steady["seconds"]
    prefill = sum(one["timings"]["prefill"] for one in ends) / 1000
    resident = sum(one["memory"]["resident"] for one in ends)
    # Resident bytes grow with the positions; the middle of the steps that count is before the last token.
    middle = (prompt + asked - steps / 2) / (prompt + asked)
    found = {
        "batch": batch,
        "prompt": prompt,
        "asked": asked,
        "keep": keep,
        "promptTokens": [one["usage"]["promptTokens"] for one in ends],
        "completionTokens": [one["usage"]["completionTokens"] for one in ends],
        "allPromptsSeconds": steady["opens"] - start,
        "prefillSeconds": prefill,
        "prefillTokensPerSecond": batch * prompt / prefill,
        "prefillFlops": batch * words.prefill_flops(shape, prompt),
        "steadySteps": steps,
        "lead": steady["lead"],
        "stepSeconds": step,
        "decodeTokensPerSecond": batch / step if step else None,
        # Of each request by itself: what the library says that all steps after the first token took.
        "decodeTimings": [round(one["timings"]["decode"] / 1000, 4) for one in ends],
        "stepBytes": {"weights": words.step_weight_bytes(shape), "cache": int(resident * middle)},
        "pool": model.pool(),
        "wholeSeconds": end - start,
        "wholeTokensPerSecond": batch * asked / (end - start),
        "memory": {key: sum(one["memory"][key] for one in ends) for key in ("full", "payload", "resident", "peak")},
    }
    if sampler:
        during = sampler.between(steady["opens"], steady["closes"])
        found["device"] = {"before": base, "steady": during, "most": sampler.most()}
    return found, [one["tokens"] for one in ends]


def window(times):
    """
    The span in which all requests generate, from the times of the tokens of each: it opens when the last has its first token
    and closes when the first has its last. `lead` is how many steps a request was ahead when it opened.
    """
    opens, closes = max(one[0] for one in times), min(one[-1] for one in times)
    inside = sum(opens < now <= closes for one in times for now in one)
    lead = max(sum(now <= opens for now in one) for one in times) - 1
    found = {"opens": opens, "closes": closes, "lead": lead, "steps": 0, "seconds": None}
    if closes > opens:
        found["steps"] = inside / len(times)
        found["seconds"] = (closes - opens) / found["steps"]
    return found


def wrong(found, batch, prompt, asked, keep):
    reasons = []
    counted = found.pop("promptTokens"), found.pop("completionTokens")
    if counted != ([prompt] * batch, [asked] * batch):
        reasons.append("other numbers of tokens than asked for")
    share = found["memory"]["payload"] / found["memory"]["full"]
    if abs(share - (keep or 1)) > 0.03:
        reasons.append(f"{share:.3f} of the entries are kept")
    return reasons
