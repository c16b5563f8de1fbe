"""LoRA adapters for some of the fixtures, in the format of PEFT and with the names of old and new transformers, and what the models compute
with them: `W + scale * B A` by hand in f32, then transformers.

`adapters.py --search` prints a seed per adapter for which greedy decoding is neither dull nor nearly tied. Where peft can be imported (it is in no
list of requirements), `adapters.py --peft` loads every adapter with it and compares the logits."""

import json
import math
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import generate
import models
from common import DATA, FIXTURES, IMAGES, greedy, image_arrays, relative, vision_features, write_arrays, write_json

ADAPTERS = FIXTURES / "adapters"
OUTER = "base_model.model."
TEXT = r"(q|k|v|o|gate|up|down)_proj"
# In memory, as transformers 5 has it, and as it had it before.
OLD = [
    (r"^model\.language_model\.", "language_model.model."),
    (r"^lm_head\.", "language_model.lm_head."),
    (r"^model\.vision_tower\.", "vision_tower.vision_model."),
    (r"^model\.multi_modal_projector\.", "multi_modal_projector."),
]


@dataclass
class Adapter:
    name: str
    seed: int
    targets: str
    """A pattern of modules, by their names in memory"""
    dtype: torch.dtype
    config: dict = field(default_factory=dict)
    whole: tuple[str, ...] = ()
    old: bool = False
    size: float = 0.2

    @property
    def folder(self):
        return ADAPTERS / self.name


@dataclass
class Golden:
    name: str
    fixture: str
    adapters: list[Adapter]
    cases: tuple[str, ...]


TEXT_ONLY = Adapter(
    "llama",
    0,
    rf"model\.layers\.\d+\.(self_attn|mlp)\.{TEXT}",
    torch.float16,
    {"r": 2, "lora_alpha": 3, "rank_pattern": {"k_proj": 4, "layers\\.1\\.mlp.*": 1}, "alpha_pattern": {"^model.layers.0.self_attn.k_proj": 8}},
    whole=("lm_head.weight", "model.norm.weight"),
)
TIED = Adapter(
    "tied",
    0,
    r"model\.embed_tokens|model\.layers\.\d+\.self_attn\.(q|v)_proj",
    torch.bfloat16,
    {"r": 4, "lora_alpha": 4, "use_rslora": True, "fan_in_fan_out": True},
)
FUSED = Adapter("fused", 0, r"model\.layers\.\d+\.(self_attn\.qkv_proj|mlp\.gate_up_proj|self_attn\.o_proj)", torch.float16, {"r": 3, "lora_alpha": 6})
PICTURES = Adapter(
    "llava",
    2,
    rf"model\.language_model\.layers\.\d+\.(self_attn|mlp)\.{TEXT}|lm_head"
    r"|model\.vision_tower\.(encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc\d)|embeddings\.patch_embedding)"
    r"|model\.multi_modal_projector\.linear_\d",
    torch.float16,
    {"r": 2, "lora_alpha": 4},
)
OLD_NAMES = Adapter(
    "llava-old-names",
    0,
    r"model\.language_model\.layers\.\d+\.self_attn\.(q|v)_proj|model\.vision_tower\.encoder\.layers\.\d+\.self_attn\.(k|out)_proj",
    torch.bfloat16,
    {"r": 2, "lora_alpha": 2},
    whole=("model.multi_modal_projector.linear_2.weight",),
    old=True,
)
NEW_NAMES = Adapter("llava-new-names", 0, r"model\.language_model\.layers\.\d+\.(self_attn\.v|mlp\.down)_proj|lm_head", torch.float32, {"r": 1, "lora_alpha": 2})
ALL = [TEXT_ONLY, TIED, FUSED, PICTURES, OLD_NAMES, NEW_NAMES]
GOLDENS = [
    Golden("adapted-llama", "llama3-rope", [TEXT_ONLY], ("short",)),
    Golden("adapted-tied", "llama-linear-tied", [TIED], ("short",)),
    Golden("adapted-fused", "phi3-fused", [FUSED], ("short",)),
    Golden("adapted-llava", "llava-gqa64", [PICTURES], ("image", "no-image")),
    Golden("adapted-twice", "llava-layers-sharded", [OLD_NAMES, NEW_NAMES], ("image", "no-image")),
]


def fixture_of(name):
    return next(one for one in models.ALL if one.name == name)


