"""The pieces of bench/gpu that decide: what is a failure, what a rate, and what is left of a part that crashes or hangs."""

import argparse
import json
import math
import os
import struct
import sys
import sysconfig
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "bench", "gpu"))

import check  # noqa: E402
import generations  # noqa: E402
import kernels  # noqa: E402
import memory  # noqa: E402
import models  # noqa: E402
import parts  # noqa: E402
import sanitizer  # noqa: E402
import summary  # noqa: E402
import throughput  # noqa: E402
import timeline  # noqa: E402
import words  # noqa: E402

TELL = """
import json, sys, os, time
spec = json.load(sys.stdin)
file = open(spec["report"], "a")
def tell(**what): file.write(json.dumps(what) + "\\n"); file.flush()
"""


def part(body, seconds=20.0):
    with tempfile.TemporaryDirectory() as folder:
        return parts.run([sys.executable, "-c", TELL + body], {}, seconds, folder)


class Parts(unittest.TestCase):
    def test_what_a_part_tells_is_kept(self):
        found = part(
            "tell(set='a', value=1); tell(add='b', value=2); tell(add='b', value=3); tell(end='ok', reason=None)"
        )
        self.assertEqual((found["status"], found["a"], found["b"], found.get("reason")), ("ok", 1, [2, 3], None))

    def test_a_crash_keeps_what_was_told(self):
        found = part("tell(set='a', value=1); sys.stderr.write('last words'); sys.stderr.flush(); os.abort()")
        self.assertEqual((found["status"], found["a"], found["stderr"]), ("failed", 1, "last words"))
        self.assertIn("SIGABRT", found["reason"])

    def test_an_exit_without_an_end_is_a_failure(self):
        self.assertEqual(part("sys.exit(0)")["reason"], "exited with 0 without a word")

    def test_a_part_that_hangs_is_killed_with_all_it_has_started(self):
        grace, parts.GRACE = parts.GRACE, 0.5
        try:
            body = "import subprocess; tell(set='pid', value=subprocess.Popen(['sleep', '600']).pid); time.sleep(600)"
            found = part(body, 1.0)
        finally:
            parts.GRACE = grace
        self.assertEqual(found["status"], "failed")
        self.assertIn("was killed", found["reason"])
        self.assertLess(found["seconds"], 60)
        with self.assertRaises(ProcessLookupError):
            for _ in range(200):
                # The sleeper is init's to reap.
                os.kill(found["pid"], 0)
                with open(f"/proc/{found['pid']}/stat", encoding="ascii") as file:
                    if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                        raise ProcessLookupError

    def test_a_line_cut_off_does_not_hide_the_others(self):
        found = part("tell(set='a', value=1); file.write('{\"set'); file.flush(); os._exit(9)")
        self.assertEqual((found["a"], found["reason"]), (1, "exited with 9 without a word"))

    def test_outcomes_of_a_part_in_its_process(self):
        def refuses(_, __):
            raise parts.NotRun("no device")

        def breaks(_, __):
            raise ValueError("odd")

        def disagrees(_, report):
            report.fail("they differ")

        outcomes = []
        for body in (refuses, breaks, disagrees, lambda _, report: report.not_run("b", "c")):
            with tempfile.TemporaryDirectory() as folder:
                path, quiet, sys.stderr = os.path.join(folder, "r"), sys.stderr, open(os.devnull, "w")
                try:
                    parts.serve(body, {"report": path, "deadline": 0})
                finally:
                    sys.stderr.close()
                    sys.stderr = quiet
                told, end = parts.read(path)
                outcomes.append((end["end"], end["reason"], told))
        self.assertEqual(
            outcomes,
            [
                ("not run", "no device", {}),
                ("failed", "ValueError: odd", {}),
                ("failed", "1 checks failed", {"failures": ["they differ"]}),
                ("ok", None, {"notRun": [{"what": "b", "reason": "c"}]}),
            ],
        )

    def test_time_that_a_part_leaves_goes_to_the_later_ones(self):
        shares = {"a": 1, "b": 2, "c": 1}
        self.assertEqual([parts.share(shares, name, 100) for name in shares], [25, 200 / 3, 100])
        self.assertEqual(parts.share(shares, "a", -5), 0)


