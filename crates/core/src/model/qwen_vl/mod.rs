//! Qwen2-VL, Qwen2.5-VL and Qwen3-VL: pictures of any size, and phases along three axes. One family, a file for what each generation does by
//! itself. Wang et al. 2024, arXiv 2409.12191; Bai et al. 2025, arXiv 2502.13923 and 2511.21631.

mod config;
mod images;
mod parts;
mod qwen2;
mod qwen2_5;
mod qwen3;
mod table;
mod tower;
mod videos;
mod windows;

use config::{ALL, QwenVlConfig};
use tower::{Made, Tower};

use super::info::ImageInfo;
use super::llama::LlamaConfig;
use super::network::{Family, Loaded, Seen};
use super::seeing::{Pictured, Seeing, Vision};
use crate::backend::Backend;
use crate::check::Check;
use crate::error::Result;
use crate::fields::refuse;
use crate::media::Prepared;
use crate::nn::Matrix;
use crate::weights::Layouts;

pub(super) fn family<B: Backend>() -> Family<B> {
    Family {
        architectures: VIDEOS,
        implied: |kind| ALL.iter().find(|variant| variant.model_type == kind).map(|variant| variant.architecture),
        inspect: |file| Ok(Box::new(QwenVlConfig::parse(file)?)),
        load: |file, loader, loaded| {
            let config = QwenVlConfig::parse(file)?;
            // Before the long work, so that a folder without it is refused at once.
            let prefix = loader.checkpoint.find_prefix(VISION, "patch_embed.proj.weight")?;
            let vision =
                |config: &QwenVlConfig, loaded: Loaded<'_>| Tower::load(config.tower.clone(), loader, prefix, loaded);
            Ok(Box::new(Seeing::load(config, TEXT, HEAD, loader, loaded, vision)?))
        },
        vision: VISION,
    }
}

/// The architectures that take videos.
pub(super) const VIDEOS: &[&str] = &[ALL[0].architecture, ALL[1].architecture, ALL[2].architecture];
const TEXT: &[&str] = &["model.language_model.", "model."];
const HEAD: &[&str] = &["lm_head"];
const VISION: &[&str] = &["model.visual.", "visual."];

impl Pictured for QwenVlConfig {
    fn text(&self) -> &LlamaConfig {
        &self.text
    }

    fn layouts(&self) -> Layouts {
        Layouts { text: TEXT, head: HEAD, others: &[VISION] }
    }

    fn image(&self) -> ImageInfo {
        ImageInfo { tokens: None, size: None, patch: self.tower.patch, picture: None }
    }
}

impl<B: Backend> Vision<B> for Tower<B> {
    fn image_features(&self, image: &Prepared, noting: bool, check: Check<'_>) -> Result<Seen<B>> {
        if noting {
            return Err(refuse(
                "the vision tower of this model has no class token, so no attention says which positions of an image matter; use another method",
            ));
        }
        let Made { rows, behind } = self.forward(&image.tiles, check)?;
        Ok(Seen { features: rows, behind, notes: None })
    }

    /// The tower ends in the language model's space.
    fn project(&self, features: &Matrix<B>) -> Result<Matrix<B>> {
        Ok(features.clone())
    }
}