def pattern(table, module):
    """The first entry whose pattern is the end of a module's name, as PEFT looks it up."""
    return next((value for key, value in table.items() if re.match(rf"(.*\.)?({key})$", module)), None)


def settings(adapter, module):
    config = adapter.config
    rank = pattern(config.get("rank_pattern", {}), module) or config["r"]
    alpha = pattern(config.get("alpha_pattern", {}), module) or config["lora_alpha"]
    return rank, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def saved(adapter, name):
    for start, theirs in OLD if adapter.old else []:
        name = re.sub(start, theirs, name)
    return OUTER + name


def draw(adapter, model, seed):
    """The tensors of an adapter, by their names in memory."""
    generator = torch.Generator().manual_seed(1000 + seed)
    normal = lambda shape, size: (torch.randn(*shape, generator=generator) * size).to(adapter.dtype)
    tensors = {}
    for name, module in model.named_modules():
        if not re.fullmatch(adapter.targets, name):
            continue
        rank, _ = settings(adapter, name)
        shape = module.weight.shape
        if isinstance(module, torch.nn.Embedding):
            tensors[f"{name}.lora_embedding_A"] = normal((rank, shape[0]), adapter.size)
            tensors[f"{name}.lora_embedding_B"] = normal((shape[1], rank), adapter.size)
            tensors[f"{name}.base_layer.weight"] = module.weight.detach().to(adapter.dtype)
        else:
            inner = math.prod(shape[1:]) ** -0.5
            tensors[f"{name}.lora_A.weight"] = normal((rank, *shape[1:]), 2 * inner)
            tensors[f"{name}.lora_B.weight"] = normal((shape[0], rank, *[1] * (len(shape) - 2)), adapter.size)
    for name in adapter.whole:
        weight = model.get_parameter(name)
        tensors[name] = (weight + torch.randn(weight.shape, generator=generator) * adapter.size * weight.std()).to(adapter.dtype)
    return tensors


def save(adapter, model):
    tensors = draw(adapter, model, adapter.seed)
    adapter.folder.mkdir(parents=True, exist_ok=True)
    file = adapter.folder / "adapter_model.safetensors"
    save_file({saved(adapter, name): tensor.contiguous() for name, tensor in tensors.items()}, file, {"format": "pt"})
    file.chmod(0o644)
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": "somebody/else",
        "bias": "none",
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_dropout": 0.05,
        "target_modules": sorted({name.rsplit(".lora_", 1)[0].rsplit(".", 1)[-1] for name in tensors if ".lora_" in name}),
        "modules_to_save": [saved(adapter, name).removeprefix(OUTER).rsplit(".", 1)[0] for name in adapter.whole] or None,
        "use_dora": False,
        "task_type": "CAUSAL_LM",
    } | adapter.config
    write_json(adapter.folder / "adapter_config.json", config)


def merge(adapter, model, tensors):
    """Changes the weights of `model`: tensors that are whole first, then the pairs."""
    # The model's own layer, which its output layer may be too.
    for name, tensor in tensors.items():
        if name.endswith(".base_layer.weight"):
            model.get_submodule(name.removesuffix(".base_layer.weight")).weight.copy_(tensor.float())
    untied = lambda weight: torch.nn.Parameter(weight.clone(), requires_grad=False)
    # The output layer is trained by itself, also where it was the embeddings.
    head = model.get_output_embeddings()
    head.weight = untied(head.weight)
    for name in adapter.whole:
        model.get_parameter(name).copy_(tensors[name].float())
    for name, first in tensors.items():
        if name.endswith(".lora_A.weight"):
            module = name.removesuffix(".lora_A.weight")
            second = tensors[f"{module}.lora_B.weight"]
            change = second.float().flatten(1) @ first.float().flatten(1)
        elif name.endswith(".lora_embedding_A"):
            module = name.removesuffix(".lora_embedding_A")
            change = (tensors[f"{module}.lora_embedding_B"].float() @ first.float()).T
        else:
            continue
        weight = model.get_submodule(module).weight
        weight += settings(adapter, module)[1] * change.reshape(weight.shape)


