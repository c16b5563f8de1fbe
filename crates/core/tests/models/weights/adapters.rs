//! Adapters that are merged while weights are read: the same bits as weights that were merged before, from and to every format, and what is
//! refused. The models against transformers and PEFT are in `parity.rs`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use prefixkv_core::error::Error;
use prefixkv_core::model::{LoadOptions, Model, WeightFormat};
use prefixkv_core::weights::gguf::Gguf;
use prefixkv_core::weights::{Checkpoint, Layouts};
use safetensors::Dtype;
use serde_json::{Value, json};

use super::files::{FORMATS, Named, exact, write};
use crate::golden::{Read, read};

const HIDDEN: usize = 768;
const INNER: usize = 1280;
const KV: usize = 256;
const VOCABULARY: usize = 1300;
const LAYERS: usize = 2;
const RANK: usize = 4;
/// A power of two, so that sums of products are exact.
const ALPHA: f32 = 8.0;

const HELD: [WeightFormat; 4] = [WeightFormat::F32, WeightFormat::F16, WeightFormat::Q8_0, WeightFormat::Q4K];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Multiples of 1/64 from -3/64 to 3/64.
fn small(seed: usize, n: usize) -> Vec<f32> {
    (0..n).map(|i| (((i * 2_654_435_761 + seed * 97) >> 7) % 7) as f32 / 64.0 - 3.0 / 64.0).collect()
}

/// A Llama of 768 columns with layers of 256, 768, 1280 and 1300 rows.
fn tensors(tied: bool) -> Vec<Named> {
    let mut all: Vec<Named> = Vec::new();
    let mut add = |name: String, shape: &[usize]| {
        let numbers = match shape {
            [_] => exact(all.len() as u64, shape[0], 1.0 / 1024.0)
                .into_iter()
                .map(|x| 1.0 + (x * 8.0).round() / 8.0)
                .collect(),
            _ => exact(all.len() as u64, shape.iter().product(), 1.0 / 4096.0),
        };
        all.push(Named::new(name, shape, numbers));
    };
    add("model.embed_tokens.weight".into(), &[VOCABULARY, HIDDEN]);
    for layer in 0..LAYERS {
        for (name, rows, columns) in [
            ("self_attn.q_proj", HIDDEN, HIDDEN),
            ("self_attn.k_proj", KV, HIDDEN),
            ("self_attn.v_proj", KV, HIDDEN),
            ("self_attn.o_proj", HIDDEN, HIDDEN),
            ("mlp.gate_proj", INNER, HIDDEN),
            ("mlp.up_proj", INNER, HIDDEN),
            ("mlp.down_proj", HIDDEN, INNER),
        ] {
            add(format!("model.layers.{layer}.{name}.weight"), &[rows, columns]);
        }
        add(format!("model.layers.{layer}.input_layernorm.weight"), &[HIDDEN]);
        add(format!("model.layers.{layer}.post_attention_layernorm.weight"), &[HIDDEN]);
    }
    add("model.norm.weight".into(), &[HIDDEN]);
    if !tied {
        add("lm_head.weight".into(), &[VOCABULARY, HIDDEN]);
    }
    all
}

fn model_folder(tied: bool) -> tempfile::TempDir {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let from = root().join("tests/golden/fixtures/llama-linear-tied").join(name);
        std::fs::copy(from, dir.path().join(name)).expect("copied");
    }
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": HIDDEN,
        "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": 12, "num_key_value_heads": 4,
        "head_dim": 64, "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "eos_token_id": 2, "tie_word_embeddings": tied,
    });
    std::fs::write(dir.path().join("config.json"), config.to_string()).expect("written");
    dir
}

/// The pairs of an adapter for every matrix of `model`, those of embeddings as PEFT names them.
fn pairs(model: &[Named]) -> Vec<Named> {
    let mut all = Vec::new();
    for (index, of) in model.iter().enumerate().filter(|(_, of)| of.shape.len() == 2) {
        let (rows, columns) = (of.shape[0], of.shape[1]);
        let module = of.name.strip_suffix(".weight").expect("a weight");
        let at = |part: &str| format!("base_model.model.{module}.{part}");
        if module.ends_with("embed_tokens") {
            all.push(Named::new(at("lora_embedding_A"), &[RANK, rows], small(index, RANK * rows)));
            all.push(Named::new(at("lora_embedding_B"), &[columns, RANK], small(index + 50, columns * RANK)));
        } else {
            all.push(Named::new(at("lora_A.weight"), &[RANK, columns], small(index, RANK * columns)));
            all.push(Named::new(at("lora_B.weight"), &[rows, RANK], small(index + 50, rows * RANK)));
        }
    }
    all
}

