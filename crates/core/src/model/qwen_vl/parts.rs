//! Parts of the towers that come in two forms.

use prefixkv_kernels::activation::Gate;

use super::super::rows;
use crate::backend::{Activation, Activations, Backend};
use crate::check::Check;
use crate::error::Result;
use crate::nn::{Linear, Loader, Matrix, Norm, NormKind};

/// Of norms; Hugging Face's classes take no other.
pub(super) const EPSILON: f64 = 1e-6;

/// The names of the layers of an MLP.
#[derive(Clone, Copy, Debug)]
pub(super) enum MlpNames {
    /// One behind the other.
    Two([&'static str; 2]),
    /// `mlp.gate_proj`, `mlp.up_proj` and `mlp.down_proj`.
    Gated,
}

pub(super) enum Mlp<B: Backend> {
    Two { up: Linear<B>, down: Linear<B>, act: Activation },
    Gated { both: Linear<B>, down: Linear<B> },
}

impl<B: Backend> Mlp<B> {
    /// Loads the layers under `prefix`, of `width` numbers, `inner` between them.
    pub(super) fn load(
        names: MlpNames,
        act: Activation,
        loader: &Loader<'_, B>,
        prefix: &str,
        (width, inner): (usize, usize),
    ) -> Result<Self> {
        let at = |name: &str| format!("{prefix}{name}");
        Ok(match names {
            MlpNames::Two([up, down]) => Mlp::Two {
                up: loader.linear(&[(&at(up), inner)], width, true)?,
                down: loader.linear(&[(&at(down), width)], inner, true)?,
                act,
            },
            MlpNames::Gated => {
                let (gate, up) = (at("mlp.gate_proj"), at("mlp.up_proj"));
                Mlp::Gated {
                    both: loader.linear(&[(&gate, inner), (&up, inner)], width, true)?,
                    down: loader.linear(&[(&at("mlp.down_proj"), width)], inner, true)?,
                }
            }
        })
    }

    /// The rows of `x` behind `norm` through the layers, some at a time.
    pub(super) fn forward(&self, backend: &B, norm: &Norm<B>, x: &Matrix<B>, check: Check<'_>) -> Result<Matrix<B>> {
        in_parts::<B>(x.rows(), check, |start, rows| {
            let x = norm.forward(&x.narrow(start, rows)?)?;
            match self {
                Mlp::Two { up, down, act } => down.forward(&backend.activate(&up.forward(&x)?, *act)?),
                Mlp::Gated { both, down } => down.forward(&backend.glu(&both.forward(&x)?, Gate::Silu)?),
            }
        })
    }
}

/// Joins the patches of a cell and brings them to the width of the language model.
pub(super) struct Merger<B: Backend> {
    backend: B,
    norm: Norm<B>,
    /// Whether a joined row is normalised, instead of each patch.
    joined: bool,
    /// Patches of a cell.
    patches: usize,
    first: Linear<B>,
    second: Linear<B>,
}

/// Widths of a [`Merger`].
#[derive(Clone, Copy)]
pub(super) struct MergerShape {
    /// Patches of a cell.
    pub patches: usize,
    /// Of a patch.
    pub width: usize,
    pub out: usize,
}

impl<B: Backend> Merger<B> {
    /// Loads the norm and the two layers `names` under `prefix`.
    pub(super) fn load(
        loader: &Loader<'_, B>,
        prefix: &str,
        [norm, first, second]: [&str; 3],
        kind: NormKind,
        MergerShape { patches, width, out }: MergerShape,
        joined: bool,
    ) -> Result<Self> {
        let whole = width * patches;
        Ok(Merger {
            norm: {
                let width = if joined { whole } else { width };
                Norm::load(kind, loader, &format!("{prefix}{norm}"), width, EPSILON)?
            },
            first: loader.linear(&[(&format!("{prefix}{first}"), whole)], whole, true)?,
            second: loader.linear(&[(&format!("{prefix}{second}"), out)], whole, true)?,
            backend: loader.backend.clone(),
            joined,
            patches,
        })
    }

    /// Of `[cells * patches, width]` to `[cells, out]`.
    pub(super) fn forward(&self, x: &Matrix<B>, check: Check<'_>) -> Result<Matrix<B>> {
        in_parts::<B>(x.rows() / self.patches, check, |start, cells| {
            let part = x.narrow(start * self.patches, cells * self.patches)?;
            let part = if self.joined { part } else { self.norm.rows(&part)? };
            let columns = part.columns() * self.patches;
            let whole = part.reshaped(cells, columns)?;
            let whole = if self.joined { self.norm.forward(&whole)? } else { self.backend.input(&whole) };
            self.second.forward(&self.backend.activate(&self.first.forward(&whole)?, Activation::Gelu)?)
        })
    }
}

/// What `one` makes of parts of `n` rows, from a row on, one below the other. The wide rows between two layers are those of one part.
pub(super) fn in_parts<B: Backend>(
    n: usize,
    check: Check<'_>,
    mut one: impl FnMut(usize, usize) -> Result<Matrix<B>>,
) -> Result<Matrix<B>> {
    let (mut parts, mut start) = (Vec::new(), 0);
    while start < n {
        check()?;
        let rows = rows::next(n - start, B::MLP_ROWS);
        parts.push(one(start, rows)?);
        start += rows;
    }
    B::Matrix::cat(&parts)
}
