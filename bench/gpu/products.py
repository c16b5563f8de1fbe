"""Products of the shapes of a decode step by cuBLAS, through PyTorch: how much of the reading rate they reach at each batch."""

import models
from parts import NotRun
from peer import Stopwatch, load_torch

ROWS = (1, 8, 16, 48)
# Together more than any cache on the card holds, so that each product reads its weights from memory.
ROTATED = 512 << 20


def shapes(of):
    """`name: (outputs, inputs)` of the products of a step."""
    hidden, inner = of["hidden"], of["intermediate"]
    return {
        "qkv": (3 * hidden, hidden),
        "output": (hidden, hidden),
        "gate and up": (2 * inner, hidden),
        "down": (hidden, inner),
        "head": (of["vocabulary"], hidden),
    }


def run(spec, report):
    device, small = spec["device"], spec["small"]
    torch = load_torch(device)
    if device == "cpu" and not small:
        raise NotRun("products in f16 are measured on a GPU")
    report.set("torch", torch.__version__)
    watch = Stopwatch(torch, device)
    dtype = torch.float32 if device == "cpu" else torch.float16
    with torch.inference_mode():
        for name, (outputs, inputs) in shapes(models.SHAPES[spec["shape"]]).items():
            size = outputs * inputs * dtype.itemsize
            count = 2 if small else max(2, -(-ROTATED // size))
            weights = [torch.randn(outputs, inputs, device=device, dtype=dtype) for _ in range(count)]
            for rows in ROWS:
                if report.left() < 2:
                    report.not_run(f"{name}, {rows} rows", "no time left")
                    continue
                x = torch.randn(rows, inputs, device=device, dtype=dtype)
                seconds = best(watch, x, weights, 2 if small else 5)
                report.add(
                    "products",
                    {
                        "product": name,
                        "outputs": outputs,
                        "inputs": inputs,
                        "rows": rows,
                        "seconds": seconds,
                        "bytesPerSecond": size / seconds,
                        "flopsPerSecond": 2 * rows * outputs * inputs / seconds,
                    },
                )
            del weights


def best(watch, x, weights, rounds):
    """Seconds of one product, of the best round."""
    taken = []
    for _ in range(rounds + 1):
        start = watch.now()
        for weight in weights:
            x @ weight.T
        taken.append((watch.now() - start) / len(weights))
    return min(taken[1:])
