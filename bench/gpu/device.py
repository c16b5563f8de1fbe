"""Facts about a machine, and how many bytes of its device are in use by the device's own count (NVML, else nvidia-smi)."""

import ctypes
import os
import platform
import shutil
import statistics
import subprocess
import threading
import time

FIELDS = (
    "name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,clocks.sm,clocks.mem,power.limit,temperature.gpu"
)


class Usage(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


def index_of(device):
    """The number of a device such as `cuda:1`."""
    return int(device.partition(":")[2] or 0)


def visible(device):
    """What NVML and nvidia-smi call it: they do not heed CUDA_VISIBLE_DEVICES."""
    listed = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    index = index_of(device)
    return listed[index] if index < len(listed) else str(index)


def nvml(device):
    """A function that gives the bytes in use, or None without NVML."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    handle, name, usage = ctypes.c_void_p(), visible(device), Usage()
    if library.nvmlInit_v2() != 0:
        return None
    if name.isdigit():
        status = library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(int(name)), ctypes.byref(handle))
    else:
        status = library.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(handle))

    def used():
        status = library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(usage))
        if status != 0:
            raise RuntimeError(f"nvmlDeviceGetMemoryInfo gave {status}")
        return usage.used

    return used if status == 0 else None


def smi(fields, device):
    """Fields of nvidia-smi as texts, or None without it."""
    query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits", "-i", visible(device)]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0 or not done.stdout.strip():
        return None
    return [field.strip() for field in done.stdout.strip().splitlines()[0].split(",")]


def resident_set():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def counter(device):
    """`(who counts, function)` of the bytes in use; the process's own for the CPU; `(None, None)` where nobody counts."""
    if device == "cpu":
        return ("resident set of the process", resident_set) if os.path.exists("/proc/self/statm") else (None, None)
    used = nvml(device)
    if used:
        return "NVML", used
    if smi("memory.used", device):
        return "nvidia-smi", lambda: int(smi("memory.used", device)[0]) << 20
    return None, None


def total(device):
    """Bytes of memory on the card; None where nobody knows."""
    values = smi("memory.total", device) if device != "cpu" else None
    return int(values[0]) << 20 if values else None


class Sampler:
    """Counts again and again on a thread of its own, so that a span of time can be asked for later."""

    def __init__(self, used, pause):
        self.samples, self.used, self.pause = [], used, pause
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        while not self.stop.is_set():
            self.samples.append((time.monotonic(), self.used()))
            self.stop.wait(self.pause)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()

    def between(self, start, end):
        """The median of a span, or None where nothing was sampled."""
        found = [used for now, used in self.samples if start <= now <= end]
        return statistics.median(found) if found else None

    def most(self):
        return max((used for _, used in self.samples), default=None)


def first_line(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = [line for line in done.stdout.splitlines() if "release" in line] or done.stdout.splitlines()
    return lines[0].strip() if done.returncode == 0 and lines else None


def nvcc():
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    found = [os.path.join(home, "bin", "nvcc") for home in homes if home] + [shutil.which("nvcc")]
    return next((path for path in found if path and os.path.exists(path)), None)


def processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def facts(device):
    """Facts about the machine that need no PyTorch."""
    found = {
        "system": f"{platform.system().lower()}-{platform.machine()}",
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "nvcc": first_line([nvcc(), "--version"]) if nvcc() else None,
        "gpu": None,
    }
    if hasattr(os, "sysconf"):
        found["memoryBytes"] = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if device != "cpu":
        values = smi(FIELDS, device)
        found["gpu"] = dict(zip(FIELDS.split(","), values)) if values else None
    return found
