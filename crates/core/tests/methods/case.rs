//! A model with a prompt and tokens that follow it, for suites over all methods.

use std::path::{Path, PathBuf};

use prefixkv_core::device::Cpu;
use prefixkv_core::media::Prepared;
use prefixkv_core::method::{Method, MethodSpec};
use prefixkv_core::model::{Features, LoadOptions, Model, Prompt};
use prefixkv_core::sequence::Sequence;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub(crate) fn from_base64(text: &str) -> Vec<u8> {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut bytes = Vec::new();
    for group in text.trim_end_matches('=').as_bytes().chunks(4) {
        let word = group.iter().enumerate().fold(0u32, |word, (i, c)| word | u32::from(digit(*c)) << (18 - 6 * i));
        bytes.extend_from_slice(&word.to_be_bytes()[1..group.len()]);
    }
    bytes
}

/// A prompt and an answer of data/eviction, for golden data that name them.
pub(crate) struct Reference {
    pub(crate) model: Model,
    pub(crate) prompt: Prompt,
    pub(crate) features: Vec<Features<Cpu>>,
    pub(crate) answer: Vec<u32>,
}

#[derive(Deserialize)]
struct Prompts {
    model: String,
    scenes: Vec<Given>,
}

#[derive(Deserialize)]
struct Given {
    name: String,
    image: Option<String>,
    prompt: Vec<u32>,
    answer: Vec<u32>,
}

impl Reference {
    pub(crate) fn golden<T: DeserializeOwned>(name: &str) -> T {
        let path = root().join("tests/golden/data").join(name);
        serde_json::from_str(&std::fs::read_to_string(path).expect("golden")).expect("golden")
    }

    /// A bit for each position, in base64, as positions.
    pub(crate) fn positions(bits: &str) -> Vec<u32> {
        let bytes = from_base64(bits);
        let has = |position: &u32| bytes[(position / 8) as usize] >> (position % 8) & 1 == 1;
        (0..8 * bytes.len() as u32).filter(has).collect()
    }

    pub(crate) fn of(file: &str, name: &str) -> Reference {
        let Prompts { model, scenes } = Reference::golden(&format!("eviction/{file}.json"));
        let model = load(&model);
        let given = scenes.into_iter().find(|given| given.name == name).expect("a prompt");
        let Some(image) = &given.image else {
            let prompt = model.expand(&given.prompt, 0).expect("text");
            return Reference { model, prompt, features: Vec::new(), answer: given.answer };
        };
        let bytes = std::fs::read(root().join(image)).expect("a scene");
        let pixels = model.image_processor().expect("takes images").process(&bytes, 0).expect("a picture");
        let features = model.encode_images(&[pixels], &|| Ok(())).expect("encodes");
        // The golden repeats the placeholder once per image token.
        let mut tokens = given.prompt.clone();
        tokens.dedup();
        let prompt = model.expand(&tokens, 1).expect("one image");
        Reference { model, prompt, features, answer: given.answer }
    }
}

pub(crate) struct Case {
    pub(crate) model: Model,
    pub(crate) prompt: Prompt,
    pub(crate) features: Vec<Features<Cpu>>,
    pub(crate) pixels: Vec<Prepared>,
    pub(crate) answer: Vec<u32>,
}

/// An empty sequence with a cache as requests have it, which must be sound.
pub(crate) fn sequence(model: &Model, cache: &Value) -> Sequence {
    let method = Method::parse(cache).unwrap_or_else(|error| panic!("{cache}: {error}"));
    model.new_sequence_with(method, true).unwrap_or_else(|error| panic!("{cache}: {error}"))
}

pub(crate) fn load(folder: &str) -> Model {
    let options = LoadOptions::new(root().join(folder));
    Model::load(&options, &mut |_| Ok(())).unwrap_or_else(|e| panic!("{folder}: {e}"))
}

/// A method that takes a size, with the calibration that it needs for a model.
pub(crate) fn sized(spec: &MethodSpec, keep: impl Serialize, model: &Model) -> Value {
    let (info, mut cache) = (model.info(), json!({ "method": spec.name, "keep": keep }));
    if let Some(calibration) = crate::calibrated::calibration(spec, info.layers, info.kv_heads, info.head_dim) {
        cache["calibration"] = calibration;
    }
    cache
}

impl Case {
    /// A method at a size.
    pub(crate) fn cache(&self, spec: &MethodSpec, keep: impl Serialize) -> Value {
        sized(spec, keep, &self.model)
    }

    /// The embedded model with a picture, and a text that follows.
    pub(crate) fn picture(answer: &str) -> Case {
        let model = load("models/tiny-llava");
        let bytes = std::fs::read(root().join("data/scenes/scene-001.png")).expect("a scene");
        let pixels = model.image_processor().expect("takes images").process(&bytes, 0).expect("a picture");
        let pixels = vec![pixels];
        let features = model.encode_images(&pixels, &|| Ok(())).expect("encodes");
        let text = "USER: <image>\nDescribe the image in detail. ASSISTANT:";
        let tokens = model.tokenizer().encode_prompt(text).expect("encodes");
        let prompt = model.expand(&tokens, 1).expect("one image");
        let answer = model.tokenizer().encode(answer, false).expect("encodes");
        Case { model, prompt, features, pixels, answer }
    }

    /// A random model with grouped queries (4 heads over 1), and so many tokens of a text and of what follows.
    pub(crate) fn text(prompt: usize, answer: usize) -> Case {
        let model = load("tests/golden/fixtures/llama-linear-tied");
        let vocab = model.info().vocab_size as u32;
        let all = (prompt + answer) as u32;
        let tokens: Vec<u32> = (0..all).map(|i| (i * 7919 + i * i * 31) % (vocab - 10) + 5).collect();
        let read = model.expand(&tokens[..prompt], 0).expect("text");
        Case { model, prompt: read, features: Vec::new(), pixels: Vec::new(), answer: tokens[prompt..].to_vec() }
    }

    /// The features of its picture for a sequence whose method may choose from them.
    pub(crate) fn features_for(&self, sequence: &Sequence) -> Vec<Features<Cpu>> {
        match sequence.pictures() {
            None => self.features.clone(),
            some => self.model.encode_images_for(&self.pixels, some, &|| Ok(())).expect("encodes"),
        }
    }
}
