//! A model beside its golden, and prompts with pictures as a model reads them.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use prefixkv_core::device::Cpu;
use prefixkv_core::media::Prepared;
use prefixkv_core::method::Method;
use prefixkv_core::model::{Features, Model, Prompt};
use prefixkv_core::sample::argmax;
use prefixkv_core::sequence::Sequence;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::folder::{load, root};

pub(crate) const TOLERANCE: f32 = 1e-3;

/// A model with its golden, which says what `G` has.
pub(crate) struct Reference<G> {
    pub model: Model,
    pub golden: G,
    pub arrays: HashMap<String, Tensor>,
}

impl<G: DeserializeOwned> Reference<G> {
    /// By the name of the golden's files.
    pub(crate) fn of(name: &str) -> Self {
        let path = |ending: &str| root().join(format!("tests/golden/data/{name}.{ending}"));
        let text = std::fs::read_to_string(path("json")).expect("readable");
        let value: Value = serde_json::from_str(&text).expect("JSON");
        let folder = root().join(value["model"].as_str().expect("the folder of a model"));
        let golden = serde_json::from_value(value).unwrap_or_else(|e| panic!("{name}: {e}"));
        let arrays = candle_core::safetensors::load(path("safetensors"), &Device::Cpu).expect("arrays load");
        Reference { model: load(&folder), golden, arrays }
    }
}

impl<G> Reference<G> {
    pub(crate) fn array(&self, name: &str) -> Vec<f32> {
        let array = self.arrays.get(name).unwrap_or_else(|| panic!("no {name}"));
        array.flatten_all().and_then(|all| all.to_vec1()).expect("f32")
    }

    pub(crate) fn close(&self, what: &str, got: &[f32], want: &str) {
        let want = self.array(want);
        assert_eq!(got.len(), want.len(), "{what}");
        // Not `max`, which passes over NaN.
        let differences = got.iter().zip(&want).map(|(a, b)| (a - b).abs());
        let worst = differences.fold(0.0f32, |worst, d| if d <= worst { worst } else { d });
        eprintln!("{what}: largest difference {worst:e}");
        assert!(worst <= TOLERANCE, "{what}: largest difference {worst} is over {TOLERANCE}");
    }

    pub(crate) fn read(&self, images: &[String], text: &str) -> Read {
        read(&self.model, images, text)
    }

    pub(crate) fn sequence(&self, cache: &Value) -> Sequence {
        let method = Method::parse(cache).unwrap_or_else(|e| panic!("{cache}: {e}"));
        self.model.new_sequence_with(method, true).unwrap_or_else(|e| panic!("{cache}: {e}"))
    }

    pub(crate) fn prefill(&self, prompt: &Prompt, features: &[Features<Cpu>], sequence: &mut Sequence) -> Vec<f32> {
        self.model.prefill(prompt, features, sequence, &|| Ok(())).expect("runs")
    }

    /// Greedy tokens behind `row`.
    pub(crate) fn answer(&self, mut row: Vec<f32>, sequence: &mut Sequence, tokens: usize) -> Vec<u32> {
        let mut answer = vec![argmax(&row) as u32];
        while answer.len() < tokens {
            row = self.model.decode(answer[answer.len() - 1], sequence).expect("decodes");
            answer.push(argmax(&row) as u32);
        }
        answer
    }
}

/// A prompt with its images.
pub(crate) struct Read {
    pub prompt: Prompt,
    pub prepared: Vec<Prepared>,
    pub features: Vec<Features<Cpu>>,
}

pub(crate) fn read(model: &Model, images: &[String], text: &str) -> Read {
    let processor = model.image_processor().expect("takes images");
    let files: Vec<Vec<u8>> = images.iter().map(|path| std::fs::read(root().join(path)).expect("an image")).collect();
    let prepared: Vec<Prepared> =
        files.iter().enumerate().map(|(index, bytes)| processor.process(bytes, index).expect("decodes")).collect();
    let plans: Vec<_> = prepared
        .iter()
        .map(|image| model.plan(&mut || Ok((image.width, image.height))).expect("fits").expect("takes images"))
        .collect();
    let encoded = model.encode_raw(text, &plans).expect("encodes");
    let prompt = model.expand_at(&encoded.tokens, &encoded.pictures, &plans, images.len()).expect("expands");
    let features = model.encode_images(&prepared, &|| Ok(())).expect("sees");
    Read { prompt, prepared, features }
}