fn config() -> Value {
    json!({ "peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none", "base_model_name_or_path": "some/base" })
}

fn adapter_of(config: &Value, tensors: &[Named], dtype: impl Fn(usize) -> Dtype) -> tempfile::TempDir {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    write(dir.path(), tensors, dtype);
    std::fs::rename(dir.path().join("model.safetensors"), dir.path().join("adapter_model.safetensors"))
        .expect("renamed");
    std::fs::write(dir.path().join("adapter_config.json"), config.to_string()).expect("written");
    dir
}

/// `model` with `times` the change of each pair, by the definition.
fn merged(model: &[Named], pairs: &[Named], times: f32) -> Vec<Named> {
    let scale = times * ALPHA / RANK as f32;
    let mut pairs = pairs.chunks_exact(2);
    let one = |of: &Named| {
        let mut numbers = of.numbers.clone();
        if of.shape.len() == 2 {
            let [a, b] = pairs.next().expect("a pair") else { panic!("two tensors") };
            let (rows, columns) = (of.shape[0], of.shape[1]);
            let table = a.name.ends_with("embedding_A");
            for (at, number) in numbers.iter_mut().enumerate() {
                let (row, column) = (at / columns, at % columns);
                let product = |k: usize| match table {
                    true => b.numbers[column * RANK + k] * a.numbers[k * rows + row],
                    false => b.numbers[row * RANK + k] * a.numbers[k * columns + column],
                };
                *number += scale * (0..RANK).map(product).sum::<f32>();
            }
        }
        Named::new(of.name.clone(), &of.shape, numbers)
    };
    model.iter().map(one).collect()
}

fn load(dir: &Path, adapters: &[&Path], weights: WeightFormat) -> Result<Model, Error> {
    let adapters = adapters.iter().map(|dir| dir.to_path_buf()).collect();
    Model::load(&LoadOptions { weights, adapters, ..LoadOptions::new(dir) }, &mut |_| Ok(()))
}

fn logits(model: &Model) -> Vec<f32> {
    let prompt = model.expand(&(3..20).collect::<Vec<u32>>(), 0).expect("expands");
    let mut sequence = model.new_sequence().expect("no cap");
    let mut all = model.prefill_all(&prompt, &[], &mut sequence, &|| Ok(())).and_then(|y| y.to_vec()).expect("reads");
    all.extend(model.decode(7, &mut sequence).expect("decodes"));
    all
}

#[test]
fn merging_at_load_gives_the_bits_of_weights_that_are_merged_before() {
    let (base, by_hand) = (model_folder(false), model_folder(false));
    let model = tensors(false);
    let pairs = pairs(&model);
    // Every format holds the sums too.
    write(by_hand.path(), &merged(&model, &pairs, 1.0), |_| Dtype::F32);
    let want: Vec<Vec<f32>> = HELD.map(|held| logits(&load(by_hand.path(), &[], held).expect("loads"))).into();
    for (number, file) in FORMATS.into_iter().enumerate() {
        write(base.path(), &model, |_| file);
        assert_ne!(logits(&load(base.path(), &[], WeightFormat::F32).expect("loads")), want[0], "nothing changes");
        for format in FORMATS {
            let adapter = adapter_of(&config(), &pairs, |_| format);
            for (held, want) in HELD.into_iter().zip(&want) {
                let got = logits(&load(base.path(), &[adapter.path()], held).expect("loads"));
                assert!(got == *want, "{file:?} with an adapter in {format:?} as {held:?}");
            }
        }
        // A mixture, in another order each time.
        let adapter = adapter_of(&config(), &pairs, |index| FORMATS[(index + number) % 3]);
        assert!(logits(&load(base.path(), &[adapter.path()], WeightFormat::Q8_0).expect("loads")) == want[2], "mixed");
    }
}

