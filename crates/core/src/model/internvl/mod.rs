//! InternVL3 and InternVL3.5: tiles and a thumbnail through an InternViT tower, squares of patches joined into one position each, and a
//! Qwen2 or Qwen3. Both layouts: transformers' own, and the original one with its code beside it. Zhu et al. 2025, arXiv 2504.10479; Wang et
//! al. 2025, arXiv 2508.18265.

mod config;
mod grid;
mod images;
mod names;
mod original;
mod tower;

use config::{InternVlConfig, Projector};
use names::{ALL, Names};
use tower::Tower;

use super::info::ImageInfo;
use super::llama::LlamaConfig;
use super::network::{Family, Loaded, Seen};
use super::seeing::{Pictured, Seeing, Vision};
use crate::backend::{Activation, Activations, Backend};
use crate::check::Check;
use crate::error::Result;
use crate::fields::refuse;
use crate::media::Prepared;
use crate::nn::{LayerNorm, Linear, Loader, Matrix};

pub(super) fn family<B: Backend>() -> Family<B> {
    Family {
        architectures: &const { [ALL[0].architecture, ALL[1].architecture] },
        implied: |kind| ALL.iter().find(|names| names.model_type == kind).map(|names| names.architecture),
        inspect: |file| Ok(Box::new(InternVlConfig::parse(file)?)),
        load: |file, loader, loaded| {
            let config = InternVlConfig::parse(file)?;
            let names = config.names;
            // Before the long work, so that a folder without them is refused at once.
            let tower = loader.checkpoint.find_prefix(names.tower, names.class)?;
            let connector = loader.checkpoint.find_prefix(names.connector, &format!("{}.weight", names.layers[0]))?;
            let vision = |config: &InternVlConfig, loaded: Loaded<'_>| {
                Ok(Tiles {
                    tower: Tower::load(config.tower.clone(), names, loader, tower, loaded)?,
                    connector: Connector::load(config.projector(), names, loader, connector)?,
                })
            };
            Ok(Box::new(Seeing::load(config, names.text, names.head, loader, loaded, vision)?))
        },
        vision: &[
            "vision_tower.",
            "model.vision_tower.",
            "multi_modal_projector.",
            "model.multi_modal_projector.",
            "vision_model.",
            "mlp1.",
        ],
    }
}

impl Pictured for InternVlConfig {
    fn text(&self) -> &LlamaConfig {
        &self.text
    }

    fn image(&self) -> ImageInfo {
        ImageInfo::squares(None, self.tower.encoder.image_size, self.tower.encoder.patch_size)
    }
}

/// The tower, and what brings the joined patches of a cell to the language model.
struct Tiles<B: Backend> {
    tower: Tower<B>,
    connector: Connector<B>,
}

impl<B: Backend> Vision<B> for Tiles<B> {
    fn image_features(&self, image: &Prepared, noting: bool, check: Check<'_>) -> Result<Seen<B>> {
        if noting {
            return Err(refuse(
                "the vision tower of this model has a class token for each tile, and none that has looked at the whole image: nothing says which \
                 of its positions matter before the language model has seen them; use another method",
            ));
        }
        // One by one: a tile's activations are the largest matrices of all.
        let tiles = image.tiles.iter().map(|tile| self.tower.forward(tile, check));
        Ok(Seen { features: B::Matrix::cat(&tiles.collect::<Result<Vec<_>>>()?)?, behind: Vec::new(), notes: None })
    }

    fn project(&self, features: &Matrix<B>) -> Result<Matrix<B>> {
        self.connector.forward(features)
    }
}

struct Connector<B: Backend> {
    backend: B,
    norm: LayerNorm<B>,
    first: Linear<B>,
    act: Activation,
    second: Linear<B>,
}

/// PyTorch's default, which neither code changes here.
const EPSILON: f64 = 1e-5;

impl<B: Backend> Connector<B> {
    fn load(config: Projector, names: &Names, loader: &Loader<'_, B>, prefix: &str) -> Result<Self> {
        let Projector { joined, out, act } = config;
        let at = |layer: usize| format!("{prefix}{}", names.layers[layer]);
        Ok(Connector {
            norm: LayerNorm::load(loader, &at(0), joined, EPSILON)?,
            first: loader.linear(&[(&at(1), out)], joined, true)?,
            act,
            second: loader.linear(&[(&at(2), out)], out, true)?,
            backend: loader.backend.clone(),
        })
    }

    fn forward(&self, x: &Matrix<B>) -> Result<Matrix<B>> {
        let inner = self.first.forward(&self.norm.forward(x)?)?;
        self.second.forward(&self.backend.activate(&inner, self.act)?)
    }
}
