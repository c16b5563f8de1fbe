"""GGUF files with random weights of every type that is read, and tokenizers as GGUF files have them, with what comes of them.

The files are written by the `gguf` package (0.19.0; `pip install gguf`), which also says what the blocks stand for; rows of queries and
keys are turned as llama.cpp's conversion turns them. Logits are those of transformers with these numbers: once as they are, and once with
the inputs of every product with blocks rounded to 8 bits, and keys and values to f16, as this library has them."""

import hashlib
import json

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as T
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models as parts, normalizers, pre_tokenizers
from transformers import (
    AttentionInterface,
    AutoConfig,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    LlamaForCausalLM,
    Phi3ForCausalLM,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
)
from transformers.masking_utils import AttentionMaskInterface, eager_mask
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX as QWEN2_SPLIT

from common import DATA, FIXTURES, relative, write_arrays, write_json
from tokens import LLAMA3_SPLIT, NASTY

FOLDER = FIXTURES / "gguf"
BYTE_LEVEL = json.loads((FIXTURES / "tokenizers" / "byte-level" / "tokenizer.json").read_text())
SENTENCEPIECE = json.loads((FIXTURES / "tokenizers" / "sentencepiece" / "tokenizer.json").read_text())
PLAIN = (T.F32, T.F16, T.BF16)
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

# Where the f16 scales of a block lie, and for types with a minimum how large it is beside the scale, so that numbers lie around zero.
SCALES = {
    T.Q4_0: (0, None, 0), T.Q5_0: (0, None, 0), T.Q8_0: (0, None, 0), T.Q3_K: (108, None, 0), T.Q6_K: (208, None, 0),
    T.IQ4_NL: (0, None, 0), T.IQ4_XS: (0, None, 0), T.Q4_1: (0, 2, -7.5), T.Q5_1: (0, 2, -15.5),
    T.Q2_K: (80, 82, 1.5), T.Q4_K: (0, 2, 7.5), T.Q5_K: (0, 2, 15.5),
}


