"""The machine, the library and what else is there."""

import os
from importlib import metadata

import device as machine
from abi import Library

# Largest size of the library (the limit of the issue that this program answers).
MOST = 60 << 20


def run(spec, report):
    report.set("machine", machine.facts(spec["device"]))
    try:
        # Without importing it, which can take longer than all else here.
        report.set("torch", metadata.version("torch"))
    except metadata.PackageNotFoundError:
        report.set("torch", None)
    path = spec["library"]
    if not os.path.exists(path):
        raise RuntimeError(f"there is no library at {path}: build one, or name it with --library")
    about = Library(path).about()
    size = os.path.getsize(path)
    report.set(
        "library",
        {"version": about["version"], "bytes": size, "devices": about["devices"], "noGpu": about.get("noGpu")},
    )
    who = machine.counter(spec["device"])[0] if spec["device"] != "cpu" else None
    if who and spec["device"] not in about["devices"]:
        report.fail(
            f"{who} finds {spec['device']}, the library does not: {about.get('noGpu') or 'it is no build for CUDA'}"
        )
    if size > MOST:
        report.fail(f"the library has {size / (1 << 20):.1f} MiB, more than {MOST >> 20}")
