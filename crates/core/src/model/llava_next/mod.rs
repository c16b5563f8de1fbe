//! LLaVA-NeXT (LLaVA-1.6): a LLaVA whose pictures are cut into tiles of a CLIP or SigLIP tower, with a Llama or a Mistral. Liu et al. 2024,
//! "LLaVA-NeXT: Improved reasoning, OCR, and world knowledge".

use super::anyres::{self, AnyresConfig, ProcessorClass};
use super::config::ConfigFile;
use super::llava::{Class, SelectStrategy, TowerKind};
use super::network::Family;
use crate::backend::Backend;
use crate::error::Result;

pub(super) fn family<B: Backend>() -> Family<B> {
    Family {
        architectures: &[ARCHITECTURE],
        implied: |kind| (kind == "llava_next").then_some(ARCHITECTURE),
        inspect: |file| Ok(Box::new(parse(file)?)),
        load: |file, loader, loaded| anyres::load(parse(file)?, loader, loaded),
        vision: anyres::VISION,
    }
}

const ARCHITECTURE: &str = "LlavaNextForConditionalGeneration";
/// Hugging Face's LlavaNextConfig.
const CLASS: Class =
    Class { image_token: 32_000, strategy: SelectStrategy::Default, layer: -2, tower: TowerKind::Clip, text: "llama" };
/// (height, width) in pixels, of LlavaNextConfig and LlavaNextImageProcessor.
const CHOICES: [(usize, usize); 5] = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)];
const PROCESSOR: ProcessorClass =
    ProcessorClass { name: "LlavaNextImageProcessor", size: 224, crop: Some(224), squares: false };

fn parse(file: &ConfigFile) -> Result<AnyresConfig> {
    AnyresConfig::parse(file, &CLASS, PROCESSOR, CHOICES.to_vec(), None)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::config::golden;

    #[test]
    fn defaults_are_those_of_the_class() {
        let config = parse(&golden::file(json!({}))).unwrap();
        let (llava, sizes) = (&config.llava, &config.sizes);
        assert_eq!((sizes.tile, sizes.side, &sizes.choices[..], sizes.most), (336, 24, &CHOICES[..], None));
        assert_eq!((llava.image_token, &llava.feature_depths[..], llava.vision.hidden_size), (32_000, &[23][..], 1024));
        assert_eq!((llava.text.vocab_size, llava.projector_bias), (32_000, true));
    }
}