def case(tokens=(1, 2, 3), logprobs=(-1.0, -2.0), positions=(0, 1, 2, 3), **memory):
    counted = {"promptTokens": 4, "completionTokens": len(tokens)}
    report = {**dict.fromkeys(generations.SAME_MEMORY, 8), "keptPerLayer": [4.0]}
    report.update({"metadata": 2, "resident": 10, "peak": 1000, **memory})
    generated = {"type": "done", "tokens": list(tokens), "usage": counted, "memory": report, "finish": "length"}
    kept = [[{"heads": [0, 2], "positions": list(positions)}]]
    scored = {
        "type": "scored",
        "tokens": [1, 2],
        "logprobs": list(logprobs),
        "kept": kept,
        "usage": counted,
        "memory": report,
    }
    return generated, scored


class Judging(unittest.TestCase):
    def wrong(self, found, gap=None, official=False):
        compared = generations.compare(case(), found)
        return generations.judge({**compared, "gap": gap, "official": official}, generations.TOLERANCE["f32"])

    def test_what_is_equal_passes(self):
        self.assertEqual(self.wrong(case()), [])

    def test_differences_are_named(self):
        self.assertIn("log-probabilities", self.wrong(case(logprobs=(-1.0, -2.5)))[0])
        self.assertIn("log-probabilities", self.wrong(case(logprobs=(-1.0, math.nan)))[0])
        self.assertIn("25.00% of the kept positions", self.wrong(case(positions=(0, 1, 2, 9)))[0])
        self.assertIn("payload of done: 8 and 9", self.wrong(case(payload=9))[0])
        self.assertEqual(len(self.wrong(case(dead=9))), 2)
        self.assertEqual(self.wrong(case(tokens=(1, 2, 4)), gap=0.1), [])
        self.assertIn("5.000 apart", self.wrong(case(tokens=(1, 2, 4)), gap=5.0)[0])

    def test_only_bookkeeping_may_be_larger_on_a_device(self):
        self.assertEqual(self.wrong(case(resident=11, metadata=3, peak=1458)), [])
        self.assertIn("resident without metadata of done: 8 and 9", self.wrong(case(resident=11))[0])
        # A hundredth, and the extents of one lane.
        self.assertIn("peak of done: 1000 and 1459", self.wrong(case(peak=1459))[0])

    def test_published_positions_are_judged_where_the_same_is_kept(self):
        apart = case(logprobs=(-1.0, -2.5))
        self.assertEqual(len(self.wrong(apart, official=True)), 1)
        moved = case(logprobs=(-1.0, -2.5), positions=tuple(range(200)))
        other = case(positions=(*range(199), 300), payload=9)
        compared = {**generations.compare(other, moved), "gap": None, "official": True}
        self.assertEqual(generations.judge(compared, generations.TOLERANCE["f32"]), [])
        self.assertEqual(len(generations.judge({**compared, "official": False}, generations.TOLERANCE["f32"])), 3)

    def test_cases_are_judged_together(self):
        def cases(strict, count=4, kept=0.0):
            return [{"strict": n < strict, "keptDifferent": kept} for n in range(count)]

        self.assertEqual(generations.verdicts({("full", "f32"): cases(4), ("knorm", "f16"): cases(2, kept=0.004)}), [])
        [each, _] = generations.verdicts({("knorm", "f32"): cases(1)})
        self.assertIn("knorm f32: only 1 of 4", each)
        # In f16 a variant may be close everywhere and equal nowhere, but not half of everything, nor far from it.
        self.assertEqual(generations.verdicts({("full", "f16"): cases(4), ("knorm", "f16"): cases(0)}), [])
        self.assertIn("f16: only 1 of 4", generations.verdicts({("knorm", "f16"): cases(1)})[0])
        [far] = generations.verdicts({("full", "f16"): cases(8, 8), ("knorm", "f16"): [None, *cases(0, kept=0.006)]})
        self.assertIn("knorm f16: 0.60% of the kept positions differ", far)

    def test_a_device_that_differs_fails_the_part(self):
        class Side:
            info = {"layers": 1}

            def __init__(self, events):
                self.events = events

            def ask(self, request, _=()):
                return self.events[0 if request["op"] == "generate" else 1]

        class Heard:
            def __init__(self):
                self.failures, self.cases = [], []

            def fail(self, reason):
                self.failures.append(reason)

            def add(self, _, value):
                self.cases.append(value)

        sample = {"image": "x.png", "bytes": b"", "question": "?", "answer": "a b"}
        for found, strict in ((case(), True), (case(logprobs=(-1.0, -2.1)), False), (case(full=9), True)):
            heard, tally = Heard(), dict.fromkeys(("cases", "strict", "sameTokens", "sameKept", "keptDifferent"), 0)
            pair, variant = (Side(case()), Side(found)), ("full", {"method": "full"}, False)
            found_case = generations.one(heard, tally, pair, "f32", variant, 0.5, sample, 3)
            self.assertEqual(found_case["strict"], strict)
            self.assertEqual(bool(heard.failures), found[0]["memory"]["full"] == 9)

    def test_verdicts_of_the_device_check(self):
        right = {"kernel": "gather", "cases": 3, "worst": 0, "tolerance": 0, "failed": None}
        wrong = {**right, "kernel": "decode", "failed": "row 3"}
        self.assertEqual(
            kernels.verdicts([right, wrong, {**right, "cases": 0}]), (1, ["decode: row 3", "gather: no case was tried"])
        )
        rates = {"copy": 3.0, "read": 4.0, "row": 2.0, "productF16": 5.0}
        self.assertEqual(kernels.ceilings({"ceilings": rates}), {"readBytesPerSecond": 4e9, "matmulF16PerSecond": 5e12})
        self.assertEqual(kernels.ceilings({"ceilings": None}), {})

    def test_the_device_check_is_read_as_the_library_writes_it(self):
        right = {"kernel": "gather", "cases": 3, "worst": 0, "tolerance": 0, "failed": None}

        def told(found, event="checked"):
            class Fake:
                def __init__(self, _):
                    pass

                def can_check(self):
                    return True

                def need(self, device):
                    pass

                def check_device(self, request):
                    return {"type": event, "report": found}

            library, kernels.abi.Library = kernels.abi.Library, Fake
            try:
                with tempfile.TemporaryDirectory() as folder:
                    path = os.path.join(folder, "r")
                    parts.serve(kernels.run, {"report": path, "deadline": 0, "library": "", "device": "cuda:0"})
                    return parts.read(path)
            finally:
                kernels.abi.Library = library

        rates = {"copy": 3.0, "read": 4.0, "row": 2.0, "productF16": 5.0}
        found, end = told({"passed": True, "kernels": [right], "ceilings": rates})
        self.assertEqual((end["end"], found["checks"]), ("ok", {"passed": 1, "failed": 0}))
        self.assertEqual(found["ceilings"]["readBytesPerSecond"], 4e9)
        for passed, outcomes, reason in (
            (False, [right, {**right, "failed": "row 3"}], "gather: row 3"),
            (False, [right], "the library calls the check failed, but names no kernel that did"),
            (True, [], "the answer of the check names no kernel"),
        ):
            found, end = told({"passed": passed, "kernels": outcomes, "ceilings": None})
            self.assertEqual((end["end"], found["failures"]), ("failed", [reason]))
        self.assertEqual(told({}, "closed")[1]["end"], "failed")

    def test_memory_that_is_not_given_back_is_seen(self):
        mib = 1 << 20
        # Bytes that the wide model holds at 0.2 of 12,288 positions.
        for grown, right in ((154, True), (240, True), (768, False), (0, False), (None, False)):
            found = {"resident": 154 * mib, "grown": None if grown is None else grown * mib}
            self.assertEqual(memory.wrong(found) is None, right, grown)


