//! Idefics3 and SmolVLM: tiles through a SigLIP tower, squares of patches joined into one position each, and a Llama.
//! Laurencon et al. 2024, arXiv 2408.12637; Marafioti et al. 2025, arXiv 2504.05299.

mod config;
mod images;
mod tiling;
mod videos;

use config::Idefics3Config;

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
use crate::media::Prepared;
use crate::nn::{Linear, Loader, Matrix};

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
            let vision = |config: &Idefics3Config, loaded: Loaded<'_>| Tiles::load(config, loader, loaded);
            Ok(Box::new(Seeing::load(config, &[TEXT], &["lm_head"], loader, loaded, vision)?))
        },
        vision: &[VISION, "model.connector."],
    }
}

const IDEFICS3: &str = "Idefics3ForConditionalGeneration";
const SMOLVLM: &str = "SmolVLMForConditionalGeneration";
/// The architectures that take videos.
pub(super) const VIDEOS: &[&str] = &[SMOLVLM];
const TEXT: &str = "model.text_model.";
const VISION: &str = "model.vision_model.";
const PROJECTION: &str = "model.connector.modality_projection.proj";

impl Pictured for Idefics3Config {
    fn text(&self) -> &LlamaConfig {
        &self.text
    }

    fn image(&self) -> ImageInfo {
        ImageInfo::squares(None, self.vision.image_size, self.vision.patch_size)
    }
}

/// The tower, and the layer that takes the joined patches of a cell.
struct Tiles<B: Backend> {
    backend: B,
    tower: Siglip<B>,
    projection: Linear<B>,
    /// Positions of a tile.
    cells: usize,
    /// The width of the joined patches of a cell.
    joined: usize,
}

impl<B: Backend> Tiles<B> {
    fn load(config: &Idefics3Config, loader: &Loader<'_, B>, loaded: Loaded<'_>) -> Result<Self> {
        let joined = config.scale.pow(2) * config.vision.hidden_size;
        let side = config.vision.side();
        // The patches of a cell one behind the other.
        let order = patches::order(side, side, config.scale);
        Ok(Tiles {
            backend: loader.backend.clone(),
            tower: Siglip::load(config.vision.clone(), order, loader, VISION, loaded)?,
            projection: loader.linear(&[(PROJECTION, config.text.hidden_size)], joined, false)?,
            cells: config.cells().pow(2),
            joined,
        })
    }
}

impl<B: Backend> Vision<B> for Tiles<B> {
    fn image_features(&self, image: &Prepared, noting: bool, check: Check<'_>) -> Result<Seen<B>> {
        if noting {
            return Err(refuse(
                "the vision tower of this model has no class token, so nothing says which positions of an image matter before the language \
                 model has seen them; use another method",
            ));
        }
        // One by one: a tile's activations are the largest matrices of all.
        let tiles = image.tiles.iter().map(|tile| self.tower.forward(tile, check)?.reshaped(self.cells, self.joined));
        Ok(Seen { features: B::Matrix::cat(&tiles.collect::<Result<Vec<_>>>()?)?, behind: Vec::new(), notes: None })
    }

    fn project(&self, features: &Matrix<B>) -> Result<Matrix<B>> {
        self.projection.forward(&self.backend.input(features))
    }
}
