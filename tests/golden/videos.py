"""Videos through the small checkpoints of Qwen2-VL, Qwen2.5-VL and Qwen3-VL: what transformers computes with frames that have been chosen before.

The video processors need torchvision, which is not there. So frames are resized as the image processors do it, with Pillow; all else is
theirs: the sizes, the patches, the text of the times. The script draws the frames too: fixtures/images/film-N.png."""

import math

import numpy as np
import torch
from PIL import Image, ImageDraw
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize
from transformers.video_utils import VideoMetadata

# By its full name: the package hides what asks for torchvision.
import transformers.models.qwen3_vl.processing_qwen3_vl as processing_qwen3_vl
import transformers.models.qwen3_vl.video_processing_qwen3_vl as video_processing_qwen3_vl
from common import DATA, IMAGES, relative, write_arrays, write_json
from qwen_vl import Prompts, best_two, sampled, streaming
from qwen_vl_models import ALL, FIRST, PAD
from templates import IMAGE, text, turn

STEPS, SECOND = 32, 16
VIDEO = {"type": "video"}
FILM = PAD + 1
SQUARE = "square-168.png"
QUESTIONS = ["What happens?", "What moves?", "Describe the video.", "How does it end?", "What is shown?", "Who is it?", "Where does it go?", "Why?"]
FRAMES = [f"film-{number}.png" for number in range(5)]
EVEN, OWN = {"fps": 2.0}, {"times": [0.0, 0.4, 1.1, 2.5, 90.0]}
CASES = [
    ("video", [(FRAMES[:4], EVEN)], [VIDEO]),
    ("odd", [(FRAMES, OWN)], [text("Look: "), VIDEO]),
    ("beside", [SQUARE, (FRAMES[1:3], {})], [IMAGE, VIDEO]),
]


def draw():
    """A disc that falls past a bar, over a slope of colours."""
    for number, name in enumerate(FRAMES):
        y, x = np.mgrid[0:27, 0:43]
        picture = Image.fromarray(np.stack([6 * x, 9 * y, 90 + 3 * x + 0 * y], -1).clip(0, 255).astype(np.uint8))
        pen = ImageDraw.Draw(picture)
        pen.rectangle([4 + 6 * number, 3, 9 + 6 * number, 24], fill=(240, 240, 30))
        pen.ellipse([16, 5 * number, 27, 5 * number + 10], fill=(200, 20 * number, 60))
        picture.save(IMAGES / name, optimize=True)


def times(count, timing):
    """Seconds of each frame, and the rate."""
    if "times" in timing:
        own = timing["times"]
        return own, (count - 1) / (own[-1] - own[0])
    rate = timing.get("fps", 24.0)
    return [frame / rate for frame in range(count)], rate