class Rates(unittest.TestCase):
    def test_only_steps_in_which_all_generate_count(self):
        # The second request begins two steps later and ends two steps later.
        found = throughput.window([[0, 1, 2, 3, 4, 5], [2, 3, 4, 5, 6, 7]])
        self.assertEqual(found, {"opens": 2, "closes": 5, "lead": 2, "steps": 3, "seconds": 1})
        one_after_the_other = throughput.window([[0, 1, 2], [3, 4, 5]])
        self.assertEqual((one_after_the_other["steps"], one_after_the_other["seconds"]), (0, None))

    def test_ratios_are_of_runs_that_belong_together(self):
        def run(keep, step, cache, whole=False):
            made = {"batch": 2, "prompt": 8, "tokens": 4, "keep": keep, "whole": whole, "stepSeconds": step}
            return {**made, "stepBytes": {"weights": 100, "cache": cache}, "prefillFlops": 50, "prefillSeconds": 5}

        runs = [run(1, 4.0, 300), run(0.2, 2.0, 60), run(0.2, 3.0, 60, whole=True)]
        peer = {"batch": 2, "prompt": 8, "stepSeconds": 6.0, "allPromptsSeconds": 10.0}
        captured = [{"batch": 2, "prompt": 8, "stepSeconds": 5.0}]
        torch = {
            "runs": [peer],
            "captured": captured,
            "ceilings": {"readBytesPerSecond": 200, "matmulF16PerSecond": 20},
        }
        kernel = {"ceilings": {"readBytesPerSecond": 400}}
        result = {"parts": {"kernels": kernel, "throughput-7b": {"runs": runs}, "torch-7b": torch}}
        summary.derive(result)
        full, small, alone = runs
        self.assertEqual((full["bytesPerSecond"], full["bandwidthShare"], full["prefillShare"]), (100, 0.25, 0.5))
        self.assertEqual((small["faster"], small["predicted"], small["fasterOverPredicted"]), (2, 2.5, 0.8))
        self.assertEqual(small["torchOverOurs"], {"step": 3, "prompts": 2})
        self.assertEqual(small["torchCapturedOverOurs"], 2.5)
        self.assertNotIn("faster", alone)
        self.assertEqual(result["ceilings"]["readBytesPerSecond"], {"value": 400, "by": "kernels"})

    def test_the_plan_has_every_setting_of_the_paper(self):
        plan = throughput.plan(False)
        for batch in (8, 16, 48):
            for prompt, tokens in ((1024, 512), (624, 256)):
                keeps = {keep for *size, steps, keep in plan if size == [batch, prompt, tokens]}
                self.assertLessEqual({1, 0.8, 0.6, 0.4, 0.2}, keeps)
        self.assertEqual(len(plan), len(set(plan)))
        self.assertEqual([one[0] for one in plan[:3]], [1, 1, 1])
        self.assertEqual(plan[3][:3], (16, 1024, 512))
        first = throughput.plan(False, first=True)
        self.assertEqual([one[0] for one in first], [1, 1, 1, 16, 16, 16, 48, 48, 48])
        self.assertLessEqual(set(first), set(plan) | {(48, 1024, 512, 64, None)})

    def test_what_does_not_fit_a_card_is_known_before(self):
        seven, thirteen = models.SHAPES["llava-1.5-7b"], models.SHAPES["llava-1.5-13b"]
        h100, h200 = 80e9, 141e9
        self.assertLess(throughput.needed(seven, 48, 1088, None), h100)
        # 26 GB of weights, and 0.82 MB a position for 48 sequences of 1536.
        self.assertGreater(throughput.needed(thirteen, 48, 1536, 1), h100)
        self.assertLess(throughput.needed(thirteen, 48, 1536, 0.2), h100)
        self.assertLess(throughput.needed(thirteen, 48, 1536, 1), h200)


