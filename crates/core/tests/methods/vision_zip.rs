//! VisionZip: images that come to the language model as fewer positions, against an independent reference with the tower and the language
//! model of transformers (tests/golden/vision_zip.py), and as prompts of what is left.

use prefixkv_core::cache::{Modality, Piece, Span};
use prefixkv_core::device::Cpu;
use prefixkv_core::method::{Method, Moment};
use prefixkv_core::model::{Features, Model, Prompt};
use prefixkv_core::sample::log_softmax_at;
use prefixkv_core::sequence::{Placing, Sequence};
use prefixkv_core::{Error, backend::Activations, media::Prepared};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::case::{Case, Reference, from_base64, load, root, sequence};

#[derive(Deserialize)]
struct Golden {
    scenes: Vec<Scene>,
}

#[derive(Deserialize)]
struct Scene {
    /// The file and the name of its prompt under data.
    of: String,
    name: String,
    cases: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    options: Value,
    images: Vec<Zipped>,
    /// Of every third token that follows.
    logprobs: Vec<f32>,
}

#[derive(Deserialize)]
struct Zipped {
    /// A bit for each position of the image, in base64.
    kept: String,
    /// Of each other position, in order, a byte: where it goes.
    into: String,
    /// A number of each row behind the projector, seven columns further on each time.
    features: Vec<f32>,
}

#[derive(Deserialize)]
struct Prompts {
    model: String,
    cases: Vec<Given>,
}

#[derive(Deserialize)]
struct Given {
    name: String,
    images: Vec<String>,
    text: String,
    input_ids: Vec<u32>,
    tokens: Vec<u32>,
}

fn zip(options: &Value) -> Value {
    let mut cache = options.clone();
    cache["method"] = json!("visionZip");
    cache
}

fn pixels(model: &Model, images: &[String]) -> Vec<Prepared> {
    let processor = model.image_processor().expect("takes images");
    let one = |(index, path): (usize, &String)| {
        processor.process(&std::fs::read(root().join(path)).expect("a picture"), index).expect("a picture")
    };
    images.iter().enumerate().map(one).collect()
}

fn features(model: &Model, pixels: &[Prepared], sequence: &Sequence) -> Vec<Features<Cpu>> {
    model.encode_images_for(pixels, sequence.pictures(), &|| Ok(())).expect("encodes")
}

fn read(model: &Model, prompt: &Prompt, features: &[Features<Cpu>], sequence: &mut Sequence) -> Vec<f32> {
    model.prefill(prompt, features, sequence, &|| Ok(())).expect("reads")
}

