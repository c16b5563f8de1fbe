//! The layers that CLIP and SigLIP have in common: attention of every patch to every other and an MLP, each behind its norm. Dosovitskiy et
//! al. 2020, arXiv 2010.11929.

mod config;

pub(super) use config::EncoderConfig;

use super::network::Loaded;
use crate::backend::{Activations, Backend};
use crate::error::{Error, Result};
use crate::nn::{LayerNorm, Linear, Loader, Matrix};

pub(super) struct Layer<B: Backend> {
    attention_norm: LayerNorm<B>,
    fused: Linear<B>,
    output: Linear<B>,
    mlp_norm: LayerNorm<B>,
    up: Linear<B>,
    down: Linear<B>,
}

impl<B: Backend> Layer<B> {
    /// The first `depth` layers under `prefix` (`...vision_model.`).
    pub(super) fn load(
        config: &EncoderConfig,
        depth: usize,
        loader: &Loader<'_, B>,
        prefix: &str,
        loaded: Loaded<'_>,
    ) -> Result<Vec<Self>> {
        let hidden = config.hidden_size;
        let one = |index: usize| {
            let at = |name: &str| format!("{prefix}encoder.layers.{index}.{name}");
            let norm = |name: &str| LayerNorm::load(loader, &at(name), hidden, config.layer_norm_eps);
            let (q, k, v) = (at("self_attn.q_proj"), at("self_attn.k_proj"), at("self_attn.v_proj"));
            let layer = Layer {
                attention_norm: norm("layer_norm1")?,
                fused: loader.linear(&[(&q, hidden), (&k, hidden), (&v, hidden)], hidden, true)?,
                output: loader.linear(&[(&at("self_attn.out_proj"), hidden)], hidden, true)?,
                mlp_norm: norm("layer_norm2")?,
                up: loader.linear(&[(&at("mlp.fc1"), config.intermediate_size)], hidden, true)?,
                down: loader.linear(&[(&at("mlp.fc2"), hidden)], config.intermediate_size, true)?,
            };
            loaded(loader.tally().bytes)?;
            Ok(layer)
        };
        (0..depth).map(one).collect()
    }

    /// Queries, keys and values of rows, side by side.
    pub(super) fn fused(&self, x: &Matrix<B>) -> Result<Matrix<B>> {
        self.fused.forward(&self.attention_norm.forward(x)?)
    }

    /// The rows behind the layer; `fused` are theirs.
    pub(super) fn forward(
        &self,
        x: Matrix<B>,
        fused: Matrix<B>,
        config: &EncoderConfig,
        backend: &B,
    ) -> Result<Matrix<B>> {
        let mixed = backend.bidirectional(&fused, config.heads())?;
        drop(fused);
        let x = x.plus(&self.output.forward(&mixed)?)?;
        let up = self.up.forward(&self.mlp_norm.forward(&x)?)?;
        x.plus(&self.down.forward(&backend.activate(&up, config.hidden_act)?)?)
    }
}

/// Hidden states that are asked for, picked up on the way through the layers: only these, so that the sums of a layer can lie where its
/// input was.
pub(super) struct States<'d, B: Backend> {
    /// After how many layers; 0: after the embeddings.
    depths: &'d [usize],
    found: Vec<Option<Matrix<B>>>,
}

impl<'d, B: Backend> States<'d, B> {
    pub(super) fn of(depths: &'d [usize], embeddings: &Matrix<B>) -> Self {
        let mut states = States { depths, found: vec![None; depths.len()] };
        states.see(0, embeddings);
        states
    }

    /// `x` are the states after `depth` layers.
    pub(super) fn see(&mut self, depth: usize, x: &Matrix<B>) {
        for (state, _) in self.found.iter_mut().zip(self.depths).filter(|(_, asked)| **asked == depth) {
            *state = Some(x.clone());
        }
    }

    /// Those of all depths, in their order.
    pub(super) fn found(self) -> Result<Vec<Matrix<B>>> {
        let missing = || Error::Internal(format!("the tower has too few layers for states after {:?}", self.depths));
        self.found.into_iter().map(|state| state.ok_or_else(missing)).collect()
    }
}