class Found(unittest.TestCase):
    """Things that exist only on a machine with a GPU, played by files."""

    def test_cublas_of_wheels_is_named(self):
        with tempfile.TemporaryDirectory() as folder:
            lib = os.path.join(folder, "nvidia", "cu13", "lib")
            os.makedirs(lib)
            options, path, before = argparse.Namespace(device="cuda:0"), sysconfig.get_path, os.environ.copy()
            sysconfig.get_path = lambda _: folder
            try:
                os.environ.pop(check.LIBRARIES, None)
                check.name_libraries(options)
                self.assertNotIn(folder, os.environ.get(check.LIBRARIES, ""))
                open(os.path.join(lib, "libcublas.so.13"), "w").close()
                check.name_libraries(argparse.Namespace(device="cpu"))
                self.assertNotIn(folder, os.environ.get(check.LIBRARIES, ""))
                check.name_libraries(options)
                self.assertEqual(os.environ[check.LIBRARIES].split(os.pathsep)[0], lib)
                os.environ[check.LIBRARIES] = "mine"
                check.name_libraries(options)
                self.assertEqual(os.environ[check.LIBRARIES], "mine")
            finally:
                sysconfig.get_path = path
                os.environ.clear()
                os.environ.update(before)

    def test_time_on_the_device_is_summed_by_name(self):
        events = [("kernel", "a", 0, 10), ("kernel", "b", 5, 10), ("copy", "c", 20, 2), ("kernel", "a", 30, 5)]
        found = timeline.summary(events)
        self.assertEqual((found["spanUs"], found["busyUs"], found["idleUs"], found["longestGapUs"]), (35, 22, 13, 8))
        self.assertEqual(found["names"][0], {"kind": "kernel", "name": "a", "count": 2, "us": 15})

    def sanitized(self, text, code):
        """The report of one tool that says `text` and exits with `code`."""

        class Heard:
            def __init__(self):
                self.failures, self.notRun, self.tools = [], [], []

            def left(self):
                return 60

            def fail(self, reason):
                self.failures.append(reason)

            def not_run(self, what, reason):
                self.notRun.append(reason)

            def add(self, _, value):
                self.tools.append(value)

        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "compute-sanitizer")
            with open(path, "w", encoding="utf-8") as file:
                file.write(f"#!{sys.executable}\nimport sys\nprint({text!r})\nsys.exit({code})\n")
            os.chmod(path, 0o755)
            heard = Heard()
            sanitizer.one({"library": "x", "device": "cuda:0"}, heard, path, "memcheck")
            return heard

    def test_what_the_sanitizer_says_is_read(self):
        good = self.sanitized("========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors", 0)
        self.assertEqual((good.failures, good.notRun, good.tools[0]["errors"]), ([], [], 0))
        bad = self.sanitized("========= Invalid __global__ read of size 4\n========= ERROR SUMMARY: 2 errors", 9)
        self.assertEqual(bad.failures, ["memcheck: 2 errors, status 9: Invalid __global__ read of size 4"])
        races = self.sanitized("========= RACECHECK SUMMARY: 1 hazards displayed", 9)
        self.assertEqual(len(races.failures), 1)
        # A check that fails by itself is a failure too.
        self.assertEqual(len(self.sanitized("========= ERROR SUMMARY: 0 errors", 5).failures), 1)
        self.assertIn("no summary", self.sanitized("Target application terminated", 1).notRun[0])


