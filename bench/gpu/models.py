"""LLaVA-1.5 in any size with random f16 weights, as a folder in the Hugging Face layout."""

import array
import json
import os
import random
import shutil
import struct
from concurrent.futures import ThreadPoolExecutor
from statistics import NormalDist

BLOCK = 64 << 20
COPIED = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
CLIP = {"hidden": 1024, "intermediate": 4096, "layers": 24, "heads": 16, "image": 336, "patch": 14}
SMALL_CLIP = {"hidden": 32, "intermediate": 64, "layers": 2, "heads": 2, "image": 28, "patch": 14}


def shape(hidden, intermediate, layers, heads, vocabulary=32064, vision=None):
    return {
        "hidden": hidden,
        "intermediate": intermediate,
        "layers": layers,
        "heads": heads,
        "vocabulary": vocabulary,
        "vision": vision or CLIP,
    }


SHAPES = {
    "llava-1.5-7b": shape(4096, 11008, 32, 32),
    "llava-1.5-13b": shape(5120, 13824, 40, 40),
    # The 7B's width in few layers: a large cache beside few weights.
    "wide": shape(4096, 11008, 4, 32, vocabulary=1024, vision=SMALL_CLIP),
    "small": shape(128, 352, 3, 4, vocabulary=1024, vision=SMALL_CLIP),
    # Deep rather than wide, for a cache that is large beside what a process holds otherwise.
    "small-wide": shape(256, 256, 8, 8, vocabulary=1024, vision=SMALL_CLIP),
}


def config(of):
    vision = of["vision"]
    return {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "ignore_index": -100,
        # The placeholder of tiny-llava's tokenizer, which these folders share.
        "image_token_index": 4,
        "projector_hidden_act": "gelu",
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "text_config": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": of["hidden"],
            "intermediate_size": of["intermediate"],
            "num_hidden_layers": of["layers"],
            "num_attention_heads": of["heads"],
            "num_key_value_heads": of["heads"],
            "hidden_act": "silu",
            "max_position_embeddings": 16384,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "vocab_size": of["vocabulary"],
            "torch_dtype": "float16",
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": vision["hidden"],
            "intermediate_size": vision["intermediate"],
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision["heads"],
            "image_size": vision["image"],
            "patch_size": vision["patch"],
            "projection_dim": 768,
            "vocab_size": 32000,
        },
    }


def preprocessor(of):
    side = of["vision"]["image"]
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": side},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "do_convert_rgb": True,
    }


def tensors(of):
    """`(name, shape)` of all tensors, in the order of the file; norms are those whose names end in `norm.weight` and the like."""
    hidden, inner = of["hidden"], of["intermediate"]
    text = "language_model.model."
    found = [(f"{text}embed_tokens.weight", [of["vocabulary"], hidden])]
    for layer in range(of["layers"]):
        at = f"{text}layers.{layer}."
        found.append((f"{at}input_layernorm.weight", [hidden]))
        found += [(f"{at}self_attn.{name}_proj.weight", [hidden, hidden]) for name in "qkvo"]
        found.append((f"{at}post_attention_layernorm.weight", [hidden]))
        found += [(f"{at}mlp.{name}_proj.weight", [inner, hidden]) for name in ("gate", "up")]
        found.append((f"{at}mlp.down_proj.weight", [hidden, inner]))
    found += [(f"{text}norm.weight", [hidden]), ("language_model.lm_head.weight", [of["vocabulary"], hidden])]
    return found + tower(of["vision"]) + projector(of["vision"]["hidden"], hidden)


