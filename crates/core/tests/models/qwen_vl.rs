//! Qwen2-VL, Qwen2.5-VL and Qwen3-VL against Hugging Face transformers (`tests/golden/qwen_vl.py`): pixels, rows for the language model and for
//! its first layers, phases, logits, answers; in pieces, in batches, over two turns, and with methods that shorten or repeat prompts.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use prefixkv_core::cache::Span;
use prefixkv_core::media::Prepared;
use prefixkv_core::model::{LoadOptions, Model};
use prefixkv_core::sample::argmax;
use prefixkv_core::sequence::{Placing, Sequence};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::folder::{load, root};
use crate::golden::{self, TOLERANCE, read};

const FAMILIES: [&str; 3] = ["qwen2-vl", "qwen2.5-vl", "qwen3-vl"];

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
    evicted: Evicted,
    later: Later,
    narrowed: Kept,
    twice: Vec<Twice>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    images: Vec<String>,
    text: String,
    input_ids: Vec<u32>,
    /// Rows and columns of patches.
    grids: Vec<[usize; 2]>,
    phases: Vec<[u32; 3]>,
    delta: i64,
    logit_rows: Vec<u32>,
    tokens: Vec<u32>,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    best: (u32, f32),
}

#[derive(Deserialize)]
struct Evicted {
    case: String,
    cache: Value,
    kept: Vec<u32>,
    tokens: Vec<u32>,
}

#[derive(Deserialize)]
struct Later {
    images: Vec<String>,
    text: String,
    answer: Vec<u32>,
    more: Vec<String>,
    then: String,
    input_ids: Vec<u32>,
    phases: Vec<[u32; 3]>,
    tokens: Vec<u32>,
}

#[derive(Deserialize)]
struct Kept {
    cache: Value,
    kept: Vec<u32>,
}

#[derive(Deserialize)]
struct Twice {
    cache: Value,
    kept: Vec<Vec<Vec<u32>>>,
}

type Reference = golden::Reference<Golden>;

fn case_of<'a>(reference: &'a Reference, name: &str) -> &'a Case {
    reference.golden.cases.iter().find(|case| case.name == name).expect("the golden has it")
}

/// Where transformers keeps a number of a patch: patches by cells of two times two, in each channel, frame, row and column.
fn patch_value(image: &Prepared, patch: usize, index: usize) -> f32 {
    let [pixels] = &image.tiles[..] else { panic!("one tile") };
    let columns = pixels.width / patch / 2;
    let (row, of) = (index / (6 * patch * patch), index % (6 * patch * patch));
    let (cell, within) = (row / 4, row % 4);
    let (channel, y, x) = (of / (2 * patch * patch), of / patch % patch, of % patch);
    let line = (cell / columns * 2 + within / 2) * patch + y;
    let column = (cell % columns * 2 + within % 2) * patch + x;
    pixels.data[(channel * pixels.height + line) * pixels.width + column]
}

