"""Videos through the small checkpoint of SmolVLM: what transformers computes with frames that have been chosen before, and how it writes
numbers and lengths.

The video processor needs torchvision, which is not there. So frames are resized as pictures that are not cut, with Pillow, which has the
same steps; the text is written by SmolVLMProcessor. A picture beside a video is put together by hand: the processor takes one or the other."""

from datetime import timedelta

import numpy as np
import torch
from num2words import num2words
from PIL import Image
from transformers import PreTrainedTokenizerFast, SmolVLMImageProcessorPil
from transformers.models.smolvlm import processing_smolvlm
from transformers.video_utils import VideoMetadata

from common import DATA, IMAGES, relative, write_arrays, write_json
from qwen_vl import best_two, sampled, streaming
from templates import IMAGE, text, turn
from tiles import Prompts, load
from tiles_models import ALL, special_ids
from videos import FRAMES, STEPS, VIDEO, asked, sure, wire

SECOND = 16
SMALL = "upscale-41x30.png"
CASES = [
    ("video", [(FRAMES[:4], {"fps": 0.5})], [VIDEO]),
    ("long", [(FRAMES[1:4], {"times": [0.9, 61.5, 3725.0]})], [text("Look: "), VIDEO]),
    ("beside", [SMALL, (FRAMES[1:3], {})], [IMAGE, VIDEO]),
]


class Films(Prompts):
    def __init__(self, fixture):
        super().__init__(fixture)
        self.fixture = fixture
        settings = {k: v for k, v in fixture.processor.items() if k != "image_processor_type"}
        self.frames = SmolVLMImageProcessorPil(**(settings | {"do_image_splitting": False}))
        made = processing_smolvlm.SmolVLMProcessor.__new__(processing_smolvlm.SmolVLMProcessor)
        made.image_seq_len, made.image_token, made.fake_image_token = fixture.cells, "<image>", "<fake_token_around_image>"
        made.global_image_token = "<global-img>"
        self.writer = made

    def render(self, messages):
        template = processing_smolvlm.DEFAULT_CHAT_TEMPLATE
        return self.tokenizer.apply_chat_template(messages, chat_template=template, add_generation_prompt=True, tokenize=False)

    def tiles(self, processor, names):
        return processor([[Image.open(IMAGES / name).convert("RGB") for name in names]], return_tensors="pt", return_row_col_info=True)

    def inputs(self, media, prompt):
        tiles, whole = [], ""
        for medium in media:
            before, prompt = prompt.split("<image>" if isinstance(medium, str) else "<video>", 1)
            if isinstance(medium, str):
                seen = self.tiles(self.image_processor, [medium])
                written = self.writer.replace_image_token({"rows": seen["rows"], "cols": seen["cols"]}, 0)
            else:
                names, timing = medium
                seen = self.tiles(self.frames, names)
                rate = timing.get("fps", 24.0)
                indices = timing.get("times") or list(range(len(names)))
                metadata = VideoMetadata(len(names), fps=1.0 if "times" in timing else rate, frames_indices=indices)
                written = self.writer.replace_video_token({"pixel_values": seen["pixel_values"], "video_metadata": [metadata]}, 0)
            tiles.append(seen["pixel_values"])
            whole += before + written
        ids = self.tokenizer.encode(whole + prompt, add_special_tokens=False)
        return {"input_ids": torch.tensor([ids])} | ({"pixel_values": torch.cat(tiles, 1)} if tiles else {})


def greedy(model, given, count, keep=None):
    out = model(**given, use_cache=True)
    n, past = given["input_ids"].shape[1], out.past_key_values
    if keep is not None:
        for layer in past.layers:
            layer.keys, layer.values = layer.keys[:, :, keep], layer.values[:, :, keep]
    last, row, ids, steps = out.logits[0, -1].numpy(), out.logits[0, -1], [], []
    while True:
        steps.append(best_two(row))
        ids.append(steps[-1]["best"][0])
        if len(ids) == count:
            return last, ids, steps
        at = torch.tensor([[n + len(ids) - 1]])
        out = model(input_ids=torch.tensor([[ids[-1]]]), position_ids=at, past_key_values=past, use_cache=True)
        past, row = out.past_key_values, out.logits[0, -1]


