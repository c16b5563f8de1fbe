"""Goldens of the fixtures: pixels, vision features, projector, prompt logits and 32 greedy tokens per prompt.

`generate.py --search` prints a seed per fixture for which greedy decoding is neither dull nor nearly tied. Names of fixtures
leave the others out."""

import sys

import numpy as np
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, LlavaProcessor
from transformers import PreTrainedTokenizerFast

import models
from common import DATA, IMAGES, greedy, image_arrays, relative, vision_features, write_arrays, write_json
from templates import IMAGE, text, turn

TOKENS = 32
ROWS = 48
LEAST_GAP, LEAST_DISTINCT = 0.01, 12

WIDE, TALL = "photo-300x200.png", "photo-97x211.png"
LLAVA_CASES = [
    ("image", [WIDE], [turn("user", IMAGE, text("What is in the picture?"))]),
    ("other-image", [TALL], [turn("user", IMAGE, text("What is in the picture?"))]),
    ("two-images", [WIDE, TALL], [turn("user", IMAGE, IMAGE, text("Which one is larger?"))]),
    ("no-image", [], [turn("user", text("Who are you?"))]),
    (
        "second-turn",
        [TALL],
        [turn("user", IMAGE, text("Describe it.")), turn("assistant", text("A ring.")), turn("user", text("And now?"))],
    ),
]
STORY = "Overall the picture contains four objects, namely a blue triangle, a gray ring, a green star and a cross. "
TEXT_CASES = [
    ("short", [], [turn("user", "Hello!")]),
    ("long", [], [turn("user", STORY * 2), turn("assistant", "Yes."), turn("user", "Which one is larger?")]),
]


def fallback(messages):
    """LLaVA-1.5's own prompt, for a checkpoint without a chat template."""
    out = []
    for message in messages:
        parts = message["content"]
        body = "".join("<image>\n" for p in parts if p["type"] == "image")
        body += "".join(p["text"] for p in parts if p["type"] == "text")
        out.append(f"USER: {body} ASSISTANT:" if message["role"] == "user" else f" {body}</s>")
    return "".join(out)


class Prompts:
    """Prepares the cases of one fixture from what lies in its folder."""

    def __init__(self, fixture):
        self.fixture = fixture
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(fixture.folder)
        self.processor = None
        if fixture.vision is not None:
            self.processor = LlavaProcessor.from_pretrained(fixture.folder)
            self.processor.image_processor = CLIPImageProcessorPil.from_pretrained(fixture.folder)

    def cases(self):
        cases = TEXT_CASES if self.processor is None else LLAVA_CASES
        return [case for case in cases if not self.fixture.cases or case[0] in self.fixture.cases]

    def render(self, messages):
        """A processor of transformers 5 does not look for a template in tokenizer_config.json; the tokenizer does."""
        where = self.fixture.template and self.fixture.template[0]
        if where is None:
            return fallback(messages)
        by = self.tokenizer if where == "tokenizer" else self.processor
        return by.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)

    def inputs(self, images, messages):
        """(prompt text, model inputs), by the calls that transformers documents for this kind of model."""
        if self.processor is not None:
            prompt = self.render(messages)
            pictures = [Image.open(IMAGES / name) for name in images] or None
            return prompt, self.processor(text=prompt, images=pictures, return_tensors="pt")
        if self.fixture.template is None:
            prompt = " ".join(message["content"] for message in messages)
            return prompt, self.tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        prompt = self.render(messages)
        return prompt, self.tokenizer(prompt, add_special_tokens=False, return_tensors="pt", return_token_type_ids=False)


def loaded(kind, folder, built):
    """A checkpoint, which has all of the weights of `built` and no others."""
    model, report = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    assert not any(report.values()), report
    want = dict(built.named_parameters())
    for name, weight in model.named_parameters():
        assert torch.equal(weight, want[name]), name
    return model.eval()


def load(fixture):
    kind = models.DECODERS[fixture.text["model_type"]] if fixture.vision is None else fixture.seeing[0]
    model = loaded(kind, fixture.folder, models.build(fixture))
    models.round_scale(fixture.dtype, model)
    return model


