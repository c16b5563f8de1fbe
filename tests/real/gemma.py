"""Goldens of Gemma 3 270M: what transformers computes in 32 bits from the values of the GGUF file that the engine reads.

    npm run real -- --fetch                          # the file, in .cache/real/gemma
    venv/bin/pip install -r tests/real/requirements.txt
    venv/bin/python tests/real/gemma.py              # writes golden/gemma.json

Weights, configuration and tokenizer are those that transformers makes of the file."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "golden"))

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from common import ROOT, greedy, write_json

FOLDER = ROOT / ".cache" / "real" / "gemma"
FILE = "gemma-3-270m-q4_k_m.gguf"
TEXT = (HERE / "text.txt").read_text(encoding="utf-8")
STEPS = 64
# A number is so many characters of text.txt, which are more tokens than a local layer sees.
PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n",
    "1, 2, 4, 8, 16,",
    "Ünïcödé 🦭, 日本語 und  zwei   Leerzeichen\n\n\tTab",
    "Der Leuchtturm stand auf einer Insel",
    "<start_of_turn>user\nList the planets of the solar system.<end_of_turn>\n<start_of_turn>model\n",
    "SELECT name, price FROM",
    "Dear Sir or Madam,\n",
    3200,
]


def main():
    model = AutoModelForCausalLM.from_pretrained(FOLDER, gguf_file=FILE, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(FOLDER, gguf_file=FILE)
    runs = []
    for prompt in PROMPTS:
        text = TEXT[:prompt] if isinstance(prompt, int) else prompt
        ids = tokenizer(text)["input_ids"]
        logits, made, steps = greedy(model, {"input_ids": torch.tensor([ids])}, STEPS)
        last = torch.from_numpy(logits[-1]).double().log_softmax(-1)
        order = last.argsort(descending=True).tolist()
        # The likeliest, and some from all over the vocabulary, which a text of one token can ask for.
        asked = [token for token in order[:4] + order[10:200000:8000] if tokenizer(text + tokenizer.decode([token]))["input_ids"] == [*ids, token]]
        runs.append(
            {
                "prompt": prompt,
                "prompt_tokens": ids,
                "tokens": made,
                "text": tokenizer.decode(made),
                "gaps": [round(step["best"][1] - step["second"][1], 6) for step in steps],
                "choices": [{"text": tokenizer.decode([token]), "token": token, "logprob": round(float(last[token]), 6)} for token in asked[:6]],
            }
        )
        print(len(ids), repr(runs[-1]["text"]), min(runs[-1]["gaps"]))
    write_json(HERE / "golden" / "gemma.json", {"runs": runs})


if __name__ == "__main__":
    main()