def tower(of):
    at, width, patches = "vision_tower.vision_model.", of["hidden"], (of["image"] // of["patch"]) ** 2

    def pair(name, rows, columns=None):
        return [(f"{at}{name}.weight", [rows, columns] if columns else [rows]), (f"{at}{name}.bias", [rows])]

    found = [
        (f"{at}embeddings.class_embedding", [width]),
        (f"{at}embeddings.patch_embedding.weight", [width, 3, of["patch"], of["patch"]]),
        (f"{at}embeddings.position_embedding.weight", [patches + 1, width]),
        *pair("pre_layrnorm", width),
    ]
    for layer in range(of["layers"]):
        block = f"encoder.layers.{layer}."
        found += pair(f"{block}layer_norm1", width) + pair(f"{block}layer_norm2", width)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            found += pair(f"{block}self_attn.{name}", width, width)
        found += pair(f"{block}mlp.fc1", of["intermediate"], width) + pair(f"{block}mlp.fc2", width, of["intermediate"])
    return found + pair("post_layernorm", width)


def projector(features, hidden):
    at = "multi_modal_projector."
    return [
        (f"{at}linear_1.weight", [hidden, features]),
        (f"{at}linear_1.bias", [hidden]),
        (f"{at}linear_2.weight", [hidden, hidden]),
        (f"{at}linear_2.bias", [hidden]),
    ]


def is_norm(name):
    return name.endswith("norm.weight") or name.endswith(("norm1.weight", "norm2.weight"))


def elements(sizes):
    product = 1
    for size in sizes:
        product *= size
    return product


def file_bytes(of):
    """About what the folder takes."""
    return sum(2 * elements(sizes) for _, sizes in tensors(of)) + (1 << 20)


def header(found):
    offset, entries = 0, {}
    for name, sizes in found:
        end = offset + 2 * elements(sizes)
        entries[name] = {"dtype": "F16", "shape": sizes, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def block(size, deviation=0.02, seed=1):
    """
    Halves that are nearly normal: the upper byte (sign, exponent, two bits) is a quantile's, the lower byte is drawn evenly.
    Bytes are translated and interleaved as a whole, which takes a second where drawing each number would take minutes.
    """
    quantiles = [NormalDist(0, deviation).inv_cdf((rank + 0.5) / 256) for rank in range(256)]
    upper = bytes(struct.pack("<e", value)[1] for value in quantiles)
    drawn = random.Random(seed)
    halves = bytearray(size)
    halves[0::2] = drawn.randbytes(size // 2)
    halves[1::2] = drawn.randbytes(size // 2).translate(upper)
    return halves


def write(folder, of, source):
    """Writes the folder with the tokenizer of `source`, and gives the bytes of its weights."""
    os.makedirs(folder)
    for name in COPIED:
        shutil.copyfile(os.path.join(source, name), os.path.join(folder, name))
    texts = {"config.json": config(of), "preprocessor_config.json": preprocessor(of)}
    texts["generation_config.json"] = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
    for name, value in texts.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            json.dump(value, file)
    found = tensors(of)
    head = header(found)
    largest = max(elements(sizes) for _, sizes in found)
    # A few elements short of a power of two, so that rows of a matrix do not repeat where the block does.
    drawn = memoryview(block(min(BLOCK, 2 * largest + 8192) - 158))
    ones = memoryview(array.array("H", [0x3C00]) * max(of["hidden"], of["vision"]["hidden"])).cast("B")
    total = len(head) + sum(2 * elements(sizes) for _, sizes in found)
    path = os.path.join(folder, "model.safetensors")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        os.pwrite(descriptor, head, 0)
        starts, offset, draw = [], len(head), random.Random(2)
        for name, sizes in found:
            size = 2 * elements(sizes)
            if is_norm(name):
                starts.append((offset, ones, 0, size))
            else:
                starts.append((offset, drawn, 2 * draw.randrange(len(drawn) // 2), size))
            offset += size
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for job in [pool.submit(fill, descriptor, *start) for start in starts]:
                job.result()
    finally:
        os.close(descriptor)
    return total


def fill(descriptor, offset, source, start, size):
    """Writes `size` bytes of a source that is read in a ring."""
    while size > 0:
        piece = source[start : start + size]
        written = os.pwrite(descriptor, piece, offset)
        offset, size, start = offset + written, size - written, (start + written) % len(source)


def scratch(asked, needed, fallback):
    """The folder for files of so many bytes: the one asked for, else shared memory where they fit, else the fallback."""
    for folder in [asked] if asked else ["/dev/shm", fallback]:
        if os.path.isdir(folder) and shutil.disk_usage(folder).free > needed * 1.02:
            return folder
    return None
