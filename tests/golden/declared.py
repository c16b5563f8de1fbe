"""Tokens that the files beside tokenizer.json declare, as transformers reads them: names, ids, and how a text is cut."""

import json
import shutil
import tempfile
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from common import DATA, FIXTURES, write_json

BASE = FIXTURES / "tokenizers" / "sentencepiece"


def token(content, special=True, normalized=False, lstrip=False, rstrip=False, single_word=False):
    return {
        "content": content,
        "lstrip": lstrip,
        "normalized": normalized,
        "rstrip": rstrip,
        "single_word": single_word,
        "special": special,
    }


def typed(content, **flags):
    return {"__type": "AddedToken"} | token(content, **flags)


NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
CONFIG, MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"

# Tokens taken out of tokenizer.json, and the files beside it.
CASES = {
    "decoder": (["<image>", "<pad>"], {CONFIG: NAMES | {"added_tokens_decoder": {"478": token("<image>"), "479": token("<pad>")}}}),
    "decoder-other-ids": (["<image>"], {CONFIG: NAMES | {"added_tokens_decoder": {"900": token("<image>"), "800": token("<x>")}}}),
    "decoder-strips": (
        ["<image>"],
        {CONFIG: NAMES | {"added_tokens_decoder": {"500": token("<image>", lstrip=True, rstrip=True), "501": token("<w>", single_word=True)}}},
    ),
    "decoder-normalized": (
        ["<image>"],
        {CONFIG: NAMES | {"added_tokens_decoder": {"500": token("<image>", special=False, normalized=True), "501": token("<x>", special=False)}}},
    ),
    "decoder-changes-flags": ([], {CONFIG: NAMES | {"added_tokens_decoder": {"478": token("<image>", rstrip=True)}}}),
    "decoder-hides-the-map": (
        ["<image>"],
        {
            CONFIG: NAMES | {"added_tokens_decoder": {"500": token("<x>")}},
            MAP: {"eos_token": "<x>", "pad_token": "<pad>", "additional_special_tokens": ["<image>"]},
            ADDED: {"<image>": 500},
        },
    ),
    "extra-list": (["<image>"], {CONFIG: NAMES | {"extra_special_tokens": ["<image>", "<x>"]}}),
    "extra-names": (["<image>"], {CONFIG: NAMES | {"extra_special_tokens": {"image_token": "<image>", "x_token": "<x>"}}}),
    "additional": (["<image>"], {CONFIG: NAMES | {"additional_special_tokens": ["<image>", "<x>"]}}),
    "additional-beside-extra": (
        ["<image>"],
        {CONFIG: NAMES | {"additional_special_tokens": ["<y>"], "extra_special_tokens": ["<image>"]}},
    ),
    "additional-typed": (["<image>"], {CONFIG: NAMES | {"additional_special_tokens": [typed("<image>", rstrip=True)]}}),
    "own-names": (["<image>"], {CONFIG: NAMES | {"image_token": "<image>", "add_bos_token": True}}),
    "own-names-typed": (["<image>"], {CONFIG: NAMES | {"image_token": typed("<image>", lstrip=True), "pad_token": typed("<pad>")}}),
    "new-names": ([], {CONFIG: {"bos_token": "<s>", "eos_token": "<end>", "pad_token": "<new>"}}),
    "map-over-config": (
        [],
        {CONFIG: NAMES | {"pad_token": "<a>"}, MAP: {"pad_token": "<pad>", "eos_token": token("<end>", rstrip=True), "sep_token": "<sep>"}},
    ),
    "map-null": ([], {CONFIG: NAMES | {"pad_token": "<pad>"}, MAP: {"pad_token": None}}),
    "map-additional": (["<image>"], {CONFIG: NAMES, MAP: {"additional_special_tokens": ["<image>", "<x>"]}}),
    "map-additional-after-config": (
        ["<image>"],
        {CONFIG: NAMES | {"additional_special_tokens": ["<x>"]}, MAP: {"additional_special_tokens": ["<image>"]}},
    ),
    "map-extra-list": (["<image>"], {CONFIG: NAMES | {"extra_special_tokens": ["<x>"]}, MAP: {"extra_special_tokens": ["<image>"]}}),
    "map-own-names": (["<image>"], {CONFIG: NAMES, MAP: {"image_token": "<image>"}}),
    "added": (["<image>", "<pad>"], {CONFIG: NAMES | {"pad_token": "<pad>"}, ADDED: {"<image>": 478, "<pad>": 477}}),
    "added-other-ids": (["<image>"], {CONFIG: NAMES, ADDED: {"<image>": 600, "<x>": 500}}),
    "added-id-taken": (["<image>"], {CONFIG: NAMES, ADDED: {"<image>": 2, "<x>": 700}}),
    "added-in-vocabulary": ([], {CONFIG: NAMES, ADDED: {"▁the": 300, "<x>": 600}}),
    "no-config": (["<image>"], {MAP: NAMES | {"image_token": "<image>"}, ADDED: {"<image>": 478}}),
    "nothing": (["<image>"], {}),
}
TEXT = "<s>USER: <image>\nWhat <x> is <w> this?<pad> <end> a<w>b<y></s>"


def folder(drop, files):
    place = Path(tempfile.mkdtemp())
    tokenizer = json.loads((BASE / "tokenizer.json").read_text())
    tokenizer["added_tokens"] = [entry for entry in tokenizer["added_tokens"] if entry["content"] not in drop]
    (place / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False))
    for name, content in files.items():
        (place / name).write_text(json.dumps(content, ensure_ascii=False))
    return place


def main():
    found = []
    for name, (drop, files) in CASES.items():
        place = folder(drop, files)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(place)
        contents = sorted({"<image>", "<pad>", "<x>", "<y>", "<w>", "<end>", "<a>", "<new>", "<sep>", "▁the"})
        vocabulary = tokenizer.get_vocab()
        ids = {content: vocabulary[content] for content in contents if content in vocabulary}
        special = sorted(token for token, entry in ((str(t), t) for t in tokenizer.added_tokens_decoder.values()) if entry.special)
        found.append(
            {
                "name": name,
                "drop": drop,
                "files": files,
                "named": tokenizer.special_tokens_map,
                "ids": ids,
                "special": special,
                "text": TEXT,
                "tokens": tokenizer.encode(TEXT, add_special_tokens=False),
                "skipped": tokenizer.decode(tokenizer.encode(TEXT, add_special_tokens=False), skip_special_tokens=True),
            }
        )
        shutil.rmtree(place)
    write_json(DATA / "declared.json", found)


if __name__ == "__main__":
    main()