#[test]
fn several_adapters_add_up() {
    let (base, by_hand) = (model_folder(false), model_folder(false));
    let model = tensors(false);
    let pairs = pairs(&model);
    write(base.path(), &model, |_| Dtype::BF16);
    write(by_hand.path(), &merged(&model, &pairs, 3.0), |_| Dtype::F32);
    let once = adapter_of(&config(), &pairs, |_| Dtype::F16);
    let mut twice = config();
    twice["lora_alpha"] = json!(2.0 * ALPHA);
    let twice = adapter_of(&twice, &pairs, |_| Dtype::F32);
    let got = load(base.path(), &[once.path(), twice.path()], WeightFormat::F16).expect("loads");
    assert!(logits(&got) == logits(&load(by_hand.path(), &[], WeightFormat::F16).expect("loads")));
    let folders = [once.path(), twice.path()].map(|dir| dir.display().to_string());
    assert_eq!(got.info().adapters, folders);
}

/// PEFT trains embeddings apart from an output layer that they were before.
#[test]
fn a_tied_output_layer_stays_or_goes_its_own_way() {
    let (base, by_hand) = (model_folder(true), model_folder(false));
    let model = tensors(true);
    write(base.path(), &model, |_| Dtype::BF16);
    let embeddings = model[0].numbers.clone();
    let pairs = pairs(&model);
    let of_head = |part: &str, from: &Named, shape: &[usize], numbers: Vec<f32>| {
        assert!(from.name.contains("embed_tokens"));
        Named::new(format!("base_model.model.lm_head.lora_{part}.weight"), shape, numbers)
    };
    let (a, b) = (small(7, RANK * HIDDEN), small(8, VOCABULARY * RANK));
    for (with_head, ties) in [(false, false), (true, false), (false, true)] {
        let mut changes = pairs.clone();
        let mut whole = merged(&model, &pairs, 1.0);
        let mut head = if ties { whole[0].numbers.clone() } else { embeddings.clone() };
        if with_head {
            changes.push(of_head("A", &pairs[0], &[RANK, HIDDEN], a.clone()));
            changes.push(of_head("B", &pairs[1], &[VOCABULARY, RANK], b.clone()));
            for (at, number) in head.iter_mut().enumerate() {
                let (row, column) = (at / HIDDEN, at % HIDDEN);
                let product = |k: usize| b[row * RANK + k] * a[k * HIDDEN + column];
                *number += ALPHA / RANK as f32 * (0..RANK).map(product).sum::<f32>();
            }
        }
        whole.push(Named::new("lm_head.weight", &[VOCABULARY, HIDDEN], head));
        write(by_hand.path(), &whole, |_| Dtype::F32);
        let mut config = config();
        config["ensure_weight_tying"] = json!(ties);
        let adapter = adapter_of(&config, &changes, |_| Dtype::F32);
        for held in HELD {
            let got = load(base.path(), &[adapter.path()], held).expect("loads");
            let want = load(by_hand.path(), &[], held).expect("loads");
            assert!(logits(&got) == logits(&want), "head: {with_head}, tying: {ties}, {held:?}");
        }
    }
}

/// Behind the merge, so that what is folded is what was trained.
#[test]
fn values_fold_into_merged_weights() {
    let base = model_folder(false);
    let model = tensors(false);
    write(base.path(), &model, |_| Dtype::F16);
    let adapter = adapter_of(&config(), &pairs(&model), |_| Dtype::F16);
    let plain = logits(&load(base.path(), &[adapter.path()], WeightFormat::F32).expect("loads"));
    let adapters = vec![adapter.path().to_owned()];
    let options = LoadOptions { adapters, rotate_values: true, ..LoadOptions::new(base.path()) };
    let folded = logits(&Model::load(&options, &mut |_| Ok(())).expect("loads"));
    let most = plain.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    let worst = plain.iter().zip(&folded).fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
    assert!(worst < 2e-5 * most, "{worst} of {most}");
}

/// Calibrations belong to the model as it is.
#[test]
fn the_fingerprint_is_of_the_merged_model() {
    let base = model_folder(false);
    let model = tensors(false);
    write(base.path(), &model, |_| Dtype::F16);
    let pairs = pairs(&model);
    let fingerprint =
        |adapters: &[&Path]| load(base.path(), adapters, WeightFormat::Q8_0).expect("loads").info().fingerprint.clone();
    let (one, same) = (adapter_of(&config(), &pairs, |_| Dtype::F16), adapter_of(&config(), &pairs, |_| Dtype::F16));
    let mut other = config();
    other["lora_alpha"] = json!(9);
    let other = adapter_of(&other, &pairs, |_| Dtype::F16);
    let found: Vec<String> =
        [&[][..], &[one.path()], &[other.path()], &[one.path(), other.path()]].map(fingerprint).into();
    assert_eq!(fingerprint(&[same.path()]), found[1]);
    for (index, one) in found.iter().enumerate() {
        assert!(!found[..index].contains(one), "{index}");
    }
}

