"""The library's own check of a device: kernels beside their twins on the CPU, and what it reads and computes at most."""

import abi
from parts import NotRun


def run(spec, report):
    library, device = abi.Library(spec["library"]), spec["device"]
    if device == "cpu":
        raise NotRun("kernels are compared with the CPU's, which needs a CUDA device")
    if not library.can_check():
        raise NotRun(f"not in this library: it has no `{abi.CHECK_DEVICE}`")
    library.need(device)
    event = library.check_device({"device": device, "ceilings": True})
    if event["type"] != "checked":
        report.fail(f"the check ended with `{event['type']}` instead of `checked`")
        return
    found = event["report"]
    report.set("report", found)
    good, bad = verdicts(found["kernels"])
    report.set("checks", {"passed": good, "failed": len(bad)})
    for reason in bad:
        report.fail(reason)
    if good + len(bad) == 0:
        report.fail("the answer of the check names no kernel")
    if not bad and found["passed"] is not True:
        report.fail("the library calls the check failed, but names no kernel that did")
    rates = ceilings(found)
    if rates:
        report.set("ceilings", rates)
    else:
        report.not_run("ceilings", "the library has measured none")


def verdicts(kernels):
    """How many kernels are right, and what is wrong with the others: an outcome whose `failed` is no null says what."""
    bad = [f"{one['kernel']}: {one['failed']}"[:600] for one in kernels if one.get("failed") is not None]
    # An outcome without a case has shown nothing.
    bad += [f"{one['kernel']}: no case was tried" for one in kernels if one.get("failed") is None and not one["cases"]]
    return len(kernels) - len(bad), bad


def ceilings(found):
    """Bytes read and f16 operations per second at most; the library says them in 10^9 bytes and 10^12 operations."""
    rates = found.get("ceilings") or {}
    reading = [rates[key] for key in ("copy", "read", "row") if rates.get(key)]
    best = {"readBytesPerSecond": 1e9 * max(reading)} if reading else {}
    if rates.get("productF16"):
        best["matmulF16PerSecond"] = 1e12 * rates["productF16"]
    return best