def read(adapter):
    """Back from the file, with the names in memory."""
    tensors = load_file(adapter.folder / "adapter_model.safetensors")
    back = [(theirs.replace(".", r"\."), start.strip("^").replace("\\.", ".")) for start, theirs in OLD] if adapter.old else []
    named = {}
    for name, tensor in tensors.items():
        name = name.removeprefix(OUTER)
        for theirs, start in back:
            name = re.sub(f"^{theirs}", start, name)
        named[name] = tensor
    return named


def cases_of(golden):
    fixture = fixture_of(golden.fixture)
    prompts = generate.Prompts(fixture)
    return fixture, prompts, [case for case in prompts.cases() if case[0] in golden.cases]


def search(golden):
    fixture, prompts, cases = cases_of(golden)
    prepared = [(name, prompts.inputs(images, messages)[1]) for name, images, messages in cases]
    for seed in range(500):
        model = generate.load(fixture)
        for adapter in golden.adapters:
            merge(adapter, model, draw(adapter, generate.load(fixture), seed))
        runs = []
        for name, inputs in prepared:
            runs.append((name, *greedy(model, inputs, generate.TOKENS)[1:]))
            if generate.flaw(fixture, runs):
                break
        else:
            return seed
    raise SystemExit(f"{golden.name}: no good seed")


def with_peft(golden, inputs, logits):
    from peft import PeftModel

    model = generate.load(fixture_of(golden.fixture))
    names = [adapter.name for adapter in golden.adapters]
    with tempfile.TemporaryDirectory() as folder:
        for adapter in golden.adapters:
            shutil.copytree(adapter.folder, f"{folder}/{adapter.name}")
            if adapter.old:
                # peft takes the names that the transformers beside it has.
                tensors = {OUTER + name: tensor for name, tensor in read(adapter).items()}
                save_file(tensors, f"{folder}/{adapter.name}/adapter_model.safetensors")
                config = json.loads((adapter.folder / "adapter_config.json").read_text())
                config["modules_to_save"] = [name.rsplit(".", 1)[0] for name in adapter.whole]
                write_json(Path(folder) / adapter.name / "adapter_config.json", config)
        adapted = PeftModel.from_pretrained(model, f"{folder}/{names[0]}", adapter_name=names[0])
        for name in names[1:]:
            adapted.load_adapter(f"{folder}/{name}", adapter_name=name)
    adapted.base_model.set_adapter(names)
    adapted.eval()
    theirs = adapted(**inputs).logits[0].numpy()
    print(f"{golden.name}: largest difference from peft {abs(theirs - logits).max():.2e} of {abs(logits).max():.1f}")


def make(golden):
    fixture, prompts, cases = cases_of(golden)
    model = generate.load(fixture)
    plain = generate.load(fixture)
    for adapter in golden.adapters:
        save(adapter, plain)
        merge(adapter, model, read(adapter))
    arrays, written, runs = {}, [], []
    for name, images, messages in cases:
        prompt, inputs = prompts.inputs(images, messages)
        logits, ids, steps = greedy(model, inputs, generate.TOKENS)
        before = greedy(plain, inputs, 1)[0]
        assert abs(logits - before).max() > 1, (golden.name, "the adapter changes next to nothing")
        runs.append((name, ids, steps))
        if "--peft" in sys.argv:
            with_peft(golden, inputs, logits)
        if images:
            vision, projected = vision_features(model, inputs["pixel_values"])
            arrays |= {f"{name}.vision": vision, f"{name}.projected": projected}
        count = len(logits)
        rows = sorted({0, count // 3, 2 * count // 3, count - 1})
        arrays[f"{name}.logits"] = logits[rows]
        written.append(
            {
                "name": name,
                "images": [relative(IMAGES / image) for image in images],
                "text": prompt,
                "input_ids": inputs["input_ids"][0].tolist(),
                "feature_rows": list(range(vision.shape[1])) if images else [],
                "logit_rows": rows,
                "tokens": ids,
                "steps": steps,
            }
        )
    assert generate.flaw(fixture, runs) is None, (golden.name, generate.flaw(fixture, runs))
    write_arrays(DATA / f"{golden.name}.safetensors", arrays)
    folders = [relative(adapter.folder) for adapter in golden.adapters]
    write_json(DATA / f"{golden.name}.json", {"model": relative(fixture.folder), "adapters": folders, "cases": written})


if __name__ == "__main__":
    for chosen in GOLDENS:
        if "--search" in sys.argv:
            print(f"{chosen.name}: seed {search(chosen)}", flush=True)
        else:
            make(chosen)
