//! LLaVA-1.5: a CLIP tower, a two-layer projector and a Llama. Liu et al. 2023, arXiv 2310.03744.

mod config;
mod images;

use config::{LlavaConfig, SelectStrategy};

use super::clip::Clip;
use super::info::ImageInfo;
use super::llama::LlamaConfig;
use super::network::{Family, Loaded, Seen};
use super::seeing::{self, Pictured, Seeing};
use crate::backend::{Activation, Activations, Backend};
use crate::check::Check;
use crate::error::{Error, Result};
use crate::media::Prepared;
use crate::nn::{Linear, Loader, Matrix};

pub(super) fn family<B: Backend>() -> Family<B> {
    Family {
        architectures: &[ARCHITECTURE],
        implied: |kind| (kind == "llava").then_some(ARCHITECTURE),
        inspect: |file| Ok(Box::new(LlavaConfig::parse(file)?)),
        load: |file, loader, loaded| {
            let config = LlavaConfig::parse(file)?;
            // Before the long work, so that a folder without them is refused at once.
            loader.checkpoint.find_prefix(VISION, "embeddings.class_embedding")?;
            loader.checkpoint.find_prefix(PROJECTOR, "linear_1.weight")?;
            let vision = |config: &LlavaConfig, loaded: Loaded<'_>| Vision::load(config, loader, loaded);
            Ok(Box::new(Seeing::load(config, TEXT, HEAD, loader, loaded, vision)?))
        },
        vision: &["vision_tower.", "model.vision_tower.", "multi_modal_projector.", "model.multi_modal_projector."],
    }
}

const ARCHITECTURE: &str = "LlavaForConditionalGeneration";
const TEXT: &[&str] = &["language_model.model.", "model.language_model."];
const HEAD: &[&str] = &["language_model.lm_head", "lm_head"];
const VISION: &[&str] =
    &["vision_tower.vision_model.", "model.vision_tower.vision_model.", "model.vision_tower.", "vision_tower."];
const PROJECTOR: &[&str] = &["multi_modal_projector.", "model.multi_modal_projector."];

impl Pictured for LlavaConfig {
    fn text(&self) -> &LlamaConfig {
        &self.text
    }

    fn image(&self) -> ImageInfo {
        ImageInfo::squares(Some(self.image_tokens()), self.vision.image_size, self.vision.patch_size)
    }
}

/// The tower and the projector.
struct Vision<B: Backend> {
    backend: B,
    tower: Clip<B>,
    /// The layers of the tower whose states are taken, and which of their rows.
    depths: Vec<usize>,
    strategy: SelectStrategy,
    first: Linear<B>,
    activation: Activation,
    second: Linear<B>,
}

impl<B: Backend> Vision<B> {
    fn load(config: &LlavaConfig, loader: &Loader<'_, B>, loaded: Loaded<'_>) -> Result<Self> {
        let prefix = loader.checkpoint.find_prefix(VISION, "embeddings.class_embedding")?;
        let depth = config.feature_depths.iter().copied().max().unwrap_or(0);
        let tower = Clip::load(config.vision.clone(), depth, loader, prefix, loaded)?;
        let prefix = loader.checkpoint.find_prefix(PROJECTOR, "linear_1.weight")?;
        let (hidden, features) = (config.text.hidden_size, config.vision.hidden_size * config.feature_depths.len());
        let layer = |name: &str, columns: usize| {
            loader.linear(&[(&format!("{prefix}{name}"), hidden)], columns, config.projector_bias)
        };
        Ok(Vision {
            backend: loader.backend.clone(),
            tower,
            depths: config.feature_depths.clone(),
            strategy: config.strategy,
            first: layer("linear_1", features)?,
            activation: config.projector_act,
            second: layer("linear_2", hidden)?,
        })
    }
}

impl<B: Backend> seeing::Vision<B> for Vision<B> {
    fn image_features(&self, image: &Prepared, noting: bool, check: Check<'_>) -> Result<Seen<B>> {
        let [pixels] = &image.tiles[..] else {
            return Err(Error::Internal(format!("an image of {} tiles, expected one", image.tiles.len())));
        };
        let (states, mut notes) = self.tower.forward(pixels, &self.depths, noting, check)?;
        if let Some(notes) = notes.as_mut().filter(|_| self.strategy == SelectStrategy::Full) {
            notes.lead = 1;
        }
        let selected = states
            .iter()
            .map(|state| match self.strategy {
                SelectStrategy::Default => state.narrow(1, state.rows() - 1),
                SelectStrategy::Full => Ok(state.clone()),
            })
            .collect::<Result<Vec<Matrix<B>>>>()?;
        Ok(Seen { features: B::Matrix::cat_columns(&selected)?, behind: Vec::new(), notes })
    }

    fn project(&self, features: &Matrix<B>) -> Result<Matrix<B>> {
        let inner = self.first.forward(&self.backend.input(features))?;
        self.second.forward(&self.backend.activate(&inner, self.activation)?)
    }
}