/// Queries and keys lie in another order there.
#[test]
fn gguf_files_take_adapters_when_their_blocks_are_converted() {
    let golden: Value =
        serde_json::from_str(&std::fs::read_to_string(root().join("tests/golden/data/gguf.json")).expect("the golden"))
            .expect("JSON");
    for case in golden["models"].as_array().expect("a list") {
        let path = root().join(case["file"].as_str().expect("a file"));
        let shapes = case["shapes"].as_object().expect("shapes");
        let open = || Checkpoint::of_gguf(Arc::new(Gguf::open(&path).expect("opens")), false).expect("known");
        let plain = open();
        let read = |checkpoint: &Checkpoint, name: &str, shape: &[usize]| checkpoint.f32(name, shape).expect("numbers");
        let mut model = Vec::new();
        for (name, shape) in shapes {
            let shape: Vec<usize> = serde_json::from_value(shape.clone()).expect("a shape");
            if plain.has(name) && shape.len() == 2 {
                model.push(Named::new(name.clone(), &shape, read(&plain, name, &shape)));
            }
        }
        // Their rows lie in another order in files of Llama.
        let has = |part: &str| model.iter().any(|of| of.name.contains(part));
        assert!(has("qkv_proj") || has("q_proj") && has("k_proj"));
        let pairs = pairs(&model);
        let adapter = adapter_of(&config(), &pairs, |_| Dtype::F32);
        let adapted = open().adapted(adapter.path(), &Layouts::USUAL).expect("every pair finds its tensor");
        for of in merged(&model, &pairs, 1.0) {
            let got = read(&adapted, &of.name, &of.shape);
            let worst = got.iter().zip(&of.numbers).fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
            assert!(worst < 1e-6, "{} of {}: {worst}", of.name, path.display());
        }
        let before =
            Model::load(&LoadOptions { weights: WeightFormat::Q8_0, ..LoadOptions::new(&path) }, &mut |_| Ok(()));
        let after = load(&path, &[adapter.path()], WeightFormat::Q8_0).expect("loads");
        assert_ne!(logits(&before.expect("loads")), logits(&after));
        let error = load(&path, &[adapter.path()], WeightFormat::Stored).map(|_| ()).expect_err("stays as it is");
        assert!(error.code() == "option" && error.to_string().contains("give `weights`"), "{error}");
    }
}

fn error_of(base: &Path, adapter: &Path) -> Error {
    load(base, &[adapter], WeightFormat::F32).map(|_| ()).expect_err("refused")
}