class Films(Prompts):
    def __init__(self, family):
        super().__init__(family)
        self.third = family.name == "qwen3-vl"

    def size(self, count, height, width):
        limits = self.processor.size
        limits = {"min_pixels": limits["shortest_edge"], "max_pixels": limits["longest_edge"]}
        factor = self.processor.patch_size * self.processor.merge_size
        if self.third:
            return video_processing_qwen3_vl.smart_resize(count, height, width, temporal_factor=2, factor=factor, **limits)
        return smart_resize(height, width, factor, **limits)

    def film(self, names):
        """Rows of patches and the grid."""
        pictures = [Image.open(IMAGES / name).convert("RGB") for name in names]
        height, width = self.size(len(names), pictures[0].height, pictures[0].width)
        frames = [np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC)) for picture in pictures]
        mean, std = (np.array(value, np.float32) for value in (self.processor.image_mean, self.processor.image_std))
        values = [((frame.astype(np.float64) * (1 / 255)).astype(np.float32) - mean) / std for frame in frames]
        clip = torch.from_numpy(np.stack(values)).permute(0, 3, 1, 2)[None]
        patchify = video_processing_qwen3_vl.Qwen3VLVideoProcessor.patchify
        rows, *grid = patchify(None, clip, self.processor.patch_size, self.processor.merge_size, 2)
        return rows[0].contiguous(), torch.tensor([grid])

    def replacement(self, names, timing, grid):
        cells = int(grid[0, 1] * grid[0, 2]) // 4
        if not self.third:
            return "<|video_pad|>" * (int(grid[0, 0]) * cells)
        seconds, _ = times(len(names), timing)
        # Numbers of frames of a film of one frame a second: their seconds.
        metadata = VideoMetadata(total_num_frames=len(names), fps=1.0, frames_indices=list(seconds))
        made = processing_qwen3_vl.Qwen3VLProcessor.__new__(processing_qwen3_vl.Qwen3VLProcessor)
        made.video_processor = type("Sizes", (), {"merge_size": 2, "temporal_patch_size": 2})()
        made.video_token, made.vision_start_token, made.vision_end_token = "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"
        return made.replace_video_token({"video_grid_thw": grid, "video_metadata": [metadata]}, 0)

    def inputs(self, media, prompt):
        """`media` are pictures by name and videos, (frames, timing)."""
        pictures = [medium for medium in media if isinstance(medium, str)]
        given = self.pictures(pictures)
        grids = iter(given.get("image_grid_thw", []))
        films, whole = [], ""
        for medium in media:
            word = "<|image_pad|>" if isinstance(medium, str) else "<|video_pad|>"
            before, prompt = prompt.split(word, 1)
            if isinstance(medium, str):
                written = word * (int(next(grids).prod()) // 4)
            else:
                rows, grid = self.film(medium[0])
                written = self.replacement(*medium, grid)
                films.append((rows, grid, torch.tensor([2 / times(len(medium[0]), medium[1])[1]])))
            whole += before + written
        ids = torch.tensor([self.tokenizer.encode(whole + prompt, add_special_tokens=False)])
        given |= {"input_ids": ids, "mm_token_type_ids": (ids == PAD).int() + 2 * (ids == FILM).int()}
        if films:
            rows, grids, seconds = map(torch.cat, zip(*films))
            given |= {"pixel_values_videos": rows, "video_grid_thw": grids}
            if self.family.name == "qwen2.5-vl":
                given["second_per_grid_ts"] = seconds
        return given


def positions(model, given):
    taken = {key: value for key, value in given.items() if not key.startswith("pixel")}
    phases, delta = model.model.get_rope_index(**taken)
    return phases[:, 0].T.tolist(), int(delta[0, 0])


def greedy(model, given, count, keep=None):
    """As in qwen_vl.py, with videos."""
    model.model.rope_deltas = None
    _, delta = positions(model, given)
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
        phases = torch.full((3, 1, 1), n + delta + len(ids) - 1)
        out = model(input_ids=torch.tensor([[ids[-1]]]), position_ids=phases, past_key_values=past, use_cache=True)
        past, row = out.past_key_values, out.logits[0, -1]


def sure(steps):
    return min(step["best"][1] - step["second"][1] for step in steps) >= 0.01


def asked(run):
    """What `run` gives for the first question whose answer hangs on no rounding."""
    for question in QUESTIONS:
        found = run(question)
        if found is not None:
            return found
    raise SystemExit("no question has a clear answer")


def wire(medium):
    if isinstance(medium, str):
        return {"image": relative(IMAGES / medium)}
    return {"frames": [relative(IMAGES / name) for name in medium[0]], **medium[1]}


def make(family):
    films = Films(family)
    model = family.model.from_pretrained(family.folder, dtype=torch.float32, attn_implementation="eager").eval()
    arrays, cases, evicted = {}, [], None

    def one(name, media, parts, question, keep=None):
        messages = [turn("user", *parts, text(question))]
        prompt = films.render(messages)
        given = films.inputs(media, prompt)
        if keep is not None:
            keep = streaming(given["input_ids"].shape[1])
        last, ids, steps = greedy(model, given, STEPS, keep)
        if not sure(steps) or any(token >= FIRST for token in ids):
            return None
        return messages, prompt, given, keep, last, ids

    for name, media, parts in CASES:
        messages, prompt, given, _, last, ids = asked(lambda question: one(name, media, parts, question))
        arrays[f"{name}.logits"] = last
        made = model.model.get_video_features(given["pixel_values_videos"], given["video_grid_thw"])
        arrays[f"{name}.features"] = torch.cat(list(made.pooler_output)).numpy()
        for level, extra in enumerate(getattr(made, "deepstack_features", None) or []):
            arrays[f"{name}.deepstack.{level}"] = torch.cat(list(extra)).numpy() if isinstance(extra, (list, tuple)) else extra.numpy()
        arrays[f"{name}.pixel_indices"], arrays[f"{name}.pixel_values"] = sampled(given["pixel_values_videos"].numpy())
        phases, delta = positions(model, given)
        assert max(map(max, phases)) + 1 - len(phases) == delta
        case = {"name": name, "media": [wire(medium) for medium in media], "messages": messages, "text": prompt}
        case |= {"grid": given["video_grid_thw"][0].tolist(), "input_ids": given["input_ids"][0].tolist(), "phases": phases}
        cases.append(case | {"delta": delta, "tokens": ids})
    name, media, parts = CASES[0]
    messages, prompt, given, kept, _, ids = asked(lambda question: one(name, media, parts, question, keep=True))
    cache = {"method": "streaming", "keep": len(kept) / given["input_ids"].shape[1], "decode": "none"}
    evicted = {"media": [wire(medium) for medium in media], "text": prompt, "cache": cache, "kept": kept, "tokens": ids}

    def later(question):
        """A turn about the video, its answer, and a turn with a picture, all read at once."""
        prompt = films.render([turn("user", *parts, text(question))])
        _, answer, sure_of = greedy(model, films.inputs(media, prompt), 8)
        then = "<|im_end|>\n" + films.render([turn("user", IMAGE, text("And this?"))]).split("You are a helpful assistant.<|im_end|>\n")[-1]
        first, second = films.inputs(media, prompt), films.inputs([SQUARE], then)
        ids = torch.cat([first["input_ids"], torch.tensor([answer]), second["input_ids"]], 1)
        given = first | second | {"input_ids": ids, "mm_token_type_ids": (ids == PAD).int() + 2 * (ids == FILM).int()}
        last, tokens, steps = greedy(model, given, SECOND)
        if not sure(sure_of) or not sure(steps) or any(token >= FIRST for token in answer + tokens):
            return None
        case = {"media": [wire(medium) for medium in media], "text": prompt, "answer": answer, "more": [wire(SQUARE)], "then": then}
        return case | {"input_ids": ids[0].tolist(), "phases": positions(model, given)[0], "tokens": tokens}, last

    then, arrays["later.logits"] = asked(later)
    write_arrays(DATA / f"{family.name}-videos.safetensors", arrays)
    golden = {"model": relative(family.folder), "cases": cases, "evicted": evicted, "later": then}
    write_json(DATA / f"{family.name}-videos.json", golden)


def sizes():
    """The sizes of frames by Qwen3-VL's class: frames, height, width, and what they become, or nothing where it refuses."""
    draw = np.random.default_rng(1)
    some = [(2, 5, 9), (3, 20, 300), (7, 27, 43), (4, 1, 201), (2, 1, 200), (768, 1080, 1920), (3, 480, 640), (5, 100, 100)]
    some += [(int(draw.integers(2, 60)), *map(int, np.exp(draw.uniform(0, math.log(3000), 2)))) for _ in range(60)]
    found = []
    for factor, least, most in [(32, 4096, 25_165_824), (32, 131_072, 786_432), (8, 256, 2560)]:
        made = []
        for count, height, width in some:
            try:
                fitted = video_processing_qwen3_vl.smart_resize(count, height, width, 2, factor, least, most)
            except ValueError:
                fitted = (0, 0)
            made.append([count, height, width, *fitted])
        found.append({"factor": factor, "min_pixels": least, "max_pixels": most, "sizes": made})
    # How Python writes a mean of two times.
    seconds = [0.05, 0.15, 0.25, 0.35, 0.75, 1.25, 9.95, 10 / 3, 61.0, 1e6]
    write_json(DATA / "video_sizes.json", {"cases": found, "seconds": [[value, f"{value:.1f}"] for value in seconds]})


if __name__ == "__main__":
    draw()
    sizes()
    for family in ALL:
        make(family)
