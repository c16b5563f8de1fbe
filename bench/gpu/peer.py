"""The same shapes in plain PyTorch on the same card: f16, a static full cache, sdpa, no compilation."""

import json
import os
import struct
import time

import models
import words
from parts import NotRun

# In nats, of log-probabilities of a short text: the library with f16 products beside f32 here.
PROBE = 0.05
ROWS = 16384


def load_torch(device):
    try:
        import torch
    except ImportError as error:
        raise NotRun(f"PyTorch is not installed: {error}") from None
    if device != "cpu" and not torch.cuda.is_available():
        raise NotRun(f"PyTorch {torch.__version__} finds no CUDA device")
    return torch


class Stopwatch:
    """Seconds with the device's work done."""

    def __init__(self, torch, device):
        self.wait = torch.cuda.synchronize if device != "cpu" else lambda: None

    def now(self):
        self.wait()
        return time.monotonic()


class Weights:
    """The tensors of a folder, or random ones where there is none."""

    def __init__(self, torch, shape, device, folder):
        self.torch, self.device, self.shapes = torch, device, dict(models.tensors(shape))
        # The CPU has no fast f16; there the loop only shows that it runs.
        self.dtype = torch.float32 if device == "cpu" else torch.float16
        self.entries = None
        path = folder and os.path.join(folder, "model.safetensors")
        if path and os.path.exists(path):
            with open(path, "rb") as file:
                size = struct.unpack("<Q", file.read(8))[0]
                self.entries = json.loads(file.read(size))
            elements = os.path.getsize(path) // 2
            self.all = torch.from_file(path, shared=False, size=elements, dtype=torch.float16)
            self.first = (8 + size) // 2

    def get(self, *names):
        """Matrices, joined by their rows."""
        names = [f"language_model.{name}.weight" for name in names]
        if self.entries is None:
            options = {"device": self.device, "dtype": self.dtype}
            made = [self.torch.ones if models.is_norm(name) else self.torch.randn for name in names]
            parts = [
                make(self.shapes[name], **options) * (1 if models.is_norm(name) else 0.02)
                for make, name in zip(made, names)
            ]
        else:
            parts = [self._slice(name).to(self.device, self.dtype) for name in names]
        return parts[0] if len(parts) == 1 else self.torch.cat(parts)

    def _slice(self, name):
        start, end = (self.first + offset // 2 for offset in self.entries[name]["data_offsets"])
        return self.all[start:end].view(self.shapes[name])


class Llama:
    def __init__(self, torch, shape, device, folder):
        self.torch, self.device = torch, device
        self.heads, self.hidden = shape["heads"], shape["hidden"]
        self.width = self.hidden // self.heads
        weights = Weights(torch, shape, device, folder)
        self.shared_weights, self.dtype = weights.entries is not None, weights.dtype
        self.table, self.norm = weights.get("model.embed_tokens"), weights.get("model.norm")
        self.head, self.layers = weights.get("lm_head"), []
        for layer in range(shape["layers"]):
            at = f"model.layers.{layer}."
            names = [[f"{at}self_attn.{part}_proj" for part in "qkv"], [f"{at}self_attn.o_proj"]]
            names += [[f"{at}mlp.gate_proj", f"{at}mlp.up_proj"], [f"{at}mlp.down_proj"]]
            norms = [weights.get(f"{at}input_layernorm"), weights.get(f"{at}post_attention_layernorm")]
            self.layers.append(([weights.get(*part) for part in names], norms))
        steps = torch.arange(0, self.width, 2, device=device, dtype=torch.float32) / self.width
        angles = torch.outer(torch.arange(16384, device=device, dtype=torch.float32), 10000.0**-steps)
        self.cos, self.sin = torch.cat([angles, angles], 1).cos(), torch.cat([angles, angles], 1).sin()

    def cache(self, batch, length):
        size = (2, batch, self.heads, length, self.width)
        return [self.torch.empty(size, device=self.device, dtype=self.dtype) for _ in self.layers]

    def rms(self, x, weight):
        return self.torch.nn.functional.rms_norm(x, (self.hidden,), weight.to(x.dtype), 1e-5)

    def forward(self, tokens, start, caches, rows=slice(None), dtype=None):
        """The last hidden states `[batch, length, hidden]`; without caches, all attention is within these tokens."""
        torch, functional = self.torch, self.torch.nn.functional
        x = self.table[tokens] if dtype is None else self.table[tokens].to(dtype)
        (batch, length), half = tokens.shape, self.width // 2
        cos, sin = (table[start : start + length].to(x.dtype) for table in (self.cos, self.sin))
        for number, (matrices, norms) in enumerate(self.layers):
            fused, output, gate_up, down = (one if dtype is None else one.to(dtype) for one in matrices)
            joined = (
                (self.rms(x, norms[0]) @ fused.T).view(batch, length, 3, self.heads, self.width).permute(2, 0, 3, 1, 4)
            )
            turned = joined[:2] * cos + torch.cat([-joined[:2, ..., half:], joined[:2, ..., :half]], -1) * sin
            q, k, v = turned[0], turned[1], joined[2]
            if caches:
                keys, values = caches[number][0][rows], caches[number][1][rows]
                keys[:, :, start : start + length], values[:, :, start : start + length] = k, v
                k, v = keys[:, :, : start + length], values[:, :, : start + length]
            seen = functional.scaled_dot_product_attention(q, k, v, is_causal=length > 1)
            x = x + seen.transpose(1, 2).reshape(batch, length, self.hidden) @ output.T
            gate, up = (self.rms(x, norms[1]) @ gate_up.T).chunk(2, -1)
            x = x + (functional.silu(gate) * up) @ down.T
        return self.rms(x, self.norm)

    def next(self, hidden):
        return (hidden[:, -1] @ self.head.T).argmax(-1, keepdim=True)


def run(spec, report):
    torch, device = load_torch(spec["device"]), spec["device"]
    report.set("torch", torch.__version__)
    torch.backends.cuda.matmul.allow_tf32 = False
    watch, shape = Stopwatch(torch, device), models.SHAPES[spec["shape"]]
    earlier = spec["earlier"].get(spec["before"], {})
    folder = spec["scratch"] and os.path.join(spec["scratch"], spec["shape"])
    with torch.inference_mode():
        if spec["ceilings"]:
            report.set("ceilings", ceilings(torch, device, watch, spec["small"]))
        model = Llama(torch, shape, device, folder)
        report.set("weights", "the library's" if model.shared_weights else "random")
        probe(torch, model, earlier.get("probe"), report)
        settings = list(dict.fromkeys((one["batch"], one["prompt"]) for one in earlier.get("runs", [])))
        if not settings:
            settings = [(2, 96)] if spec["small"] else [(16, 1024), (48, 1024), (8, 1024)]
        loop(torch, model, tokens_of(torch, device, 1, 64), 4, watch)
        taken = 0.0
        for batch, prompt in settings:
            what = f"batch {batch}, prompt {prompt}"
            if report.left() < 3 + 1.5 * taken * batch * prompt:
                report.not_run(what, f"{report.left():.0f} s are left")
                continue
            try:
                found = loop(torch, model, tokens_of(torch, device, batch, prompt), 8 if spec["small"] else 64, watch)
            except torch.cuda.OutOfMemoryError as error:
                report.not_run(what, f"PyTorch runs out of memory: {error}")
                continue
            taken = max(taken, found["wholeSeconds"] / (batch * prompt))
            report.add("runs", {"batch": batch, "prompt": prompt, **found})
        if device != "cpu":
            graphs(torch, model, settings, watch, report)


def tokens_of(torch, device, batch, prompt):
    return torch.randint(5, 700, (batch, prompt), device=device)


def loop(torch, model, tokens, steps, watch):
    """Reads prompts and decodes greedily; logits of the last position only."""
    batch, prompt = tokens.shape
    caches, start, token = model.cache(batch, prompt + steps + 1), watch.now(), []
    chunk = max(1, ROWS // prompt)
    for first in range(0, batch, chunk):
        rows = slice(first, min(batch, first + chunk))
        token.append(model.next(model.forward(tokens[rows], 0, caches, rows)))
    token, read = torch.cat(token), watch.now()
    for step in range(steps):
        token = model.next(model.forward(token, prompt + step, caches))
    end = watch.now()
    return {
        "steps": steps,
        "allPromptsSeconds": read - start,
        "prefillTokensPerSecond": batch * prompt / (read - start),
        "stepSeconds": (end - read) / steps,
        "decodeTokensPerSecond": batch * steps / (end - read),
        "wholeSeconds": end - start,
    }


def graphs(torch, model, settings, watch, report):
    """
    A step that is captured once and played again and again, as if the CPU took no time to launch kernels: what PyTorch's kernels
    need at the least. Last, since a capture that fails can leave the device unusable.
    """
    for batch, prompt in settings[:2]:
        what = f"captured step, batch {batch}, prompt {prompt}"
        if report.left() < 8:
            report.not_run(what, f"{report.left():.0f} s are left")
            continue
        try:
            caches, token = model.cache(batch, prompt + 64), tokens_of(torch, model.device, batch, 1)
            side = torch.cuda.Stream()
            with torch.cuda.stream(side):
                for _ in range(2):
                    model.next(model.forward(token, prompt + 32, caches))
            watch.now()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                model.next(model.forward(token, prompt + 32, caches))
            graph.replay()
            start = watch.now()
            for _ in range(32):
                graph.replay()
            step = (watch.now() - start) / 32
        except Exception as error:
            report.not_run(what, f"{type(error).__name__}: {error}"[:400])
            return
        report.add("captured", {"batch": batch, "prompt": prompt, "stepSeconds": step})
        del graph, caches


def probe(torch, model, asked, report):
    """The library's log-probabilities of a text, from the same weights in f32 here."""
    if not asked or not model.shared_weights:
        report.not_run("log-probabilities beside the library's", "the library has left no text or no weights")
        return
    tokens = torch.tensor([asked["prompt"] + asked["answer"]], device=model.device)
    hidden = model.forward(tokens, 0, None, dtype=torch.float32)[0]
    answer = len(asked["answer"])
    logits = hidden[-answer - 1 : -1] @ model.head.float().T
    found = logits.log_softmax(-1).gather(1, tokens[0, -answer:, None])[:, 0].tolist()
    apart = words.apart(found, asked["logprobs"])
    report.set("probe", {"tokens": answer, "logprobsApart": apart, "tolerance": PROBE})
    if apart is None or apart > PROBE:
        report.fail(f"the library's log-probabilities differ from PyTorch's by {apart}, more than {PROBE}")


def ceilings(torch, device, watch, small):
    """The best of several rounds: a square f16 product, and reading (a sum) or reading and writing (a copy) of a large buffer."""
    side, size = (256, 1 << 22) if small else (8192, 4 << 30)
    a = torch.randn(side, side, device=device).half()
    source = torch.ones(size // 4, device=device, dtype=torch.float32)
    target = torch.empty_like(source)

    def best(work, rounds=5, repeats=4):
        work()
        taken = []
        for _ in range(rounds):
            start = watch.now()
            for _ in range(repeats):
                work()
            taken.append((watch.now() - start) / repeats)
        return min(taken)

    product = best(lambda: a @ a)
    reading = max(size / best(source.sum), 2 * size / best(lambda: target.copy_(source)))
    return {"matmulF16PerSecond": 2 * side**3 / product, "readBytesPerSecond": reading}
