//! Gemma 3 against Hugging Face transformers (`tests/golden/gemma3.py`): pixels, rows for the language model, tokens, logits, answers; in
//! pieces, in batches, over two turns, and with methods that shorten or repeat prompts. Its pictures are longer than its window.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use prefixkv_core::backend::Activations;
use prefixkv_core::cache::{Kept, Modality};
use prefixkv_core::device::Cpu;
use prefixkv_core::media::Prepared;
use prefixkv_core::model::{Asked, Features, Model, Vision, image_processor};
use prefixkv_core::sample::argmax;
use prefixkv_core::sequence::Sequence;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::folder::{load, root};
use crate::golden::{self, Read, read};

/// The layers without a window.
const GLOBAL: [usize; 2] = [2, 5];

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
    evicted: Evicted,
    ending: Ending,
    later: Later,
    scan: Scan,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    images: Vec<String>,
    text: String,
    input_ids: Vec<u32>,
    logit_rows: Vec<u32>,
    tokens: Vec<u32>,
}

#[derive(Deserialize)]
struct Evicted {
    case: String,
    cache: Value,
    kept: Vec<u32>,
    tokens: Vec<u32>,
}

#[derive(Deserialize)]
struct Ending {
    images: Vec<String>,
    text: String,
    input_ids: Vec<u32>,
    ranked: Vec<Ranked>,
}

#[derive(Deserialize)]
struct Ranked {
    cache: Value,
    kept: Vec<Vec<Vec<u32>>>,
}

#[derive(Deserialize)]
struct Later {
    images: Vec<String>,
    text: String,
    answer: Vec<u32>,
    more: Vec<String>,
    then: String,
    input_ids: Vec<u32>,
    tokens: Vec<u32>,
}

#[derive(Deserialize)]
struct Scan {
    settings: Map<String, Value>,
    text: String,
    pictures: Vec<Scanned>,
}

#[derive(Deserialize)]
struct Scanned {
    image: String,
    squares: usize,
    input_ids: Vec<u32>,
}

type Reference = golden::Reference<Golden>;

fn reference() -> Reference {
    Reference::of("gemma3-vision")
}

fn case_of<'a>(reference: &'a Reference, name: &str) -> &'a Case {
    reference.golden.cases.iter().find(|case| case.name == name).expect("the golden has it")
}

/// The last row of a prompt in pieces of about `most`, and the number of pieces.
fn in_pieces(model: &Model, read: &Read, sequence: &mut Sequence, most: usize) -> (Vec<f32>, usize) {
    let mut begun = model.begin_prefill(&read.prompt, &read.features, sequence, most).expect("begins");
    for pieces in 1.. {
        if let Some(row) = model.prefill_piece(&mut begun, sequence, &|| Ok(())).expect("reads") {
            return (row, pieces);
        }
    }
    unreachable!("it ends")
}

fn near(a: &[f32], b: &[f32]) -> bool {
    a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4)
}

fn check_case(reference: &Reference, case: &Case) {
    let (model, name) = (&reference.model, &case.name);
    let read = reference.read(&case.images, &case.text);
    assert_eq!(read.prompt.tokens, case.input_ids, "{name}: tokens");
    if !case.images.is_empty() {
        let indices: Vec<u32> = reference.arrays[&format!("{name}.pixel_indices")].to_vec1().expect("u32");
        let pixels: Vec<f32> =
            read.prepared.iter().flat_map(|image| &image.tiles).flat_map(|tile| tile.data.clone()).collect();
        let got: Vec<f32> = indices.iter().map(|index| pixels[*index as usize]).collect();
        assert_eq!(got, reference.array(&format!("{name}.pixel_values")), "{name}: pixels to the bit");
        let seen = |image: &Prepared| reference.model.image_features(image).expect("sees").to_vec().expect("f32");
        let seen: Vec<f32> = read.prepared.iter().flat_map(seen).collect();
        reference.close(&format!("{name}: tower"), &seen, &format!("{name}.vision"));
        let rows = |image: &Features<Cpu>| image.rows().to_vec().expect("f32");
        let projected: Vec<f32> = read.features.iter().flat_map(rows).collect();
        reference.close(&format!("{name}: images"), &projected, &format!("{name}.projected"));
    }
    let mut sequence = model.new_sequence().expect("no cap");
    let logits = model.prefill_all(&read.prompt, &read.features, &mut sequence, &|| Ok(())).expect("runs").0;
    let rows = Tensor::new(case.logit_rows.as_slice(), &Device::Cpu).expect("rows");
    let rows = logits.index_select(&rows, 0).and_then(|rows| rows.flatten_all()).and_then(|rows| rows.to_vec1());
    reference.close(&format!("{name}: logits"), &rows.expect("f32"), &format!("{name}.logits"));

    let mut sequence = model.new_sequence().expect("no cap");
    let row = reference.prefill(&read.prompt, &read.features, &mut sequence);
    assert_eq!(case.tokens.len(), 32);
    assert_eq!(reference.answer(row.clone(), &mut sequence, 32), case.tokens, "{name}: answer");
    for most in [1, 5, 7, 20, 64] {
        let mut sequence = model.new_sequence().expect("no cap");
        let (last, pieces) = in_pieces(&reference.model, &read, &mut sequence, most);
        assert!(pieces > 1 || read.prompt.tokens.len() <= most, "{name}: in {pieces} pieces of {most}");
        assert!(near(&last, &row), "{name}: in pieces of {most}");
        assert_eq!(reference.answer(last, &mut sequence, 32), case.tokens, "{name}: answer in pieces of {most}");
    }
}

