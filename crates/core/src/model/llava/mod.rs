//! LLaVA-1.5 and ViP-LLaVA: a CLIP tower, a two-layer projector and a Llama. Liu et al. 2023, arXiv 2310.03744; Cai et al. 2023, arXiv 2312.00784. LLaVA-Interleave: the same with SigLIP and a
//! Qwen2. Li et al. 2024, arXiv 2407.07895.

mod config;
mod images;
mod original;
mod tower;

pub(super) use config::{Class, LlavaConfig, SelectStrategy};
pub(super) use tower::TowerKind;

use super::info::ImageInfo;
use super::llama::LlamaConfig;
use super::network::{Family, Loaded, Seen};
use super::seeing::{self, Pictured, Seeing};
use crate::backend::{Activation, Activations, Backend};
use crate::check::Check;
use crate::error::{Error, Result};
use crate::media::{Pixels, Prepared};
use crate::method::pictures::Notes;
use crate::nn::{LayerNorm, Linear, Loader, Matrix};
use crate::weights::Layouts;
use tower::Tower;

pub(super) fn family<B: Backend>() -> Family<B> {
    Family {
        architectures: &[ARCHITECTURE, VIP],
        implied: |kind| match kind {
            "vipllava" => Some(VIP),
            "llava" => Some(ARCHITECTURE),
            // To be refused by what it is.
            other => original::is(other).then_some(ARCHITECTURE),
        },
        inspect: |file| Ok(Box::new(LlavaConfig::parse(file, &CLASS)?)),
        load: |file, loader, loaded| {
            let config = LlavaConfig::parse(file, &CLASS)?;
            require_vision(&config, loader)?;
            let vision = |config: &LlavaConfig, loaded: Loaded<'_>| Vision::load(config, loader, loaded);
            Ok(Box::new(Seeing::load(config, TEXT, HEAD, loader, loaded, vision)?))
        },
        vision: &["vision_tower.", "model.vision_tower.", "multi_modal_projector.", "model.multi_modal_projector."],
    }
}

const ARCHITECTURE: &str = "LlavaForConditionalGeneration";
const VIP: &str = "VipLlavaForConditionalGeneration";
/// Hugging Face's LlavaConfig.
const CLASS: Class =
    Class { image_token: 32_000, strategy: SelectStrategy::Default, layer: -2, tower: TowerKind::Clip, text: "llama" };
pub(super) const TEXT: &[&str] = &["language_model.model.", "model.language_model."];
pub(super) const HEAD: &[&str] = &["language_model.lm_head", "lm_head"];
const VISION: &[&str] =
    &["vision_tower.vision_model.", "model.vision_tower.vision_model.", "model.vision_tower.", "vision_tower."];
const PROJECTOR: &[&str] = &["multi_modal_projector.", "model.multi_modal_projector."];

impl Pictured for LlavaConfig {
    fn text(&self) -> &LlamaConfig {
        &self.text
    }

    fn layouts(&self) -> Layouts {
        Layouts { text: TEXT, head: HEAD, others: &[VISION, PROJECTOR] }
    }

    fn image(&self) -> ImageInfo {
        ImageInfo::squares(Some(self.image_tokens()), self.vision.image_size, self.vision.patch_size)
    }
}

/// Refuses a checkpoint without tower or projector, before the long work.
pub(super) fn require_vision<B: Backend>(config: &LlavaConfig, loader: &Loader<'_, B>) -> Result<()> {
    loader.checkpoint.find_prefix(VISION, config.tower.first())?;
    loader.checkpoint.find_prefix(PROJECTOR, "linear_1.weight").map(|_| ())
}

/// The tower and the projector.
pub(super) struct Vision<B: Backend> {
    backend: B,
    tower: Tower<B>,
    /// The layers of the tower whose states are taken, and whether the class token leads their rows.
    depths: Vec<usize>,
    class_token: bool,
    norm: Option<LayerNorm<B>>,
    first: Linear<B>,
    activation: Activation,
    second: Linear<B>,
}

impl<B: Backend> Vision<B> {
    pub(super) fn load(config: &LlavaConfig, loader: &Loader<'_, B>, loaded: Loaded<'_>) -> Result<Self> {
        let prefix = loader.checkpoint.find_prefix(VISION, config.tower.first())?;
        let depth = config.feature_depths.iter().copied().max().unwrap_or(0);
        let tower = Tower::load(config.tower, config.vision.clone(), depth, loader, prefix, loaded)?;
        let prefix = loader.checkpoint.find_prefix(PROJECTOR, "linear_1.weight")?;
        let (hidden, features) = (config.text.hidden_size, config.vision.hidden_size * config.feature_depths.len());
        let layer = |name: &str, columns: usize| {
            loader.linear(&[(&format!("{prefix}{name}"), hidden)], columns, config.projector_bias)
        };
        let norm = |eps| LayerNorm::load(loader, &format!("{prefix}projector_layernorm"), features, eps);
        Ok(Vision {
            norm: config.projector_norm.map(norm).transpose()?,
            backend: loader.backend.clone(),
            tower,
            depths: config.feature_depths.clone(),
            class_token: config.has_class_token(),
            first: layer("linear_1", features)?,
            activation: config.projector_act,
            second: layer("linear_2", hidden)?,
        })
    }

    /// The features of one square, `[positions, width]`, and when `noting` the notes of the layer that they come from.
    pub(super) fn square(&self, pixels: &Pixels, noting: bool, check: Check<'_>) -> Result<(Matrix<B>, Option<Notes>)> {
        let (states, mut notes) = self.tower.forward(pixels, &self.depths, noting, check)?;
        if let Some(notes) = notes.as_mut().filter(|_| self.class_token) {
            notes.lead = 1;
        }
        let leading = self.tower.leading();
        let selected = states
            .iter()
            .map(|state| match self.class_token {
                true => Ok(state.clone()),
                false => state.narrow(leading, state.rows() - leading),
            })
            .collect::<Result<Vec<Matrix<B>>>>()?;
        Ok((B::Matrix::cat_columns(&selected)?, notes))
    }
}

impl<B: Backend> seeing::Vision<B> for Vision<B> {
    fn image_features(&self, image: &Prepared, noting: bool, check: Check<'_>) -> Result<Seen<B>> {
        let [pixels] = &image.tiles[..] else {
            return Err(Error::Internal(format!("an image of {} tiles, expected one", image.tiles.len())));
        };
        let (features, notes) = self.square(pixels, noting, check)?;
        Ok(Seen { features, behind: Vec::new(), notes })
    }

    fn project(&self, features: &Matrix<B>) -> Result<Matrix<B>> {
        let input = match &self.norm {
            Some(norm) => norm.forward(features)?,
            None => self.backend.input(features),
        };
        let inner = self.first.forward(&input)?;
        self.second.forward(&self.backend.activate(&inner, self.activation)?)
    }
}