fn check_case(reference: &Reference, case: &Case) {
    let (model, name) = (&reference.model, &case.name);
    let read = reference.read(&case.images, &case.text);
    assert_eq!(read.prompt.tokens, case.input_ids, "{name}: tokens");
    let n = case.input_ids.len();
    match &read.prompt.placing {
        Placing::Placed { phases, advance } => {
            assert_eq!(phases, &case.phases, "{name}: phases");
            assert_eq!(i64::from(*advance) - n as i64, case.delta, "{name}: delta");
        }
        Placing::InOrder => assert!(case.images.is_empty() && case.delta == 0, "{name}"),
    }
    for (image, [rows, columns]) in read.prepared.iter().zip(&case.grids) {
        let tile = &image.tiles[0];
        assert_eq!((tile.height, tile.width), (rows * 4, columns * 4), "{name}: grid");
    }
    if !case.images.is_empty() {
        let indices = &reference.arrays[&format!("{name}.pixel_indices")];
        let indices: Vec<u32> = indices.to_vec1().expect("u32");
        let sizes: Vec<usize> = case.grids.iter().map(|[rows, columns]| rows * columns * 96).collect();
        let got = indices.iter().map(|index| {
            let (mut index, mut image) = (*index as usize, 0);
            while index >= sizes[image] {
                index -= sizes[image];
                image += 1;
            }
            patch_value(&read.prepared[image], 4, index)
        });
        let got: Vec<f32> = got.collect();
        let want = reference.array(&format!("{name}.pixel_values"));
        assert_eq!(got, want, "{name}: pixels to the bit");
    }
    for (index, image) in read.features.iter().enumerate() {
        let rows = image.rows().to_vec().expect("f32");
        reference.close(&format!("{name}: image {index}"), &rows, &format!("{name}.{index}.features"));
        let levels =
            (0..).take_while(|level| reference.arrays.contains_key(&format!("{name}.{index}.deepstack.{level}")));
        assert_eq!(image.behind().len(), levels.count(), "{name}");
        for (level, rows) in image.behind().iter().enumerate() {
            let what = format!("{name}.{index}.deepstack.{level}");
            reference.close(&what, &rows.to_vec().expect("f32"), &what);
        }
    }
    let mut sequence = model.new_sequence().expect("no cap");
    let logits = model.prefill_all(&read.prompt, &read.features, &mut sequence, &|| Ok(())).expect("runs").0;
    assert_eq!(case.logit_rows.last().map(|row| *row as usize + 1), Some(n));
    let rows = Tensor::new(case.logit_rows.as_slice(), &Device::Cpu).expect("rows");
    let rows = logits.index_select(&rows, 0).and_then(|rows| rows.flatten_all()).and_then(|rows| rows.to_vec1());
    reference.close(&format!("{name}: logits"), &rows.expect("f32"), &format!("{name}.logits"));

    let mut sequence = model.new_sequence().expect("no cap");
    let row = reference.prefill(&read.prompt, &read.features, &mut sequence);
    assert!(case.tokens.len() == 32 && case.steps.len() == 32 && case.steps[0].best.0 == case.tokens[0]);
    assert_eq!(reference.answer(row.clone(), &mut sequence, 32), case.tokens, "{name}: answer");

    // In pieces that end within images: phases, and rows for the first layers, are those of the piece.
    for most in [7, 64] {
        let mut sequence = model.new_sequence().expect("no cap");
        let mut begun = model.begin_prefill(&read.prompt, &read.features, &mut sequence, most).expect("begins");
        let last = loop {
            if let Some(last) = model.prefill_piece(&mut begun, &mut sequence, &|| Ok(())).expect("reads") {
                break last;
            }
        };
        assert!(last.iter().zip(&row).all(|(a, b)| (a - b).abs() < 1e-4), "{name}: in pieces of {most}");
        assert_eq!(reference.answer(last, &mut sequence, 32), case.tokens, "{name}: answer in pieces of {most}");
    }
}

#[test]
fn everything_is_as_transformers_computes_it() {
    for family in FAMILIES {
        let reference = Reference::of(family);
        for case in &reference.golden.cases {
            check_case(&reference, case);
        }
    }
}

#[test]
fn what_stays_after_an_eviction_keeps_its_phases() {
    for family in FAMILIES {
        let reference = Reference::of(family);
        let Evicted { case, cache, kept, tokens } = &reference.golden.evicted;
        let case = case_of(&reference, case);
        let read = reference.read(&case.images, &case.text);
        let mut sequence = reference.sequence(cache);
        let row = reference.prefill(&read.prompt, &read.features, &mut sequence);
        assert!(sequence.kept().iter().all(|lanes| lanes.iter().all(|lane| lane.positions == *kept)), "{family}");
        assert_eq!(&reference.answer(row, &mut sequence, tokens.len()), tokens, "{family}");
    }
}

