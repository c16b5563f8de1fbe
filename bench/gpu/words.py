"""Prompts of an exact number of tokens, and what a step of a shape must compute and read."""

import math
import random

WORDS = "a red blue green black star ring heart circle image left right top".split()


def prompt_of(tokens, seed):
    """Each word is a token to tiny-llava's tokenizer, which adds one at the start. They are drawn, so that entries differ."""
    drawn = random.Random(seed)
    return "".join(f" {drawn.choice(WORDS)}" for _ in range(tokens - 1))


def block_weights(shape):
    hidden = shape["hidden"]
    return shape["layers"] * hidden * (4 * hidden + 3 * shape["intermediate"])


def prefill_flops(shape, tokens):
    """Of one prompt, of which only the last token needs logits; two products over the lower triangle of the scores."""
    linear = 2 * block_weights(shape) * tokens + 2 * shape["vocabulary"] * shape["hidden"]
    return linear + 4 * shape["layers"] * shape["hidden"] * tokens * (tokens + 1) // 2


def step_weight_bytes(shape):
    """Weights that a decode step reads once, whatever the batch, in f16; of the table of embeddings it takes single rows."""
    return 2 * (block_weights(shape) + shape["vocabulary"] * shape["hidden"])


def kv_bytes(shape):
    """Of one position over all layers, in f16."""
    return 4 * shape["layers"] * shape["hidden"]


def apart(some, others):
    """The most that two lists of numbers differ; None where one is no number, or where they have not the same length, or none."""
    if (
        len(some) != len(others)
        or not some
        or not all(isinstance(one, float) and math.isfinite(one) for one in [*some, *others])
    ):
        return None
    return max(abs(a - b) for a, b in zip(some, others))