#[test]
fn what_does_not_fit_is_named() {
    let base = model_folder(false);
    let model = tensors(false);
    write(base.path(), &model, |_| Dtype::F16);
    let pairs = pairs(&model);
    let q = pairs.iter().position(|of| of.name.contains("0.self_attn.q_proj")).expect("there");
    let renamed = |at: usize, name: &str| {
        let mut changed = pairs.clone();
        changed[at].name = name.into();
        changed
    };
    let reshaped = |at: usize, shape: &[usize]| {
        let mut changed = pairs.clone();
        changed[at] = Named::new(changed[at].name.clone(), shape, small(1, shape.iter().product()));
        changed
    };
    let with = |name: &str, shape: &[usize]| {
        let mut changed = pairs.clone();
        changed.push(Named::new(name, shape, small(1, shape.iter().product())));
        changed
    };
    let unfound: Vec<Named> = pairs
        .iter()
        .cloned()
        .map(|mut of| {
            of.name = of.name.replace("layers.1.mlp.up_proj", "layers.7.mlp.up_proj");
            of
        })
        .collect();
    let mut infinite = pairs.clone();
    infinite[q].numbers[5] = f32::INFINITY;
    let mut twice = pairs.clone();
    for part in ["A", "B"] {
        let of = &pairs[q + usize::from(part == "B")];
        twice.push(Named::new(
            format!("base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_{part}.weight"),
            &of.shape,
            of.numbers.clone(),
        ));
    }
    for (tensors, code, parts) in [
        (
            renamed(q, "base_model.model.model.layers.0.self_attn.r_proj.lora_A.weight"),
            "model-file",
            vec!["only one of the two", "q_proj"],
        ),
        (
            unfound,
            "model-file",
            vec![
                "model.layers.7.mlp.up_proj.weight",
                "does not have",
                "`model.layers.0.mlp.up_proj.weight`",
                "made for \"some/base\"",
            ],
        ),
        (reshaped(q, &[RANK, HIDDEN + 1]), "model-file", vec!["[4, 769]", "[768, 768]", "other sizes"]),
        (reshaped(q, &[]), "model-file", vec!["the shapes [] and [768, 4]"]),
        (reshaped(q + 1, &[]), "model-file", vec!["the shapes [4, 768] and []"]),
        (reshaped(q + 1, &[HIDDEN, RANK + 1]), "model-file", vec!["[768, 5]"]),
        (infinite, "model-file", vec!["lora_A.weight", "infinity"]),
        (twice, "model-file", vec!["two pairs of the same tensor"]),
        (
            with("base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector", &[HIDDEN]),
            "unsupported-model",
            vec!["DoRA"],
        ),
        (with("base_model.model.model.layers.0.self_attn.q_proj.lokr_w1", &[8, 8]), "unsupported-model", vec!["LoKr"]),
        (
            with("base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias", &[HIDDEN]),
            "unsupported-model",
            vec!["biases"],
        ),
        (
            with("base_model.model.lm_head.weight", &[VOCABULARY + 2, HIDDEN]),
            "model-file",
            vec!["[1302, 768]", "vocabulary"],
        ),
        (with("base_model.model.score.weight", &[2, HIDDEN]), "model-file", vec!["`score.weight`", "does not have"]),
        (Vec::new(), "model-file", vec!["no tensor of an adapter"]),
    ] {
        // Merged in f32 first: a tensor with infinity is refused in whatever format the weights are.
        let adapter = adapter_of(&config(), &tensors, |_| Dtype::F32);
        let error = error_of(base.path(), adapter.path());
        let message = error.to_string();
        assert!(error.code() == code && parts.iter().all(|part| message.contains(part)), "{parts:?}: {message}");
    }
    let ranked = adapter_of(
        &{
            let mut config = config();
            config["r"] = json!(8);
            config
        },
        &pairs,
        |_| Dtype::F32,
    );
    assert!(error_of(base.path(), ranked.path()).to_string().contains("has rank 8, but its tensors have 4"));
    let saved = adapter_of(
        &{
            let mut config = config();
            config["modules_to_save"] = json!(["score"]);
            config
        },
        &pairs,
        |_| Dtype::F32,
    );
    assert!(error_of(base.path(), saved.path()).to_string().contains("no tensor of `score`"));
}

/// A sum that the asked format cannot hold is found as one that a file has.
#[test]
fn sums_beyond_a_format_are_named() {
    let base = model_folder(false);
    let model = tensors(false);
    write(base.path(), &model, |_| Dtype::F16);
    let mut config = config();
    config["lora_alpha"] = json!(1e9);
    let adapter = adapter_of(&config, &pairs(&model), |_| Dtype::F32);
    let error = load(base.path(), &[adapter.path()], WeightFormat::F16).map(|_| ()).expect_err("too large");
    assert!(error.code() == "numbers" && error.to_string().contains("do not fit weights \"f16\""), "{error}");
    config["lora_alpha"] = json!(1e42);
    let adapter = adapter_of(&config, &pairs(&model), |_| Dtype::F32);
    assert_eq!(error_of(base.path(), adapter.path()).code(), "model-file");
}

