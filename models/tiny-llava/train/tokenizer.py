"""The tokenizer: byte-level BPE in which every content word is one token.

    python tokenizer.py --out FOLDER      trains a new one and writes FOLDER/tokenizer.json

Training of the model uses the shipped tokenizer.json unless told otherwise,
so that checkpoints and vocabulary stay interchangeable.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from scenes import draw
from texts import CONTENT_WORDS, EVEN_MIX, ask, detail_turn

SPECIAL = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]
SHIPPED = Path(__file__).resolve().parent.parent / "tokenizer.json"


def load(path: Path = SHIPPED) -> Tokenizer:
    return check(Tokenizer.from_file(str(path)))


def check(tokenizer: Tokenizer) -> Tokenizer:
    for number, name in enumerate(SPECIAL):
        assert tokenizer.token_to_id(name) == number, f"{name} must have id {number}"
    for word in CONTENT_WORDS:
        ids = tokenizer.encode(" " + word, add_special_tokens=False).ids
        assert len(ids) == 1, f"' {word}' takes {len(ids)} tokens"
    return tokenizer


def word_id(tokenizer: Tokenizer, word: str) -> int:
    (number,) = tokenizer.encode(" " + word, add_special_tokens=False).ids
    return number


def train(size: int = 718, scenes: int = 4000, seed: int = 11) -> Tokenizer:
    rng = np.random.default_rng(seed)
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()

    def corpus():
        for _ in range(scenes):
            scene = draw(rng, 1, 6)
            turns = [detail_turn(rng, scene)] + [ask(rng, scene, EVEN_MIX) for _ in range(5)]
            for t in turns:
                yield f"USER: {t.text} ASSISTANT: {t.answer}"
        # Rare content words would otherwise lose their merges to frequent phrases.
        for _ in range(200):
            yield "".join(" " + w for w in CONTENT_WORDS)

    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return check(tokenizer)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    trained = train()
    trained.save(str(out / "tokenizer.json"))
    print(f"{trained.get_vocab_size()} tokens")
