"""Reads every golden back and asserts what the README promises about names, shapes and sizes."""

import base64
import json

from safetensors.numpy import load_file

import adapters
import anyres_models
import internvl_models
import models
import planted
import tiles_models
from common import DATA, FIXTURES, GOLDEN, IMAGES, ROOT

LLAVA = [f for f in models.ALL if f.vision is not None]


def read(name):
    arrays = DATA / f"{name}.safetensors"
    return json.loads((DATA / f"{name}.json").read_text()), load_file(arrays) if arrays.exists() else None


def check_case(name, case, arrays, vocab, hidden, side):
    rows, tokens = case["logit_rows"], case["tokens"]
    assert arrays[f"{case['name']}.logits"].shape == (len(rows), vocab), name
    assert rows[-1] == len(case["input_ids"]) - 1
    assert len(case["steps"]) == len(tokens)
    assert arrays[f"{case['name']}.logits"][-1].argmax() == tokens[0]
    for token, step in zip(tokens, case["steps"]):
        assert step["best"][0] == token and step["best"][1] >= step["second"][1]
    count = len(case["images"])
    assert all((ROOT / image).exists() for image in case["images"])
    if not count:
        return
    get = lambda key: arrays[f"{case['name']}.{key}"]
    assert get("pixels").shape == (count, 3, side, side)
    assert get("pixel_indices").shape == get("pixel_values").shape == (256,)
    assert get("vision").shape[:2] == (count, len(case["feature_rows"]))
    assert get("projected").shape == (count, len(case["feature_rows"]), hidden)


def check_tiny_llava():
    golden, arrays = read("tiny-llava")
    generated = {scene["image"]: scene["greedy"] for scene in read("scenes")[0]["scenes"]}
    for case in golden["cases"]:
        check_case("tiny-llava", case, arrays, 768, 192, 168)
        assert case["input_ids"].count(4) == 144 * len(case["images"])
        # our own loop agrees with transformers' generate
        assert generated[f"{case['name']}.png"][: len(case["tokens"])] == case["tokens"]


