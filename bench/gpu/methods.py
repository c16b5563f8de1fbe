"""Every method of the library with the options that change what is computed."""

import re

from abi import EngineError

# Name, options, and whether a GPU may refuse it (docs/design/cuda.md says which keys it cannot read).
VARIANTS = [
    ("full", {"method": "full"}, False),
    ("prefixkv", {"method": "prefixkv"}, False),
    ("h2o", {"method": "h2o"}, False),
    ("snapkv", {"method": "snapkv"}, False),
    ("streaming", {"method": "streaming"}, False),
    ("knorm", {"method": "knorm"}, False),
    ("random", {"method": "random"}, False),
    ("prefixkv window", {"method": "prefixkv", "score": "window"}, False),
    ("prefixkv text", {"method": "prefixkv", "score": "text"}, False),
    ("prefixkv calibrated", {"method": "prefixkv", "calibration": "evicted"}, False),
    ("prefixkv lowest-score", {"method": "prefixkv", "decode": "lowest-score", "recent": 16}, False),
    ("prefixkv decode none", {"method": "prefixkv", "decode": "none"}, False),
    ("prefixkv paper", {"method": "prefixkv", "variant": "paper"}, False),
    ("prefixkv official", {"method": "prefixkv", "positions": "official", "variant": "official"}, True),
    ("prefixkv protectText", {"method": "prefixkv", "protectText": True}, False),
    ("h2o sinks", {"method": "h2o", "sinks": 4, "recentShare": 0.25}, False),
    ("snapkv lowest-score", {"method": "snapkv", "decode": "lowest-score", "pool": "mean"}, False),
    ("knorm lowest-score", {"method": "knorm", "decode": "lowest-score", "recent": 16}, False),
    ("streaming cache", {"method": "streaming", "positions": "cache"}, True),
]


def known(model):
    """The names of the methods that the library has: its refusal of one that no library has lists them."""
    try:
        model.ask({"op": "generate", "prompt": "a", "maxTokens": 1, "cache": {"method": "?"}})
    except EngineError as error:
        listed = re.search(r"known are ([\w, -]+)", str(error))
        if listed:
            return listed.group(1).split(", ")
    return []


def variants(names):
    """The variants of these methods, and a plain one of each method that this program does not know."""
    strange = [(name, {"method": name}, False) for name in names if all(name != of["method"] for _, of, _ in VARIANTS)]
    return [one for one in VARIANTS if one[1]["method"] in names or not names] + strange


def sized(options, keep, layers):
    """The options of a variant at a size. A calibration is given as the published ones are: the evicted share of each layer."""
    if options["method"] == "full":
        return options
    found = {**options, "keep": keep}
    if options.get("calibration") == "evicted":
        found["calibration"] = [1 - keep] * layers
    return found
