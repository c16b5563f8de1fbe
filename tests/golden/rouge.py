"""ROUGE-L F1 of the Python package rouge-score (no stemming), on texts that split in unexpected ways.

Needs `rouge-score==0.1.2` and nothing else of requirements.txt: `python tests/golden/rouge.py`.
"""

import itertools
import json
import pathlib
import random

from rouge_score import rouge_scorer

TEXTS = [
    "",
    " ",
    "...!?",
    "a",
    "A",
    "the the the",
    "the cat sat on the mat",
    "The cat, sat on the mat!",
    "the mat sat on the cat",
    "There are four objects: a red ring, a blue star.",
    "There are four objects, namely a blue star and a red ring.",
    "It's the top-left's 3 STARS; 3.14 of them.",
    "don't can't won't",
    "caf\u00e9 na\u00efve r\u00e9sum\u00e9",
    "cafe\u0301 naive",
    "\u0130stanbul I\u0131i",
    "\u212aelvin and \u212b",
    "\uff21\uff22\uff23 \uff11\uff12\uff13 abc 123",
    "\u7ea2\u8272\u7684\u661f\u661f red star",
    "\U0001f600 smile\U0001f600smile",
    "Stra\u00dfe STRASSE strasse",
    "\u0661\u0662\u0663 123",
    "tab\tnew\nline\r\nnbsp\u00a0zero\u200bwidth",
    "under_score and-dash and/slash",
    "a1b2 a1 b2 a 1 b 2",
    "\u03a3\u03c3\u03c2 \u03a9 sigma",
    "x" * 200,
]


def main():
    draw = random.Random(7)
    words = ["a", "red", "blue", "star", "ring", "left", "right", "top", "there", "is"]
    long = [" ".join(draw.choice(words) for _ in range(draw.randint(5, 60))) for _ in range(12)]
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    pairs = list(itertools.product(TEXTS, TEXTS)) + list(itertools.product(long, long))
    cases = []
    for text, reference in pairs:
        f1 = scorer.score(target=reference, prediction=text)["rougeL"].fmeasure
        # Pairs without a common word all say the same; every third will do.
        if f1 > 0 or len(cases) % 3 == 0 or draw.random() < 0.2:
            cases.append([text, reference, f1])
    file = pathlib.Path(__file__).parent / "data" / "rouge.json"
    lines = ",\n".join(json.dumps(case) for case in cases)
    file.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