def flaw(fixture, runs, special_ids=models.special_ids):
    """Why these greedy runs make a poor golden; None if they make a good one."""
    for name, ids, steps in runs:
        gap = min(step["best"][1] - step["second"][1] for step in steps)
        if gap < LEAST_GAP:
            return f"{name}: gap {gap:.4f}"
        if len(set(ids)) < LEAST_DISTINCT:
            return f"{name}: {len(set(ids))} tokens"
        if set(special_ids(fixture)) & set(ids):
            return f"{name}: special token"
    if len({tuple(ids) for _, ids, _ in runs}) < len(runs):
        return "two cases agree"
    return None


def runs(model, prepared):
    for name, inputs in prepared:
        yield name, *greedy(model, inputs, TOKENS)[1:]


def good_seed(fixture, prompts, cases, of=models, runs=runs):
    """The first seed of a fixture of the module `of` whose greedy runs make a good golden."""
    prepared = [(name, prompts.inputs(images, messages)[1]) for name, images, messages in cases]
    for seed in range(2000):
        made = []
        for run in runs(of.build(fixture, seed), prepared):
            made.append(run)
            if flaw(fixture, made, of.special_ids):
                break
        else:
            return seed
    raise SystemExit(f"{fixture.name}: no good seed")


def search(fixture):
    prompts = Prompts(fixture)
    return good_seed(fixture, prompts, prompts.cases())


def pixel_samples(name, values, most):
    """Some `pixel_values` at `pixel_indices` (flat, C order)."""
    flat = np.asarray(values, np.float32).reshape(-1)
    chosen = np.sort(np.random.default_rng(0).choice(flat.size, min(most, flat.size), replace=False)).astype(np.uint32)
    return {f"{name}.pixel_indices": chosen, f"{name}.pixel_values": flat[chosen]}


def written(name, images, messages, prompt, inputs, rows, run, tokenizer, **own):
    """A case of a golden: its prompt, what is `own` to its kind, and its greedy run."""
    ids, steps = run
    return {
        "name": name,
        "images": [relative(IMAGES / image) for image in images],
        "messages": messages,
        "text": prompt,
        "input_ids": inputs["input_ids"][0].tolist(),
        **own,
        "logit_rows": rows,
        "tokens": ids,
        "answer": tokenizer.decode(ids, skip_special_tokens=True),
        "steps": steps,
    }


def make(fixture):
    model, prompts = load(fixture), Prompts(fixture)
    arrays, cases, made = {}, [], []
    for name, images, messages in prompts.cases():
        prompt, inputs = prompts.inputs(images, messages)
        logits, ids, steps = greedy(model, inputs, TOKENS)
        made.append((name, ids, steps))
        if images:
            vision, projected = vision_features(model, inputs["pixel_values"])
            arrays |= image_arrays(name, inputs["pixel_values"], prompts.processor.image_processor)
            arrays |= {f"{name}.vision": vision, f"{name}.projected": projected}
        count = len(logits)
        rows = sorted({*range(0, count, -(-count // ROWS)), count - 1}) if name in ("image", "long") else [count - 1]
        arrays[f"{name}.logits"] = logits[rows]
        feature_rows = list(range(vision.shape[1])) if images else []
        cases.append(written(name, images, messages, prompt, inputs, rows, (ids, steps), prompts.tokenizer, feature_rows=feature_rows))
    assert flaw(fixture, made) is None, (fixture.name, flaw(fixture, made))
    write_arrays(DATA / f"{fixture.name}.safetensors", arrays)
    write_json(DATA / f"{fixture.name}.json", {"model": relative(fixture.folder), "cases": cases})


if __name__ == "__main__":
    names = [name for name in sys.argv[1:] if not name.startswith("--")]
    for chosen in [one for one in models.ALL if not names or one.name in names]:
        if "--search" in sys.argv:
            print(f"{chosen.name}: seed {search(chosen)}", flush=True)
        else:
            make(chosen)
