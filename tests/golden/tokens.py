"""Small tokenizers of the kinds that LLaVA and Llama checkpoints bring, and how they treat nasty text."""

import json

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from common import DATA, FIXTURES, SCENES, TINY_LLAVA, relative, write_json

TOKENIZERS = FIXTURES / "tokenizers"
SENTENCEPIECE, METASPACE, BYTE_LEVEL = "sentencepiece", "metaspace", "byte-level"

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

NASTY = [
    "",
    " ",
    "   ",
    "\n",
    "\n\n\n",
    "\t\ttabs",
    "hello",
    " hello",
    "  hello",
    "hello ",
    "hello  world",
    "hello\nworld\r\n",
    "What is in the picture?",
    "USER: <image>\nWhat is this? ASSISTANT:",
    "USER: <image><image>\nBoth? ASSISTANT: Yes.</s>USER: Why? ASSISTANT:",
    "<s>already begun</s>",
    "</s> after the end",
    "<image>",
    " <image> ",
    "<imag e> <image",
    "<unk><pad><s>",
    "<0x41> is not a byte",
    "▁ metaspace ▁▁ itself",
    "naïve café, Ångström",
    "e\u0301 is not \u00e9; a\u0308o\u0308",
    "Z\u0351\u036b\u0343a\u0329\u0347lgo",
    "漢字とかな、한국어 และไทย",
    "مرحبا بالعالم שלום",
    "😀 👩‍👩‍👧‍👦 🇩🇪 👍🏽",
    "\U00010348\U0001f9ff",
    "zero\u200bwidth\ufeffbom\u00a0nbsp\u2028line",
    "1234567890 3.14159 1,000,000",
    "it's we'll THEY'RE don't",
    "fn main() { println!(\"{}\", x[0]); }  // end",
    "a" * 40,
    "tail of spaces    ",
]


def corpus():
    answers = [sample["answer"] for sample in json.loads((SCENES / "samples.json").read_text())[:24]]
    extra = [
        "A chat between a curious user and an artificial intelligence assistant.",
        "USER: What is the name of this thing? ASSISTANT: It's a small house; we'll see that it is old.",
        "def add(a, b):\n    return a + b\n\nfor i in range(10):\n    print(i, add(i, 1))",
        "Die Straße ist naß, der Café naïve, 1 2 3 4 5 6 7 8 9 0.",
        "  two spaces,   three spaces\n\n\ttab",
        "system user assistant Question: Answer: yes no true false",
    ]
    return answers + extra * 4


def with_bos(tokenizer, bos):
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )


def specials(*names):
    return [AddedToken(name, special=True, normalized=False) for name in names]


def sentencepiece(metaspace, vocab=480):
    """As Llama's: BPE with byte fallback. Either the old normalizer pair or the newer Metaspace pre-tokenizer."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    alphabet = sorted({c for line in corpus() for c in line if c.isascii() and c.isprintable()} - {" "}) + ["é", "ß"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab - 261, initial_alphabet=alphabet, limit_alphabet=len(alphabet) + 1, show_progress=False
    )
    trained.train_from_iterator(corpus(), trainer)
    body = json.loads(trained.to_str())["model"]
    pieces = sorted(body["vocab"], key=body["vocab"].get)
    first = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    table = {piece: i for i, piece in enumerate(first + pieces)}
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in body["merges"]]
    tokenizer = Tokenizer(models.BPE(table, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    replace = decoders.Replace("▁", " ")
    steps = [replace, decoders.ByteFallback(), decoders.Fuse()]
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(steps + [decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens(specials("<unk>", "<s>", "</s>", "<image>", "<pad>"))
    with_bos(tokenizer, "<s>")
    return tokenizer


def byte_level(vocab=448):
    """As Llama 3's: byte-level BPE behind a Split pattern, with ignore_merges and its special tokens at the end."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<image>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab - len(names),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens(specials(*names))
    with_bos(tokenizer, "<|begin_of_text|>")
    return tokenizer


def wrap(kind, **size):
    """The tokenizer with its named special tokens, as transformers loads it."""
    if kind == BYTE_LEVEL:
        named = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
        tokenizer = byte_level(**size)
    else:
        named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
        tokenizer = sentencepiece(kind == METASPACE, **size)
    extra = {"extra_special_tokens": {"image_token": "<image>"}, "clean_up_tokenization_spaces": False}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="left", **named, **extra)


def save(tokenizer, folder):
    """`tokenizer.json` without indentation, and `tokenizer_config.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"), pretty=False)


def describe(tokenizer, text):
    plain = tokenizer.encode(text, add_special_tokens=False)
    marked = tokenizer.encode(text)
    return {
        "text": text,
        "ids": plain,
        "ids_special": marked,
        "decoded": tokenizer.decode(plain),
        "decoded_special": tokenizer.decode(marked),
        "decoded_skip": tokenizer.decode(marked, skip_special_tokens=True),
    }


def main():
    for kind in (SENTENCEPIECE, METASPACE, BYTE_LEVEL):
        save(wrap(kind), TOKENIZERS / kind)
    folders = [TOKENIZERS / kind for kind in (SENTENCEPIECE, METASPACE, BYTE_LEVEL)] + [TINY_LLAVA]
    found = []
    for folder in folders:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        cases = [describe(tokenizer, text) for text in NASTY]
        found.append({"tokenizer": relative(folder), "vocab": len(tokenizer), "cases": cases})
    write_json(DATA / "tokenizers.json", found)


if __name__ == "__main__":
    main()
