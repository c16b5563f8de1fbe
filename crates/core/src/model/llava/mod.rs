//! LLaVA-1.5: a CLIP tower, a two-layer projector and a Llama. Liu et al. 2023, arXiv 2310.03744.

mod config;

use std::sync::Arc;

use config::{LlavaConfig, SelectStrategy};

use super::clip::Clip;
use super::info::ImageInfo;
use super::llama::Llama;
use super::network::{Check, Describe, Family, Network, NetworkShape};
use crate::cache::Pass;
use crate::device::Place;
use crate::error::Result;
use crate::media::Pixels;
use crate::nn::{Linear, Loader, Matrix, WeightFormat};
use crate::weights::Checkpoint;

pub(super) const FAMILY: Family = Family {
    architectures: &["LlavaForConditionalGeneration"],
    inspect: |file| Ok(Box::new(LlavaConfig::parse(file)?)),
    load: |file, loader, checkpoint, loaded| {
        let config = LlavaConfig::parse(file)?;
        let text = Llama::load(config.text.clone(), loader, TEXT, HEAD, loaded)?;
        // Looked up now, so that a folder without them is refused at load, not at the first image.
        checkpoint.find_prefix(VISION, "embeddings.class_embedding")?;
        checkpoint.find_prefix(PROJECTOR, "linear_1.weight")?;
        Ok(Box::new(Llava {
            config,
            text,
            vision: None,
            checkpoint: checkpoint.clone(),
            format: loader.format,
            place: loader.place.clone(),
        }))
    },
};

// The layouts of Hugging Face: before transformers 4.52, since then, and as transformers 5 writes.
const TEXT: &[&str] = &["language_model.model.", "model.language_model."];
const HEAD: &[&str] = &["language_model.lm_head", "lm_head"];
const VISION: &[&str] =
    &["vision_tower.vision_model.", "model.vision_tower.vision_model.", "model.vision_tower.", "vision_tower."];
const PROJECTOR: &[&str] = &["multi_modal_projector.", "model.multi_modal_projector."];

impl Describe for LlavaConfig {
    fn shape(&self) -> NetworkShape {
        self.text.shape()
    }

    fn image(&self) -> Option<ImageInfo> {
        Some(ImageInfo {
            tokens: self.image_tokens(),
            size: self.vision.image_size,
            patch: self.vision.patch_size,
            placeholder: self.image_token,
        })
    }
}

struct Llava {
    config: LlavaConfig,
    text: Llama,
    /// Loaded when the first image comes.
    vision: Option<Vision>,
    checkpoint: Arc<Checkpoint>,
    format: WeightFormat,
    place: Place,
}

struct Vision {
    tower: Clip,
    first: Linear,
    second: Linear,
}

impl Vision {
    fn load(config: &LlavaConfig, checkpoint: &Checkpoint, format: WeightFormat, place: &Place) -> Result<Self> {
        let loader = Loader::new(checkpoint, format, place.clone());
        let prefix = checkpoint.find_prefix(VISION, "embeddings.class_embedding")?;
        let depth = config.feature_depths.iter().copied().max().unwrap_or(0);
        let tower = Clip::load(config.vision.clone(), depth, &loader, prefix)?;
        let prefix = checkpoint.find_prefix(PROJECTOR, "linear_1.weight")?;
        let (hidden, features) = (config.text.hidden_size, config.vision.hidden_size * config.feature_depths.len());
        let layer = |name: &str, columns: usize| {
            loader.linear(&[(&format!("{prefix}{name}"), hidden)], columns, config.projector_bias)
        };
        Ok(Vision { tower, first: layer("linear_1", features)?, second: layer("linear_2", hidden)? })
    }
}

impl Llava {
    fn vision(&mut self) -> Result<&Vision> {
        if self.vision.is_none() {
            self.vision = Some(Vision::load(&self.config, &self.checkpoint, self.format, &self.place)?);
        }
        self.vision.as_ref().ok_or_else(|| crate::Error::Internal("vision tower vanished".into()))
    }
}

impl Describe for Llava {
    fn shape(&self) -> NetworkShape {
        self.text.shape()
    }

    fn image(&self) -> Option<ImageInfo> {
        self.config.image()
    }
}

impl Network for Llava {
    fn embed(&self, tokens: &[u32]) -> Result<Matrix> {
        self.text.embed(tokens)
    }

    fn forward(&self, x: Matrix, pass: &mut Pass<'_, '_>, check: Check<'_>) -> Result<Matrix> {
        self.text.forward(x, pass, check)
    }

    fn logits(&self, hidden: &Matrix) -> Result<Matrix> {
        self.text.logits(hidden)
    }

    fn image_features(&mut self, pixels: &Pixels, check: Check<'_>) -> Result<Matrix> {
        let (depths, strategy) = (self.config.feature_depths.clone(), self.config.strategy);
        let states = self.vision()?.tower.forward(pixels, &depths, check)?;
        let selected = states
            .iter()
            .map(|state| match strategy {
                SelectStrategy::Default => state.narrow(1, state.rows() - 1),
                SelectStrategy::Full => Ok(state.clone()),
            })
            .collect::<Result<Vec<Matrix>>>()?;
        Matrix::cat_columns(&selected)
    }

    fn project(&mut self, features: &Matrix) -> Result<Matrix> {
        let act = self.config.projector_act;
        let vision = self.vision()?;
        vision.second.forward(&act.forward(&vision.first.forward(features)?, vision.second.input())?)
    }
}
