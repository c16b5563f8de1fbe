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
mod windows;

use config::{ALL, QwenVlConfig};
use tower::{Made, Tower};

use prefixkv_kernels::attention::AttentionParams;

use super::images::Images;
use super::info::ImageInfo;
use super::inputs::Inputs;
use super::llama::Llama;
use super::network::{Describe, Family, Loaded, Network, NetworkShape, Seen};
use crate::backend::Backend;
use crate::cache::{LayerCache, Span};
use crate::check::Check;
use crate::error::{Error, Result};
use crate::fields::refuse;
use crate::media::Prepared;
use crate::method::directions::Projection;
use crate::nn::{Loader, Matrix};
use crate::sequence::{Pass, Placing};

pub(super) fn family<B: Backend>() -> Family<B> {
    Family {
        architectures: &const { [ALL[0].architecture, ALL[1].architecture, ALL[2].architecture] },
        implied: |kind| ALL.iter().find(|variant| variant.model_type == kind).map(|variant| variant.architecture),
        inspect: |file| Ok(Box::new(QwenVlConfig::parse(file)?)),
        load: |file, loader, loaded| Ok(Box::new(QwenVl::load(QwenVlConfig::parse(file)?, loader, loaded)?)),
        vision: VISION,
    }
}

const TEXT: &[&str] = &["model.language_model.", "model."];
const HEAD: &[&str] = &["lm_head"];
const VISION: &[&str] = &["model.visual.", "visual."];

impl Describe for QwenVlConfig {
    fn shape(&self) -> NetworkShape {
        self.text.shape()
    }

    fn layers(&self) -> Vec<LayerCache> {
        self.text.layers()
    }

    fn attention(&self) -> Vec<AttentionParams> {
        self.text.attention()
    }

    fn image(&self) -> Option<ImageInfo> {
        Some(ImageInfo { tokens: None, size: None, patch: self.tower.patch, picture: None })
    }

    fn images(&self) -> Option<&dyn Images> {
        Some(self)
    }

    fn place(&self, spans: &[Span]) -> Placing {
        self.text.place(spans)
    }
}

struct QwenVl<B: Backend> {
    config: QwenVlConfig,
    text: Llama<B>,
    tower: Tower<B>,
    vision_bytes: u64,
}

impl<B: Backend> QwenVl<B> {
    fn load(config: QwenVlConfig, loader: &Loader<'_, B>, loaded: Loaded<'_>) -> Result<Self> {
        // Before the long work, so that a folder without it is refused at once.
        let prefix = loader.checkpoint.find_prefix(VISION, "patch_embed.proj.weight")?;
        let text = Llama::load(config.text.clone(), loader, TEXT, HEAD, loaded)?;
        let text_bytes = loader.tally().bytes;
        let tower = Tower::load(config.tower.clone(), loader, prefix, loaded)?;
        Ok(QwenVl { config, text, tower, vision_bytes: loader.tally().bytes - text_bytes })
    }
}

impl<B: Backend> Describe for QwenVl<B> {
    fn shape(&self) -> NetworkShape {
        self.text.shape()
    }

    fn layers(&self) -> Vec<LayerCache> {
        self.text.layers()
    }

    fn attention(&self) -> Vec<AttentionParams> {
        self.text.attention()
    }

    fn image(&self) -> Option<ImageInfo> {
        self.config.image()
    }

    fn images(&self) -> Option<&dyn Images> {
        Some(&self.config)
    }

    fn place(&self, spans: &[Span]) -> Placing {
        self.config.place(spans)
    }

    fn rotates_values(&self) -> bool {
        self.text.rotates_values()
    }
}

impl<B: Backend> Network<B> for QwenVl<B> {
    fn embed(&self, tokens: &[u32]) -> Result<Matrix<B>> {
        self.text.embed(tokens)
    }

    fn forward(&self, x: Inputs<B>, pass: &mut Pass<'_, '_, B::Memory>, check: Check<'_>) -> Result<Matrix<B>> {
        self.text.forward(x, pass, check)
    }

    fn logits(&self, hidden: &Matrix<B>) -> Result<Matrix<B>> {
        self.text.logits(hidden)
    }

    fn projection(&self, layer: usize) -> Result<Option<Projection>> {
        self.text.projection(layer)
    }

    fn normed(&self, hidden: &Matrix<B>) -> Result<Matrix<B>> {
        self.text.normed(hidden)
    }

    fn vision_bytes(&self) -> u64 {
        self.vision_bytes
    }

    fn image_features(&self, image: &Prepared, noting: bool, check: Check<'_>) -> Result<Seen<B>> {
        if noting {
            return Err(refuse(
                "the vision tower of this model has no class token, so no attention says which positions of an image matter; use another method",
            ));
        }
        let [pixels] = &image.tiles[..] else {
            return Err(Error::Internal(format!("an image of {} tiles, expected one", image.tiles.len())));
        };
        let Made { rows, behind } = self.tower.forward(pixels, check)?;
        Ok(Seen { features: rows, behind, notes: None })
    }

    /// The tower ends in the language model's space.
    fn project(&self, features: &Matrix<B>) -> Result<Matrix<B>> {
        Ok(features.clone())
    }
}
