//! Stores whose codec differs from layer to layer.

use prefixkv_kernels::codec::{Dual, KvCodec};

use super::super::Method;
use super::super::bits::Pair;
use super::super::budget::ModelKey;
use super::super::calibration::CalibratedModel;
use super::super::keep::Price;
use super::super::plan::Plan;
use super::super::view::View;
use super::uniform::{BLOCK, settle};
use super::{Encoder, Quantiser, Store};
use crate::cache::Shape;
use crate::error::Result;
use crate::fields::refuse;

/// Bits of keys and of values for every layer, all in one quantiser.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::method) struct Layered {
    pub name: &'static str,
    pub quantiser: Quantiser,
    pub window: usize,
    /// By layer of the model; a single pair stands for all layers.
    pub pairs: Vec<Pair>,
    /// The model that the pairs were found for.
    pub model: Option<CalibratedModel>,
}

impl Store for Layered {
    fn name(&self) -> &'static str {
        self.name
    }

    fn check(&self, method: &Method) -> Result<()> {
        let groups = self.pairs.iter().any(|pair| pair.key < 16);
        if groups { self.quantiser.check(self.name, method) } else { Ok(()) }
    }

    fn check_model(&self, model: &ModelKey) -> Result<()> {
        if let Some(own) = &self.model {
            own.check(model)?;
        }
        let (pairs, layers) = (self.pairs.len(), model.shape.layers);
        if pairs == 1 || pairs == layers {
            return Ok(());
        }
        Err(refuse(format!(
            "`pairs` of {} must be one pair for all layers or one for each of the model's {layers}, found {pairs}",
            self.name
        )))
    }

    fn quantiser(&self) -> Option<(Quantiser, usize)> {
        Some((self.quantiser, self.window))
    }

    fn leaves_all(&self) -> bool {
        true
    }

    fn encoder(&self, shape: &Shape) -> Result<Box<dyn Encoder>> {
        let codec = |pair: &Pair| self.quantiser.codec(self.name, *pair, shape);
        Ok(Box::new(PerLayer {
            name: self.name,
            codecs: self.pairs.iter().map(codec).collect::<Result<_>>()?,
            window: self.window,
            heads: (shape.kv_heads, shape.head_dim),
        }))
    }
}

/// Such a store at work.
#[derive(Clone, Debug)]
struct PerLayer {
    name: &'static str,
    codecs: Vec<KvCodec>,
    window: usize,
    /// KV heads, and channels of each.
    heads: (usize, usize),
}

impl Encoder for PerLayer {
    fn dual(&self) -> Dual {
        Dual::None
    }

    /// The layer whose entries take most: how many entries each layer holds is the method's to say, so no mean of the layers would be a
    /// bound. Where a layer stays in full precision there is none below that.
    fn price(&self) -> Option<Price> {
        let bits = |codec: &KvCodec| (codec.effective_bits(self.heads.0, self.heads.1) * 1024.0) as u64;
        let codec = *self.codecs.iter().max_by_key(|codec| bits(codec))?;
        let block = self.codecs.iter().map(|codec| codec.group()).max().unwrap_or(1).max(BLOCK);
        (!codec.is_plain()).then_some(Price { codec, window: self.window, block, beside: 0 })
    }

    fn fork(&self) -> Box<dyn Encoder> {
        Box::new(self.clone())
    }

    fn encode(&mut self, layer: usize, view: &View<'_>, plan: &mut Plan) -> Result<()> {
        let codec = match &self.codecs[..] {
            [all] => Some(all),
            each => each.get(layer),
        };
        let codec = *codec.ok_or_else(|| {
            refuse(format!("{} has bits for {} layers, and there is a layer {layer}", self.name, self.codecs.len()))
        })?;
        if !codec.is_plain() {
            settle(codec, self.window, layer, view, plan);
        }
        Ok(())
    }
}
