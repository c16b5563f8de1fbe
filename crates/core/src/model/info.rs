//! A description of a model, for people and programs.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Model;
use super::config::ConfigFile;
use super::counter::ImageTokens;
use super::network::Describe;
use crate::backend::Backend;
use crate::error::Result;
use crate::nn::Tally;
use crate::sequence::Layout;
use crate::weights::Checkpoint;
use crate::weights::WeightFormat;

/// How a model sees an image.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageInfo {
    /// Positions that one image takes; null where that depends on its size, which `model.imageTokens` is asked about.
    pub tokens: Option<usize>,
    /// Side of the square that the vision tower takes at a time, in pixels; null where it takes rectangles of many sizes.
    pub size: Option<usize>,
    /// Side of a patch, in pixels.
    pub patch: usize,
    /// The positions of a picture of the size that an inspection asked about; null where it asked about none.
    pub picture: Option<ImageTokens>,
}

impl ImageInfo {
    /// Of a tower that takes squares.
    pub(super) fn squares(tokens: Option<usize>, size: usize, patch: usize) -> Self {
        ImageInfo { tokens, size: Some(size), patch, picture: None }
    }
}

/// A model's architecture, sizes and formats.
///
/// ```ts
/// import { inspect, type ModelInfo } from "prefixkv";
///
/// const info: ModelInfo = await inspect();
/// console.log(info.layers * info.kvHeads * info.headDim, info.image?.tokens);
/// ```
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelInfo {
    /// `architectures[0]` of the configuration, or the class that it is loaded as where that is a name of its own.
    pub architecture: String,
    /// The folder, or the GGUF file.
    pub source: String,
    /// The folders of the adapters that are merged into its weights, in their order.
    pub adapters: Vec<String>,
    /// The same for the same sizes and weights, wherever they lie: calibrations are bound to it. Empty without weights.
    pub fingerprint: String,
    /// Numbers in all weights.
    pub parameters: u64,
    /// The format in which the linear layers are to be held; `stored`: as a GGUF file has them.
    pub weights: &'static str,
    /// How the linear layers are really stored, e.g. `{ "q8_0": 71 }` when q4_k does not fit the shapes.
    pub weight_formats: BTreeMap<&'static str, usize>,
    /// Bytes of all weights as they are held; for a model that is only inspected, what they would take in f32, or of a GGUF file as it has
    /// them.
    pub weight_bytes: u64,
    /// How many of these are the vision tower's and the projector's; 0 for a text model.
    pub vision_bytes: u64,
    /// Where it computes, e.g. `cpu` or `cuda:0`.
    pub device: String,
    /// Threads of the process.
    pub threads: usize,
    /// Whether it was loaded with `rotateValues`.
    pub rotated_values: bool,
    /// Layers of the language model.
    pub layers: usize,
    /// Width of the language model.
    pub hidden_size: usize,
    /// Query heads per layer.
    pub heads: usize,
    /// KV heads per layer.
    pub kv_heads: usize,
    /// Channels per head.
    pub head_dim: usize,
    /// Tokens that there are.
    pub vocab_size: usize,
    /// Most positions of prompt and answer together.
    pub max_positions: usize,
    /// Bytes that one position takes over all layers in the full cache.
    pub kv_bytes_per_token: usize,
    /// How it sees an image; null for a text-only model.
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
        device: &str,
    ) -> Result<Self> {
        let shape = network.shape();
        let parameters = checkpoint.map_or(0, Checkpoint::parameters);
        Ok(ModelInfo {
            architecture: config.architecture()?.to_owned(),
            source: config.dir().display().to_string(),
            adapters: Vec::new(),
            fingerprint: checkpoint.map(Checkpoint::fingerprint).transpose()?.unwrap_or_default(),
            parameters,
            weights: weights.name(),
            weight_bytes: match checkpoint {
                Some(checkpoint) if tally.bytes == 0 => checkpoint.bytes(weights),
                _ => tally.bytes,
            },
            vision_bytes,
            weight_formats: tally.layers,
            device: device.to_owned(),
            threads: rayon::current_num_threads(),
            rotated_values: network.rotates_values(),
            layers: shape.cache.layers,
            hidden_size: shape.hidden_size,
            heads: shape.heads,
            kv_heads: shape.cache.kv_heads,
            head_dim: shape.cache.head_dim,
            vocab_size: shape.vocab_size,
            max_positions: shape.max_positions,
            kv_bytes_per_token: shape.cache.bytes_per_position() / shape.cache.layers
                * Layout::new(network.layers()).owners().len(),
            image: network.image(),
        })
    }
}

impl<B: Backend> Model<B> {
    /// The layers that methods size, by their numbers: all but those that read another's entries or that have a window; where all have one,
    /// those with the widest.
    pub fn sized_layers(&self) -> &[usize] {
        self.layout.managed()
    }
}