#[test]
fn folders_that_are_no_adapters_are_told() {
    let base = model_folder(false);
    let model = tensors(false);
    write(base.path(), &model, |_| Dtype::F16);
    let pairs = pairs(&model);
    let error = error_of(base.path(), base.path());
    assert!(error.code() == "model-not-found" && error.to_string().contains("is a model, not an adapter"), "{error}");
    let error = error_of(base.path(), &base.path().join("nothing"));
    assert!(error.code() == "model-not-found" && error.to_string().contains("is not a folder"), "{error}");
    let adapter = adapter_of(&config(), &pairs, |_| Dtype::F16);
    let weights = adapter.path().join("adapter_model.safetensors");
    let whole = std::fs::read(&weights).expect("readable");
    std::fs::write(&weights, &whole[..whole.len() - 10]).expect("written");
    let error = error_of(base.path(), adapter.path());
    assert!(error.code() == "model-file" && error.to_string().contains("truncated"), "{error}");
    std::fs::rename(&weights, adapter.path().join("adapter_model.bin")).expect("renamed");
    let error = error_of(base.path(), adapter.path());
    assert!(error.code() == "model-not-found" && error.to_string().contains("pickled"), "{error}");
    std::fs::write(&weights, &whole).expect("written");
    std::fs::write(adapter.path().join("non_lora_trainables.bin"), b"x").expect("written");
    let error = error_of(base.path(), adapter.path());
    assert!(error.code() == "unsupported-model" && error.to_string().contains("non_lora_trainables.bin"), "{error}");
    // The other way round: an adapter as the model.
    std::fs::remove_file(adapter.path().join("non_lora_trainables.bin")).expect("removed");
    let error = load(adapter.path(), &[], WeightFormat::F32).map(|_| ()).expect_err("no model");
    assert!(error.code() == "unsupported-model" && error.to_string().contains("as `adapter`"), "{error}");
}

/// A pair for the rows `from..to` of a layer of an InternVL.
fn pair_of(seed: usize, module: &str, (from, to): (usize, usize), columns: usize) -> [Named; 2] {
    let at = |part: &str| format!("base_model.model.{module}.{part}.weight");
    let second = small(seed + 50, to * RANK).split_off(from * RANK);
    [
        Named::new(at("lora_A"), &[RANK, columns], small(seed, RANK * columns)),
        Named::new(at("lora_B"), &[to - from, RANK], second),
    ]
}

/// Trained on OpenGVLab's names, where queries, keys and values are one layer, or on those of transformers.
#[test]
fn an_internvl_in_either_layout_takes_adapters_made_on_its_names() {
    let folder = |name: &str| root().join("tests/golden/fixtures").join(name);
    let (own, original) = (folder("internvl3.5"), folder("internvl-original"));
    let text = || pair_of(1, "language_model.model.layers.1.self_attn.q_proj", (0, 64), 40);
    let tower = |module: &str, rows| pair_of(2, module, rows, 48);
    let connector = |module: &str| pair_of(3, module, (0, 40), 192);
    let at = |part: &str| format!("vision_tower.encoder.layer.1.attention.{part}_proj");
    let on_own = [
        text(),
        tower(&at("q"), (0, 48)),
        tower(&at("k"), (48, 96)),
        tower(&at("v"), (96, 144)),
        connector("multi_modal_projector.linear_1"),
    ];
    let on_original = [text(), tower("vision_model.encoder.layers.1.attn.qkv", (0, 144)), connector("mlp1.1")];
    let [on_own, on_original] =
        [on_own.as_flattened(), on_original.as_flattened()].map(|pairs| adapter_of(&config(), pairs, |_| Dtype::F32));
    let answer = |model: &Model| {
        let image = ["tests/golden/fixtures/images/photo-97x211.png".to_owned()];
        let Read { prompt, features, .. } = read(model, &image, "<IMG_CONTEXT>\nwhat");
        let mut sequence = model.new_sequence().expect("no cap");
        let row = model.prefill(&prompt, &features, &mut sequence, &|| Ok(())).expect("reads");
        (features[0].rows().to_vec().expect("rows"), row)
    };
    let with = |base: &Path, adapters: &[&Path]| answer(&load(base, adapters, WeightFormat::F32).expect("loads"));
    let plain = with(&own, &[]);
    let ours = with(&own, &[on_own.path()]);
    assert_eq!(ours, with(&original, &[on_original.path()]));
    assert!(ours.0 != plain.0 && ours.1 != plain.1);
    // The language model has the same names in both.
    let alone = adapter_of(&config(), &text(), |_| Dtype::F32);
    let ours = with(&own, &[alone.path()]);
    assert_eq!(ours, with(&original, &[alone.path()]));
    assert!(ours.0 == plain.0 && ours.1 != plain.1);
    // The connector has other names too.
    for (base, adapter, name) in
        [(&original, &on_own, "`multi_modal_projector.linear_1"), (&own, &on_original, "`mlp1.1")]
    {
        let error = error_of(base, adapter.path());
        assert_eq!(error.code(), "model-file", "{error}");
        assert!(error.to_string().contains("the model does not have") && error.to_string().contains(name), "{error}");
    }
}
