//! Idefics3 and SmolVLM: tiles through a SigLIP tower, squares of patches joined into one position each, and a Llama.
//! Laurencon et al. 2024, arXiv 2408.12637; Marafioti et al. 2025, arXiv 2504.05299.

mod config;
mod images;
mod tiling;

use config::Idefics3Config;

use prefixkv_kernels::attention::AttentionParams;

use super::images::Images;
use super::info::ImageInfo;
use super::inputs::Inputs;
use super::llama::Llama;
use super::network::{Describe, Family, Network, NetworkShape, Seen};
use super::siglip::Siglip;
use crate::backend::{Activations, Backend};
use crate::cache::{LayerCache, Span};
use crate::check::Check;
use crate::error::Result;
use crate::fields::refuse;
use crate::media::Prepared;
use crate::method::directions::Projection;
use crate::nn::{Linear, Loader, Matrix};
use crate::sequence::{Pass, Placing};

pub(super) fn family<B: Backend>() -> Family<B> {
    Family {
        architectures: &[IDEFICS3, SMOLVLM],
        implied: |kind| match kind {
            "idefics3" => Some(IDEFICS3),
            "smolvlm" => Some(SMOLVLM),
            _ => None,
        },
        inspect: |file| Ok(Box::new(Idefics3Config::parse(file)?)),
        load: |file, loader, loaded| {
            let config = Idefics3Config::parse(file)?;
            // Before the long work, so that a folder without them is refused at once.
            loader.checkpoint.find_prefix(&[VISION], "embeddings.patch_embedding.weight")?;
            loader.checkpoint.find_prefix(&[PROJECTION], ".weight")?;
            let text = Llama::load(config.text.clone(), loader, &[TEXT], &["lm_head"], loaded)?;
            let text_bytes = loader.tally().bytes;
            let tower = Siglip::load(config.vision.clone(), config.scale, loader, VISION, loaded)?;
            let projection = projection(&config, loader)?;
            Ok(Box::new(Idefics3 {
                config,
                backend: loader.backend.clone(),
                text,
                tower,
                projection,
                vision_bytes: loader.tally().bytes - text_bytes,
            }))
        },
        vision: &[VISION, "model.connector."],
    }
}

const IDEFICS3: &str = "Idefics3ForConditionalGeneration";
const SMOLVLM: &str = "SmolVLMForConditionalGeneration";
const TEXT: &str = "model.text_model.";
const VISION: &str = "model.vision_model.";
const PROJECTION: &str = "model.connector.modality_projection.proj";

/// The layer that takes the joined patches of a cell.
fn projection<B: Backend>(config: &Idefics3Config, loader: &Loader<'_, B>) -> Result<Linear<B>> {
    loader.linear(&[(PROJECTION, config.text.hidden_size)], joined(config), false)
}

/// The width of the joined patches of a cell.
fn joined(config: &Idefics3Config) -> usize {
    config.scale.pow(2) * config.vision.hidden_size
}

impl Describe for Idefics3Config {
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
        Some(ImageInfo::squares(None, self.vision.image_size, self.vision.patch_size))
    }

    fn images(&self) -> Option<&dyn Images> {
        Some(self)
    }

    fn place(&self, spans: &[Span]) -> Placing {
        self.text.place(spans)
    }
}

struct Idefics3<B: Backend> {
    config: Idefics3Config,
    backend: B,
    text: Llama<B>,
    tower: Siglip<B>,
    projection: Linear<B>,
    vision_bytes: u64,
}

impl<B: Backend> Describe for Idefics3<B> {
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

impl<B: Backend> Network<B> for Idefics3<B> {
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
                "the vision tower of this model has no class token, so nothing says which positions of an image matter before the language \
                 model has seen them; use another method",
            ));
        }
        let (cells, width) = (self.config.cells().pow(2), joined(&self.config));
        // One by one: a tile's activations are the largest matrices of all.
        let tiles = image.tiles.iter().map(|tile| self.tower.forward(tile, check)?.reshaped(cells, width));
        Ok(Seen { features: B::Matrix::cat(&tiles.collect::<Result<Vec<_>>>()?)?, behind: Vec::new(), notes: None })
    }

    fn project(&self, features: &Matrix<B>) -> Result<Matrix<B>> {
        self.projection.forward(&self.backend.input(features))
    }
}
