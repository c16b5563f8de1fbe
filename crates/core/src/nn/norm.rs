//! Normalisation over the last dimension, computed in f32.

use super::loader::Loader;
use crate::backend::{Activations, Backend, Heads};
use crate::error::Result;

/// Root-mean-square normalisation. Zhang and Sennrich 2019, arXiv 1910.07467.
pub struct RmsNorm<B: Backend> {
    backend: B,
    weight: B::Vector,
    eps: f32,
}

impl<B: Backend> RmsNorm<B> {
    /// Reads `{name}.weight` of `width` elements, which are factors less `offset`.
    pub fn load(loader: &Loader<'_, B>, name: &str, width: usize, offset: f32, eps: f64) -> Result<Self> {
        let weight = loader.offset(&format!("{name}.weight"), width, offset)?;
        Ok(RmsNorm { backend: loader.backend.clone(), weight, eps: eps as f32 })
    }

    pub fn forward(&self, x: &B::Matrix) -> Result<B::Input> {
        self.backend.rms_norm(x, &self.weight, self.eps)
    }

    /// [`RmsNorm::forward`] for more than a product.
    pub fn rows(&self, x: &B::Matrix) -> Result<B::Matrix> {
        self.backend.rms_norm_rows(x, &self.weight, self.eps)
    }
}

/// Root-mean-square normalisation of every head of the queries and keys of a fused projection, before they are rotated. Henry et al.
/// 2020, arXiv 2010.04245.
pub struct HeadNorms<B: Backend> {
    backend: B,
    queries: B::Vector,
    /// None for a layer that computes no keys.
    keys: Option<B::Vector>,
    heads: Heads,
    eps: f32,
}

impl<B: Backend> HeadNorms<B> {
    /// Reads the tensors of `heads.dim` elements, which are factors less `offset`.
    pub fn load(
        loader: &Loader<'_, B>,
        queries: &str,
        keys: Option<&str>,
        heads: Heads,
        offset: f32,
        eps: f64,
    ) -> Result<Self> {
        let vector = |name: &str| loader.offset(&format!("{name}.weight"), heads.dim, offset);
        let keys = keys.map(vector).transpose()?;
        Ok(HeadNorms { backend: loader.backend.clone(), queries: vector(queries)?, keys, heads, eps: eps as f32 })
    }

    /// Rows of queries, keys and values as in [`Heads::fused`], or of queries alone; values stay as they are.
    pub fn forward(&self, fused: &B::Matrix) -> Result<B::Matrix> {
        let mut parts = vec![(self.heads.query, &self.queries)];
        let keys = self.keys.as_ref().filter(|_| fused.columns() > self.heads.width());
        parts.extend(keys.map(|keys| (self.heads.kv, keys)));
        self.backend.head_norms(fused, &parts, self.eps)
    }
}

/// Mean and variance normalisation with bias.
pub struct LayerNorm<B: Backend> {
    backend: B,
    weight: B::Vector,
    bias: B::Vector,
    eps: f32,
}

impl<B: Backend> LayerNorm<B> {
    /// Reads `{name}.weight` and `{name}.bias` of `width` elements.
    pub fn load(loader: &Loader<'_, B>, name: &str, width: usize, eps: f64) -> Result<Self> {
        let part = |part: &str| loader.vector(&format!("{name}.{part}"), width);
        Ok(LayerNorm { backend: loader.backend.clone(), weight: part("weight")?, bias: part("bias")?, eps: eps as f32 })
    }

    pub fn forward(&self, x: &B::Matrix) -> Result<B::Input> {
        self.backend.layer_norm(x, &self.weight, &self.bias, self.eps)
    }

    /// [`LayerNorm::forward`] for more than a product.
    pub fn rows(&self, x: &B::Matrix) -> Result<B::Matrix> {
        self.backend.layer_norm_rows(x, &self.weight, &self.bias, self.eps)
    }
}

/// How rows are normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// [`LayerNorm`].
    Layer,
    /// [`RmsNorm`].
    RootMeanSquare,
}

/// A norm of either kind.
pub enum Norm<B: Backend> {
    Layer(LayerNorm<B>),
    RootMeanSquare(RmsNorm<B>),
}

impl<B: Backend> Norm<B> {
    /// Reads `{name}.weight`, and `{name}.bias` where there is one, of `width` elements.
    pub fn load(kind: NormKind, loader: &Loader<'_, B>, name: &str, width: usize, eps: f64) -> Result<Self> {
        Ok(match kind {
            NormKind::Layer => Norm::Layer(LayerNorm::load(loader, name, width, eps)?),
            NormKind::RootMeanSquare => Norm::RootMeanSquare(RmsNorm::load(loader, name, width, 0.0, eps)?),
        })
    }

    pub fn forward(&self, x: &B::Matrix) -> Result<B::Input> {
        match self {
            Norm::Layer(norm) => norm.forward(x),
            Norm::RootMeanSquare(norm) => norm.forward(x),
        }
    }

    /// [`Norm::forward`] for more than a product.
    pub fn rows(&self, x: &B::Matrix) -> Result<B::Matrix> {
        match self {
            Norm::Layer(norm) => norm.rows(x),
            Norm::RootMeanSquare(norm) => norm.rows(x),
        }
    }
}
