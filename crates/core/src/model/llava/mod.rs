//! LLaVA-1.5: a CLIP tower, a two-layer projector and a Llama. Liu et al. 2023, arXiv 2310.03744.

mod config;
mod images;

use config::{LlavaConfig, SelectStrategy};

use prefixkv_kernels::attention::AttentionParams;

use super::clip::Clip;
use super::images::Images;
use super::info::ImageInfo;
use super::inputs::Inputs;
use super::llama::Llama;
use super::network::{Describe, Family, Loaded, Network, NetworkShape, Seen};
use crate::backend::{Activations, Backend};
use crate::cache::{LayerCache, Span};
use crate::check::Check;
use crate::error::{Error, Result};
use crate::media::Prepared;
use crate::method::directions::Projection;
use crate::nn::{Linear, Loader, Matrix};
use crate::sequence::{Pass, Placing};

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
            let text = Llama::load(config.text.clone(), loader, TEXT, HEAD, loaded)?;
            let text_bytes = loader.tally().bytes;
            let vision = Vision::load(&config, loader, loaded)?;
            Ok(Box::new(Llava {
                config,
                backend: loader.backend.clone(),
                text,
                vision,
                vision_bytes: loader.tally().bytes - text_bytes,
            }))
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

impl Describe for LlavaConfig {
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
        Some(ImageInfo::squares(Some(self.image_tokens()), self.vision.image_size, self.vision.patch_size))
    }

    fn images(&self) -> Option<&dyn Images> {
        Some(self)
    }

    fn place(&self, spans: &[Span]) -> Placing {
        self.text.place(spans)
    }
}

struct Llava<B: Backend> {
    config: LlavaConfig,
    backend: B,
    text: Llama<B>,
    vision: Vision<B>,
    vision_bytes: u64,
}

struct Vision<B: Backend> {
    tower: Clip<B>,
    first: Linear<B>,
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
        Ok(Vision { tower, first: layer("linear_1", features)?, second: layer("linear_2", hidden)? })
    }
}

impl<B: Backend> Describe for Llava<B> {
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

    fn rotates_values(&self) -> bool {
        self.text.rotates_values()
    }

    fn place(&self, spans: &[Span]) -> Placing {
        self.config.place(spans)
    }
}

impl<B: Backend> Network<B> for Llava<B> {
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
        let [pixels] = &image.tiles[..] else {
            return Err(Error::Internal(format!("an image of {} tiles, expected one", image.tiles.len())));
        };
        let (depths, strategy) = (self.config.feature_depths.clone(), self.config.strategy);
        let (states, mut notes) = self.vision.tower.forward(pixels, &depths, noting, check)?;
        if let Some(notes) = notes.as_mut().filter(|_| strategy == SelectStrategy::Full) {
            notes.lead = 1;
        }
        let selected = states
            .iter()
            .map(|state| match strategy {
                SelectStrategy::Default => state.narrow(1, state.rows() - 1),
                SelectStrategy::Full => Ok(state.clone()),
            })
            .collect::<Result<Vec<Matrix<B>>>>()?;
        Ok(Seen { features: B::Matrix::cat_columns(&selected)?, behind: Vec::new(), notes })
    }

    fn project(&self, features: &Matrix<B>) -> Result<Matrix<B>> {
        let Vision { first, second, .. } = &self.vision;
        let inner = first.forward(&self.backend.input(features))?;
        second.forward(&self.backend.activate(&inner, self.config.projector_act)?)
    }
}
