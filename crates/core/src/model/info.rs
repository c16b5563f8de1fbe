//! What a model is, for people and programs.

use std::collections::BTreeMap;

use serde::Serialize;

use super::config::ConfigFile;
use super::network::Describe;
use crate::device::Place;
use crate::error::Result;
use crate::nn::Tally;
use crate::weights::Checkpoint;
use crate::weights::WeightFormat;

/// How a model sees an image.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageInfo {
    /// Positions that one image takes.
    pub tokens: usize,
    /// Side of the square the vision tower takes, in pixels.
    pub size: usize,
    /// Side of a patch, in pixels.
    pub patch: usize,
    /// The token that stands for an image in a prompt.
    #[serde(skip)]
    pub placeholder: u32,
}

/// Sizes and formats of a model.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelInfo {
    pub architecture: String,
    /// The folder it came from.
    pub source: String,
    /// A hash of sizes, tensor names and samples of the weights: the same for the same model wherever it lies.
    pub fingerprint: String,
    pub parameters: u64,
    /// The asked weight format.
    pub weights: &'static str,
    /// Linear layers by the format that they are really held in.
    pub weight_formats: BTreeMap<&'static str, usize>,
    /// Bytes of all weights in memory; for a model that is only inspected, what they would take in f32.
    pub weight_bytes: u64,
    /// How many of these are the vision tower's and the projector's.
    pub vision_bytes: u64,
    /// `cpu`, `cuda:0`.
    pub device: String,
    pub threads: usize,
    pub layers: usize,
    pub hidden_size: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub vocab_size: usize,
    pub max_positions: usize,
    /// Bytes of one position over all layers in the full cache.
    pub kv_bytes_per_token: usize,
    /// None for a text-only model.
    pub image: Option<ImageInfo>,
}

impl ModelInfo {
    pub(super) fn new<D: Describe + ?Sized>(
        config: &ConfigFile,
        network: &D,
        checkpoint: Option<&Checkpoint>,
        weights: WeightFormat,
        tally: Tally,
        vision_bytes: u64,
        place: &Place,
    ) -> Result<Self> {
        let shape = network.shape();
        let parameters = checkpoint.map_or(0, Checkpoint::parameters);
        Ok(ModelInfo {
            architecture: config.architecture()?.to_owned(),
            source: config.dir().display().to_string(),
            fingerprint: checkpoint.map(Checkpoint::fingerprint).transpose()?.unwrap_or_default(),
            parameters,
            weights: weights.name(),
            weight_bytes: if tally.bytes > 0 { tally.bytes } else { weights.bytes(parameters) },
            vision_bytes,
            weight_formats: tally.layers,
            device: place.name().to_owned(),
            threads: rayon::current_num_threads(),
            layers: shape.cache.layers,
            hidden_size: shape.hidden_size,
            heads: shape.heads,
            kv_heads: shape.cache.kv_heads,
            head_dim: shape.cache.head_dim,
            vocab_size: shape.vocab_size,
            max_positions: shape.max_positions,
            kv_bytes_per_token: shape.cache.bytes_per_position(),
            image: network.image(),
        })
    }
}
