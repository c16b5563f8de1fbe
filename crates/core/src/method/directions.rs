//! The directions in which the keys and values of a model's heads lie, as the weights say that make them.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use prefixkv_kernels::codec::{Basis, Map};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::fields::refuse;
use crate::spectrum::Spectrum;

/// The weights of one layer's keys and values, `[kv_heads * head_dim, hidden]` each.
#[derive(Clone, Debug)]
pub struct Projection {
    pub keys: Vec<f32>,
    pub values: Vec<f32>,
    /// The inverse frequencies of its rotary embedding, `[head_dim / 2]`.
    pub frequencies: Vec<f32>,
}

/// Which directions are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aspect {
    /// Of all heads of a layer together, and not of each by itself.
    pub joint: bool,
    /// Of keys before their rotary embedding, and not after it.
    pub before_rope: bool,
}

/// A model whose weights can be read.
pub trait Projections {
    /// The directions of its layers; found once.
    fn directions(&self, aspect: Aspect) -> Result<Arc<Directions>>;
}

/// The directions of all layers of a model.
#[derive(Debug)]
pub struct Directions {
    heads: usize,
    dim: usize,
    joint: bool,
    /// None for a layer that reads the entries of another.
    layers: Vec<Option<Layer>>,
    /// Those that somebody still has.
    bases: Mutex<Vec<(Cut, Weak<Basis>)>>,
}

/// Of keys and of values.
#[derive(Debug)]
struct Layer {
    /// One per head, or one of all.
    keys: Vec<Spectrum>,
    values: Vec<Spectrum>,
}

/// Which basis of which heads.
#[derive(Clone, Debug, PartialEq)]
struct Cut {
    layer: usize,
    heads: Range<usize>,
    width: usize,
}

/// Positions over which the turns of keys are averaged.
const POSITIONS: usize = 4096;
/// Matrices up to this size are taken apart in seconds.
const LARGEST: usize = 512;

impl Directions {
    /// `projection` gives the weights of a layer.
    pub fn find(
        (layers, heads, dim): (usize, usize, usize),
        Aspect { joint, before_rope }: Aspect,
        mut projection: impl FnMut(usize) -> Result<Option<Projection>>,
    ) -> Result<Directions> {
        let size = if joint { heads * dim } else { dim };
        if size > LARGEST {
            return Err(refuse(format!(
                "`heads: \"joint\"` takes up to {LARGEST} channels of all heads together, and this model has {size}; use `heads: \"each\"`"
            )));
        }
        let one = |layer: usize| -> Result<Option<Layer>> {
            let Some(Projection { keys, values, frequencies }) = projection(layer)? else { return Ok(None) };
            let turning = (!before_rope).then(|| Turning::new(&frequencies));
            let of = |weights: &[f32], turning: Option<&Turning>| -> Vec<Spectrum> {
                let whole = weights.len() / (heads * dim).max(1);
                weights
                    .par_chunks_exact((size * whole).max(1))
                    .map(|rows| {
                        let mut gram = gram(rows, size);
                        if let Some(turning) = turning {
                            turning.average(&mut gram, size);
                        }
                        Spectrum::new(gram, size)
                    })
                    .collect()
            };
            Ok(Some(Layer { keys: of(&keys, turning.as_ref()), values: of(&values, None) }))
        };
        let layers = (0..layers).map(one).collect::<Result<_>>()?;
        Ok(Directions { heads, dim, joint, layers, bases: Mutex::default() })
    }

    /// The logarithm of the product of the condition numbers of the weights of keys and of values, of each layer: the largest singular
    /// value over the smallest.
    fn conditions(&self) -> Vec<Option<f64>> {
        let of = |spectra: &[Spectrum]| {
            let all = spectra.iter().flat_map(|spectrum| &spectrum.values);
            let (least, most) = all.fold((f64::INFINITY, 0.0f64), |(a, b), x| (a.min(*x), b.max(*x)));
            // Squares of singular values; below the last digits of the weights they are noise.
            if most > 0.0 { 0.5 * (most / least.max(most * 1e-12)).ln() } else { 0.0 }
        };
        let layer = |layer: &Layer| of(&layer.keys) + of(&layer.values);
        self.layers.iter().map(|of| of.as_ref().map(layer)).collect()
    }