#[test]
fn everything_is_as_transformers_computes_it() {
    let reference = reference();
    for case in &reference.golden.cases {
        check_case(&reference, case);
    }
}

#[test]
fn what_stays_after_an_eviction_keeps_its_positions() {
    let reference = reference();
    let Evicted { case, cache, kept, tokens } = &reference.golden.evicted;
    let case = case_of(&reference, case);
    let read = reference.read(&case.images, &case.text);
    let mut sequence = reference.sequence(cache);
    let row = reference.prefill(&read.prompt, &read.features, &mut sequence);
    assert!(GLOBAL.iter().all(|layer| sequence.kept()[*layer][0].positions == *kept));
    assert_eq!(&reference.answer(row, &mut sequence, tokens.len()), tokens);
}

/// Sums of attention count what queries see, the ones of a picture what is behind them too; whole, and in pieces.
#[test]
fn scores_are_of_what_queries_see() {
    let reference = reference();
    let Ending { images, text, input_ids, ranked } = &reference.golden.ending;
    let read = reference.read(images, text);
    assert_eq!(&read.prompt.tokens, input_ids);
    let Some(picture) = read.prompt.spans.iter().rfind(|span| matches!(span.modality, Modality::Image { .. })) else {
        panic!("it has pictures");
    };
    assert!(picture.start + picture.len + 4 > input_ids.len(), "it ends with one");
    for Ranked { cache, kept } in ranked {
        let check = |sequence: &Sequence, row: &[f32], how: &str| {
            reference.close(&format!("{cache}, {how}"), row, "ending.logits");
            let (all, of) = (sequence.kept(), |lane: &Kept| lane.positions.clone());
            let got: Vec<Vec<Vec<u32>>> = GLOBAL.iter().map(|layer| all[*layer].iter().map(of).collect()).collect();
            assert_eq!(&got, kept, "{cache}, {how}");
        };
        let mut sequence = reference.sequence(cache);
        let row = reference.prefill(&read.prompt, &read.features, &mut sequence);
        check(&sequence, &row, "whole");
        if cache["method"] == "kvzip" {
            continue;
        }
        let mut sequence = reference.sequence(cache);
        let (row, pieces) = in_pieces(&reference.model, &read, &mut sequence, 6);
        assert!(pieces > 3, "{pieces} pieces");
        check(&sequence, &row, "in pieces");
    }
}

