"""The library's own check of a device: its kernels beside their twins on the CPU, and what the device reads and computes at most."""

import abi
from parts import NotRun


def run(spec, report):
    library, device = abi.Library(spec["library"]), spec["device"]
    if device == "cpu":
        raise NotRun("kernels are compared with the CPU's, which needs a CUDA device")
    if not library.can_check():
        raise NotRun(f"not in this library: it has no `{abi.CHECK_DEVICE}`")
    event = library.check_device({"device": device, "ceilings": True})
    report.set("event", event)
    if event.get("type") != "checked":
        report.fail(f"the check ended with `{event.get('type')}` instead of `checked`")
    good, bad = verdicts(event)
    report.set("checks", {"passed": good, "failed": len(bad)})
    for reason in bad:
        report.fail(reason)
    if good + len(bad) == 0:
        report.fail("the answer of the check holds no verdict")
    found = ceilings(event)
    if found:
        report.set("ceilings", found)


def verdicts(value, place="check"):
    """How many `ok` or `passed` are true anywhere in an answer, and the places where they are not."""
    good, bad = 0, []
    if isinstance(value, dict):
        name = value.get("name") or value.get("kernel")
        place = f"{place} {name}" if name else place
        for key, inner in value.items():
            if key in ("ok", "passed") and isinstance(inner, bool):
                good += inner
                bad += [] if inner else [f"{place}: {value.get('reason') or value.get('message') or value}"[:400]]
            elif key in ("failures", "failed") and isinstance(inner, list):
                bad += [f"{place}: {one}"[:400] for one in inner]
                good += not inner
            else:
                more, worse = verdicts(inner, place)
                good, bad = good + more, bad + worse
    elif isinstance(value, list):
        for inner in value:
            more, worse = verdicts(inner, place)
            good, bad = good + more, bad + worse
    return good, bad


def ceilings(event):
    """Bytes read and f16 operations per second at most, where the answer has them."""
    found = {}
    for key, value in (event.get("ceilings") or {}).items():
        if isinstance(value, (int, float)):
            if key in ("readBytesPerSecond", "matmulF16PerSecond"):
                found[key] = value
    return found