    /// The share of coordinates that each layer keeps, from `least` to `most`: by the logarithm of the product of the condition numbers of this
    /// layer and all behind it, the layer with the largest keeps most.
    pub fn shares(&self, least: f64, most: f64) -> Vec<f64> {
        let mut after = 0.0;
        let mut cumulative: Vec<f64> = self
            .conditions()
            .into_iter()
            .rev()
            .map(|condition| {
                after += condition.unwrap_or(0.0);
                after
            })
            .collect();
        cumulative.reverse();
        let (low, high) =
            cumulative.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(*x), b.max(*x)));
        let share = |x: &f64| {
            let below = if high > low { (high - x) / (high - low) } else { 0.0 };
            most * (1.0 - below * (1.0 - least / most))
        };
        cumulative.iter().map(share).collect()
    }

    /// The first `width` directions of the keys and of the values of some heads of a layer. Joint ones are of all heads alone.
    pub fn basis(&self, layer: usize, heads: Range<usize>, width: usize) -> Result<Arc<Basis>> {
        let cut = Cut { layer, heads: heads.clone(), width };
        let mut bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
        bases.retain(|(_, basis)| basis.strong_count() > 0);
        if let Some(known) = bases.iter().find(|(of, _)| *of == cut).and_then(|(_, basis)| basis.upgrade()) {
            return Ok(known);
        }
        let Some(of) = self.layers.get(layer).and_then(Option::as_ref) else {
            return Err(Error::Internal(format!("layer {layer} has no directions of its own")));
        };
        let first = |spectrum: &Spectrum, size: usize| -> Vec<f32> {
            spectrum.vectors[..width * size].iter().map(|x| *x as f32).collect()
        };
        let map = |spectra: &[Spectrum]| match self.joint {
            true => Map::joint(self.heads, self.dim, width, first(&spectra[0], self.heads * self.dim)),
            false => {
                let rows = spectra[heads.clone()].iter().flat_map(|spectrum| first(spectrum, self.dim)).collect();
                Map::per_head(heads.len(), self.dim, width, rows)
            }
        };
        let basis = map(&of.keys)
            .and_then(|keys| Basis::new(heads.len(), self.dim, Some(keys), Some(map(&of.values)?)))
            .map_err(Error::Internal)?;
        bases.push((cut, Arc::downgrade(&basis)));
        Ok(basis)
    }
}

/// `W W^T` of `size` rows.
pub(crate) fn gram(rows: &[f32], size: usize) -> Vec<f64> {
    let columns = rows.len() / size.max(1);
    let row = |i: usize| &rows[i * columns..(i + 1) * columns];
    let mut out = vec![0.0; size * size];
    for i in 0..size {
        for j in 0..=i {
            let dot: f64 = row(i).iter().zip(row(j)).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            (out[i * size + j], out[j * size + i]) = (dot, dot);
        }
    }
    out
}

/// The mean of the turns of keys over positions: of `R G R^T` for the rotation `R` of each position.
struct Turning {
    frequencies: Vec<f64>,
}

impl Turning {
    fn new(frequencies: &[f32]) -> Turning {
        Turning { frequencies: frequencies.iter().map(|x| f64::from(*x)).collect() }
    }

    /// A pair of channels `(i, i + half)` is a complex number that is turned by `exp(i m theta)`. One pair acts on another as the sum of a
    /// turn `z`, which becomes `z exp(i m (theta - theta'))`, and of a mirror `w`, which becomes `w exp(i m (theta + theta'))`.
    fn average(&self, gram: &mut [f64], size: usize) {
        let half = self.frequencies.len();
        let channel = |pair: usize| pair / half * 2 * half + pair % half;
        for a in 0..size / 2 {
            for b in 0..size / 2 {
                let (i, j) = (channel(a), channel(b));
                let at = [i * size + j, i * size + j + half, (i + half) * size + j, (i + half) * size + j + half];
                let [p, q, r, s] = at.map(|at| gram[at]);
                let (theta, other) = (self.frequencies[a % half], self.frequencies[b % half]);
                let turn = times(((p + s) / 2.0, (r - q) / 2.0), mean(theta - other));
                let mirror = times(((p - s) / 2.0, (r + q) / 2.0), mean(theta + other));
                let turned = [turn.0 + mirror.0, mirror.1 - turn.1, turn.1 + mirror.1, turn.0 - mirror.0];
                at.into_iter().zip(turned).for_each(|(at, x)| gram[at] = x);
            }
        }
    }
}

fn times(a: (f64, f64), b: (f64, f64)) -> (f64, f64) {
    (a.0 * b.0 - a.1 * b.1, a.0 * b.1 + a.1 * b.0)
}