/// The second turn of a chat, with a picture of its own, on the cache of the first.
#[test]
fn a_later_turn_goes_on_where_the_first_has_ended() {
    let reference = reference();
    let Later { images, text, answer, more, then, input_ids, tokens } = &reference.golden.later;
    let first = reference.read(images, text);
    let mut sequence = reference.model.new_sequence().expect("no cap");
    let row = reference.prefill(&first.prompt, &first.features, &mut sequence);
    assert_eq!(&reference.answer(row, &mut sequence, answer.len()), answer);
    let mut second = reference.read(more, then);
    // A text of its own begins with a token that a later turn has not.
    let lead = usize::from(second.prompt.tokens[0] == 2);
    second.prompt.tokens.drain(..lead);
    second.prompt.spans[0].len -= lead;
    second.prompt.spans[1..].iter_mut().for_each(|span| span.start -= lead);
    second.prompt.continue_from(answer[answer.len() - 1]);
    let all = [&first.prompt.tokens, &answer[..answer.len() - 1], &second.prompt.tokens].concat();
    assert_eq!(&all, input_ids, "tokens");
    let mut forked = sequence.fork().expect("between two turns");
    let row = reference.prefill(&second.prompt, &second.features, &mut sequence);
    reference.close("the second turn", &row, "later.logits");
    assert_eq!(&reference.answer(row, &mut sequence, tokens.len()), tokens);
    let (row, _) = in_pieces(&reference.model, &second, &mut forked, 9);
    reference.close("the second turn in pieces", &row, "later.logits");
}

#[test]
fn answers_of_a_batch_are_those_of_singles() {
    let reference = reference();
    let cases: Vec<&Case> = ["image", "no-image", "two-images"].map(|name| case_of(&reference, name)).into();
    let (mut sequences, mut tokens) = (Vec::new(), Vec::new());
    for case in &cases {
        let mut sequence = reference.model.new_sequence().expect("no cap");
        let read = reference.read(&case.images, &case.text);
        tokens.push(argmax(&reference.prefill(&read.prompt, &read.features, &mut sequence)) as u32);
        sequences.push(sequence);
    }
    for step in 0..32 {
        for (case, token) in cases.iter().zip(&tokens) {
            assert_eq!(*token, case.tokens[step], "{}: token {step}", case.name);
        }
        let mut members: Vec<&mut Sequence> = sequences.iter_mut().collect();
        let rows = reference.model.decode_batch(&tokens, &mut members).expect("decodes");
        tokens = rows.into_iter().map(|row| argmax(&row.expect("decodes")) as u32).collect();
    }
}

/// A folder with the files of the fixture, its processor changed.
fn with_processor(changes: &Map<String, Value>) -> tempfile::TempDir {
    let fixture = root().join("tests/golden/fixtures/gemma3-vision");
    let dir = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir(&fixture).expect("a fixture") {
        let path = entry.expect("readable").path();
        std::fs::copy(&path, dir.path().join(path.file_name().expect("a name"))).expect("copied");
    }
    let path = dir.path().join("preprocessor_config.json");
    let mut settings: Map<String, Value> =
        serde_json::from_str(&std::fs::read_to_string(&path).expect("readable")).expect("JSON");
    settings.extend(changes.clone());
    std::fs::write(&path, json!(settings).to_string()).expect("written");
    dir
}

#[test]
fn long_pictures_are_shown_again_in_crops() {
    let reference = reference();
    let Scan { settings, text, pictures } = &reference.golden.scan;
    let folder = with_processor(settings);
    let model = load(folder.path());
    let mut cut = 0;
    for Scanned { image, squares, input_ids } in pictures {
        let read = read(&model, std::slice::from_ref(image), text);
        assert_eq!((&read.prompt.tokens, read.prepared[0].tiles.len()), (input_ids, *squares), "{image}");
        let name = image.rsplit('/').next().expect("a name");
        let indices: Vec<u32> = reference.arrays[&format!("scan/{name}.at")].to_vec1().expect("u32");
        let pixels: Vec<f32> = read.prepared[0].tiles.iter().flat_map(|tile| tile.data.clone()).collect();
        let got: Vec<f32> = indices.iter().map(|index| pixels[*index as usize]).collect();
        assert_eq!(got, reference.array(&format!("scan/{name}.values")), "{image}: pixels to the bit");
        assert_eq!(read.features[0].rows().rows(), 16 * squares, "{image}");
        cut += squares - 1;
        let mut sequence = model.new_sequence().expect("no cap");
        model.prefill(&read.prompt, &read.features, &mut sequence, &|| Ok(())).expect("runs");
        let asked = Asked { width: read.prepared[0].width, height: read.prepared[0].height, timing: None };
        let size = Some(&asked);
        let info = Model::inspect(folder.path(), &Vision::Beside, size).expect("inspects");
        let counted = info.image.and_then(|image| image.picture).expect("asked");
        assert_eq!((counted.tokens, counted.pieces.len()), (16 * squares, *squares), "{image}");
    }
    assert!(cut > 3, "{cut} crops");
}

