//! InternViT: a CLIP-like tower whose branches are scaled channel by channel. Chen et al. 2023, arXiv 2312.14238; layer scale: Touvron et al.
//! 2021, arXiv 2103.17239.

use super::config::TowerConfig;
use super::names::Names;
use crate::backend::{Activations, Backend, Heads};
use crate::check::Check;
use crate::error::{Error, Result};
use crate::media::Pixels;
use crate::model::network::Loaded;
use crate::model::patches;
use crate::nn::{HeadNorms, LayerNorm, Linear, Loader, Matrix, Norm};

pub(super) struct Tower<B: Backend> {
    config: TowerConfig,
    backend: B,
    /// The patch convolution as a product: stride equals kernel, so each patch is one row.
    patches: Linear<B>,
    /// `[1, hidden]`.
    class: Matrix<B>,
    /// Of the class token, then of the patches in the order in which they are read, `[patches + 1, hidden]`.
    positions: Matrix<B>,
    layers: Vec<Layer<B>>,
    /// Behind the last layer.
    norm: Option<LayerNorm<B>>,
}

struct Layer<B: Backend> {
    attention_norm: Norm<B>,
    fused: Linear<B>,
    /// Over the whole width of queries, and of keys.
    wide_norms: Option<HeadNorms<B>>,
    /// The scale of the branch is in its weights, as in those of `down`.
    output: Linear<B>,
    mlp_norm: Norm<B>,
    up: Linear<B>,
    down: Linear<B>,
}

impl<B: Backend> Tower<B> {
    /// Loads the tower under `prefix`.
    pub(super) fn load(
        config: TowerConfig,
        names: &Names,
        loader: &Loader<'_, B>,
        prefix: &str,
        loaded: Loaded<'_>,
    ) -> Result<Self> {
        let encoder = &config.encoder;
        let (hidden, patch, side) = (encoder.hidden_size, encoder.patch_size, encoder.side());
        loader.backend.require_heads(encoder.heads())?;
        let at = |name: &str| format!("{prefix}{name}");
        let layer = |index: usize| {
            let layer = Layer::load(&config, names, loader, &format!("{prefix}{}{index}.", names.layer))?;
            loaded(loader.tally().bytes)?;
            Ok(layer)
        };
        let layers = (0..config.depth).map(layer).collect::<Result<_>>()?;
        let behind_class = patches::order(side, side, config.merge).into_iter().map(|patch| patch + 1);
        let order: Vec<usize> = std::iter::once(0).chain(behind_class).collect();
        let norm = || LayerNorm::load(loader, &at(names.last_norm), hidden, encoder.layer_norm_eps);
        Ok(Tower {
            patches: loader.convolution(&at(names.patches), &[hidden, 3, patch, patch])?,
            class: loader.matrix(&at(names.class), &[1, 1, hidden], 1, hidden)?,
            positions: loader.ordered(&at(names.positions), &[1, order.len(), hidden], &order, hidden)?,
            layers,
            norm: config.last_norm.then(norm).transpose()?,
            backend: loader.backend.clone(),
            config,
        })
    }

    /// The joined patches of the cells of a tile, `[cells, merge * merge * hidden]`.
    pub(super) fn forward(&self, tile: &Pixels, check: Check<'_>) -> Result<Matrix<B>> {
        let (patch, side, merge) = (self.config.encoder.patch_size, self.config.encoder.side(), self.config.merge);
        if (tile.height / patch, tile.width / patch) != (side, side) {
            let (width, height) = (tile.width, tile.height);
            return Err(Error::Internal(format!(
                "a tile of {width} x {height} for a tower of {side} x {side} patches"
            )));
        }
        let rows = self.backend.matrix(patches::rows(tile, patch, merge), side * side, 3 * patch * patch)?;
        let x = self.patches.forward(&self.backend.input(&rows))?;
        let mut x = B::Matrix::cat(&[self.class.clone(), x])?.plus(&self.positions)?;
        for layer in &self.layers {
            check()?;
            x = layer.forward(x, &self.config, &self.backend)?;
        }
        let x = x.narrow(1, side * side)?;
        let x = match &self.norm {
            Some(norm) => norm.rows(&x)?,
            None => x,
        };
        x.reshaped(self.config.cells().pow(2), self.config.joined())
    }
}

impl<B: Backend> Layer<B> {
    /// Loads the layer under `prefix`.
    fn load(config: &TowerConfig, names: &Names, loader: &Loader<'_, B>, prefix: &str) -> Result<Self> {
        let encoder = &config.encoder;
        let (hidden, inner) = (encoder.hidden_size, encoder.intermediate_size);
        let at = |name: &str| format!("{prefix}{name}");
        let norm = |name: &str| Norm::load(config.norm, loader, &at(name), hidden, encoder.layer_norm_eps);
        let fused: Vec<String> = names.fused.iter().map(|name| at(name)).collect();
        let parts: Vec<(&str, usize)> = fused.iter().map(|name| (&name[..], 3 * hidden / fused.len())).collect();
        // As one head, since the norm is over all of them.
        let one = Heads { query: 1, kv: 1, dim: hidden };
        let [queries, keys] = names.head_norms.map(at);
        let wide = |eps: f64| HeadNorms::load(loader, &queries, Some(&keys), one, 0.0, eps);
        Ok(Layer {
            attention_norm: norm(names.norms[0])?,
            fused: loader.linear(&parts, hidden, config.attention_bias)?,
            wide_norms: config.wide_norms.map(wide).transpose()?,
            output: loader.scaled(&at(names.output), &at(names.scales[0]), hidden, hidden)?,
            mlp_norm: norm(names.norms[1])?,
            up: loader.linear(&[(&at(names.mlp[0]), inner)], hidden, true)?,
            down: loader.scaled(&at(names.mlp[1]), &at(names.scales[1]), hidden, inner)?,
        })
    }

    fn forward(&self, x: Matrix<B>, config: &TowerConfig, backend: &B) -> Result<Matrix<B>> {
        let fused = self.fused.forward(&self.attention_norm.forward(&x)?)?;
        let fused = match &self.wide_norms {
            Some(norms) => norms.forward(&fused)?,
            None => fused,
        };
        let mixed = backend.bidirectional(&fused, config.encoder.heads())?;
        drop(fused);
        let x = x.plus(&self.output.forward(&mixed)?)?;
        let up = self.up.forward(&self.mlp_norm.forward(&x)?)?;
        x.plus(&self.down.forward(&backend.activate(&up, config.encoder.hidden_act)?)?)
    }
}