def blocks(random, kind, rows, columns, spread):
    """Bytes of rows whose numbers have this spread, and the numbers."""
    if kind in PLAIN:
        numbers = (random.standard_normal((rows, columns)) * spread).astype("f4")
        data = gguf.quants.quantize(numbers, kind)
        return data, gguf.quants.dequantize(data, kind).reshape(rows, columns)
    weights, size = gguf.GGML_QUANT_SIZES[kind]
    scale, least, factor = SCALES[kind]
    data = random.integers(0, 256, (rows * columns // weights, size), dtype=np.uint8)

    def at_scale(d):
        d = (d * random_scales).astype("<f2")
        data[:, scale : scale + 2] = d[:, None].view(np.uint8)
        if least is not None:
            data[:, least : least + 2] = (d * np.float16(factor)).astype("<f2")[:, None].view(np.uint8)
        return gguf.quants.dequantize(data.reshape(rows, -1), kind).reshape(rows, columns)

    random_scales = random.uniform(0.5, 1.5, len(data))
    numbers = at_scale(0.01)
    return data.reshape(rows, -1), (numbers := at_scale(0.01 * spread / numbers.std()))


def turned(rows, heads):
    """The rows that llama.cpp's conversion puts one behind the other: of each head, channels that turn together."""
    return np.arange(rows).reshape(heads, 2, rows // heads // 2).swapaxes(1, 2).reshape(-1)


def byte_level(writer, pre, tokens=None, kinds=None):
    vocab = BYTE_LEVEL["model"]["vocab"] | {t["content"]: t["id"] for t in BYTE_LEVEL["added_tokens"]}
    texts = [text for text, _ in sorted(vocab.items(), key=lambda item: item[1])]
    assert list(range(len(texts))) == sorted(vocab.values())
    special = {t["content"] for t in BYTE_LEVEL["added_tokens"]}
    texts += ["<|im_start|>", "<|im_end|>", "<tool>", "[PAD]"]
    kinds = [CONTROL if text in special else NORMAL for text in texts[:-4]] + [CONTROL, CONTROL, USER, UNUSED]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(texts)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(merge) if isinstance(merge, list) else merge for merge in BYTE_LEVEL["model"]["merges"]])
    writer.add_bos_token_id(texts.index("<|im_start|>"))
    writer.add_eos_token_id(next(id for id, text in enumerate(texts) if text in special))
    writer.add_chat_template(TEMPLATE)
    return texts, kinds


def sentence_piece(writer):
    vocab = SENTENCEPIECE["model"]["vocab"]
    texts = [text for text, _ in sorted(vocab.items(), key=lambda item: item[1])]
    special = {t["content"] for t in SENTENCEPIECE["added_tokens"]}
    kinds = [
        UNKNOWN if text == "<unk>" else CONTROL if text in special else BYTE if text.startswith("<0x") else NORMAL for text in texts
    ]
    ranks = {}
    for rank, merge in enumerate(SENTENCEPIECE["model"]["merges"]):
        ranks.setdefault("".join(merge if isinstance(merge, list) else merge.split(" ")), rank)
    # Letters of their own come last, as in SentencePiece; nothing is merged to them.
    scores = [0.0 if kind != NORMAL else -float(ranks.get(text, 1000 + id)) for id, (text, kind) in enumerate(zip(texts, kinds))]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(texts)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(vocab["<s>"])
    writer.add_eos_token_id(vocab["</s>"])
    writer.add_unk_token_id(vocab["<unk>"])
    writer.add_chat_template("{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}")
    return texts, kinds, scores


def pieces(text, special):
    """A text cut at special tokens."""
    out = [text]
    for token in sorted(special, key=len, reverse=True):
        out = [part for piece in out for part in (cut(piece, token) if piece not in special else [piece])]
    return [piece for piece in out if piece]


def cut(text, token):
    parts_of = text.split(token)
    return [part for index, piece in enumerate(parts_of) for part in ([piece] if index == 0 else [token, piece])]


def encode_sentence_piece(text, texts, kinds, scores):
    """SentencePiece's BPE from its definition: of all neighbours that make a token, those with the best score are joined first, the
    leftmost of equals; a character that is no token is its bytes."""
    ids = {t: id for id, t in enumerate(texts) if kinds[id] == NORMAL}
    every = {t: id for id, t in enumerate(texts)}
    special = [t for id, t in enumerate(texts) if kinds[id] == CONTROL or t == "<unk>"]
    out = [every["<s>"]]
    for piece in pieces(text, special):
        if piece in special:
            out.append(every[piece])
            continue
        symbols = list("▁" + piece.replace(" ", "▁"))
        while True:
            pairs = [(scores[ids[a + b]], -at) for at, (a, b) in enumerate(zip(symbols, symbols[1:])) if a + b in ids]
            if not pairs:
                break
            at = -max(pairs)[1]
            symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
        for symbol in symbols:
            out += [ids[symbol]] if symbol in ids else [every[f"<0x{byte:02X}>"] for byte in symbol.encode()]
    return out


def splitters():
    """Pre-tokenizers by their names in GGUF, as Hugging Face's files of such models have them."""
    bytes_of = lambda regex: pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)
    split = lambda pattern: pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), bytes_of(False)])
    tekken = (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
        r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    end = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    o200k = (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + end +
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + end +
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    return {
        "gpt-2": (bytes_of(True), None, False, False),
        "smollm": (pre_tokenizers.Sequence([pre_tokenizers.Digits(True), bytes_of(True)]), None, False, False),
        "qwen2": (split(QWEN2_SPLIT), normalizers.NFC(), False, False),
        "llama-bpe": (split(LLAMA3_SPLIT), None, True, True),
        "tekken": (split(tekken), None, True, True),
        "dbrx": (split(LLAMA3_SPLIT), None, False, False),
        "gpt-4o": (split(o200k), None, False, False),
    }


def tokenizers():
    found = []
    for pre, (splitter, normalizer, whole, bos) in splitters().items():
        path = FOLDER / f"tokenizer-{pre}.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        texts, kinds = byte_level(writer, pre)
        finish(writer)
        model = parts.BPE(
            vocab={text: id for id, text in enumerate(texts) if kinds[id] != UNUSED},
            merges=[tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in BYTE_LEVEL["model"]["merges"]],
            ignore_merges=whole,
        )
        twin = Tokenizer(model)
        twin.pre_tokenizer, twin.decoder = splitter, decoders.ByteLevel()
        if normalizer:
            twin.normalizer = normalizer
        special = [text for text, kind in zip(texts, kinds) if kind in (CONTROL, USER)]
        twin.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in special])
        begin = [texts.index("<|im_start|>")] if bos else []
        cases = [{"text": text, "tokens": begin + twin.encode(text, add_special_tokens=False).ids} for text in TEXTS]
        found.append({"file": relative(path), "cases": cases})
    path = FOLDER / "tokenizer-sentencepiece.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    vocabulary = sentence_piece(writer)
    finish(writer)
    cases = [{"text": text, "tokens": encode_sentence_piece(text, *vocabulary)} for text in TEXTS]
    found.append({"file": relative(path), "cases": cases})
    return found