/// The second turn of a chat, with a picture of its own, on the cache of the first.
#[test]
fn a_later_turn_goes_on_where_the_first_has_ended() {
    for family in FAMILIES {
        let reference = Reference::of(family);
        let Later { images, text, answer, more, then, input_ids, phases, tokens } = &reference.golden.later;
        let first = reference.read(images, text);
        let mut sequence = reference.model.new_sequence().expect("no cap");
        let row = reference.prefill(&first.prompt, &first.features, &mut sequence);
        assert_eq!(&reference.answer(row, &mut sequence, answer.len()), answer, "{family}");
        let start = sequence.next_phase();
        let mut second = reference.read(more, then);
        second.prompt.continue_from(answer[answer.len() - 1]);
        let all = [&first.prompt.tokens, &answer[..answer.len() - 1], &second.prompt.tokens].concat();
        assert_eq!(&all, input_ids, "{family}: tokens");
        let Placing::Placed { phases: own, .. } = &second.prompt.placing else { panic!("{family}: an image") };
        let own: Vec<[u32; 3]> = own.iter().map(|phase| phase.map(|axis| axis + start)).collect();
        assert_eq!(own, phases[phases.len() - own.len()..], "{family}: phases");
        let row = reference.prefill(&second.prompt, &second.features, &mut sequence);
        reference.close(&format!("{family}: the second turn"), &row, "later.logits");
        assert_eq!(&reference.answer(row, &mut sequence, tokens.len()), tokens, "{family}");
    }
}

#[test]
fn answers_of_a_batch_are_those_of_singles() {
    for family in FAMILIES {
        let reference = Reference::of(family);
        let cases: Vec<&Case> = ["image", "no-image", "two-images"].map(|name| case_of(&reference, name)).into();
        let mut sequences = Vec::new();
        let mut tokens: Vec<u32> = Vec::new();
        for case in &cases {
            let mut sequence = reference.model.new_sequence().expect("no cap");
            let read = reference.read(&case.images, &case.text);
            tokens.push(argmax(&reference.prefill(&read.prompt, &read.features, &mut sequence)) as u32);
            sequences.push(sequence);
        }
        for step in 0..32 {
            for (case, token) in cases.iter().zip(&tokens) {
                assert_eq!(*token, case.tokens[step], "{family} {}: token {step}", case.name);
            }
            let mut members: Vec<&mut Sequence> = sequences.iter_mut().collect();
            let rows = reference.model.decode_batch(&tokens, &mut members).expect("decodes");
            tokens = rows.into_iter().map(|row| argmax(&row.expect("decodes")) as u32).collect();
        }
    }
}

/// Positions of images that go no further take their rows for later layers with them.
#[test]
fn rows_for_the_first_layers_follow_the_positions_that_go_on() {
    for family in FAMILIES {
        let reference = Reference::of(family);
        let case = case_of(&reference, "two-images");
        let Kept { cache, kept } = &reference.golden.narrowed;
        let read = reference.read(&case.images, &case.text);
        let mut sequence = reference.sequence(cache);
        let row = reference.prefill(&read.prompt, &read.features, &mut sequence);
        let layers = sequence.kept();
        assert_eq!(layers[0][0].positions.len(), case.input_ids.len(), "{family}");
        assert!(layers[1..].iter().flatten().all(|lane| lane.positions == *kept), "{family}");
        reference.close(&format!("{family}: narrowed"), &row, "narrowed.logits");
    }
}

/// The second reading of a prompt lies behind the first, images with their grids and with their rows for the first layers.
#[test]
fn a_prompt_that_is_read_twice_shows_its_images_twice() {
    for family in FAMILIES {
        let reference = Reference::of(family);
        let case = case_of(&reference, "two-images");
        let read = reference.read(&case.images, &case.text);
        for Twice { cache, kept } in &reference.golden.twice {
            let mut sequence = reference.sequence(cache);
            reference.prefill(&read.prompt, &read.features, &mut sequence);
            let got: Vec<Vec<Vec<u32>>> =
                sequence.kept().iter().map(|lanes| lanes.iter().map(|lane| lane.positions.clone()).collect()).collect();
            assert_eq!(&got, kept, "{family} {cache}");
            let delta = case.delta;
            assert_eq!(i64::from(sequence.next_phase()), case.input_ids.len() as i64 + delta, "{family}");
        }
    }
}

