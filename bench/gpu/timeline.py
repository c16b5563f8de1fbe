"""Every kernel and copy of some steps and a prompt, as CUPTI sees them through PyTorch's profiler: time by name, and idle gaps."""

import json
import os
import tempfile

import throughput
from abi import Library, Model
from parts import NotRun
from peer import load_torch

KINDS = {"kernel": "kernel", "gpu_memcpy": "copy", "gpu_memset": "fill"}
BATCHES = (1, 16, 48)


def run(spec, report):
    if spec["device"] == "cpu":
        raise NotRun("the profiler watches a GPU")
    torch = load_torch(spec["device"])
    library = Library(spec["library"])
    library.need(spec["device"])
    if spec["scratch"] is None:
        raise NotRun("the part before has left no model")
    folder = os.path.join(spec["scratch"], spec["shape"])
    prompt, tokens = (96, 8) if spec["small"] else (1024, 8)
    with Model(library, folder, device=spec["device"], weights="f16", batch=max(BATCHES)) as model:
        for batch in BATCHES:
            for keep in (None, 0.2):
                what = f"batch {batch}, keep {keep}"
                if report.left() < 6:
                    report.not_run(what, "no time left")
                    continue
                requests = [(throughput.request(prompt, tokens, seed, keep), ()) for seed in range(batch)]
                model.ask_all(requests)
                events = traced(torch, lambda requests=requests: model.ask_all(requests))
                if not events:
                    report.not_run(what, "the profiler has seen nothing of the library")
                    continue
                report.add("traces", {"batch": batch, "keep": keep, "tokens": tokens, **summary(events)})


def traced(torch, work):
    """`(kind, name, start, microseconds)` of all that ran on the device meanwhile."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        work()
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "trace.json")
        profile.export_chrome_trace(path)
        with open(path, encoding="utf-8") as file:
            found = json.load(file)["traceEvents"]
    events = [(KINDS[one["cat"]], one["name"], one["ts"], one["dur"]) for one in found if one.get("cat") in KINDS]
    return sorted(events, key=lambda event: event[2])


def summary(events):
    """Busy and idle time of the device in microseconds, and what it was busy with, the longest first."""
    names, busy, end, gaps = {}, 0.0, events[0][2], []
    for kind, name, start, taken in events:
        count, total = names.get((kind, name[:80]), (0, 0.0))
        names[kind, name[:80]] = (count + 1, total + taken)
        if start > end:
            gaps.append(start - end)
        busy += max(0.0, start + taken - max(start, end))
        end = max(end, start + taken)
    rows = [{"kind": kind, "name": name, "count": count, "us": us} for (kind, name), (count, us) in names.items()]
    return {
        "spanUs": end - events[0][2],
        "busyUs": busy,
        "idleUs": sum(gaps),
        "longestGapUs": max(gaps, default=0.0),
        "events": len(events),
        "names": sorted(rows, key=lambda row: -row["us"])[:24],
    }
