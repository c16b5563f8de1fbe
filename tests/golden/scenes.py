"""The 60 scenes under transformers: log-probabilities of the reference answers and greedy descriptions."""

import json
import math

from PIL import Image

import torch
from common import DATA, SCENES, TINY_LLAVA, relative, write_json
from tiny_llava import load, user_turn

MAX_NEW_TOKENS = 256


def reference_logprobs(processor, model, image, sample):
    """Teacher forcing in one pass: the answer's tokens (with `</s>`) and the natural log-probability of each."""
    question = [user_turn(sample["question"])]
    answer = {"role": "assistant", "content": [{"type": "text", "text": sample["answer"]}]}
    texts = [processor.apply_chat_template(m, add_generation_prompt=True) for m in (question, question + [answer])]
    prompt, full = (processor(text=text, images=image, return_tensors="pt") for text in texts)
    start = prompt["input_ids"].shape[1]
    assert full["input_ids"][0, :start].tolist() == prompt["input_ids"][0].tolist()
    tokens = full["input_ids"][0, start:]
    rows = model(**full).logits[0, start - 1 : -1].float().log_softmax(-1)
    return prompt, tokens.tolist(), rows.gather(1, tokens[:, None])[:, 0].tolist()


def main():
    processor, model = load()
    scenes, total, count = [], 0.0, 0
    for sample in json.loads((SCENES / "samples.json").read_text()):
        image = Image.open(SCENES / sample["image"])
        prompt, tokens, logprobs = reference_logprobs(processor, model, image, sample)
        out = model.generate(
            **prompt, do_sample=False, max_new_tokens=MAX_NEW_TOKENS, output_logits=True, return_dict_in_generate=True
        )
        greedy = out.sequences[0, prompt["input_ids"].shape[1] :].tolist()
        best = torch.cat(out.logits).topk(2).values
        total, count = total - sum(logprobs), count + len(tokens)
        scenes.append(
            {
                "image": sample["image"],
                "question": sample["question"],
                "prompt_tokens": prompt["input_ids"].shape[1],
                "tokens": tokens,
                "logprobs": [round(p, 6) for p in logprobs],
                "ppl": round(math.exp(-sum(logprobs) / len(tokens)), 8),
                "greedy": greedy,
                "least_gap": round(float((best[:, 0] - best[:, 1]).min()), 6),
            }
        )
    overall = {"tokens": count, "nll": round(total, 6), "ppl": round(math.exp(total / count), 8)}
    folders = {"model": relative(TINY_LLAVA), "images": relative(SCENES)}
    write_json(DATA / "scenes.json", folders | {"overall": overall, "scenes": scenes})


if __name__ == "__main__":
    main()
