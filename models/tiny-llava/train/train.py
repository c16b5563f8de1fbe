"""Trains tiny-llava.

    python train.py --smoke --out FOLDER                       every phase, two steps each
    python train.py --phase proof --minutes 6 --out FOLDER     a short run that visibly learns
    python train.py --phase full --out FOLDER                  the whole recipe, by steps
    python train.py --phase D --start FOLDER --out FOLDER      one phase, from a checkpoint
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path


def settle_allocator():
    """glibc must keep freed memory: handing it back after every large tensor costs more than the arithmetic."""
    wanted = {
        "MALLOC_MMAP_THRESHOLD_": "8000000000",
        "MALLOC_TRIM_THRESHOLD_": "16000000000",
        "OMP_WAIT_POLICY": "passive",
        "OMP_NUM_THREADS": "2",
    }
    missing = {k: v for k, v in wanted.items() if k not in os.environ}
    # These are read when a process starts, so it has to start again.
    if missing and "TINY_LLAVA_SETTLED" not in os.environ:
        os.environ.update(missing, TINY_LLAVA_SETTLED="1")
        os.execv(sys.executable, [sys.executable, *sys.argv])


if __name__ == "__main__":
    settle_allocator()

import numpy as np
import torch

import tokenizer as bpe
from evaluate import evaluate
from losses import PatchLoss, Probe, token_loss
from model import TinyLlava
from muon import Optimiser
from packing import Packer, to_labels, to_pixels
from phases import PHASES, Phase, plan
from scenes import draw

PROBE_AFTER = 5


class Log:
    """Means over the steps since the last line."""

    def __init__(self):
        self.start, self.cpu = time.time(), time.process_time()
        self.lines: list[dict] = []
        self.sums: dict[str, float] = {}
        self.count = 0

    def add(self, stats: dict[str, float]):
        self.count += 1
        for k, v in stats.items():
            self.sums[k] = self.sums.get(k, 0.0) + v

    def line(self, phase: str, step: int):
        line = {"phase": phase, "step": step, "seconds": round(time.time() - self.start, 1)}
        line["cpu_seconds"] = round(time.process_time() - self.cpu, 1)
        line |= {k: round(v / self.count, 4) for k, v in self.sums.items()}
        self.lines.append(line)
        self.sums, self.count = {}, 0
        print("  ".join(f"{k} {v}" for k, v in line.items()), flush=True)


class Trainer:
    def __init__(self, model: TinyLlava, tokenizer, seed: int, length: int, dtype: torch.dtype):
        self.model, self.dtype = model, dtype
        self.tokenizer, self.length = tokenizer, length
        self.rng = np.random.default_rng(seed)
        self.patches, self.probe = PatchLoss(tokenizer), Probe()
        self.log = Log()

    def run(self, name: str, phase: Phase, steps: int, seconds: float | None, every: int):
        """`steps` steps, or, if `seconds` is given, as many as fit."""
        print(f"-- {name}: {phase.about}", flush=True)
        packer = Packer(self.tokenizer, self.length, phase.weights)
        content_ids = torch.tensor(sorted(packer.content))
        probe = self.probe if phase.probe_weight else None
        optimiser = Optimiser(self.model, probe, phase.muon, phase.adam, phase.vision_share)
        started, step, done = time.time(), 0, 0.0
        while done < 1:
            fewest, most = next((a, b) for until, a, b in phase.curriculum if done < until)
            if phase.joint:
                batch = packer.random_batch(self.rng, phase.batch, fewest, most, phase.described, phase.mix)
                loss, stats = self.joint_loss(phase, batch, content_ids)
            else:
                loss, stats = self.patch_loss(phase, [draw(self.rng, fewest, most) for _ in range(phase.batch)])
            loss.backward()
            falling = (1 - done) / (1 - phase.decay_from)
            optimiser.step(min((step + 1) / phase.warmup, 1.0, falling))
            step += 1
            done = step / steps if seconds is None else (time.time() - started) / seconds
            self.log.add(stats)
            if step % every == 0 or done >= 1:
                self.log.line(name, step)
        return step

    def patch_loss(self, phase, scenes):
        with torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32):
            image = self.model.see(to_pixels(scenes))
        words = self.model.language_model.model.embed_tokens.weight
        loss, right = self.patches(image, words, to_labels(scenes), phase.patch_parts)
        return loss, {"patch_loss": loss.item()} | {f"patch_{k}": v for k, v in right.items()}

    def joint_loss(self, phase, batch, content_ids):
        model, probing = self.model, phase.probe_weight > 0
        with torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32):
            image = model.see(batch.pixels)
            hidden, middle = model.read(batch.ids, image, batch.positions, batch.mask, PROBE_AFTER if probing else None)
        loss, stats = token_loss(model, hidden, batch, content_ids)
        words = model.language_model.model.embed_tokens.weight
        patch, right = self.patches(image, words, batch.labels, phase.patch_parts)
        loss = loss + phase.patch_weight * patch
        stats["patch_shape"] = right["shape"]
        if probing:
            probe, known = self.probe(middle, batch.refs)
            loss = loss + phase.probe_weight * probe
            stats["probe"] = sum(known.values()) / max(len(known), 1)
        return loss, stats


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint and run.json")
    parser.add_argument("--phase", default="proof", help="a plan (proof, full) or phases such as V,A")
    parser.add_argument("--minutes", type=float, help="time for the whole plan; without it each phase runs its steps")
    parser.add_argument("--start", type=Path, help="checkpoint folder to go on from; without it random weights")
    parser.add_argument("--tokenizer", type=Path, default=bpe.SHIPPED)
    parser.add_argument("--length", type=int, default=384, help="tokens of a packed sample")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="bfloat16 pays only with bf16 instructions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log-every", type=int, default=20)
    parser.add_argument("--scenes", type=int, default=60, help="held-out scenes of the evaluation")
    parser.add_argument("--smoke", action="store_true", help="two steps of every phase of the full plan, tiny evaluation")
    return parser.parse_args()


def main():
    args = parse()
    torch.manual_seed(args.seed)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    tokenizer = bpe.load(args.tokenizer)
    model = TinyLlava.load(args.start) if args.start else TinyLlava(seed=args.seed)
    if tokenizer.get_vocab_size() > model.config["text_config"]["vocab_size"]:
        raise SystemExit("the tokenizer has more tokens than the model has rows")
    phases = plan("full" if args.smoke else args.phase)
    fewest = min(a for name, _ in phases for _, a, _ in PHASES[name].curriculum)
    most = max(b for name, _ in phases for _, _, b in PHASES[name].curriculum if PHASES[name].joint or len(phases) == 1)
    sizes = (2 if args.smoke else args.scenes, fewest, most)

    def judge():
        # Saved first: the free descriptions are made from the folder, by transformers.
        model.save(args.out, args.tokenizer)
        with torch.no_grad():
            return evaluate(model, tokenizer, args.out, *sizes)

    before = judge()
    trainer = Trainer(model, tokenizer, args.seed + 1, args.length, getattr(torch, args.dtype))
    taken = {}
    for name, share in phases:
        phase = PHASES[name]
        if args.smoke:
            phase.batch = 2
        seconds = args.minutes * 60 * share if args.minutes else None
        taken[name] = trainer.run(name, phase, 2 if args.smoke else phase.steps, seconds, args.log_every)
        model.save(args.out, args.tokenizer)
    after = judge()
    report = {
        "phases": {name: dict(steps=taken[name], batch=PHASES[name].batch) for name, _ in phases},
        "minutes": args.minutes,
        "seed": args.seed,
        "length": args.length,
        "dtype": args.dtype,
        "threads": torch.get_num_threads(),
        "seconds": trainer.log.lines[-1]["seconds"],
        "cpu_seconds": trainer.log.lines[-1]["cpu_seconds"],
        "held_out": {"scenes": sizes[0], "things": list(sizes[1:]), "before": before, "after": after},
        "curve": trainer.log.lines,
    }
    (args.out / "run.json").write_text(json.dumps(report, indent=1) + "\n")
    for label, found in (("before", before), ("after", after)):
        print(label, json.dumps({k: v for k, v in found.items() if k != "right_by_kind"}))


if __name__ == "__main__":
    main()
