"""Language models and their vision towers as pairs of GGUF files, of the small checkpoints that other scripts make.

They are written by the `gguf` package (0.19.0) with the names and metadata of llama.cpp's conversion, so that each says what the safetensors
of its twin say: the golden of the twin is the golden of the pair. `llava-bare` is as the first converter wrote towers: without a type, the
layers of MLPs under each other's names, the last block left out, no token for an image in the language model. Two towers exist in blocks too."""

import json

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as T
from safetensors import safe_open

from common import FIXTURES
from gguf_files import BYTE, CONTROL, NORMAL, UNKNOWN, finish, turned

FOLDER = FIXTURES / "gguf-pairs"

TEXT_LAYER = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
ENCODER_LAYER = {
    "layer_norm1": "ln1", "layer_norm2": "ln2", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out", "mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down",
}  # fmt: skip
QWEN_LAYER = {
    "norm1": "ln1", "norm2": "ln2", "attn.qkv": "attn_qkv", "attn.proj": "attn_out", "mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down",
    "mlp.linear_fc1": "ffn_up", "mlp.linear_fc2": "ffn_down", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip


class Twin:
    """A checkpoint in Hugging Face's layout."""

    def __init__(self, name):
        self.name, self.folder = name, FIXTURES / name
        read = lambda file: json.loads((self.folder / file).read_text())
        self.config, self.tokenizer, self.tokens = read("config.json"), read("tokenizer.json"), read("tokenizer_config.json")
        self.text = self.config.get("text_config", self.config)
        self.processor = read("preprocessor_config.json")
        template = self.folder / "chat_template.jinja"
        if template.exists():
            self.template = template.read_text()
        else:
            file = self.folder / "chat_template.json"
            self.template = json.loads(file.read_text())["chat_template"] if file.exists() else None
        with safe_open(self.folder / "model.safetensors", "pt") as file:
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}

    def under(self, *prefixes):
        for prefix in prefixes:
            found = {name.removeprefix(prefix): tensor for name, tensor in self.tensors.items() if name.startswith(prefix)}
            if found:
                return found
        raise KeyError(prefixes)


def add(writer, name, tensor, kind=None):
    """Matrices in f16, vectors in f32, as llama.cpp's conversion; or matrices in blocks, where their rows are whole ones."""
    numbers = tensor.float().numpy()
    if kind is None or numbers.ndim != 2 or numbers.shape[1] % 32 or "position" in name:
        writer.add_tensor(name, numbers if numbers.ndim == 1 or "position" in name else numbers.astype("f2"))
        return
    writer.add_tensor(name, gguf.quants.quantize(numbers, kind), raw_dtype=kind)


def vocabulary(twin, writer, count):
    model = twin.tokenizer["model"]
    added = {token["content"]: token["id"] for token in twin.tokenizer["added_tokens"]}
    texts = [text for text, _ in sorted((model["vocab"] | added).items(), key=lambda item: item[1])][:count]
    merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in model["merges"]]
    if model["byte_fallback"]:
        ranks = {}
        for rank, merge in enumerate(merges):
            ranks.setdefault("".join(merge), rank)
        kind = lambda text: UNKNOWN if text == "<unk>" else CONTROL if text in added else BYTE if text.startswith("<0x") else NORMAL
        kinds = [kind(text) for text in texts]
        scores = [-float(ranks.get(text, 1000 + id)) if kinds[id] == NORMAL else 0.0 for id, text in enumerate(texts)]
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_scores(scores)
    else:
        kinds = [CONTROL if text in added else NORMAL for text in texts]
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm" if "Digits" in json.dumps(twin.tokenizer["pre_tokenizer"]) else "qwen2")
        writer.add_token_merges([" ".join(merge) for merge in merges])
        writer.add_add_bos_token(False)
    writer.add_token_list(texts)
    writer.add_token_types(kinds)
    named = {"bos": "bos_token", "eos": "eos_token", "unk": "unk_token"}
    for name, key in named.items():
        if key in twin.tokens:
            getattr(writer, f"add_{name}_token_id")(texts.index(twin.tokens[key]))
    if twin.template is not None:
        writer.add_chat_template(twin.template)


