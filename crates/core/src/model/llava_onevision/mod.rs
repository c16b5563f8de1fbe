//! LLaVA-OneVision: pictures in tiles of a SigLIP tower, no more cells than a few tiles have, and a Qwen2; several pictures are a tile each. Li
//! et al. 2024, arXiv 2408.03326.

use serde_json::Value;

use super::anyres::{self, AnyresConfig, ProcessorClass};
use super::config::ConfigFile;
use super::llava::{Class, SelectStrategy, TowerKind};
use super::network::Family;
use crate::backend::Backend;
use crate::error::Result;

pub(super) fn family<B: Backend>() -> Family<B> {
    Family {
        architectures: &[ARCHITECTURE],
        implied: |kind| (kind == "llava_onevision").then_some(ARCHITECTURE),
        inspect: |file| Ok(Box::new(parse(file)?)),
        load: |file, loader, loaded| anyres::load(parse(file)?, loader, loaded),
        vision: anyres::VISION,
    }
}

const ARCHITECTURE: &str = "LlavaOnevisionForConditionalGeneration";
/// Hugging Face's LlavaOnevisionConfig.
const CLASS: Class =
    Class { image_token: 151_646, strategy: SelectStrategy::Full, layer: -1, tower: TowerKind::Siglip, text: "qwen2" };
const PROCESSOR: ProcessorClass =
    ProcessorClass { name: "LlavaOnevisionImageProcessor", size: 384, crop: None, squares: true };
/// Side of a tile of LlavaOnevisionConfig and LlavaOnevisionImageProcessor, and most tiles along a side of a picture.
const TILE: usize = 384;
const ACROSS: usize = 6;
/// Tiles whose cells a grid may have, where the file says nothing; and most that it may say.
const MOST: usize = 9;
const LIMIT: usize = 4096;

fn parse(file: &ConfigFile) -> Result<AnyresConfig> {
    let choices = (1..=ACROSS).flat_map(|down| (1..=ACROSS).map(move |across| (TILE * down, TILE * across)));
    AnyresConfig::parse(file, &CLASS, PROCESSOR, choices.collect(), Some(most(file)?))
}

/// N of `anyres_max_N`.
fn most(file: &ConfigFile) -> Result<usize> {
    let root = file.section(None)?;
    let Some(named) = root.get("vision_aspect_ratio").filter(|value| !value.is_null()) else { return Ok(MOST) };
    let digits = named.as_str().and_then(|named| named.strip_prefix("anyres_max_"));
    let number = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()));
    number.and_then(|number| number.parse().ok()).filter(|most| (1..=LIMIT).contains(most)).ok_or_else(|| {
        let found = Value::to_string(named);
        file.bad(format!("`vision_aspect_ratio` is {found}, expected \"anyres_max_N\" with N from 1 to {LIMIT}"))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::config::golden;

    #[test]
    fn defaults_are_those_of_the_class() {
        let config = parse(&golden::file(json!({ "text_config": {}, "vision_config": null }))).unwrap();
        let (llava, sizes) = (&config.llava, &config.sizes);
        assert_eq!((sizes.tile, sizes.side, sizes.choices.len(), sizes.most), (384, 27, 36, Some(9)));
        assert_eq!((sizes.choices[1], sizes.choices[6]), ((384, 768), (768, 384)));
        assert_eq!(
            (llava.image_token, &llava.feature_depths[..], llava.vision.hidden_size),
            (151_646, &[26][..], 1152)
        );
        assert_eq!((llava.text.vocab_size, llava.text.attention_bias), (151_936, true));
    }

    #[test]
    fn other_ways_of_counting_are_named() {
        for named in [
            json!("anyres"),
            json!("anyres_max_"),
            json!("anyres_max_0"),
            json!("pad"),
            json!(9),
            json!("anyres_max_-1"),
        ] {
            let error = parse(&golden::file(json!({ "vision_aspect_ratio": named }))).err().unwrap();
            assert!(error.code() == "model-file" && error.to_string().contains("`vision_aspect_ratio`"), "{error}");
        }
        let config = parse(&golden::file(json!({ "vision_aspect_ratio": "anyres_max_4" }))).unwrap();
        assert_eq!(config.sizes.most, Some(4));
    }
}
