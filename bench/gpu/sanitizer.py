"""The library's own check of its kernels under NVIDIA's compute-sanitizer: out of bounds, races, barriers, memory never written."""

import glob
import os
import re
import shutil
import subprocess
import sys
import sysconfig

import abi
from parts import NotRun

HERE = os.path.dirname(os.path.abspath(__file__))
# The quickest first: each costs between two and a hundred times as long as the check alone.
TOOLS = ("memcheck", "synccheck", "initcheck", "racecheck")
SUMMARY = re.compile(r"(?:ERROR|RACECHECK) SUMMARY: (\d+)")
BODY = """
import sys
sys.path.insert(0, sys.argv[1])
import abi
found = abi.Library(sys.argv[2]).check_device({"device": sys.argv[3], "ceilings": False, "cases": "small"})["report"]
bad = [one for one in found["kernels"] if one["failed"] is not None]
print("checked", len(found["kernels"]), "kernels,", len(bad), "failed")
sys.exit(5 if bad else 0)
"""


def program():
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    found = [os.path.join(home, "bin", "compute-sanitizer") for home in homes if home]
    found += sorted(glob.glob(os.path.join(sysconfig.get_path("purelib"), "nvidia", "*", "bin", "compute-sanitizer")))
    found.append(shutil.which("compute-sanitizer"))
    return next((path for path in found if path and os.path.exists(path)), None)


def run(spec, report):
    if spec["device"] == "cpu":
        raise NotRun("compute-sanitizer watches a GPU")
    path = program()
    if path is None:
        raise NotRun("compute-sanitizer is not here: it comes with NVIDIA's toolkit")
    library = abi.Library(spec["library"])
    if not library.can_check():
        raise NotRun(f"not in this library: it has no `{abi.CHECK_DEVICE}`")
    library.need(spec["device"])
    for tool in TOOLS:
        if report.left() < 10:
            report.not_run(tool, "no time left")
            continue
        one(spec, report, path, tool)


def one(spec, report, path, tool):
    command = [path, "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", BODY]
    try:
        done = subprocess.run(
            [*command, HERE, spec["library"], spec["device"]],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=max(5.0, report.left() - 4),
        )
    except subprocess.TimeoutExpired:
        report.not_run(tool, "no time left: it had not ended")
        return
    text = done.stdout + done.stderr
    errors = SUMMARY.search(text)
    report.add("tools", {"tool": tool, "status": done.returncode, "errors": errors and int(errors.group(1))})
    if errors is None:
        report.not_run(tool, f"it gave no summary, status {done.returncode}: {text.strip()[-400:]}")
    elif int(errors.group(1)) or done.returncode:
        first = next((line for line in text.splitlines() if "=========" in line and "COMPUTE-SANITIZER" not in line), "")
        report.fail(f"{tool}: {errors.group(1)} errors, status {done.returncode}: {first.strip('= ')[:300]}")
