#!/usr/bin/env python3
"""Checks and measures the library on a GPU with Python, the library and, where it is there, PyTorch: see README.md."""

import argparse
import glob
import importlib
import json
import os
import shutil
import signal
import site
import sys
import sysconfig
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)

import models  # noqa: E402
import parts  # noqa: E402
import summary  # noqa: E402

# Name: module, share of the time, least seconds that make sense, what else it is told.
PARTS = {
    "machine": ("about", 20, 1, {}),
    "smoke": ("smoke", 15, 1, {}),
    "kernels": ("kernels", 45, 2, {}),
    "products": ("products", 25, 5, {"shape": "llava-1.5-7b"}),
    "generations": ("generations", 85, 5, {}),
    "memory": ("memory", 40, 5, {"shape": "wide"}),
    "throughput-7b": ("throughput", 150, 10, {"shape": "llava-1.5-7b"}),
    "trace-7b": ("timeline", 30, 10, {"shape": "llava-1.5-7b", "before": "throughput-7b"}),
    "torch-7b": ("peer", 40, 5, {"shape": "llava-1.5-7b", "before": "throughput-7b", "ceilings": True}),
    "throughput-13b": ("throughput", 105, 10, {"shape": "llava-1.5-13b"}),
    "torch-13b": ("peer", 30, 5, {"shape": "llava-1.5-13b", "before": "throughput-13b", "ceilings": False}),
    "sanitizer": ("sanitizer", 60, 10, {}),
}
# Where the library looks first for cuBLAS.
LIBRARIES = "PREFIXKV_CUDA_LIBRARIES"

SMALL = {"wide": "small-wide", "llava-1.5-7b": "small", "llava-1.5-13b": "small"}

# Two short runs instead of a long one, so that the second can answer what the first has shown: parts, minutes, and what of a part's
# own plan comes first.
RUNS = {
    "first": (["machine", "smoke", "kernels", "products", "throughput-7b", "trace-7b"], 4.5),
    "second": (["machine", "smoke", "memory", "generations", "throughput-7b", "torch-7b", "sanitizer"], 4.8),
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", default=os.path.join(ROOT, "native", "capi", "cuda", "libprefixkv.so"))
    parser.add_argument("--out", default="check.json", help="the JSON that is written (check.json)")
    parser.add_argument("--device", default="cuda:0", help="cuda:0 by default; cpu plays both sides")
    parser.add_argument("--minutes", type=float, help="limit for everything together (default: 8.5, or the limit of the --run)")
    parser.add_argument("--run", choices=RUNS, help="one of two short runs: " + "; ".join(map(described, RUNS)))
    parser.add_argument("--only", help="these parts only, with commas between: " + ", ".join(PARTS))
    parser.add_argument(
        "--small", action="store_true", help="tiny shapes: shows that everything runs, measures nothing"
    )
    parser.add_argument("--scratch", help="folder for the random models (/dev/shm, or that for temporary files)")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run and options.only:
        parser.error("--run and --only both name the parts")
    if options.minutes is None:
        options.minutes = RUNS[options.run][1] if options.run else 8.5
    return options


def described(run):
    return f"{run} ({RUNS[run][1]:g} minutes) has {', '.join(RUNS[run][0])}"


def name_libraries(options):
    """cuBLAS of Python's wheels, whose folder no variable names where Python's own is on the PATH only."""
    if options.device == "cpu" or os.environ.get(LIBRARIES):
        return
    packages = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()])
    folders = [os.path.join(folder, "nvidia", part, "lib") for folder in packages for part in ("cu13", "cublas")]
    found = [folder for folder in folders if glob.glob(os.path.join(folder, "libcublas.so*"))]
    if found:
        os.environ[LIBRARIES] = os.pathsep.join(found)


