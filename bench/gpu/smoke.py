"""One picture described on the device: whether anything works at all, before minutes are spent on more."""

import os
import time

import generations
from abi import Library, Model


def run(spec, report):
    device = spec["device"]
    library = Library(spec["library"])
    library.need(device)
    folder = os.path.join(spec["root"], "models", "tiny-llava")
    sample = generations.load_samples(spec["root"], 1)[0]
    request = {"op": "generate", **generations.prompt(sample), "maxTokens": 16, "ignoreEos": True}
    said = {}
    for where in dict.fromkeys(("cpu", device)):
        start = time.monotonic()
        with Model(library, folder, device=where, weights="f16") as model:
            done = model.ask(request, [sample["bytes"]])
            said[where] = done["tokens"]
            took = round(time.monotonic() - start, 2)
            report.add("runs", {"device": where, "text": done["text"], "seconds": took, "pool": model.pool()})
            if not model.info["device"].startswith(where):
                report.fail(f"the model runs on {model.info['device']} instead of {where}")
    if len(said[device]) != 16:
        report.fail(f"{len(said[device])} tokens instead of 16")
    # Later ones may part where two are nearly equally likely; `generations` judges that.
    if said[device][:1] != said["cpu"][:1]:
        report.fail(f"the first token is {said[device][:1]}, on the CPU {said['cpu'][:1]}")
