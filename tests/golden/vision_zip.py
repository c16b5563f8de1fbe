"""VisionZip (arXiv 2412.04467) with the tower and the language model of transformers, from the authors' text and their code at 3151f6d:
attention as the tower gives it, keys as its layer projects them, and the language model reads the rows that are left at their own
positions. Prompts, pictures and answers are those of data/NAME.json."""

import base64
import json

import torch
from PIL import Image
from transformers import AutoProcessor, CLIPImageProcessorPil, LlavaForConditionalGeneration
from transformers.cache_utils import DynamicCache

from common import DATA, ROOT, bits, write_json

DEFAULTS = {"images": 0.3333, "contextual": 0.15625}
# Of attention at the cut, and of the two nearest keys.
UNDECIDED = 1e-5
TOKENS = 24


class Tower:
    """A picture as the tower sees it."""

    def __init__(self, model, pixels):
        config, tower = model.config, model.model.vision_tower
        chosen = config.vision_feature_layer
        depths = [index % (config.vision_config.num_hidden_layers + 1) for index in ([chosen] if isinstance(chosen, int) else chosen)]
        inner = getattr(tower, "vision_model", tower)
        layer, taken = inner.encoder.layers[max(depths) - 1], {}
        hook = layer.self_attn.k_proj.register_forward_hook(lambda _module, _given, made: taken.update(keys=made))
        out = tower(pixels[None], output_hidden_states=True, output_attentions=True)
        hook.remove()
        full = config.vision_feature_select_strategy == "full"
        self.lead = 1 if full else 0
        features = torch.cat([out.hidden_states[depth] for depth in depths], -1)[0]
        self.features = features if full else features[1:]
        self.attention = out.attentions[max(depths) - 1][0, :, 0, 1:].sum(0)
        heads = config.vision_config.num_attention_heads
        self.keys = taken["keys"][0, 1:].unflatten(-1, (heads, -1)).mean(1)
        # The next layer asks with keys of its own, so this is the right one.
        assert torch.allclose(out.attentions[max(depths) - 1].sum(-1), torch.ones(()), atol=1e-5)


def zipped(tower, options):
    """Numbers of the positions that go on, the target of each that is merged, and features of what goes on."""
    n = len(tower.features)
    kept = max(1, int(options["images"] * n + 0.5))
    contextual = int(options["contextual"] * kept + 0.5)
    dominant = kept - contextual - tower.lead
    values, order = tower.attention.sort(descending=True)
    assert not 0 < dominant < len(values) or (values[dominant - 1] - values[dominant]) / values[dominant] > UNDECIDED
    first = set(order[:dominant].tolist())
    rest = [patch for patch in range(len(values)) if patch not in first]
    targets = rest[:: max(1, len(rest) // max(1, contextual))][:contextual]
    keys = tower.keys / tower.keys.norm(dim=-1, keepdim=True)
    into, features = {}, tower.features.clone()
    for patch in [patch for patch in rest if patch not in targets] if targets else []:
        near, which = (keys[patch] @ keys[targets].T).sort(descending=True)
        assert len(targets) == 1 or near[0] - near[1] > UNDECIDED, (patch, near)
        into[patch] = targets[which[0]]
    for target in targets:
        own = [tower.lead + patch for patch, of in into.items() if of == target]
        if own:
            features[tower.lead + target] += tower.features[own].mean(0)
    rows = sorted([*range(tower.lead), *(tower.lead + patch for patch in [*first, *targets])])
    assert len(rows) == kept
    return rows, [tower.lead + into[patch] for patch in sorted(into)], features[rows]


def check(model, case, towers, options):
    ids, image = torch.tensor(case["input_ids"]), model.config.image_token_id
    places, embedded = (ids == image).nonzero()[:, 0].tolist(), model.get_input_embeddings()(ids)
    rows, pictures = [place for place, token in enumerate(ids.tolist()) if token != image], []
    for number, tower in enumerate(towers):
        n = len(tower.features)
        own, into, features = zipped(tower, options)
        projected = model.model.multi_modal_projector(features[None])[0]
        at = [places[number * n + row] for row in own]
        embedded[at] = projected
        rows += at
        width = projected.shape[-1]
        shown = [float(f"{float(row[7 * index % width]):.5g}") for index, row in enumerate(projected)]
        pictures.append({"kept": bits(own, n), "into": base64.b64encode(bytes(into)).decode(), "features": shown})
    rows.sort()
    text = model.model.language_model
    cache = DynamicCache(config=model.config.text_config)
    read = dict(use_cache=True, past_key_values=cache)
    hidden = text(
        inputs_embeds=embedded[rows][None], position_ids=torch.tensor([rows]), attention_mask=torch.ones(1, len(rows)), **read
    ).last_hidden_state
    # As positions that no query sees.
    seen = torch.zeros(len(ids), dtype=torch.bool)
    seen[rows] = True
    mask = torch.ones(len(ids), len(ids), dtype=torch.bool).tril() & (seen | torch.eye(len(ids), dtype=torch.bool))
    masked = torch.where(mask, 0.0, torch.finfo(torch.float32).min)[None, None]
    hidden_too = text(inputs_embeds=embedded[None], attention_mask=masked, use_cache=False).last_hidden_state
    assert torch.allclose(hidden, hidden_too[:, rows], atol=2e-4), (hidden - hidden_too[:, rows]).abs().max()
    logprobs, row = [], model.lm_head(hidden[0, -1])
    for index, token in enumerate(case["tokens"][:TOKENS]):
        logprobs.append(round(float(row.log_softmax(-1)[token]), 5) or 0.0)
        place = torch.tensor([[len(ids) + index]])
        held = torch.ones(1, len(rows) + index + 1)
        row = model.lm_head(text(input_ids=torch.tensor([[token]]), position_ids=place, attention_mask=held, **read).last_hidden_state[0, -1])
    print(case["name"], json.dumps(options), f"{len(rows)} of {len(ids)}", f"sum of logprobs {sum(logprobs):.3f}", flush=True)
    return {"options": options, "images": pictures, "logprobs": logprobs[:: max(1, len(logprobs) // 8)]}


def scene(name, case_name, cases):
    golden = json.loads((DATA / f"{name}.json").read_text())
    folder = ROOT / golden["model"]
    case = next(case for case in golden["cases"] if case["name"] == case_name)
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    processor = AutoProcessor.from_pretrained(folder)
    processor.image_processor = CLIPImageProcessorPil.from_pretrained(folder)
    pictures = [Image.open(ROOT / path).convert("RGB") for path in case["images"]]
    towers = [Tower(model, pixels) for pixels in processor.image_processor(pictures, return_tensors="pt")["pixel_values"]]
    return {"of": name, "name": case_name, "cases": [check(model, case, towers, DEFAULTS | options) for options in cases]}


def main():
    tiny = json.loads((DATA / "tiny-llava.json").read_text())["cases"][0]["name"]
    scenes = [
        scene("tiny-llava", tiny, [{}, {"images": 0.25, "contextual": 0.5}, {"images": 0.1111, "contextual": 0.0}]),
        scene("llava-gqa64", "two-images", [{"images": 0.5, "contextual": 0.5}]),
        scene("llava-head128", "two-images", [{"images": 0.5, "contextual": 0.25}]),
        scene("llava-layers-sharded", "two-images", [{"images": 0.4, "contextual": 0.5}]),
    ]
    write_json(DATA / "vision_zip.json", {"scenes": scenes})


if __name__ == "__main__":
    main()