def check_fixtures():
    for fixture in models.ALL:
        golden, arrays = read(fixture.name)
        vision = fixture.vision or {"image_size": 0, "patch_size": 1}
        patches = (vision["image_size"] // vision["patch_size"]) ** 2
        patches += fixture.llava.get("vision_feature_select_strategy") == "full"
        for case in golden["cases"]:
            check_case(fixture.name, case, arrays, models.vocabulary(fixture), fixture.text["hidden_size"], vision["image_size"])
            assert len(case["tokens"]) == 32
            assert case["input_ids"].count(models.IMAGE[fixture.tokenizer]) == patches * len(case["images"])


def check_tiles():
    for fixture in tiles_models.ALL:
        golden, arrays = read(fixture.name)
        image = fixture.vocabulary - len(tiles_models.names(fixture)) + tiles_models.names(fixture).index(tiles_models.IMAGE)
        for case in golden["cases"]:
            tiles = sum(rows * columns + 1 for rows, columns in case["grids"])
            assert case["input_ids"].count(image) == tiles * fixture.cells and len(case["tokens"]) == 32
            assert arrays[f"{case['name']}.logits"].shape == (len(case["logit_rows"]), fixture.vocabulary)
            for number, rows in enumerate(case["image_feature_rows"]):
                for kind in ("vision", "projected"):
                    assert len(arrays[f"{case['name']}.{kind}.{number}"]) == len(rows)
    golden, arrays = read("tiles")
    grids = {tuple(picture["grid"]) for picture in golden["pictures"]}
    assert {(0, 0), (3, 4), (4, 2), (4, 4), (4, 1), (1, 4)} <= grids
    for picture in golden["pictures"]:
        assert picture["tiles"] == picture["grid"][0] * picture["grid"][1] + 1
        assert arrays[f"{picture['key']}.at"].shape == arrays[f"{picture['key']}.values"].shape == (160,)
    for scene in read("eviction/smolvlm-tiles")[0]["scenes"]:
        for case in scene["cases"]:
            check_evicted(case, len(scene["prompt"]), len(scene["answer"]), 3, 2)


def check_anyres():
    for fixture in anyres_models.ALL:
        golden, arrays = read(fixture.name)
        for case in golden["cases"]:
            assert len(case["tokens"]) == 32
            assert arrays[f"{case['name']}.logits"].shape == (len(case["logit_rows"]), fixture.vocabulary())
            for kind, rows in (("vision", case["image_feature_rows"]), ("projected", case["projected_rows"])):
                assert len(rows) == len(case["images"])
                assert all(len(arrays[f"{case['name']}.{kind}.{number}"]) == len(own) for number, own in enumerate(rows))
    golden, arrays = read("anyres")
    assert {picture["beside"] for picture in golden["pictures"]} == {False, True}
    for picture in golden["pictures"]:
        assert arrays[f"{picture['key']}.at"].shape == arrays[f"{picture['key']}.values"].shape == (64,)
    shapes = [size for case in read("anyres_sizes")[0]["cases"] for size in case["sizes"]]
    assert len(shapes) > 400 and {len(size) for size in shapes} == {9} and any(size[6] == 0 or size[7] == 0 for size in shapes)
    for scene in read("eviction/llava-next")[0]["scenes"]:
        for case in scene["cases"]:
            check_evicted(case, len(scene["prompt"]), len(scene["answer"]), 3, 2)


def check_scenes():
    golden, _ = read("scenes")
    assert len(golden["scenes"]) == 60
    assert all(len(s["tokens"]) == len(s["logprobs"]) and s["tokens"][-1] == 2 for s in golden["scenes"])
    assert sum(len(s["tokens"]) for s in golden["scenes"]) == golden["overall"]["tokens"]
    assert abs(-sum(sum(s["logprobs"]) for s in golden["scenes"]) - golden["overall"]["nll"]) < 0.01


def check_images():
    golden, arrays = read("images")
    assert {case["image"].split("/")[-1] for case in golden["cases"]} == {path.name for path in IMAGES.iterdir() if not path.name.startswith("film-")}
    for case in golden["cases"]:
        size = 3 * case["height"] * case["width"]
        assert arrays[f"{case['name']}/decoded"].shape == (min(2000, size),)
        assert all(arrays[output["key"]].shape == (2000,) for output in case["outputs"])


def check_text():
    tokenizers, _ = read("tokenizers")
    assert len(tokenizers) == 4 and all(len(t["cases"]) >= 30 for t in tokenizers)
    templates, _ = read("templates")
    assert all(("rendered" in case) != ("error" in case) for t in templates for case in t["cases"])
    for path in (DATA / "configs").iterdir():
        config = json.loads(path.read_text())
        assert ("resolved" in config) != ("error" in config)


def check_gguf():
    golden, arrays = read("gguf")
    assert len(golden["models"]) == 10 and len(golden["tokenizers"]) == 8
    for model in golden["models"]:
        assert (ROOT / model["file"]).exists() and model["hashes"].keys() == model["shapes"].keys()
        name = model["file"].split("/")[-1].removesuffix(".gguf")
        vocab = model["shapes"]["model.embed_tokens.weight"][0]
        assert arrays[f"{name}.exact"].shape == arrays[f"{name}.rounded"].shape == (6, vocab)
    assert all((ROOT / tokenizer["file"]).exists() and len(tokenizer["cases"]) >= 30 for tokenizer in golden["tokenizers"])


def check_gguf_pairs():
    found = sorted(path.relative_to(FIXTURES / "gguf-pairs").as_posix() for path in (FIXTURES / "gguf-pairs").rglob("*.gguf"))
    pairs = ["llava-bare", "llava-gqa64", "qwen2-vl", "qwen2.5-vl", "qwen3-vl", "smolvlm-tiles"]
    files = [f"{name}/{file}.gguf" for name in pairs for file in ("mmproj", "model")]
    assert found == sorted(files + ["llava-gqa64/blocks/mmproj-Q4_0.gguf", "qwen2-vl/blocks/mmproj-Q8_0.gguf"]), found
    assert all((FIXTURES / name / "config.json").exists() for name in pairs)


def check_wide():
    golden, arrays = read("wide")
    assert arrays["logits"].shape == (24, 1024) and len(golden["tokens"]) == 8 and len(golden["tensors"]) == 21


def positions(text):
    """"0-2,5" as [0, 1, 2, 5]."""
    ends = [[int(end) for end in run.split("-")] for run in text.split(",") if run]
    return [position for run in ends for position in range(run[0], run[-1] + 1)]


def check_eviction():
    for name, layers, kv_heads, found in (("tiny-llava", 10, 6, 39), ("planted", 6, 2, 38)):
        golden, _ = read(f"eviction/{name}")
        for scene in golden["scenes"]:
            assert len(scene["cases"]) == found
            for case in scene["cases"]:
                check_evicted(case, len(scene["prompt"]), len(scene["answer"]), layers, kv_heads)
    for scene in golden["scenes"]:
        check_planted(scene)
    scores, _ = read("eviction/scores")
    # a query's attention sums to one, so a layer's scores sum to the number of queries
    for row in [*scores["layers"].values(), *scores["heads_of_layer_4"]]:
        assert abs(sum(row) - len(row)) < 1e-3


# Those that free nothing while generating.
ONCE = {"snapkv", "pyramidkv", "adakv", "keydiff", "observedAttention", "lagkv", "expectedAttention", "chunkkv", "cake", "vlCache", "tgvKv", "mixkv", "lookM", "airCache"}


def check_evicted(case, length, answer, layers, kv_heads):
    options, counts = case["options"], case["counts"]
    method, searched = options["method"], options.get("variant") == "official"
    lanes = 1 if method in ("prefixkv", "streaming", "tova", "chunkkv", "tgvKv", "elastic") else kv_heads
    total = int(options["keep"] * layers * length + 0.5) if "keep" in options else None
    if searched:  # every layer's evicted count is rounded down
        assert 0 <= sum(counts) - options["keep"] * layers * length < layers
    elif "calibration" in options:
        assert counts == [length - min(round(rho * length), length - 2) for rho in options["calibration"]]
    else:
        assert sum(counts) == total
        if method == "pyramidkv":  # less from layer to layer
            assert counts == sorted(counts, reverse=True) and counts[0] > counts[-1]
        else:
            assert method in ("prefixkv", "cake", "vlCache", "tgvKv", "airCache") or max(counts) - min(counts) <= 1
    # a choice that rounding may turn ends a case early, and its own step is not in `kept_end`
    steps = len(case["logprobs"])
    assert 2 <= steps <= answer and max(case["logprobs"]) <= 0
    steps -= 1 if steps == answer else 2
    for layer in range(layers):
        assert [len(case[key][layer]) for key in ("kept", "loose")] == [lanes] * 2
        count, seen = counts[layer], length + steps
        if method == "adakv":  # heads have sizes of their own
            assert sum(len(positions(kept)) for kept in case["kept"][layer]) == count * lanes
        assert method not in ONCE or "kept_end" not in case
        grown = [[*positions(kept), *range(length, seen)] for kept in case["kept"][layer]]
        ends = [positions(end) for end in case["kept_end"][layer]] if "kept_end" in case else grown
        for kept, end in zip(map(positions, case["kept"][layer]), ends, strict=True):
            assert (len(kept) == count or method == "adakv") and kept == sorted(set(kept)) and kept[-1] < length
            assert end == sorted(set(end)) and set(end) <= {*kept, *range(length, seen)}
            if method == "prefixkv":
                assert kept[0] == 0 and kept[-1] == length - 1
            if method == "streaming":
                assert kept == [*range(4), *range(length - count + 4, length)]
                assert end == [*range(4), *range(seen - len(end) + 4, seen)]
            if method in ONCE:
                continue
            if searched or "calibration" in options:
                share = 1 - options["calibration"][layer] if "calibration" in options else count / length
                # with all evicted the two protected entries stay, and one goes for each that comes
                assert -1.5 < len(end) - max(seen * share, 2 if share == 0 else 0) <= 1 + 1e-9
            else:  # one more is dropped as soon as one whole entry is too many
                assert -length < len(end) * length - seen * count < length


def check_pyramid_infer():
    golden, _ = read("pyramid_infer")
    for scene in golden["scenes"]:
        found = next(s for s in read(f"eviction/{scene['of']}")[0]["scenes"] if s["name"] == scene["name"])
        count = lambda text: sum(byte.bit_count() for byte in base64.b64decode(text))
        for case in scene["cases"]:
            held, generated = [[count(text) for text in case[key]] for key in ("kept", "generated")]
            assert held[0] == len(found["prompt"]) and held == sorted(held, reverse=True) and held[-1] < held[0]
            assert generated == sorted(generated, reverse=True) and max(generated) <= len(found["answer"])


def check_zipvl():
    golden, _ = read("zipvl")
    for scene in golden["scenes"]:
        found = next(s for s in read(f"eviction/{scene['of']}")[0]["scenes"] if s["name"] == scene["name"])
        assert scene["again"] <= len(found["prompt"]) and scene["said"] <= len(found["answer"])
        for case in scene["cases"]:
            counts = [sum(byte.bit_count() for byte in base64.b64decode(text)) for text in case["first"]]
            assert all(0 < count < len(found["prompt"]) for count in counts) and len(set(counts)) > 1
            assert len(case["logprobs"]) >= 20 and max(case["logprobs"]) <= 0


def check_vision_zip():
    for scene in read("vision_zip")[0]["scenes"]:
        found = next(s for s in read(scene["of"])[0]["cases"] if s["name"] == scene["name"])
        for case in scene["cases"]:
            assert len(case["images"]) == len(found["images"]) and max(case["logprobs"]) <= 0
            for image in case["images"]:
                kept = [8 * i + bit for i, byte in enumerate(base64.b64decode(image["kept"])) for bit in range(8) if byte >> bit & 1]
                into = base64.b64decode(image["into"])
                assert len(kept) == len(image["features"]) and set(into) <= set(kept)
                assert bool(into) == (case["options"]["contextual"] > 0)


def check_kvzip():
    for scene in read("kvzip")[0]["scenes"]:
        found = next(s for s in read(f"eviction/{scene['of']}")[0]["scenes"] if s["name"] == scene["name"])
        for case in scene["cases"]:
            sizes, length = case["sizes"], len(found["prompt"])
            assert sum(map(sum, sizes)) == int(case["options"]["keep"] * length * len(sizes) + 0.5) * len(sizes[0])
            ragged = len({size for lanes in sizes for size in lanes}) > 2
            assert ragged == ("budget" not in case["options"])
            for layer, lanes in zip(scene["layers"], case["kept"]):
                assert [sum(byte.bit_count() for byte in base64.b64decode(bits)) for bits in lanes] == sizes[layer]


def check_rkv():
    for scene in read("rkv")[0]["scenes"]:
        found = next(s for s in read(f"eviction/{scene['of']}")[0]["scenes"] if s["name"] == scene["name"])
        held = lambda text: [i for i, byte in enumerate(base64.b64decode(text)) for bit in range(8) if byte >> bit & 1]
        for case in scene["cases"]:
            assert len(case["kept"]) == len(case["kept_end"]) == len(scene["layers"])
            for heads, ends in zip(case["kept"], case["kept_end"]):
                assert len({len(held(text)) for text in heads}) == 1 == len({len(held(text)) for text in ends})
                assert max(len(held(text)) for text in heads) < len(found["prompt"])


def check_heads():
    golden, _ = read("heads")
    assert [[found["measure"] for found in one["found"]] for one in golden["measured"]] == [["image-hits", "image-mass", "copies"], ["copies"]]
    for found in (found for one in golden["measured"] for found in one["found"]):
        assert all(0 <= score <= 1 for layer in found["scores"] for score in layer)
    for sized in golden["sized"]:
        scene = next(s for s in read(f"eviction/{sized['of']}")[0]["scenes"] if s["name"] == sized["name"])
        length, count = len(scene["prompt"]), lambda text: sum(byte.bit_count() for byte in base64.b64decode(text))
        for case in sized["cases"]:
            layers, heads = len(case["sizes"]), len(case["sizes"][0])
            whole = int(case["options"]["keep"] * layers * length + 0.5)
            assert sum(map(sum, case["sizes"])) == whole * heads and max(map(max, case["sizes"])) <= length
            for layer, kept in zip(sized["layers"], case["kept"]):
                assert [count(text) for text in kept] == case["sizes"][layer]


def check_planted(scene):
    important = [set(positions(text)) for text in scene["important"]]
    assert [len(places) for places in important] == planted.COUNTS and len(scene["prompt"]) == planted.LENGTH
    for case in scene["cases"]:
        options, length = case["options"], len(scene["prompt"])
        for places, lanes in zip(important, case["kept"]):
            if options["method"] == "prefixkv" and "score" not in options:  # important ones go last
                kept = set(positions(lanes[0]))
                assert places <= kept or kept <= places | {0, length - 1}


def check_kvpress():
    planted_golden, real = read("kvpress/planted")[0], read("kvpress/smollm2")[0]
    presses = {case["press"].split("(")[0] for prompt in planted_golden["prompts"] for case in prompt["cases"]}
    assert len(planted_golden["prompts"]) == 2 and len(presses) >= 7
    for prompt in planted_golden["prompts"]:
        for case in prompt["cases"]:
            layers = case.get("kept") or case["channels"]
            assert len(layers) == 6 and {len(heads) for heads in layers} == {2}
            least, most = (8, len(prompt["prompt"])) if "kept" in case else (1, planted.HEAD)
            for kept in (positions(kept) for heads in layers for kept in heads):
                assert kept == sorted(set(kept)) and kept[-1] < most and least <= len(kept) < most
            for layer, head, loose in case["loose"]:
                # Some of them are kept, and some are not.
                assert set(positions(loose)) & set(positions(layers[layer][head])) or case["options"]["method"] == "adakv"
    for case in [*real["cases"], *(case for prompt in planted_golden["prompts"] for case in prompt["cases"])]:
        assert sum(len(positions(loose)) for _, _, loose in case["loose"]) == case["ties"]
    assert all(len(case["kept"]) == 30 and {len(heads) for heads in case["kept"]} == {3} for case in real["cases"])


def check_codebooks():
    golden, arrays = read("codebooks")
    assert [len(golden["levels"][bits]) for bits in ("2", "4")] == [4, 16]
    for levels in golden["levels"].values():
        assert levels == sorted(levels) == [-level for level in reversed(levels)]
    for case in golden["cases"]:
        assert all(arrays[f"{case['name']}.{part}"].shape == (len(golden["rows"]), case["dim"]) for part in ("keys", "values"))
    assert len(arrays["floats"]) == len(arrays["floats.bf16"]) == len(arrays["floats.f8"])


def check_stores():
    golden, _ = read("stores")
    assert {case["cache"]["method"] for case in golden["cases"]} == {"int8", "int4", "int2", "kivi", "kvtuner", "skvq", "think", "akvqVl", "zipvl"}
    for case in golden["cases"]:
        for layer in case["layers"]:
            assert len(layer["shown"]) == len(set(layer["shown"])) == 8
            rows = [*layer["keys"], *layer["values"]]
            assert len(rows) == 16 and {len(row) for row in rows} == {-(-case["dim"] // golden["stride"])}


def check_kvtuner():
    golden, _ = read("kvtuner")
    for case in golden:
        layers = len(case["sensitivity"])
        assert all(len(errors) == 9 for errors in case["sensitivity"])
        assert sorted(layer for group in case["found"] for layer in group["layers"]) == list(range(layers))
        for before, after in zip(case["points"], case["points"][1:]):
            assert before["bits"] < after["bits"] and before["loss"] > after["loss"]


def check_skvq():
    golden, _ = read("skvq")
    for case in golden["cases"]:
        for side in (layer[part] for layer in case["layers"] for part in ("keys", "values")):
            assert all(sorted(order) == list(range(len(order))) for order in side["order"])
            assert 0.6 <= side["clip2"] <= side["clip4"] <= 1, "fewer bits never clip less"


def check_directions():
    for name, parts in (("cskv", 1), ("clla", 2)):
        golden, _ = read(name)
        assert (ROOT / golden["model"]).exists() and len(golden["files"]) > 1
        for file in golden["files"]:
            model, numbers = file["model"], file["rank"] * file["model"]["kvHeads"] * file["model"]["headDim"]
            layers = [layer["layer"] for layer in file["layers"]]
            assert layers == sorted(set(layers)) and layers[-1] < model["layers"] and len(layers) % parts == 0
            for layer in file["layers"]:
                assert all(len(base64.b64decode(layer[side])) == numbers for side in ("keys", "values"))
                assert ("sizes" in layer) == ("span" in file) == (parts == 2)
        for case in golden["cases"]:
            assert case["file"] < len(golden["files"]) and len(case["logits"]) == len(golden["behind"])


def check_lorc():
    golden, _ = read("lorc")
    for case in golden["cases"]:
        assert len(case["logits"]) == len(golden["behind"]) and case["cache"]["method"] == "lorc"
        assert all(width % 8 == 0 for width in case["widths"])


def check_qwen_vl():
    for name, levels in (("qwen2-vl", 0), ("qwen2.5-vl", 0), ("qwen3-vl", 2)):
        golden, arrays = read(name)
        assert len(golden["cases"]) == 5 and len(golden["twice"]) == 2
        for case in golden["cases"]:
            count = len(case["input_ids"])
            assert len(case["phases"]) == count and len(case["tokens"]) == len(case["steps"]) == 32
            assert max(map(max, case["phases"])) + 1 - count == case["delta"] <= 0
            assert len(case["grids"]) == len(case["images"])
            for index, (rows, columns) in enumerate(case["grids"]):
                cells = rows * columns // 4
                assert len(arrays[f"{case['name']}.{index}.features"]) == cells
                assert all(len(arrays[f"{case['name']}.{index}.deepstack.{level}"]) == cells for level in range(levels))


def check_gemma3():
    golden, arrays = read("gemma3-vision")
    assert len(golden["cases"]) == 5 and [case["cache"]["method"] for case in golden["ending"]["ranked"]] == [
        "h2o", "observedAttention", "snapkv", "kvzip",
    ]  # fmt: skip
    for case in golden["cases"]:
        soft = max(case["input_ids"]) if case["images"] else 0
        assert len(case["tokens"]) == len(case["steps"]) == 32 and case["input_ids"].count(soft) == 16 * len(case["images"])
        if case["images"]:
            assert len(arrays[f"{case['name']}.vision"]) == len(arrays[f"{case['name']}.projected"]) == len(case["images"])
    assert max(picture["squares"] for picture in golden["scan"]["pictures"]) > 2


def check_adapters():
    for golden in adapters.GOLDENS:
        written, arrays = read(golden.name)
        fixture = adapters.fixture_of(golden.fixture)
        assert [ROOT / folder for folder in written["adapters"]] == [adapter.folder for adapter in golden.adapters]
        assert [case["name"] for case in written["cases"]] == list(golden.cases)
        for case in written["cases"]:
            rows = arrays[f"{case['name']}.logits"]
            assert rows.shape == (len(case["logit_rows"]), models.vocabulary(fixture))
            assert rows[-1].argmax() == case["tokens"][0] and len(case["tokens"]) == len(case["steps"]) == 32
            # an adapter that changes nothing would prove nothing
            plain = {one["name"]: one["tokens"] for one in read(golden.fixture)[0]["cases"]}
            assert plain[case["name"]] != case["tokens"]


def check_internvl():
    for name, count in (("internvl3", 7), ("internvl3.5", 7), ("internvl-original", 2)):
        golden, arrays = read(name)
        assert len(golden["cases"]) == count
        for case in golden["cases"]:
            tiles = sum(rows * columns + 1 for rows, columns in case["grids"])
            assert case["input_ids"].count(internvl_models.CONTEXT_ID) == tiles * internvl_models.CELLS
            assert len(case["tokens"]) == len(case["steps"]) == 32
            assert arrays[f"{case['name']}.logits"].shape == (len(case["logit_rows"]), internvl_models.VOCABULARY)
            for number, rows in enumerate(case["image_feature_rows"]):
                for kind in ("vision", "projected"):
                    assert len(arrays[f"{case['name']}.{kind}.{number}"]) == len(rows)
        assert "evicted" not in golden or golden["evicted"]["tokens"] != golden["cases"][0]["tokens"]
    golden, arrays = read("internvl_tiles")
    assert {(0, 0), (2, 3), (2, 2), (3, 3), (3, 4), (4, 2), (12, 1)} <= {tuple(picture["grid"]) for picture in golden["pictures"]}
    for picture in golden["pictures"]:
        assert picture["tiles"] == picture["grid"][0] * picture["grid"][1] + 1
        assert arrays[f"{picture['key']}.at"].shape == arrays[f"{picture['key']}.values"].shape == (120,)


def check_sizes():
    for folder, most in ((DATA, 19 << 19), (FIXTURES, 22 << 19)):
        total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(f"{folder.relative_to(GOLDEN)}: {total} bytes")
        assert total < most


if __name__ == "__main__":
    for check in (check_tiny_llava, check_fixtures, check_tiles, check_anyres, check_scenes, check_images, check_text, check_wide, check_codebooks, check_stores, check_kvtuner, check_skvq, check_directions, check_lorc, check_gguf, check_gguf_pairs, check_adapters, check_qwen_vl, check_gemma3, check_internvl, check_eviction, check_pyramid_infer, check_zipvl, check_vision_zip, check_rkv, check_heads, check_kvzip, check_kvpress, check_sizes):
        check()
    print("all goldens read back well")
