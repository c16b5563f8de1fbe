"""Goldens of the embedded model: pixels, vision features, projector, logits and greedy tokens of four scenes."""

import json

from PIL import Image
from transformers import AutoProcessor, CLIPImageProcessorPil, LlavaForConditionalGeneration

import torch
from common import DATA, SCENES, TINY_LLAVA, greedy, image_arrays, relative, vision_features, write_arrays, write_json

CASES = [0, 1, 7, 19]
TOKENS = 48


def load():
    processor = AutoProcessor.from_pretrained(TINY_LLAVA)
    processor.image_processor = CLIPImageProcessorPil.from_pretrained(TINY_LLAVA)
    model = LlavaForConditionalGeneration.from_pretrained(TINY_LLAVA, dtype=torch.float32, attn_implementation="eager")
    return processor, model.eval()


def user_turn(question):
    return {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}


def main():
    processor, model = load()
    samples = json.loads((SCENES / "samples.json").read_text())
    arrays, cases = {}, []
    for number, index in enumerate(CASES):
        sample = samples[index]
        name = sample["image"].removesuffix(".png")
        text = processor.apply_chat_template([user_turn(sample["question"])], add_generation_prompt=True)
        inputs = processor(text=text, images=Image.open(SCENES / sample["image"]), return_tensors="pt")
        pixels = inputs["pixel_values"]
        vision, projected = vision_features(model, pixels)
        logits, ids, steps = greedy(model, inputs, TOKENS, eos=[2])
        rows = list(range(vision.shape[1])) if number == 0 else list(range(0, vision.shape[1], 8))
        arrays |= image_arrays(name, pixels, processor.image_processor, seed=index)
        arrays |= {f"{name}.vision": vision[:, rows], f"{name}.projected": projected[:, rows]}
        # Of the first every second position, and of all the last one.
        logit_rows = [*range(0 if number == 0 else len(logits) - 1, len(logits), 2)]
        assert logit_rows[-1] == len(logits) - 1
        arrays[f"{name}.logits"] = logits[logit_rows]
        cases.append(
            {
                "name": name,
                "images": [relative(SCENES / sample["image"])],
                "text": text,
                "input_ids": inputs["input_ids"][0].tolist(),
                "feature_rows": rows,
                "logit_rows": logit_rows,
                "tokens": ids,
                "answer": processor.tokenizer.decode(ids, skip_special_tokens=True),
                "steps": steps,
            }
        )
    write_arrays(DATA / "tiny-llava.safetensors", arrays)
    write_json(DATA / "tiny-llava.json", {"model": relative(TINY_LLAVA), "cases": cases})


if __name__ == "__main__":
    main()