def make(fixture):
    films, model = Films(fixture), load(fixture)
    special = set(special_ids(fixture))
    arrays, cases = {}, []

    def one(media, parts, question, keep=False):
        messages = [turn("user", *parts, text(question))]
        prompt = films.render(messages)
        given = films.inputs(media, prompt)
        kept = streaming(given["input_ids"].shape[1]) if keep else None
        last, ids, steps = greedy(model, given, STEPS, kept)
        return (messages, prompt, given, kept, last, ids) if sure(steps) and not special & set(ids) else None

    for name, media, parts in CASES:
        messages, prompt, given, _, last, ids = asked(lambda question: one(media, parts, question))
        arrays[f"{name}.logits"] = last
        frames = films.tiles(films.frames, media[-1][0])["pixel_values"]
        made = model.model.get_image_features(frames, torch.ones(frames[:, :, 0].shape, dtype=torch.bool))
        rows = made.pooler_output if hasattr(made, "pooler_output") else made
        arrays[f"{name}.features"] = torch.cat([row.reshape(-1, row.shape[-1]) for row in rows]).numpy()
        arrays[f"{name}.pixel_indices"], arrays[f"{name}.pixel_values"] = sampled(np.asarray(frames))
        case = {"name": name, "media": [wire(medium) for medium in media], "messages": messages, "text": prompt}
        cases.append(case | {"input_ids": given["input_ids"][0].tolist(), "tokens": ids})
    name, media, parts = CASES[0]
    messages, prompt, given, kept, _, ids = asked(lambda question: one(media, parts, question, keep=True))
    cache = {"method": "streaming", "keep": len(kept) / given["input_ids"].shape[1], "decode": "none"}
    evicted = {"media": [wire(medium) for medium in media], "text": prompt, "cache": cache, "kept": kept, "tokens": ids}

    def later(question):
        prompt = films.render([turn("user", *parts, text(question))])
        first = films.inputs(media, prompt)
        _, answer, sure_of = greedy(model, first, 8)
        then = "<end_of_utterance>\n" + films.render([turn("user", IMAGE, text("And this?"))]).removeprefix("<|im_start|>")
        second = films.inputs([SMALL], then)
        ids = torch.cat([first["input_ids"], torch.tensor([answer]), second["input_ids"]], 1)
        given = {"input_ids": ids, "pixel_values": torch.cat([first["pixel_values"], second["pixel_values"]], 1)}
        last, tokens, steps = greedy(model, given, SECOND)
        if not sure(sure_of) or not sure(steps) or special & set(answer + tokens):
            return None
        case = {"media": [wire(medium) for medium in media], "text": prompt, "answer": answer, "more": [wire(SMALL)], "then": then}
        return case | {"input_ids": ids[0].tolist(), "tokens": tokens}, last

    then, arrays["later.logits"] = asked(later)
    write_arrays(DATA / f"{fixture.name}-videos.safetensors", arrays)
    golden = {"model": relative(fixture.folder), "cases": cases, "evicted": evicted, "later": then}
    write_json(DATA / f"{fixture.name}-videos.json", golden)


if __name__ == "__main__":
    lengths = [[seconds, str(timedelta(seconds=seconds))] for seconds in (0, 9, 61, 3599, 3600, 45296, 86400, 180061, 1000000)]
    numbers = sorted({*range(1, 122), *range(137, 768, 29), 200, 700, 768})
    write_json(DATA / "video_words.json", {"words": [[number, num2words(number)] for number in numbers], "lengths": lengths})
    make(next(fixture for fixture in ALL if fixture.marks))