class Models(unittest.TestCase):
    def test_weights_are_nearly_normal(self):
        size = 1 << 18
        values = struct.unpack(f"<{size // 2}e", models.block(size))
        self.assertAlmostEqual(sum(values) / len(values), 0, delta=2e-4)
        self.assertAlmostEqual(math.sqrt(sum(value * value for value in values) / len(values)), 0.02, delta=2e-3)
        self.assertEqual(models.block(64), models.block(64))

    def test_the_file_is_what_its_header_says(self):
        shape = models.SHAPES["small"]
        with tempfile.TemporaryDirectory() as folder:
            source, target = os.path.join(HERE, "..", "..", "models", "tiny-llava"), os.path.join(folder, "m")
            size = models.write(target, shape, source)
            with open(os.path.join(target, "model.safetensors"), "rb") as file:
                data = file.read()
        self.assertEqual(len(data), size)
        length = struct.unpack("<Q", data[:8])[0]
        entries, body = json.loads(data[8 : 8 + length]), data[8 + length :]
        self.assertEqual(max(entry["data_offsets"][1] for entry in entries.values()), len(body))
        for name, entry in entries.items():
            start, end = entry["data_offsets"]
            self.assertEqual(end - start, 2 * models.elements(entry["shape"]), name)
            values = struct.unpack(f"<{(end - start) // 2}e", body[start:end])
            self.assertEqual(set(values) == {1.0}, models.is_norm(name), name)

    def test_sizes_are_those_of_llava(self):
        for name, parameters in (("llava-1.5-7b", 7.06e9), ("llava-1.5-13b", 13.35e9)):
            count = sum(models.elements(sizes) for _, sizes in models.tensors(models.SHAPES[name]))
            self.assertAlmostEqual(count / parameters, 1, delta=0.005)
        self.assertEqual(words.kv_bytes(models.SHAPES["llava-1.5-7b"]), 524288)


if __name__ == "__main__":
    unittest.main()
