//! The towers of LLaVA: which one a configuration names, and the states that are taken of it.

use serde_json::Value;

use crate::backend::Backend;
use crate::check::Check;
use crate::error::Result;
use crate::fields::refuse;
use crate::media::Pixels;
use crate::method::pictures::Notes;
use crate::model::clip::{self, Clip};
use crate::model::config::ConfigFile;
use crate::model::encoder::EncoderConfig;
use crate::model::network::Loaded;
use crate::model::patches;
use crate::model::siglip::{self, Siglip};
use crate::nn::{Loader, Matrix};

/// The class of a tower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::model) enum TowerKind {
    Clip,
    Siglip,
}

/// LLaVA-OneVision's own default where the section is absent as a whole: SigLIP so400m/14 at 384 pixels, without its last layer.
const ABSENT: EncoderConfig = EncoderConfig {
    hidden_size: 1152,
    intermediate_size: 4304,
    num_hidden_layers: 26,
    num_attention_heads: 16,
    image_size: 384,
    patch_size: 14,
    ..siglip::CLASS
};

impl TowerKind {
    const ALL: [TowerKind; 2] = [TowerKind::Clip, TowerKind::Siglip];

    fn name(self) -> &'static str {
        match self {
            TowerKind::Clip => "clip_vision_model",
            TowerKind::Siglip => "siglip_vision_model",
        }
    }

    /// A tensor that it does not go without.
    pub(super) fn first(self) -> &'static str {
        match self {
            TowerKind::Clip => "embeddings.class_embedding",
            TowerKind::Siglip => "embeddings.patch_embedding.weight",
        }
    }

    /// Section `key` of the file, which is of the class `usual` where it names none.
    pub(super) fn parse(file: &ConfigFile, key: &str, usual: TowerKind) -> Result<(TowerKind, EncoderConfig)> {
        let section = file.section(Some(key))?;
        let named = section.get("model_type").and_then(Value::as_str).unwrap_or(usual.name());
        match TowerKind::ALL.into_iter().find(|kind| kind.name() == named) {
            Some(TowerKind::Clip) => Ok((TowerKind::Clip, clip::parse(file, key)?)),
            Some(TowerKind::Siglip) => {
                let class = if section.is_empty() { &ABSENT } else { &siglip::CLASS };
                Ok((TowerKind::Siglip, siglip::parse(file, key, class)?))
            }
            None => {
                let known = TowerKind::ALL.map(TowerKind::name).join("`, `");
                Err(file.unsupported(format!("a vision tower of type `{named}`; known are `{known}`")))
            }
        }
    }
}

pub(super) enum Tower<B: Backend> {
    Clip(Clip<B>),
    Siglip(Siglip<B>),
}

impl<B: Backend> Tower<B> {
    /// Loads the first `depth` layers under `prefix`.
    pub(super) fn load(
        kind: TowerKind,
        config: EncoderConfig,
        depth: usize,
        loader: &Loader<'_, B>,
        prefix: &str,
        loaded: Loaded<'_>,
    ) -> Result<Self> {
        Ok(match kind {
            TowerKind::Clip => Tower::Clip(Clip::load(config, depth, loader, prefix, loaded)?),
            TowerKind::Siglip => {
                let order = patches::order(config.side(), config.side(), 1);
                Tower::Siglip(Siglip::load_layers(config, depth, order, loader, prefix, loaded)?)
            }
        })
    }

    /// Rows before the first patch.
    pub(super) fn leading(&self) -> usize {
        match self {
            Tower::Clip(_) => 1,
            Tower::Siglip(_) => 0,
        }
    }

    /// The hidden states after each of `depths` layers, and when `noting` what the class token has looked at.
    pub(super) fn forward(
        &self,
        pixels: &Pixels,
        depths: &[usize],
        noting: bool,
        check: Check<'_>,
    ) -> Result<(Vec<Matrix<B>>, Option<Notes>)> {
        match self {
            Tower::Clip(clip) => clip.forward(pixels, depths, noting, check),
            Tower::Siglip(_) if noting => Err(refuse(
                "the vision tower of this model has no class token, so nothing says which positions of an image matter before the language \
                 model has seen them; use another method",
            )),
            Tower::Siglip(siglip) => Ok((siglip.states(pixels, depths, check)?, None)),
        }
    }
}