/// Numbering entries anew has no meaning along three axes; without an image there is one axis.
#[test]
fn positions_by_rank_are_refused_for_images_alone() {
    let reference = Reference::of("qwen2.5-vl");
    for positions in ["cache", "official"] {
        let method = if positions == "cache" { "streaming" } else { "prefixkv" };
        let cache = json!({ "method": method, "keep": 0.5, "positions": positions });
        let case = case_of(&reference, "image");
        let read = reference.read(&case.images, &case.text);
        let mut sequence = reference.sequence(&cache);
        let refused = reference.model.prefill(&read.prompt, &read.features, &mut sequence, &|| Ok(()));
        let error = refused.expect_err("an image");
        assert!(error.code() == "option" && error.to_string().contains("three axes"), "{error}");
        let text = reference.read(&[], &case_of(&reference, "no-image").text);
        reference.prefill(&text.prompt, &text.features, &mut reference.sequence(&cache));
    }
}

/// A folder with the tensors of a fixture under other names, and another config.json.
fn renamed(
    family: &str,
    name: impl Fn(&str) -> String,
    config: impl Fn(Map<String, Value>) -> Value,
) -> tempfile::TempDir {
    let fixture = root().join("tests/golden/fixtures").join(family);
    let dir = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir(&fixture).expect("a fixture") {
        let path = entry.expect("readable").path();
        std::fs::copy(&path, dir.path().join(path.file_name().expect("a name"))).expect("copied");
    }
    let tensors = candle_core::safetensors::load(fixture.join("model.safetensors"), &Device::Cpu).expect("weights");
    let tensors: HashMap<String, Tensor> = tensors.into_iter().map(|(key, tensor)| (name(&key), tensor)).collect();
    candle_core::safetensors::save(&tensors, dir.path().join("model.safetensors")).expect("written");
    let read = std::fs::read_to_string(fixture.join("config.json")).expect("readable");
    let read: Value = serde_json::from_str(&read).expect("JSON");
    let config = config(read.as_object().expect("an object").clone());
    std::fs::write(dir.path().join("config.json"), config.to_string()).expect("written");
    dir
}

/// The keys that lie flat in older files, in a section of their own, as newer files have them.
fn nested(mut config: Map<String, Value>) -> Value {
    let outer =
        ["architectures", "model_type", "image_token_id", "vision_config", "tie_word_embeddings", "torch_dtype"];
    let text =
        config.iter().filter(|(key, _)| !outer.contains(&&key[..])).map(|(key, value)| (key.clone(), value.clone()));
    let mut text: Map<String, Value> = text.collect();
    let rope = text.remove("rope_scaling").expect("has sections");
    let theta = text.remove("rope_theta").expect("has a base");
    text.insert(
        "rope_parameters".into(),
        json!({ "rope_type": "default", "rope_theta": theta, "mrope_section": rope["mrope_section"] }),
    );
    config.retain(|key, _| outer.contains(&&key[..]));
    config.insert("text_config".into(), text.into());
    config.into()
}

#[test]
fn old_and_new_files_are_the_same_model() {
    for family in ["qwen2-vl", "qwen2.5-vl", "qwen3-vl"] {
        let reference = Reference::of(family);
        let case = case_of(&reference, "image");
        let as_saved = |key: &str| match key {
            key if key.starts_with("visual.") => format!("model.{key}"),
            key => match key.strip_prefix("model.") {
                Some(rest) if !rest.starts_with("visual.") && !rest.starts_with("language_model.") => {
                    format!("model.language_model.{rest}")
                }
                _ => key.to_owned(),
            },
        };
        let as_on_hub =
            |key: &str| key.replacen("model.visual.", "visual.", 1).replacen("model.language_model.", "model.", 1);
        let same = |config: Map<String, Value>| Value::from(config);
        let unnamed = |mut config: Map<String, Value>| {
            config.remove("architectures");
            Value::from(config)
        };
        let folders = match family {
            "qwen3-vl" => vec![renamed(family, as_on_hub, same), renamed(family, str::to_owned, unnamed)],
            _ => vec![
                renamed(family, as_saved, nested),
                renamed(family, as_saved, unnamed),
                renamed(family, str::to_owned, nested),
            ],
        };
        for dir in folders {
            let model = load(dir.path());
            let read = read(&model, &case.images, &case.text);
            let row =
                model.prefill(&read.prompt, &read.features, &mut model.new_sequence().expect("no cap"), &|| Ok(()));
            let row = row.expect("runs");
            let want = reference.array("image.logits");
            let want = &want[want.len() - row.len()..];
            assert!(row.iter().zip(want).all(|(a, b)| (a - b).abs() <= TOLERANCE), "{family}");
            assert_eq!(model.eos_tokens(), reference.model.eos_tokens());
        }
    }
}

