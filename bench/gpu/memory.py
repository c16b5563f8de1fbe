"""The memory promise: what the library says that a cache holds, beside what the device itself counts."""

import os
import time

import device as machine
import models
from abi import Library, Model
from parts import NotRun
from words import prompt_of

# Beyond a tenth: allocators take whole granules, and a step needs buffers of its own.
SLACK = 96 << 20
# The smallest first: if nothing were given back, the later ones would show it.
CACHES = [
    ("streaming 0.2", {"method": "streaming", "keep": 0.2}),
    ("prefixkv 0.2", {"method": "prefixkv", "keep": 0.2}),
    ("prefixkv 0.6", {"method": "prefixkv", "keep": 0.6}),
    ("full", {"method": "full"}),
]


def run(spec, report):
    library, device = Library(spec["library"]), spec["device"]
    who, used = machine.counter(device)
    if used is None:
        raise NotRun("nobody counts the bytes of this device: neither NVML nor nvidia-smi answers")
    library.need(device)
    small = spec["small"]
    name, length, steps = ("small-wide", 1024, 24) if small else ("wide", 12288, 96)
    shape = models.SHAPES[name]
    if spec["scratch"] is None:
        raise NotRun("no folder has room for the model")
    folder = os.path.join(spec["scratch"], name)
    models.write(folder, shape, os.path.join(spec["root"], "models", "tiny-llava"))
    # The resident set of a process is no device's count: memory given back may stay in it.
    judged = device != "cpu"
    report.set("counter", who)
    report.set("judged", judged)
    report.set("slack", SLACK)
    counts, pools = {"before": used()}, {}
    model = Model(library, folder, device=device, weights="f16")
    try:
        counts["loaded"], weights = used(), model.info["weightBytes"]
        pools["loaded"] = model.pool()
        request = {"op": "generate", "prompt": prompt_of(length, 1), "maxTokens": steps + 1, "ignoreEos": True}
        # Buffers of a long prompt, which an allocator may keep for the next one, belong to no cache.
        model.ask({**request, "cache": {"method": "streaming", "keep": {"tokens": 64}}})
        counts["ready"], pools["ready"] = used(), model.pool()
        for label, cache in CACHES:
            if report.left() < 3:
                report.not_run(label, "no time left")
                continue
            one(report, judged, model, label, {**request, "cache": cache}, used, counts["ready"], length)
        counts["idle"], pools["idle"] = used(), model.pool()
    finally:
        model.close()
    counts["closed"] = used()
    report.set("counts", counts)
    report.set("pools", pools)
    report.set("weightBytes", weights)
    if judged and counts["loaded"] - counts["closed"] < 0.9 * weights - SLACK:
        freed = counts["loaded"] - counts["closed"]
        report.fail(f"closing freed {freed >> 20} MiB by the device's count, the weights are {weights >> 20} MiB")


def one(report, judged, model, label, request, used, ready, length):
    """A long prompt and some tokens: the device's growth while they are generated, beside what the library says."""
    with machine.Sampler(used, 0.01) as sampler:
        times = []
        [heard] = model.ask_all([(request, ())], lambda _, now, event: times.append((now, event["type"])))
        time.sleep(0.05)
    done = heard[-1][1]
    tokens = [now for now, kind in times if kind == "token"]
    if done["usage"]["promptTokens"] != length or len(tokens) < 8:
        report.fail(f"{label}: {done['usage']['promptTokens']} tokens were read and {len(tokens)} generated")
        return
    # From the fourth token on, so that what the prompt needed is gone.
    during, memory = sampler.between(tokens[3], tokens[-1]), done["memory"]
    found = {
        "cache": label,
        "promptTokens": length,
        "resident": memory["resident"],
        "peak": memory["peak"],
        "full": memory["full"],
        "grown": None if during is None else during - ready,
        "mostGrown": sampler.most() - ready,
        "afterwards": used() - ready,
        "samples": len(sampler.samples),
        "pool": model.pool(),
    }
    report.add("runs", found)
    reason = wrong(found) if judged else None
    if reason:
        report.fail(f"{label}: {reason}")


def wrong(found):
    """Why the device's count is not what the library says is resident; None where it is."""
    resident, grown = found["resident"], found["grown"]
    if grown is None:
        return "the device was not counted while tokens were generated"
    if abs(grown - resident) <= 0.1 * resident + SLACK:
        return None
    return f"{resident >> 20} MiB resident, the device counts {grown / (1 << 20):.0f} MiB more than before"
