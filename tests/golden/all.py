"""Makes everything under fixtures/ and data/ again, then checks it. `all.py --keep-inputs` leaves fixtures/ as it is."""

import runpy
import sys

from common import GOLDEN

INPUTS = ["pictures", "tokens", "models", "tiles_models", "qwen_vl_models", "anyres_models", "gemma3_models", "internvl_models", "planted"]
OUTPUTS = ["templates", "jinja", "declared", "configs", "tiny_llava", "scenes", "images", "generate", "tiles", "qwen_vl", "videos", "tile_videos", "anyres", "gemma3", "internvl", "wide", "layers", "sharing", "eviction", "pyramid_infer", "zipvl", "vision_zip", "rkv", "heads", "kvzip", "codebooks", "stores", "kvtuner", "skvq", "kvquant", "adapters", "lorc", "cskv", "minicache", "clla", "gguf_files", "gguf_pairs", "check"]

if __name__ == "__main__":
    keep = "--keep-inputs" in sys.argv
    sys.argv[1:] = []
    for script in OUTPUTS if keep else INPUTS + OUTPUTS:
        print(f"== {script}", flush=True)
        runpy.run_path(str(GOLDEN / f"{script}.py"), run_name="__main__")
