//! Gemma 3: pictures through a SigLIP tower, squares of patches averaged to one position each, and a decoder in which the positions of a
//! picture see each other. Gemma Team 2025, arXiv 2503.19786.

mod config;
mod crops;
mod images;

use config::Gemma3Config;

use super::info::ImageInfo;
use super::llama::LlamaConfig;
use super::network::{Family, Loaded, Seen};
use super::patches;
use super::seeing::{Pictured, Seeing, Vision};
use super::siglip::Siglip;
use crate::backend::{Activations, Backend};
use crate::check::Check;
use crate::error::Result;
use crate::fields::refuse;
use crate::media::{Pixels, Prepared};
use crate::nn::{Linear, Loader, Matrix, RmsNorm};

const ARCHITECTURE: &str = "Gemma3ForConditionalGeneration";

/// Names on the hub, and in memory, as transformers 5 saves them.
const TEXT: &[&str] = &["language_model.model.", "model.language_model."];
const HEAD: &[&str] = &["language_model.lm_head", "lm_head"];
const VISION: &[&str] =
    &["vision_tower.vision_model.", "model.vision_tower.vision_model.", "model.vision_tower.", "vision_tower."];
const PROJECTOR: &[&str] = &["multi_modal_projector.", "model.multi_modal_projector."];
const PATCHES: &str = "embeddings.patch_embedding.weight";
const PROJECTION: &str = "mm_input_projection_weight";

pub(super) fn family<B: Backend>() -> Family<B> {
    Family {
        architectures: &[ARCHITECTURE],
        implied: |model_type| (model_type == "gemma3").then_some(ARCHITECTURE),
        inspect: |file| Ok(Box::new(Gemma3Config::parse(file)?)),
        load: |file, loader, loaded| {
            let config = Gemma3Config::parse(file)?;
            // Before the long work, so that a folder without them is refused at once.
            loader.checkpoint.find_prefix(VISION, PATCHES)?;
            loader.checkpoint.find_prefix(PROJECTOR, PROJECTION)?;
            let vision = |config: &Gemma3Config, loaded: Loaded<'_>| Pooled::load(config, loader, loaded);
            Ok(Box::new(Seeing::load(config, TEXT, HEAD, loader, loaded, vision)?))
        },
        vision: &["vision_tower.", "model.vision_tower.", "multi_modal_projector.", "model.multi_modal_projector."],
    }
}

impl Pictured for Gemma3Config {
    fn text(&self) -> &LlamaConfig {
        &self.text
    }

    fn image(&self) -> ImageInfo {
        ImageInfo::squares(Some(self.cells * self.cells), self.vision.image_size, self.vision.patch_size)
    }

    fn has_blocks(&self) -> bool {
        true
    }
}

/// The tower, and what averages its patches and brings them to the language model.
struct Pooled<B: Backend> {
    backend: B,
    tower: Siglip<B>,
    norm: RmsNorm<B>,
    projection: Linear<B>,
    /// Positions of a picture.
    cells: usize,
    /// Patches of a position.
    of: usize,
}

impl<B: Backend> Pooled<B> {
    fn load(config: &Gemma3Config, loader: &Loader<'_, B>, loaded: Loaded<'_>) -> Result<Self> {
        let prefix = loader.checkpoint.find_prefix(VISION, PATCHES)?;
        let (side, width) = (config.vision.side(), config.vision.hidden_size);
        let order = patches::apart(side, side, config.pool());
        let tower = Siglip::load(config.vision.clone(), order, loader, prefix, loaded)?;
        let prefix = loader.checkpoint.find_prefix(PROJECTOR, PROJECTION)?;
        let (name, eps) = (format!("{prefix}mm_soft_emb_norm"), config.vision.layer_norm_eps);
        Ok(Pooled {
            backend: loader.backend.clone(),
            tower,
            norm: RmsNorm::load(loader, &name, width, config.text.norm_offset, eps)?,
            projection: loader.transposed(&format!("{prefix}{PROJECTION}"), config.text.hidden_size, width)?,
            cells: config.cells * config.cells,
            of: config.pool() * config.pool(),
        })
    }

    /// The mean of the patches of each position, normalised, `[cells, width]`.
    fn features(&self, tile: &Pixels, check: Check<'_>) -> Result<Matrix<B>> {
        let patches = self.tower.forward(tile, check)?;
        // The tower reads the first patches of all positions, then the second ones.
        let mut sum = patches.narrow(0, self.cells)?;
        for patch in 1..self.of {
            sum = sum.plus(&patches.narrow(patch * self.cells, self.cells)?)?;
        }
        self.norm.rows(&sum.times(1.0 / self.of as f32)?)
    }
}

impl<B: Backend> Vision<B> for Pooled<B> {
    fn image_features(&self, image: &Prepared, noting: bool, check: Check<'_>) -> Result<Seen<B>> {
        if noting {
            return Err(refuse(
                "the vision tower of this model has no class token, so nothing says which positions of an image matter before the language \
                 model has seen them; use another method",
            ));
        }
        // One by one: a tile's activations are the largest matrices of all.
        let tiles = image.tiles.iter().map(|tile| self.features(tile, check)).collect::<Result<Vec<_>>>()?;
        Ok(Seen { features: B::Matrix::cat(&tiles)?, behind: Vec::new(), notes: None })
    }

    fn project(&self, features: &Matrix<B>) -> Result<Matrix<B>> {
        self.projection.forward(&self.backend.input(features))
    }
}
