//! Whole models on the shim against the CPU: the engine's own path down to every kernel, with only the driver and the device's
//! matrix library replaced.

mod batch;
mod budget;
mod faults;
mod fork;
mod gemma3;
#[path = "../../../core/tests/models/layers/golden.rs"]
mod golden;
mod host;
mod internvl;
mod launches;
mod layers;
mod limits;
mod methods;
mod pieces;
mod qwen_vl;
mod rotated;

use std::path::{Path, PathBuf};

use prefixkv_core::Error;
use prefixkv_core::backend::Backend;
use prefixkv_core::device::Cuda;
use prefixkv_core::media::Prepared;
use prefixkv_core::method::Method;
use prefixkv_core::model::{Features, LoadOptions, Model, Prompt, WeightFormat};
use prefixkv_core::sequence::Sequence;
use prefixkv_cuda_shim::{Order, Shim};
use serde_json::Value;

/// A random model with two layers and grouped queries.
const FOLDER: &str = "tests/golden/fixtures/llama-linear-tied";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn shim() -> Shim {
    Shim::new(Order::FirstToLast, 8)
}

fn cuda(shim: &Shim) -> Cuda {
    Cuda::new((*shim).clone(), "cuda:0")
}

fn load<B: Backend>(folder: &str, backend: B, weights: WeightFormat) -> Model<B> {
    let options = LoadOptions { weights, ..LoadOptions::new(root().join(folder)) };
    Model::load_on(backend, &options, &mut |_| Ok(())).unwrap_or_else(|error| panic!("{folder}: {error}"))
}

/// A model with a prompt that it has seen as far as its image.
struct Reader<B: Backend> {
    model: Model<B>,
    prompt: Prompt,
    features: Vec<Features<B>>,
    pixels: Vec<Prepared>,
}

impl<B: Backend> Reader<B> {
    /// The embedded model with a picture.
    fn picture(backend: B, weights: WeightFormat) -> Reader<B> {
        let model = load("models/tiny-llava", backend, weights);
        let bytes = std::fs::read(root().join("data/scenes/scene-001.png")).expect("a scene");
        let pixels = model.image_processor().expect("takes images").process(&bytes, 0).expect("a picture");
        let pixels = vec![pixels];
        let features = model.encode_images(&pixels, &|| Ok(())).expect("encodes");
        let text = "USER: <image>\nDescribe the image in detail. ASSISTANT:";
        let tokens = model.tokenizer().encode_prompt(text).expect("encodes");
        let prompt = model.expand(&tokens, 1).expect("one image");
        Reader { model, prompt, features, pixels }
    }

    /// A random model with grouped queries and `n` tokens of text.
    fn text(folder: &str, backend: B, n: u32) -> Reader<B> {
        let model = load(folder, backend, WeightFormat::F32);
        let vocab = model.info().vocab_size as u32;
        let tokens: Vec<u32> = (0..n).map(|i| (i * 7919 + i * i * 31) % (vocab - 10) + 5).collect();
        let prompt = model.expand(&tokens, 0).expect("text");
        Reader { model, prompt, features: Vec::new(), pixels: Vec::new() }
    }

    fn sequence(&self, cache: &Value) -> Sequence<B::Memory> {
        let method = Method::parse(cache).unwrap_or_else(|error| panic!("{cache}: {error}"));
        self.model.new_sequence_with(method, false).unwrap_or_else(|error| panic!("{cache}: {error}"))
    }

    /// Why a method is refused on this device.
    fn refusal(&self, cache: &Value) -> Error {
        let method = Method::parse(cache).unwrap_or_else(|error| panic!("{cache}: {error}"));
        self.model.new_sequence_with(method, false).err().unwrap_or_else(|| panic!("{cache} is not refused"))
    }

    fn prefill(&self, sequence: &mut Sequence<B::Memory>) -> Vec<f32> {
        let chosen = sequence
            .pictures()
            .map(|some| self.model.encode_images_for(&self.pixels, Some(some), &|| Ok(())).expect("encodes"));
        let features = chosen.as_ref().unwrap_or(&self.features);
        self.model.prefill(&self.prompt, features, sequence, &|| Ok(())).expect("reads")
    }
}

fn argmax(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.expect("a vocabulary").0 as u32
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    // Not `max`, which passes over NaN.
    differences.fold(0.0, |worst, difference| if difference <= worst { worst } else { difference })
}