def text(twin, architecture, defaults, layers, head, count=None, **more):
    """The language model. `defaults` are those of its class, `layers` its tensors, `head` the output's or None."""
    config = defaults | {key: value for key, value in twin.text.items() if value is not None}
    writer = gguf.GGUFWriter(FOLDER / twin.name / "model.gguf", architecture)
    writer.add_type("model")
    heads = config["num_attention_heads"]
    width = config.get("head_dim", config["hidden_size"] // heads)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads", heads))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    writer.add_rope_freq_base(rope.get("rope_theta", config.get("rope_theta", 10000.0)))
    writer.add_key_length(width)
    writer.add_value_length(width)
    if architecture == "llama":
        writer.add_rope_dimension_count(width)
    if "mrope_section" in rope:
        writer.add_rope_dimension_sections(rope["mrope_section"] + [0])
    if "deepstack" in more:
        writer.add_num_deepstack_layers(more["deepstack"])
    vocabulary(twin, writer, count)
    for name, tensor in layers.items():
        if name == "embed_tokens.weight":
            add(writer, "token_embd.weight", tensor[:count])
        elif name == "norm.weight":
            add(writer, "output_norm.weight", tensor)
        else:
            _, layer, rest = name.split(".", 2)
            part, kind = rest.rsplit(".", 1)
            if architecture == "llama" and part in ("self_attn.q_proj", "self_attn.k_proj"):
                tensor = tensor[turned(len(tensor), len(tensor) // width)]
            add(writer, f"blk.{layer}.{TEXT_LAYER[part]}.{kind}", tensor)
    if head is not None:
        add(writer, "output.weight", head[:count])
    finish(writer)


def tower(twin, file, projector, sizes, old=False):
    """The file of a tower, with its sizes."""
    writer = gguf.GGUFWriter(FOLDER / twin.name / file, "clip")
    if not old:
        writer.add_type("mmproj")
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type(projector)
    width, inner, blocks, heads, image, patch, epsilon, projection = sizes
    writer.add_vision_projection_dim(projection)
    writer.add_vision_image_size(image)
    writer.add_vision_patch_size(patch)
    writer.add_vision_embedding_length(width)
    writer.add_vision_feed_forward_length(inner)
    writer.add_vision_block_count(blocks)
    writer.add_vision_head_count(heads)
    writer.add_vision_attention_layernorm_eps(epsilon)
    writer.add_vision_image_mean(twin.processor["image_mean"])
    writer.add_vision_image_std(twin.processor["image_std"])
    return writer


LLAMA = {"rms_norm_eps": 1e-6, "max_position_embeddings": 2048}


def llava(name, old):
    twin = Twin(name)
    layers = twin.under("model.language_model.", "language_model.model.")
    head = twin.tensors.get("lm_head.weight", twin.tensors.get("language_model.lm_head.weight"))
    text(twin, "llama", LLAMA, layers, head, 478 if old else None)
    write_llava(twin, "mmproj.gguf", old, None)
    if not old:
        write_llava(twin, "blocks/mmproj-Q4_0.gguf", old, T.Q4_0)


def write_llava(twin, file, old, kind):
    vision = {"layer_norm_eps": 1e-5, "hidden_act": "quick_gelu"} | twin.config["vision_config"]
    width, blocks = vision["hidden_size"], vision["num_hidden_layers"] - 1
    (FOLDER / twin.name / file).parent.mkdir(exist_ok=True)
    sizes = (width, vision["intermediate_size"], blocks, vision["num_attention_heads"], vision["image_size"], vision["patch_size"])
    writer = tower(twin, file, "mlp", (*sizes, vision["layer_norm_eps"], vision["projection_dim"]), old)
    writer.add_bool("clip.has_llava_projector", True)
    writer.add_vision_use_gelu(vision["hidden_act"] == "gelu")
    if not old:
        writer.add_array("clip.vision.feature_layer", [blocks])
    swapped = {"ffn_up": "ffn_down", "ffn_down": "ffn_up"} if old else {}
    for name, tensor in twin.under("model.vision_tower.vision_model.", "model.vision_tower.", "vision_tower.vision_model.").items():
        if name.startswith("encoder.layers."):
            layer, rest = name.removeprefix("encoder.layers.").split(".", 1)
            part, kind_of = rest.rsplit(".", 1)
            part = ENCODER_LAYER[part]
            if int(layer) < blocks:
                add(writer, f"v.blk.{layer}.{swapped.get(part, part)}.{kind_of}", tensor, kind)
            continue
        plain = {
            "embeddings.class_embedding": "v.class_embd", "embeddings.patch_embedding.weight": "v.patch_embd.weight",
            "embeddings.position_embedding.weight": "v.position_embd.weight", "pre_layrnorm.weight": "v.pre_ln.weight",
            "pre_layrnorm.bias": "v.pre_ln.bias",
        }  # fmt: skip
        if name in plain:
            add(writer, plain[name], tensor)
    for name, tensor in twin.under("model.multi_modal_projector.", "multi_modal_projector.").items():
        add(writer, name.replace("linear_1", "mm.0").replace("linear_2", "mm.2"), tensor, kind)
    finish(writer)


def smolvlm(name):
    twin = Twin(name)
    text(twin, "llama", LLAMA, twin.under("model.text_model."), twin.tensors["lm_head.weight"])
    vision = twin.config["vision_config"]
    sizes = [vision[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size")]
    writer = tower(twin, "mmproj.gguf", "idefics3", (*sizes, vision["layer_norm_eps"], twin.text["hidden_size"]))
    writer.add_vision_projector_scale_factor(twin.config["scale_factor"])
    writer.add_vision_use_gelu(True)
    writer.add_vision_preproc_image_size(twin.processor["size"]["longest_edge"])
    plain = {"embeddings.patch_embedding": "v.patch_embd", "embeddings.position_embedding": "v.position_embd", "post_layernorm": "v.post_ln"}
    for name, tensor in twin.under("model.vision_model.").items():
        part, kind = name.rsplit(".", 1)
        if part in plain:
            add(writer, f"{plain[part]}.{kind}", tensor)
            continue
        layer, part = part.removeprefix("encoder.layers.").split(".", 1)
        add(writer, f"v.blk.{layer}.{ENCODER_LAYER[part]}.{kind}", tensor)
    add(writer, "mm.model.fc.weight", twin.tensors["model.connector.modality_projection.proj.weight"])
    finish(writer)


QWEN = {"max_position_embeddings": 2048, "rms_norm_eps": 1e-6}
PROJECTORS = {"qwen2_vl": "qwen2vl_merger", "qwen2_5_vl": "qwen2.5vl_merger", "qwen3_vl": "qwen3vl_merger"}


def qwen(name):
    twin = Twin(name)
    third = twin.config["model_type"] == "qwen3_vl"
    layers = {key: value for key, value in twin.under("model.language_model.", "model.").items() if not key.startswith("visual.")}
    head = None if twin.config["tie_word_embeddings"] else twin.tensors["lm_head.weight"]
    more = {"deepstack": len(twin.config["vision_config"]["deepstack_visual_indexes"])} if third else {}
    text(twin, "qwen3vl" if third else "qwen2vl", QWEN, layers, head, **more)
    write_qwen(twin, "mmproj.gguf", None)
    if name == "qwen2-vl":
        write_qwen(twin, "blocks/mmproj-Q8_0.gguf", T.Q8_0)


def write_qwen(twin, file, kind):
    (FOLDER / twin.name / file).parent.mkdir(exist_ok=True)
    vision, model_type = twin.config["vision_config"], twin.config["model_type"]
    width = vision.get("embed_dim", vision["hidden_size"])
    # As converters have it, which is another number in a Qwen2-VL: the language model's width.
    inner = vision["hidden_size"] if "embed_dim" in vision else vision["intermediate_size"]
    places = vision.get("num_position_embeddings")
    image = int(places**0.5) * vision["patch_size"] if places else 560
    sizes = (width, inner, vision["depth"], vision["num_heads"], image, vision["patch_size"], 1e-6, twin.text["hidden_size"])
    writer = tower(twin, file, PROJECTORS[model_type], sizes)
    size = twin.processor.get("size", {})
    writer.add_vision_min_pixels(twin.processor.get("min_pixels", size.get("shortest_edge")))
    writer.add_vision_max_pixels(twin.processor.get("max_pixels", size.get("longest_edge")))
    if model_type == "qwen2_5_vl":
        writer.add_vision_use_silu(True)
        writer.add_vision_n_wa_pattern(vision["fullatt_block_indexes"][0] + 1)
        writer.add_vision_window_size(vision["window_size"])
    deepstack = vision.get("deepstack_visual_indexes")
    if deepstack:
        writer.add_vision_use_gelu(True)
        writer.add_vision_spatial_merge_size(vision["spatial_merge_size"])
        writer.add_vision_is_deepstack_layers([block in deepstack for block in range(vision["depth"])])
    if kind is not None:
        # As the first converter of Qwen2-VL wrote it.
        writer.add_tensor("v.position_embd.weight", np.zeros((10, 10), "f4"))
    merger = {"norm": "v.post_ln", "ln_q": "v.post_ln", "linear_fc1": "mm.0", "linear_fc2": "mm.2", "mlp.0": "mm.0", "mlp.2": "mm.2"}
    for name, tensor in twin.under("model.visual.", "visual.").items():
        part, kind_of = name.rsplit(".", 1)
        if name == "patch_embed.proj.weight":
            add(writer, "v.patch_embd.weight", tensor[:, :, 0].contiguous())
            add(writer, "v.patch_embd.weight.1", tensor[:, :, 1].contiguous())
        elif name == "patch_embed.proj.bias":
            add(writer, "v.patch_embd.bias", tensor)
        elif name == "pos_embed.weight":
            add(writer, "v.position_embd.weight", tensor)
        elif part.startswith("merger."):
            add(writer, f"{merger[part.removeprefix('merger.')]}.{kind_of}", tensor, kind)
        elif part.startswith("deepstack_merger_list."):
            index, part = part.removeprefix("deepstack_merger_list.").split(".", 1)
            add(writer, f"v.deepstack.{deepstack[int(index)]}.{part.replace('linear_', '')}.{kind_of}", tensor, kind)
        else:
            block, part = part.removeprefix("blocks.").split(".", 1)
            if part == "attn.qkv" and model_type != "qwen3_vl":
                for letter, rows in zip("qkv", torch.chunk(tensor, 3)):
                    add(writer, f"v.blk.{block}.attn_{letter}.{kind_of}", rows, kind)
            else:
                add(writer, f"v.blk.{block}.{QWEN_LAYER[part]}.{kind_of}", tensor, kind)
    finish(writer)


def main():
    for name in ("llava-bare", "llava-gqa64", "smolvlm-tiles", "qwen2-vl", "qwen2.5-vl", "qwen3-vl"):
        (FOLDER / name).mkdir(parents=True, exist_ok=True)
    llava("llava-bare", old=True)
    llava("llava-gqa64", old=False)
    smolvlm("smolvlm-tiles")
    for name in ("qwen2-vl", "qwen2.5-vl", "qwen3-vl"):
        qwen(name)


if __name__ == "__main__":
    main()