/// The mean of `exp(i m angle)` over the positions `m`.
fn mean(angle: f64) -> (f64, f64) {
    let n = POSITIONS as f64;
    let below = (angle / 2.0).sin();
    if below.abs() < 1e-12 {
        return (1.0, 0.0);
    }
    // The sum of a geometric series.
    let size = (n * angle / 2.0).sin() / below / n;
    let middle = (n - 1.0) * angle / 2.0;
    (size * middle.cos(), size * middle.sin())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + 13) % 101) as f32 / 50.0 - 1.0).collect()
    }

    #[test]
    fn turns_are_averaged_as_if_every_position_was_turned() {
        let (heads, dim, hidden) = (2, 8, 5);
        let size = heads * dim;
        let frequencies: Vec<f32> = (0..dim / 2).map(|i| 10_000f32.powf(-2.0 * i as f32 / dim as f32)).collect();
        let mut got = gram(&numbers(size * hidden), size);
        let plain = got.clone();
        Turning::new(&frequencies).average(&mut got, size);
        let mut want = vec![0.0; size * size];
        for m in 0..POSITIONS {
            let mut turn = vec![0.0; size * size];
            for head in 0..heads {
                for (i, frequency) in frequencies.iter().enumerate() {
                    let (sin, cos) = (m as f64 * f64::from(*frequency)).sin_cos();
                    let (a, b) = (head * dim + i, head * dim + i + dim / 2);
                    for (row, column, x) in [(a, a, cos), (a, b, -sin), (b, a, sin), (b, b, cos)] {
                        turn[row * size + column] = x;
                    }
                }
            }
            // Each row of a turn has two numbers.
            let row = |i: usize| (0..size).filter(|j| turn[i * size + j] != 0.0).collect::<Vec<_>>();
            let rows: Vec<Vec<usize>> = (0..size).map(row).collect();
            for i in 0..size {
                for j in 0..size {
                    let terms = rows[i].iter().flat_map(|k| rows[j].iter().map(move |l| (k, l)));
                    want[i * size + j] +=
                        terms.map(|(k, l)| turn[i * size + k] * plain[k * size + l] * turn[j * size + l]).sum::<f64>()
                            / POSITIONS as f64;
                }
            }
        }
        for (got, want) in got.iter().zip(&want) {
            assert!((got - want).abs() < 1e-9, "{got} for {want}");
        }
    }

    /// Two layers, of which the second reads the first, and weights that lie in three directions of each head.
    #[test]
    fn weights_of_low_rank_lose_nothing() {
        let (heads, dim, hidden, rank) = (2, 8, 12, 3);
        let weights = |seed: usize| -> Vec<f32> {
            let (a, b) = (numbers(heads * dim * rank + seed), numbers(rank * hidden + seed));
            let of = |row: usize, column: usize| {
                (0..rank).map(|k| a[seed + row * rank + k] * b[seed + k * hidden + column]).sum()
            };
            (0..heads * dim * hidden).map(|at| of(at / hidden, at % hidden)).collect()
        };
        let aspect = Aspect { joint: false, before_rope: true };
        let found = Directions::find((2, heads, dim), aspect, |layer| {
            Ok((layer == 0).then(|| Projection { keys: weights(1), values: weights(2), frequencies: vec![1.0; 4] }))
        });
        let found = found.expect("small");
        let basis = found.basis(0, 0..heads, rank).expect("there");
        for (weights, map) in [(weights(1), &basis.keys), (weights(2), &basis.values)] {
            let map = map.as_ref().expect("both sides");
            for column in 0..hidden {
                let entry: Vec<f32> = (0..heads * dim).map(|row| weights[row * hidden + column]).collect();
                let stored = map.project(&entry, 1);
                for head in 0..heads {
                    let mut again = vec![0.0; dim];
                    map.expand(head, &stored[head * rank..][..rank], &mut again);
                    for (again, want) in again.iter().zip(&entry[head * dim..]) {
                        assert!((again - want).abs() < 1e-5, "{again} for {want}");
                    }
                }
            }
        }
        // The same basis while somebody has it, and parts of it for lanes of their own.
        assert_eq!(found.basis(0, 0..heads, rank).expect("there"), basis);
        assert_eq!(found.basis(0, 1..2, rank).expect("there").shape(), (1, dim));
        assert!(found.basis(1, 0..heads, rank).is_err());
        let wide = Directions::find((1, 8, 80), Aspect { joint: true, ..aspect }, |_| Ok(None));
        assert!(wide.expect_err("640 channels").to_string().contains("each"));
    }

    #[test]
    fn layers_with_more_behind_them_keep_more() {
        let weights = |scale: f32| -> Vec<f32> {
            (0..64).map(|at| if at % 9 == 0 { if at == 63 { scale } else { 1.0 } } else { 0.0 }).collect()
        };
        let aspect = Aspect { joint: false, before_rope: true };
        let condition = [4.0f32, 1.0, 16.0];
        let found = Directions::find((3, 1, 8), aspect, |layer| {
            let keys = weights(1.0 / condition[layer]);
            Ok(Some(Projection { keys, values: weights(1.0), frequencies: vec![1.0; 4] }))
        });
        let found = found.expect("small");
        for (got, want) in found.conditions().into_iter().zip(condition) {
            assert!((got.expect("its own") - f64::from(want).ln()).abs() < 1e-6);
        }
        // Cumulative from the end: ln 64, ln 16, ln 16.
        let shares = found.shares(0.25, 0.75);
        for (got, want) in shares.iter().zip([0.75, 0.25, 0.25]) {
            assert!((got - want).abs() < 1e-9, "{shares:?}");
        }
        assert_eq!(found.shares(0.5, 0.5), [0.5; 3]);
    }
}