TEXTS = NASTY + ["<|im_start|>user\n12 345 6789<|im_end|>", "a<tool>b", "[PAD]", "HelloWorld camelCase ABCdef", "x /path/to\r\n\r\n/y", "\u0130\u0131 \u01c5 \u2160 \u00b2"]


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def attend(module, query, key, value, mask, scaling, softcap=None, **_):
    """Eager attention that reads keys and values from a cache in f16."""
    key, value = (part.half().float().repeat_interleave(module.num_key_value_groups, 1) for part in (key, value))
    scores = query @ key.transpose(2, 3) * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    weights = (scores + mask[:, :, :, : key.shape[-2]]).softmax(-1)
    return (weights @ value).transpose(1, 2).contiguous(), weights


AttentionInterface.register("halves", attend)
AttentionMaskInterface.register("halves", eager_mask)


class Rounded:
    """Products with the inputs rounded to 8 bits in blocks of 32, but for weights of plain numbers."""

    def __init__(self, plain):
        self.plain = plain

    def __enter__(self):
        self.linear = torch.nn.functional.linear
        plain = {id(weight) for weight in self.plain}

        def linear(x, weight, bias=None):
            if id(weight) not in plain:
                rows = x.reshape(-1, x.shape[-1] // 32, 32)
                step = rows.abs().amax(-1, keepdim=True) / 127
                codes = torch.where(step > 0, torch.round(rows * (127 / rows.abs().amax(-1, keepdim=True))), 0.0)
                x = (codes * step).reshape(x.shape)
            return self.linear(x, weight, bias)

        torch.nn.functional.linear = linear

    def __exit__(self, *_):
        torch.nn.functional.linear = self.linear


class Model:
    """A model and how it is written: `layers` has the types of q, k, v, o, gate, up, down of each."""

    theta = 10000.0
    # The part of a head that is turned, and tensors in a file; 0: all in one.
    part, tensors_in_a_file = 1.0, 0

    def __init__(self, name, architecture, build, seed, hidden, heads, kv, width, inner, layers, table, head, **more):
        self.name, self.architecture, self.build = name, architecture, build
        self.random = np.random.default_rng(seed)
        self.hidden, self.heads, self.kv, self.width, self.inner = hidden, heads, kv, width, inner
        self.layers, self.table, self.head = layers, table, head
        self.biases, self.norms, self.divisors = more.get("biases", False), more.get("norms", False), more.get("divisors", False)
        self.pre = more.get("pre")

    def write(self):
        path = FOLDER / f"{self.name}.gguf"
        writer = gguf.GGUFWriter(path, self.architecture, split_max_tensors=self.tensors_in_a_file)
        texts = (byte_level(writer, self.pre) if self.pre else sentence_piece(writer))[0]
        self.vocab = len(texts)
        writer.add_block_count(len(self.layers))
        writer.add_context_length(256)
        writer.add_embedding_length(self.hidden)
        writer.add_feed_forward_length(self.inner)
        writer.add_head_count(self.heads)
        writer.add_head_count_kv(self.kv)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_rope_freq_base(self.theta)
        writer.add_rope_dimension_count(int(self.width * self.part))
        self.scale(writer)
        if self.width * self.heads != self.hidden:
            writer.add_key_length(self.width)
            writer.add_value_length(self.width)
        self.writer, self.numbers, self.plain = writer, {}, set()
        self.tensor("token_embd.weight", "model.embed_tokens.weight", self.table, self.vocab, self.hidden, 1.0 if self.head is not None else 2 / self.hidden**0.5)
        for layer, kinds in enumerate(self.layers):
            self.write_layer(layer, kinds)
        self.row("output_norm.weight", "model.norm.weight", self.hidden)
        if self.head is not None:
            self.tensor("output.weight", "lm_head.weight", self.head, self.vocab, self.hidden, 2 / self.hidden**0.5)
        self.by = None
        if self.divisors:
            self.by = np.linspace(1, 8, self.width // 2, dtype="f4")
            writer.add_tensor("rope_freqs.weight", self.by)
        finish(writer)
        files = sorted(FOLDER.glob(f"{self.name}-*-of-*.gguf"))
        return files[0] if self.tensors_in_a_file else path

    def scale(self, writer):
        """Writes how the rotary embedding is scaled."""

    def write_layer(self, layer, kinds):
        ours, theirs = f"blk.{layer}.", f"model.layers.{layer}."
        q, kv, gain = self.heads * self.width, self.kv * self.width, 1.4
        turns = self.architecture == "llama"
        for part, name, kind, rows, columns, heads in (
            ("attn_q", "self_attn.q_proj", kinds[0], q, self.hidden, self.heads),
            ("attn_k", "self_attn.k_proj", kinds[1], kv, self.hidden, self.kv),
            ("attn_v", "self_attn.v_proj", kinds[2], kv, self.hidden, None),
            ("attn_output", "self_attn.o_proj", kinds[3], self.hidden, q, None),
            ("ffn_gate", "mlp.gate_proj", kinds[4], self.inner, self.hidden, None),
            ("ffn_up", "mlp.up_proj", kinds[5], self.inner, self.hidden, None),
            ("ffn_down", "mlp.down_proj", kinds[6], self.hidden, self.inner, None),
        ):
            order = turned(rows, heads) if turns and heads else None
            self.tensor(f"{ours}{part}.weight", f"{theirs}{name}.weight", kind, rows, columns, gain / columns**0.5, order)
            if self.biases and part in ("attn_q", "attn_k", "attn_v"):
                self.row(f"{ours}{part}.bias", f"{theirs}{name}.bias", rows, 0.0, order)
        self.row(f"{ours}attn_norm.weight", f"{theirs}input_layernorm.weight", self.hidden)
        self.row(f"{ours}ffn_norm.weight", f"{theirs}post_attention_layernorm.weight", self.hidden)
        if self.norms:
            self.row(f"{ours}attn_q_norm.weight", f"{theirs}self_attn.q_norm.weight", self.width)
            self.row(f"{ours}attn_k_norm.weight", f"{theirs}self_attn.k_norm.weight", self.width)

    def tensor(self, ours, theirs, kind, rows, columns, spread, order=None):
        data, numbers = blocks(self.random, kind, rows, columns, spread)
        self.numbers[theirs] = numbers
        if kind in PLAIN:
            self.plain.add(theirs)
        data = data if order is None else np.ascontiguousarray(data[order])
        self.writer.add_tensor(ours, data, raw_dtype=kind)

    def row(self, ours, theirs, width, middle=1.0, order=None):
        numbers = (middle + 0.2 * self.random.standard_normal(width)).astype("f4")
        self.numbers[theirs] = numbers
        self.writer.add_tensor(ours, numbers if order is None else numbers[order])

    def rotary(self):
        return {"rope_theta": self.theta}

    def config(self):
        return AutoConfig.for_model(
            self.architecture, vocab_size=self.vocab, hidden_size=self.hidden, intermediate_size=self.inner,
            num_hidden_layers=len(self.layers), num_attention_heads=self.heads, num_key_value_heads=self.kv, head_dim=self.width,
            max_position_embeddings=256, rms_norm_eps=1e-5, **self.rotary(), tie_word_embeddings=self.head is None,
        )

    def state(self):
        return {name: torch.from_numpy(numbers) for name, numbers in self.numbers.items()}

    def golden(self, arrays):
        path, config = self.write(), self.config()
        model = self.build(config).eval()
        model.set_attn_implementation("eager")
        report = model.load_state_dict(self.state(), strict=False)
        assert not report.unexpected_keys and set(report.missing_keys) <= {"lm_head.weight"}, report
        model.tie_weights()
        if self.by is not None:
            model.model.rotary_emb.inv_freq /= torch.from_numpy(self.by)
        ids = self.random.integers(0, self.vocab - 4, 40).tolist()
        run = lambda: model(input_ids=torch.tensor([ids])).logits[0, -6:].detach().numpy()
        name = path.stem
        arrays[f"{name}.exact"] = run()
        model.set_attn_implementation("halves")
        with Rounded([dict(model.named_parameters())[name] for name in self.plain]):
            arrays[f"{name}.rounded"] = run()
        far = np.abs(arrays[f"{name}.exact"] - arrays[f"{name}.rounded"]).max()
        print(f"{path.name}: {path.stat().st_size} bytes, logits up to {np.abs(arrays[name + '.exact']).max():.2f}, rounded {far:.4f}")
        hashes = {name: hashlib.sha256(n.astype("<f4").tobytes()).hexdigest()[:16] for name, n in self.numbers.items()}
        shapes = {name: list(n.shape) for name, n in self.numbers.items()}
        return {"file": relative(path), "tokens": ids, "hashes": hashes, "shapes": shapes, "config": config_of(config)}


class Gemma(Model):
    """Norms behind attention and MLP too, whose weights have in the file the one that transformers adds, and windows on every second layer."""

    theta = 1e6
    window, every = 12, 2

    def write_layer(self, layer, kinds):
        if layer == 0:
            self.writer.add_sliding_window(self.window)
            self.writer.add_sliding_window_pattern(self.every)
        super().write_layer(layer, kinds)
        ours, theirs = f"blk.{layer}.", f"model.layers.{layer}."
        self.numbers[f"{theirs}pre_feedforward_layernorm.weight"] = self.numbers.pop(f"{theirs}post_attention_layernorm.weight")
        self.row(f"{ours}post_attention_norm.weight", f"{theirs}post_attention_layernorm.weight", self.hidden)
        self.row(f"{ours}post_ffw_norm.weight", f"{theirs}post_feedforward_layernorm.weight", self.hidden)

    def config(self):
        return AutoConfig.for_model(
            "gemma3_text", vocab_size=self.vocab, hidden_size=self.hidden, intermediate_size=self.inner, num_hidden_layers=len(self.layers),
            num_attention_heads=self.heads, num_key_value_heads=self.kv, head_dim=self.width, query_pre_attn_scalar=self.width,
            max_position_embeddings=256, rms_norm_eps=1e-5, sliding_window=self.window, sliding_window_pattern=self.every,
        )

    def state(self):
        return {name: numbers - 1 if "norm" in name else numbers for name, numbers in super().state().items()}


class Gemma2(Gemma):
    """Caps of scores and logits, no norms of heads, and three files."""

    theta = 10000.0
    tensors_in_a_file = 9

    def write_layer(self, layer, kinds):
        if layer == 0:
            self.writer.add_attn_logit_softcapping(3.0)
            self.writer.add_final_logit_softcapping(5.0)
        super().write_layer(layer, kinds)

    def config(self):
        return AutoConfig.for_model(
            "gemma2", vocab_size=self.vocab, hidden_size=self.hidden, intermediate_size=self.inner, num_hidden_layers=len(self.layers),
            num_attention_heads=self.heads, num_key_value_heads=self.kv, head_dim=self.width, query_pre_attn_scalar=self.width,
            max_position_embeddings=256, rms_norm_eps=1e-5, sliding_window=self.window, attn_logit_softcapping=3.0, final_logit_softcapping=5.0,
        )


class Phi(Model):
    """Queries, keys and values in one tensor, gate and up in another; LongRoPE on three quarters of each head; a window on all layers."""

    part = 0.75
    original, window = 64, 24

    def scale(self, writer):
        pairs = int(self.width * self.part) // 2
        self.short = np.linspace(1, 3, pairs, dtype="f4")
        self.long = np.linspace(2, 40, pairs, dtype="f4")
        writer.add_sliding_window(self.window)
        writer.add_rope_scaling_orig_ctx_len(self.original)
        writer.add_rope_scaling_attn_factors((1 + np.log(256 / self.original) / np.log(self.original)) ** 0.5)
        writer.add_tensor("rope_factors_long.weight", self.long)
        writer.add_tensor("rope_factors_short.weight", self.short)

    def write_layer(self, layer, kinds):
        ours, theirs = f"blk.{layer}.", f"model.layers.{layer}."
        q, kv, gain = self.heads * self.width, self.kv * self.width, 1.4
        for part, name, kind, rows, columns in (
            ("attn_qkv", "self_attn.qkv_proj", kinds[0], q + 2 * kv, self.hidden),
            ("attn_output", "self_attn.o_proj", kinds[1], self.hidden, q),
            ("ffn_up", "mlp.gate_up_proj", kinds[2], 2 * self.inner, self.hidden),
            ("ffn_down", "mlp.down_proj", kinds[3], self.hidden, self.inner),
        ):
            self.tensor(f"{ours}{part}.weight", f"{theirs}{name}.weight", kind, rows, columns, gain / columns**0.5)
        self.row(f"{ours}attn_norm.weight", f"{theirs}input_layernorm.weight", self.hidden)
        self.row(f"{ours}ffn_norm.weight", f"{theirs}post_attention_layernorm.weight", self.hidden)

    def config(self):
        rope = {"rope_type": "longrope", "rope_theta": self.theta, "short_factor": self.short.tolist(), "long_factor": self.long.tolist()}
        return AutoConfig.for_model(
            "phi3", vocab_size=self.vocab, hidden_size=self.hidden, intermediate_size=self.inner, num_hidden_layers=len(self.layers),
            num_attention_heads=self.heads, num_key_value_heads=self.kv, max_position_embeddings=256, rms_norm_eps=1e-5,
            original_max_position_embeddings=self.original, partial_rotary_factor=self.part, rope_parameters=rope, sliding_window=self.window,
            tie_word_embeddings=self.head is None, pad_token_id=None, bos_token_id=None, eos_token_id=None,
        )


class Scaled(Model):
    """A rotary embedding that the metadata scale: `rope` is what transformers calls it, `wrote` what is written."""

    def __init__(self, *args, rope, wrote, **more):
        super().__init__(*args, **more)
        self.rope, self.wrote = rope, wrote

    def scale(self, writer):
        for name, value in self.wrote.items():
            getattr(writer, f"add_rope_scaling_{name}")(value)

    def rotary(self):
        return {"rope_parameters": self.rope | super().rotary()}


def config_of(config):
    return {key: value for key, value in config.to_dict().items() if isinstance(value, (int, float, bool)) and not key.startswith("_")}


MODELS = [
    lambda: Model(
        "llama-mixed", "llama", LlamaForCausalLM, 3, 256, 4, 2, 16, 64,
        [
            [T.Q4_K, T.Q4_K, T.Q6_K, T.Q5_0, T.Q3_K, T.Q2_K, T.Q5_1],
            [T.IQ4_XS, T.Q8_0, T.F16, T.IQ4_NL, T.Q5_K, T.Q4_0, T.Q4_1],
        ],
        T.Q6_K, None, pre="smollm", divisors=True,
    ),
    lambda: Model(
        "qwen2-biases", "qwen2", Qwen2ForCausalLM, 5, 64, 4, 2, 16, 64,
        [[T.Q8_0, T.F32, T.BF16, T.Q4_0, T.Q8_0, T.Q5_0, T.F16]], T.Q8_0, T.Q4_1, pre="qwen2", biases=True,
    ),
    lambda: Model(
        "qwen3-norms", "qwen3", Qwen3ForCausalLM, 7, 64, 4, 2, 32, 64,
        [[T.Q8_0, T.Q8_0, T.Q5_1, T.Q4_0, T.IQ4_NL, T.IQ4_NL, T.Q5_0]], T.F16, None, pre="qwen2", norms=True,
    ),
    lambda: Model(
        "llama-pieces", "llama", LlamaForCausalLM, 9, 32, 2, 2, 16, 32,
        [[T.F16, T.F32, T.F16, T.F16, T.F16, T.F16, T.F16]], T.F16, T.BF16,
    ),
    lambda: Gemma(
        "gemma3-norms", "gemma3", Gemma3ForCausalLM, 11, 64, 4, 2, 32, 64,
        [[T.Q5_0, T.Q5_0, T.Q8_0, T.Q4_0, T.Q5_0, T.Q5_0, T.Q8_0]] * 2, T.Q8_0, None, norms=True,
    ),
    lambda: Gemma2(
        "gemma2-caps", "gemma2", Gemma2ForCausalLM, 13, 32, 4, 2, 32, 32,
        [[T.Q8_0, T.Q5_0, T.Q8_0, T.Q4_0, T.Q5_0, T.Q5_0, T.Q8_0]] * 2, T.Q8_0, None,
    ),
    lambda: Phi(
        "phi3-long", "phi3", Phi3ForCausalLM, 39, 32, 2, 1, 16, 32,
        [[T.Q8_0, T.Q4_0, T.Q5_0, T.Q8_0], [T.F16, T.Q8_0, T.Q8_0, T.Q4_1]], T.Q8_0, T.Q8_0,
    ),
    lambda: Scaled(
        "llama-linear", "llama", LlamaForCausalLM, 17, 32, 2, 1, 16, 32, [[T.Q8_0] * 7], T.Q8_0, None,
        rope={"rope_type": "linear", "factor": 4.0}, wrote={"type": gguf.RopeScalingType.LINEAR, "factor": 4.0},
    ),
    lambda: Scaled(
        "llama-yarn", "llama", LlamaForCausalLM, 19, 32, 2, 1, 16, 32, [[T.Q8_0] * 7], T.Q8_0, None,
        rope={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
        wrote={"type": gguf.RopeScalingType.YARN, "factor": 4.0, "orig_ctx_len": 64},
    ),
    lambda: Scaled(
        "qwen2-yarn", "qwen2", Qwen2ForCausalLM, 21, 32, 2, 1, 16, 32, [[T.Q8_0] * 7], T.Q8_0, None, biases=True,
        rope={
            "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32, "beta_fast": 16.0, "beta_slow": 2.0,
            "attention_factor": 1.5 * (0.1 * float(np.log(8.0)) + 1),
        },
        wrote={
            "type": gguf.RopeScalingType.YARN, "factor": 8.0, "orig_ctx_len": 32, "yarn_beta_fast": 16.0, "yarn_beta_slow": 2.0,
            "yarn_ext_factor": 1.0, "attn_factors": 1.2, "yarn_attn_factor": 1.25,
        },
    ),
]


def main():
    FOLDER.mkdir(exist_ok=True)
    arrays = {}
    golden = {"models": [make().golden(arrays) for make in MODELS], "tokenizers": tokenizers()}
    write_json(DATA / "gguf.json", golden)
    write_arrays(DATA / "gguf.safetensors", arrays)


if __name__ == "__main__":
    main()
