"""Parts of the check: each runs in a process of its own, so that one that hangs or crashes costs the others nothing.

A part tells what it has found line by line, in a file of JSON; what was told before a crash or a kill still counts.
"""

import json
import os
import signal
import subprocess
import sys
import time
import traceback

# How long a part that is past its time may take to say so itself.
GRACE = 3.0


class NotRun(Exception):
    """A part that cannot run here; its text says why."""


class Report:
    """The report of a part; used inside its process."""

    def __init__(self, path, deadline):
        self.file = open(path, "a", encoding="utf-8")
        self.deadline = deadline
        self.failures = 0

    def _line(self, **what):
        # NaN and infinity are not JSON: better a part that fails than a result that nobody can read.
        self.file.write(json.dumps(what, allow_nan=False) + "\n")
        self.file.flush()

    def left(self):
        """Seconds until this part must have ended."""
        return self.deadline - time.time()

    def set(self, key, value):
        self._line(set=key, value=value)

    def add(self, key, value):
        self._line(add=key, value=value)

    def fail(self, reason):
        self.failures += 1
        self._line(add="failures", value=reason)

    def not_run(self, what, reason):
        self._line(add="notRun", value={"what": what, "reason": reason})

    def end(self, status, reason=None):
        self._line(end=status, reason=reason)
        self.file.close()


def serve(run, spec):
    """The body of a part's process: `run(spec, report)` with its outcome told."""
    report = Report(spec["report"], spec["deadline"])
    try:
        run(spec, report)
    except NotRun as reason:
        report.end("not run", str(reason))
        return
    except Exception as error:
        traceback.print_exc()
        report.end("failed", f"{type(error).__name__}: {error}")
        return
    report.end("failed" if report.failures else "ok", f"{report.failures} checks failed" if report.failures else None)


def read(path):
    """Reads what a part has reported so far, and its end, if it has come to one."""
    told, end = {}, None
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.readlines()
    except FileNotFoundError:
        return told, end
    for line in lines:
        try:
            what = json.loads(line)
        except ValueError:
            continue  # the last line of a killed process
        if "set" in what:
            told[what["set"]] = what["value"]
        elif "add" in what:
            told.setdefault(what["add"], []).append(what["value"])
        else:
            end = what
    return told, end


class Interrupted(Exception):
    """A signal has asked for the end; its text says which."""


class Child:
    """The process of the part that runs now, so that a signal can end it."""

    current = None
    starting = False
    # A signal that came while a process was started: raised at once it would leave that process behind.
    pending = None

    @classmethod
    def start(cls, command, stderr):
        cls.starting = True
        cls.current = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=stderr, stderr=stderr, start_new_session=True
        )
        cls.starting = False

    @classmethod
    def interrupt(cls, number, _):
        """A signal handler."""
        reason = f"stopped by {signal.Signals(number).name}"
        if cls.starting:
            cls.pending = reason
        else:
            raise Interrupted(reason)

    @classmethod
    def kill(cls):
        if cls.current and cls.current.poll() is None:
            # Its own group: whatever it has started goes with it.
            os.killpg(cls.current.pid, signal.SIGKILL)
            cls.current.wait()


def told_in(folder):
    return os.path.join(folder, "report.jsonl")


def run(command, spec, seconds, folder):
    """Runs `command`, which reads `spec` as JSON, for at most so many seconds; gives the part as it stands in the result."""
    start = time.monotonic()
    report, errors = told_in(folder), os.path.join(folder, "stderr.txt")
    spec = {**spec, "report": report, "deadline": time.time() + seconds}
    with open(errors, "wb") as stderr:
        killed = False
        try:
            Child.start(command, stderr)
            if Child.pending:
                raise Interrupted(Child.pending)
            child = Child.current
            child.communicate(json.dumps(spec).encode(), timeout=seconds + GRACE)
        except subprocess.TimeoutExpired:
            killed = True
        finally:
            Child.kill()
            Child.current = None
    told, end = read(report)
    if os.path.exists(report):
        os.remove(report)
    part = {"status": "failed", "seconds": round(time.monotonic() - start, 2), **told}
    if killed:
        part["reason"] = f"did not end within its {seconds:.0f} s and was killed"
    elif end is None:
        code = child.returncode
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        part["reason"] = f"{how} without a word"
    else:
        part["status"] = end["end"]
        if end["reason"]:
            part["reason"] = end["reason"]
    if part["status"] == "failed":
        with open(errors, "rb") as file:
            text = file.read().decode(errors="replace").strip()
        if text:
            part["stderr"] = text[-4000:]
    return part


def share(shares, name, left):
    """Seconds for a part out of those left, by its share among all parts still to come, itself included."""
    names = list(shares)
    later = sum(shares[other] for other in names[names.index(name) :])
    return max(0.0, left) * shares[name] / later


def command(name):
    return [sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "check.py"), "--part", name]