class Check:
    def __init__(self, options):
        self.options, self.start = options, time.monotonic()
        names = RUNS[options.run][0] if options.run else list(PARTS)
        if options.only:
            names = [name.strip() for name in options.only.split(",")]
            unknown = [name for name in names if name not in PARTS]
            if unknown:
                sys.exit(f"unknown part `{unknown[0]}`; there are {', '.join(PARTS)}")
            names = [name for name in PARTS if name in names]
        self.names, self.done = names, {}
        # A part may read the files of the part before it: a model's folder stays for the next one.
        self.folders = {}

    def left(self):
        return 60 * self.options.minutes - (time.monotonic() - self.start)

    def run(self, home):
        for name in self.names:
            least = PARTS[name][2]
            seconds = parts.share({each: PARTS[each][1] for each in self.names}, name, self.left() - parts.GRACE)
            if seconds < least:
                self.done[name] = {
                    "status": "not run",
                    "reason": f"no time left: {seconds:.1f} s, it needs at least {least}",
                    "seconds": 0,
                }
                self.write()
                continue
            try:
                print(f"{name}: at most {seconds:.0f} s", file=sys.stderr, flush=True)
                self.done[name] = parts.run(parts.command(name), self.spec(name, seconds), seconds, home)
            except parts.Interrupted as reason:
                self.done[name] = {
                    "status": "failed",
                    "reason": str(reason),
                    "seconds": 0,
                    **parts.read(parts.told_in(home))[0],
                }
                raise
            if not self.needed_later(name):
                self.clean()
            self.write()
            if name == "smoke" and self.done[name]["status"] == "failed":
                # Nothing else can work; what is left of the time is for a second try.
                self.stop("the smoke test failed")
                return

    def spec(self, name, seconds):
        """Instructions for a part."""
        told = PARTS[name][3]
        shape = told.get("shape")
        if shape and self.options.small:
            shape = SMALL[shape]
        return {
            **told,
            "shape": shape,
            "library": os.path.abspath(self.options.library),
            "device": self.options.device,
            "small": self.options.small,
            "first": self.options.run == "first",
            "root": ROOT,
            "seconds": seconds,
            "scratch": self.scratch(name, shape),
            "earlier": {other: self.done[other] for other in self.done if other == told.get("before")},
        }

    def scratch(self, name, shape):
        """A folder of this run's own with room for the model, or the one in which the part before has left it."""
        before = PARTS[name][3].get("before")
        if shape is None:
            return None
        if before:
            return self.folders.get(before)
        base = models.scratch(self.options.scratch, models.file_bytes(models.SHAPES[shape]), tempfile.gettempdir())
        if base is None:
            return None
        self.folders[name] = tempfile.mkdtemp(prefix="prefixkv-check-", dir=base)
        return self.folders[name]

    def needed_later(self, name):
        return any(PARTS[other][3].get("before") == name and other not in self.done for other in self.names)

    def clean(self):
        for folder in self.folders.values():
            shutil.rmtree(folder, ignore_errors=True)
        self.folders.clear()

    def stop(self, reason):
        """Records every part that has not finished as not run."""
        for name in self.names:
            self.done.setdefault(name, {"status": "not run", "reason": reason, "seconds": 0})

    def result(self):
        machine = self.done.get("machine", {})
        found = {
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - (time.monotonic() - self.start))),
            "seconds": round(time.monotonic() - self.start, 1),
            "options": {key: getattr(self.options, key) for key in ("device", "minutes", "small", "run", "only")},
            "machine": machine.get("machine"),
            "library": machine.get("library") or {"version": None, "bytes": None},
            "parts": self.done,
        }
        summary.derive(found)
        found["summary"] = summary.lines(found)
        return found

    def write(self):
        """Written anew after every part, so that nothing but a part is lost whatever happens."""
        path = self.options.out
        found = self.result()
        with open(f"{path}.part", "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1)
            file.write("\n")
        os.replace(f"{path}.part", path)
        return found


def main():
    options = arguments()
    if options.part:
        # One part, in the process that `parts.run` has started.
        parts.serve(importlib.import_module(PARTS[options.part][0]).run, json.load(sys.stdin))
        return 0
    name_libraries(options)
    check = Check(options)
    ends = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM)
    for number in ends:
        signal.signal(number, parts.Child.interrupt)
    # Parts are ended one by one; this is for the case that ending one hangs.
    signal.setitimer(signal.ITIMER_REAL, max(1.0, 60 * options.minutes + 2))
    home = tempfile.mkdtemp(prefix="prefixkv-check-")
    stopped = None
    try:
        check.run(home)
    except parts.Interrupted as reason:
        stopped = str(reason)
    finally:
        # Who asks twice gets the result none the less.
        for number in ends:
            signal.signal(number, signal.SIG_IGN)
        parts.Child.kill()
        check.clean()
        shutil.rmtree(home, ignore_errors=True)
    check.stop(stopped or "not reached")
    found = check.write()
    print("\n".join(found["summary"]))
    if found["parts"].get("smoke", {}).get("status") == "failed":
        return 3
    return 1 if stopped or any(part["status"] == "failed" for part in found["parts"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
