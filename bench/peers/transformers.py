"""Their side of the comparison: `transformers.py FOLDER DTYPE THREADS`, then one request per line (see child.ts).

A bare greedy loop around the model, without what `generate` adds to each step.
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
    folder, dtype, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    try:
        import torch
        import transformers
        from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache
    except ImportError as error:
        say({"error": f"the comparison needs PyTorch and Hugging Face transformers: {error}"})
        return
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="sdpa").eval()

    def step(ids, cache):
        output = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return output.logits[:, -1].argmax(-1, keepdim=True)

    def run(request):
        ids = tokenizer(request["prompt"], return_tensors="pt").input_ids
        cache = DynamicCache(config=model.config)
        model.set_attn_implementation("sdpa")
        start = time.perf_counter()
        token = step(ids, cache)
        tokens = [token.item()]
        prefill = time.perf_counter() - start
        model.set_attn_implementation(request["attention"])
        start = time.perf_counter()
        for _ in range(request["steps"]):
            token = step(token, cache)
            tokens.append(token.item())
        decode = time.perf_counter() - start
        return {"promptTokens": ids.shape[1], "tokens": tokens, "prefill": 1000 * prefill, "decode": 1000 * decode}

    say({"ready": dtype, "versions": {"torch": torch.__version__, "transformers": transformers.__version__}})
    with torch.inference_mode():
        for line in sys.stdin:
            try:
                say(run(json.loads(line)))
            except Exception as error:
                say({"error": f"{type(error).__name__}: {error}"})


main()