#[test]
fn settings_that_do_not_fit_are_named() {
    for (changes, code, found) in [
        (json!({ "size": { "height": 40, "width": 40 } }), "model-file", "the vision tower takes 32 x 32"),
        (json!({ "size": { "height": 32, "width": 30 } }), "model-file", "`size`"),
        (json!({ "do_resize": false }), "model-file", "`do_resize` is false"),
        (json!({ "image_processor_type": "CLIPImageProcessor" }), "unsupported-model", "CLIPImageProcessor"),
        (
            json!({ "do_pan_and_scan": true, "pan_and_scan_max_num_crops": 0 }),
            "model-file",
            "`pan_and_scan_max_num_crops`",
        ),
        (json!({ "do_pan_and_scan": "yes" }), "model-file", "`do_pan_and_scan`"),
    ] {
        let folder = with_processor(changes.as_object().expect("an object"));
        let error = image_processor(folder.path()).expect_err("refused");
        assert!(error.code() == code && error.to_string().contains(found), "{changes}: {error}");
    }
}

/// Names as transformers saves them, and those without a tower or a mark.
#[test]
fn folders_load_under_both_layouts_and_not_without_their_parts() {
    let reference = reference();
    let case = case_of(&reference, "image");
    let read = reference.read(&case.images, &case.text);
    let want = reference.prefill(&read.prompt, &read.features, &mut reference.model.new_sequence().expect("no cap"));
    let change = |rename: &dyn Fn(&str) -> Option<String>| {
        let folder = with_processor(&Map::new());
        let path = folder.path().join("model.safetensors");
        let tensors = candle_core::safetensors::load(&path, &Device::Cpu).expect("weights");
        let tensors: HashMap<String, Tensor> =
            tensors.into_iter().filter_map(|(name, tensor)| Some((rename(&name)?, tensor))).collect();
        candle_core::safetensors::save(&tensors, &path).expect("written");
        folder
    };
    let saved = change(&|name| {
        let name = name.replace("language_model.lm_head", "lm_head").replace("vision_model.", "");
        let name = name.replace("language_model.model.", "model.language_model.");
        Some(if name.starts_with("vision") || name.starts_with("multi") { format!("model.{name}") } else { name })
    });
    let model = load(saved.path());
    let again = golden::read(&model, &case.images, &case.text);
    let got = model.prefill(&again.prompt, &again.features, &mut model.new_sequence().expect("no cap"), &|| Ok(()));
    assert_eq!(got.expect("runs"), want);
    let info = Model::inspect(saved.path(), &Vision::Beside, Some(&Asked { width: 300, height: 200, timing: None }))
        .expect("inspects");
    let image = info.image.expect("takes images");
    let picture = image.picture.expect("asked");
    assert_eq!((image.tokens, image.size, image.patch, picture.tokens), (Some(16), Some(32), 4, 16));
    assert!(picture.marks >= 4 && info.vision_bytes > 0, "{picture:?}");

    let refused = |folder: &std::path::Path, found: &str| {
        let options = prefixkv_core::model::LoadOptions::new(folder);
        let error = Model::load(&options, &mut |_| Ok(())).err().expect("refused");
        assert!(error.code() == "model-file" && error.to_string().contains(found), "{error}");
    };
    refused(change(&|name| (!name.starts_with("vision")).then(|| name.to_owned())).path(), "patch_embedding");
    refused(change(&|name| (!name.contains("mm_input")).then(|| name.to_owned())).path(), "mm_input_projection_weight");
    let folder = with_processor(&Map::new());
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        let path = folder.path().join(file);
        let text = std::fs::read_to_string(&path).expect("readable").replace("<start_of_image>", "<boi>");
        std::fs::write(&path, text).expect("written");
    }
    refused(folder.path(), "no token `<start_of_image>`");
    let folder = with_processor(&Map::new());
    let plain = "{% for m in messages %}{% for c in m.content %}{{ c.text if c.type == 'text' else '<img>' }}{% endfor %}{% endfor %}";
    std::fs::write(folder.path().join("chat_template.json"), json!({ "chat_template": plain }).to_string())
        .expect("written");
    refused(folder.path(), "writes no `<start_of_image>`");
}
