//! A model with a prompt and tokens that follow it, for suites over all methods.

use std::path::{Path, PathBuf};

use prefixkv_core::model::{LoadOptions, Model, Prompt};
use prefixkv_core::nn::Matrix;

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub(crate) struct Case {
    pub(crate) model: Model,
    pub(crate) prompt: Prompt,
    pub(crate) features: Vec<Matrix>,
    pub(crate) answer: Vec<u32>,
}

pub(crate) fn load(folder: &str) -> Model {
    let options = LoadOptions::new(root().join(folder));
    Model::load(&options, &mut |_| Ok(())).unwrap_or_else(|e| panic!("{folder}: {e}"))
}

impl Case {
    /// The embedded model with a picture, and a text that follows.
    pub(crate) fn picture(answer: &str) -> Case {
        let model = load("models/tiny-llava");
        let bytes = std::fs::read(root().join("data/scenes/scene-001.png")).expect("a scene");
        let pixels = model.image_processor().expect("takes images").process(&bytes, 0).expect("a picture");
        let features = model.encode_images(&[pixels], &|| Ok(())).expect("encodes");
        let text = "USER: <image>\nDescribe the image in detail. ASSISTANT:";
        let tokens = model.tokenizer().encode_prompt(text).expect("encodes");
        let prompt = model.expand(&tokens, 1).expect("one image");
        let answer = model.tokenizer().encode(answer, false).expect("encodes");
        Case { model, prompt, features, answer }
    }

    /// A random model with grouped queries (4 heads over 1), and so many tokens of a text and of what follows.
    pub(crate) fn text(prompt: usize, answer: usize) -> Case {
        let model = load("tests/golden/fixtures/llama-linear-tied");
        let vocab = model.info().vocab_size as u32;
        let all = (prompt + answer) as u32;
        let tokens: Vec<u32> = (0..all).map(|i| (i * 7919 + i * i * 31) % (vocab - 10) + 5).collect();
        let read = model.expand(&tokens[..prompt], 0).expect("text");
        Case { model, prompt: read, features: Vec::new(), answer: tokens[prompt..].to_vec() }
    }
}