#[test]
fn files_that_do_not_fit_are_refused_by_name() {
    let with = |family: &str, change: Value| {
        renamed(family, str::to_owned, move |mut config| {
            for (key, value) in change.as_object().expect("an object") {
                match (config.get_mut(key), value) {
                    (Some(Value::Object(section)), Value::Object(value)) => section.extend(value.clone()),
                    _ => {
                        config.insert(key.clone(), value.clone());
                    }
                }
            }
            config.into()
        })
    };
    for (family, change, code, text) in [
        ("qwen2-vl", json!({ "vision_config": { "hidden_size": 48 } }), "model-file", "rows of 48 numbers"),
        ("qwen2-vl", json!({ "vision_config": { "num_heads": 3 } }), "model-file", "3 heads of a width of 32"),
        ("qwen2-vl", json!({ "vision_config": { "depth": 0 } }), "model-file", "`vision_config.depth` is 0"),
        ("qwen2-vl", json!({ "vision_config": { "patch_size": 5 } }), "model-file", "`patch_size` is 4"),
        ("qwen2-vl", json!({ "vision_config": { "in_channels": 1 } }), "unsupported-model", "1 channels"),
        (
            "qwen2.5-vl",
            json!({ "vision_config": { "window_size": 7 } }),
            "model-file",
            "`vision_config.window_size` is 7",
        ),
        ("qwen2.5-vl", json!({ "vision_config": { "hidden_act": "gelu" } }), "unsupported-model", "only silu"),
        ("qwen2.5-vl", json!({ "rope_scaling": { "mrope_section": [1, 2, 3] } }), "model-file", "must add up to 8"),
        ("qwen3-vl", json!({ "vision_config": { "num_position_embeddings": 35 } }), "model-file", "a square number"),
        (
            "qwen3-vl",
            json!({ "vision_config": { "deepstack_visual_indexes": [0, 3] } }),
            "model-file",
            "names block 3 of 3",
        ),
        ("qwen3-vl", json!({ "image_token_id": 7000 }), "model-file", "`image_token_id` is 7000"),
    ] {
        let dir = with(family, change.clone());
        let refused = Model::load(&LoadOptions::new(dir.path()), &mut |_| Ok(()));
        let error = refused.err().unwrap_or_else(|| panic!("{family} {change} loads"));
        assert!(error.code() == code && error.to_string().contains(text), "{family} {change}: {error}");
    }
}

/// Spans say the grid of cells, so that methods see it.
#[test]
fn an_image_is_one_piece_with_its_grid() {
    let reference = Reference::of("qwen3-vl");
    let case = case_of(&reference, "two-images");
    let spans = reference.read(&case.images, &case.text).prompt.spans;
    let grids = spans.iter().filter_map(|Span { modality, len, .. }| match modality {
        prefixkv_core::cache::Modality::Image { piece, .. } => Some([piece.rows * 2, piece.columns * 2, *len * 4]),
        _ => None,
    });
    let want: Vec<[usize; 3]> = case.grids.iter().map(|[rows, columns]| [*rows, *columns, rows * columns]).collect();
    assert_eq!(grids.collect::<Vec<_>>(), want);
}