/// The positions that the first layer holds, which are those of all layers.
fn held(sequence: &Sequence) -> Vec<u32> {
    let kept = sequence.kept();
    assert!(kept.iter().all(|lanes| lanes[0].positions == kept[0][0].positions));
    kept[0][0].positions.clone()
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn images_become_what_they_become_in_the_reference() {
    let golden: Golden = Reference::golden("vision_zip.json");
    let (mut of_features, mut of_logprobs) = (0f32, 0f32);
    for scene in &golden.scenes {
        let Prompts { model, cases } = Reference::golden(&format!("{}.json", scene.of));
        let model = load(&model);
        let given = cases.into_iter().find(|case| case.name == scene.name).expect("a prompt");
        let tokens = model.tokenizer().encode_prompt(&given.text).expect("encodes");
        let prompt = model.expand(&tokens, given.images.len()).expect("images");
        assert_eq!(prompt.tokens, given.input_ids);
        let pixels = pixels(&model, &given.images);
        for case in &scene.cases {
            let cache = zip(&case.options);
            let mut sequence = sequence(&model, &cache);
            let features = features(&model, &pixels, &sequence);
            assert_eq!(features.len(), case.images.len());
            for (got, want) in features.iter().zip(&case.images) {
                let chosen = got.chosen().expect("chosen from");
                assert_eq!(chosen.rows, Reference::positions(&want.kept), "{cache}: rows");
                let into: Vec<u8> = chosen.merged.iter().map(|(_, into)| *into as u8).collect();
                assert_eq!(into, from_base64(&want.into), "{cache}: targets");
                let others = (0..chosen.attention.len() as u32).filter(|row| chosen.rows.binary_search(row).is_err());
                let merged = chosen.merged.iter().map(|(from, _)| *from);
                assert!(chosen.merged.is_empty() || merged.eq(others), "{cache}: everybody is merged");
                let width = got.rows().columns();
                let rows = got.rows().to_vec().expect("read");
                assert_eq!(rows.len() / width, want.features.len());
                for (index, row) in rows.chunks_exact(width).enumerate() {
                    let (got, want) = (row[7 * index % width], want.features[index]);
                    of_features = of_features.max((got - want).abs() / want.abs().max(1.0));
                }
            }
            let mut logits = read(&model, &prompt, &features, &mut sequence);
            for (index, token) in given.tokens.iter().take(24).enumerate() {
                if index % 3 == 0 {
                    let want = case.logprobs[index / 3];
                    of_logprobs = of_logprobs.max((log_softmax_at(&logits, *token as usize) - want).abs());
                }
                logits = model.decode(*token, &mut sequence).expect("goes on");
            }
        }
    }
    eprintln!("features differ by {of_features}, log-probabilities by {of_logprobs}");
    assert!(of_features < 1e-3 && of_logprobs < 1e-3, "{of_features} and {of_logprobs}");
}

/// A prompt of what goes on, each row turned to its true position, gives the same numbers to the bit, in the cache as well.
#[test]
fn what_goes_on_is_read_as_a_prompt_of_its_own() {
    let case = Case::picture(" There is a green star");
    let (model, whole, layers) = (&case.model, &case.prompt, case.model.info().layers);
    for behind in [json!([]), json!([{ "method": "int8", "window": 8 }])] {
        let stages = |first: Value| {
            Value::Array(std::iter::once(first).chain(behind.as_array().expect("stages").clone()).collect())
        };
        let mut zipped = sequence(model, &stages(zip(&json!({ "images": 0.25 }))));
        let features = case.features_for(&zipped);
        zipped.keep_plans();
        let mut got = read(model, whole, &features, &mut zipped);
        let rows = held(&zipped);
        let plans = zipped.take_plans();
        assert_eq!((plans[0].moment, plans[0].plan.rows.as_ref()), (Moment::Images, Some(&rows)));

        let image = whole.spans.iter().find(|span| span.modality != Modality::Text).expect("an image");
        let before = image.start;
        let kept = features[0].rows().rows();
        let text = |start, len| Span { modality: Modality::Text, start, len };
        let picture = Modality::Image { index: 0, piece: Piece::base(1, kept) };
        let alone = Prompt {
            tokens: rows.iter().map(|row| whole.tokens[*row as usize]).collect(),
            spans: vec![
                text(0, before),
                Span { modality: picture, start: before, len: kept },
                text(before + kept, rows.len() - before - kept),
            ],
            placing: Placing::Placed {
                phases: rows.iter().map(|row| [*row; 3]).collect(),
                advance: whole.tokens.len() as u32,
            },
            image_tokens: kept,
        };
        let mut reference = sequence(model, &stages(json!({ "method": "full" })));
        let mut want = read(model, &alone, &[Features::whole(features[0].rows().clone())], &mut reference);
        assert!(got == want, "{behind}: the prompt");
        for token in &case.answer {
            got = model.decode(*token, &mut zipped).expect("goes on");
            want = model.decode(*token, &mut reference).expect("goes on");
            assert!(got == want, "{behind}: a token");
        }
        for layer in 0..layers {
            let numbers = |sequence: &Sequence| {
                let lane = &sequence.lanes(layer)[0];
                let sorted = lane.sorted();
                (lane.keys(&sorted).expect("read"), lane.values(&sorted).expect("read"))
            };
            assert!(numbers(&zipped) == numbers(&reference), "{behind}: entries of layer {layer}");
        }
    }
    // All that go on change nothing.
    let mut all = sequence(model, &zip(&json!({ "images": 1 })));
    let got = read(model, whole, &case.features_for(&all), &mut all);
    let mut full = sequence(model, &json!({ "method": "full" }));
    assert!(got == read(model, whole, &case.features, &mut full));
}

/// Turn by turn and fork by fork, images are what they are in one prompt.
#[test]
fn later_prompts_bring_images_of_their_own() {
    let model = load("models/tiny-llava");
    let cache = zip(&json!({ "images": 0.2, "contextual": 0.3 }));
    let names: Vec<String> = [1, 4].iter().map(|scene| format!("data/scenes/scene-00{scene}.png")).collect();
    let pixels = pixels(&model, &names);
    let tokens = |text: &str, special| match special {
        true => model.tokenizer().encode_prompt(text).expect("encodes"),
        false => model.tokenizer().encode(text, false).expect("encodes"),
    };
    let first = tokens("USER: <image>\nWhich shapes are there? ASSISTANT:", true);
    let mark = *first.iter().find(|token| Some(**token) == model.placeholder()).expect("an image");
    let second: Vec<u32> = [tokens(" And here?", false), vec![mark], tokens(" ASSISTANT:", false)].concat();
    let both: Vec<u32> = [&first[..], &second].concat();

    let mut whole = sequence(&model, &cache);
    let two = features(&model, &pixels, &whole);
    let want = read(&model, &model.expand(&both, 2).expect("two images"), &two, &mut whole);
    let mut turns = sequence(&model, &cache);
    let admitted = model.expand(&first, 1).expect("one image");
    turns.admit(&admitted.spans).expect("no cap");
    read(&model, &admitted, &two[..1], &mut turns);
    let one = held(&turns);
    let mut fork = turns.fork().expect("between two pieces of work");
    let got = read(&model, &model.expand(&second, 1).expect("one image"), &two[1..], &mut turns);
    assert!(worst(&got, &want) < 1e-4, "{}", worst(&got, &want));
    assert_eq!(held(&turns), held(&whole));
    let spans: Vec<f64> = turns.kept_spans().iter().map(|span| span.kept).collect();
    let share = 29.0 / 144.0;
    assert_eq!(spans, [1.0, share, 1.0, share, 1.0]);
    // The fork reads a text: all of it goes on.
    let text = model.expand(&tokens(" And what else?", false), 0).expect("text");
    read(&model, &text, &[], &mut fork);
    let n = admitted.tokens.len() as u32;
    assert_eq!(held(&fork), one.iter().copied().chain(n..n + text.tokens.len() as u32).collect::<Vec<u32>>());
    model.decode(7, &mut fork).expect("goes on");
    assert_eq!(held(&fork).last(), Some(&(n + text.tokens.len() as u32)));
}

/// The answer comes from the last position that goes on, even where that shows an image; what a store looks at is never more than there is.
#[test]
fn small_prompts_and_ends_in_an_image() {
    let case = Case::picture(" There is a green star");
    let model = &case.model;
    let image: Vec<u32> = vec![1, model.placeholder().expect("takes images")];
    let prompt = model.expand(&image, 1).expect("one image");
    for cache in [
        zip(&json!({ "images": 0, "contextual": 1 })),
        zip(&json!({ "images": 0.1 })),
        json!([zip(&json!({ "images": 0.1 })), { "method": "think", "window": 0 }]),
        json!([zip(&json!({ "images": 0.3 })), { "method": "kivi", "rope": "before", "window": 4 }]),
        json!([{ "method": "kvsharer", "sources": { "6": 2 } }, zip(&json!({ "images": 0.3 }))]),
    ] {
        let mut sequence = sequence(model, &cache);
        let features = case.features_for(&sequence);
        let mut logits = read(model, &prompt, &features, &mut sequence);
        assert_eq!(sequence.next_position(), 145);
        for token in &case.answer {
            logits = model.decode(*token, &mut sequence).expect("goes on");
        }
        assert!(logits.iter().all(|logit| logit.is_finite()), "{cache}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_the_reason() {
    let case = Case::picture(" There");
    let refused = |cache: Value, part: &str| match Method::parse(&cache) {
        Err(Error::Option { reason, .. }) => assert!(reason.contains(part), "{cache}: {reason}"),
        other => panic!("{cache} gave {other:?}"),
    };
    let (zip, h2o) = (zip(&json!({})), json!({ "method": "h2o", "keep": 0.5 }));
    refused(json!([zip, { "method": "merge" }]), "frees no entries");
    refused(json!([zip, h2o]), "both choose");
    refused(json!([zip, { "method": "fastv" }]), "both choose");
    refused(json!([zip, { "method": "zipvl" }]), "gathers the attention");
    refused(json!({ "method": "visionZip", "keep": 0.5 }), "takes no `keep`");
    refused(json!({ "method": "visionZip", "images": 1.5 }), "from 0 to 1");
    let mut sequence = sequence(&case.model, &zip);
    let features = case.features_for(&sequence);
    assert!(matches!(case.model.begin_prefill(&case.prompt, &features, &mut sequence, 64), Err(Error::Option { .. })));
    // Features that were made for another method.
    for (features, sequence) in
        [(&case.features, &mut sequence), (&features, &mut case.model.new_sequence().expect("no cap"))]
    {
        let error = case.model.prefill(&case.prompt, features, sequence, &|| Ok(())).expect_err("refused");
        assert!(error.to_string().contains("another method"), "{error}");
        assert!(sequence.is_sound());
    }
    read(&case.model, &case.prompt, &features, &mut sequence);
}

/// A model that takes the embeddings of its patches has no attention to choose by.
#[test]
fn towers_that_look_at_nothing_are_refused() {
    let folder = std::env::temp_dir().join(format!("prefixkv-vision-zip-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    for file in std::fs::read_dir(root().join("tests/golden/fixtures/llava-gqa64")).expect("a model").flatten() {
        std::fs::copy(file.path(), folder.join(file.file_name())).expect("copied");
    }
    let config = folder.join("config.json");
    let mut changed: Value = serde_json::from_slice(&std::fs::read(&config).expect("a configuration")).expect("JSON");
    changed["vision_feature_layer"] = json!(0);
    std::fs::write(&config, changed.to_string()).expect("written");
    let model = load(folder.to_str().expect("a name in UTF-8"));
    std::fs::remove_dir_all(&folder).expect("removed");
    let pixels = pixels(&model, &["data/scenes/scene-001.png".into()]);
    model.encode_images(&pixels, &|| Ok(())).expect("embeddings alone");
    let zipped = sequence(&model, &zip(&json!({})));
    let error = model.encode_images_for(&pixels, zipped.pictures(), &|| Ok(())).map(|_| ()).expect_err("refused");
    assert!(matches!(&error, Error::Option { reason, .. } if reason.contains("no attention says")), "{error}");
}
