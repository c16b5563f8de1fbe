"""NVIDIA's kvpress: `kvpress.py FOLDER THREADS`, then one request per line (see child.ts), whose `press` is Python, or empty for none.

The prompt is read under the press, as its pipeline does it; then a bare greedy loop, without what `generate` adds to each step.
"""

import json
import os
import sys
import time

# This file has the name of the package that it needs.
sys.path.pop(0)
os.environ["HF_HUB_OFFLINE"] = "1"


def say(answer):
    print(json.dumps(answer), flush=True)


def main():
    folder, threads = sys.argv[1], int(sys.argv[2])
    try:
        import kvpress
        import torch
        import transformers
        from transformers import AutoTokenizer, DynamicCache, LlamaForCausalLM
    except ImportError as error:
        say({"error": f"the comparison needs PyTorch and kvpress (tests/golden/requirements-kvpress.txt): {error}"})
        return
    from contextlib import nullcontext
    from importlib.metadata import version

    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()

    def run(request):
        ids = tokenizer(request["prompt"], return_tensors="pt", add_special_tokens=False).input_ids
        press = eval(request["press"], vars(kvpress)) if request["press"] else lambda _model: nullcontext()
        cache = DynamicCache()
        model.set_attn_implementation("sdpa")
        start = time.perf_counter()
        with press(model):
            logits = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        token = logits[:, -1].argmax(-1, keepdim=True)
        tokens = [token.item()]
        prefill = time.perf_counter() - start
        model.set_attn_implementation(request["attention"])
        start = time.perf_counter()
        for step in range(request["steps"]):
            # Positions go on where the prompt ends, whatever the cache has left of it.
            places = torch.tensor([[ids.shape[1] + step]])
            logits = model(token, past_key_values=cache, position_ids=places, use_cache=True, logits_to_keep=1).logits
            token = logits[:, -1].argmax(-1, keepdim=True)
            tokens.append(token.item())
        decode = time.perf_counter() - start
        held = sum(side.untyped_storage().nbytes() for layer in cache.layers for side in (layer.keys, layer.values))
        return {"promptTokens": ids.shape[1], "tokens": tokens, "prefill": 1000 * prefill, "decode": 1000 * decode, "resident": held}

    versions = {"kvpress": version("kvpress"), "torch": torch.__version__, "transformers": transformers.__version__}
    say({"ready": "float32", "versions": versions})
    with torch.inference_mode():
        for line in sys.stdin:
            try:
                say(run(json.loads(line)))
            except Exception as error:
                say({"error": f"{type(error).__name__}: {error}"})


main()
