//! The towers: patches in the order of their cells, turned by rows and columns, through blocks to rows for the language model.

use prefixkv_kernels::rotary::{Frequencies, Phase, Sections};

use super::super::network::Loaded;
use super::config::TowerConfig;
pub(super) use super::parts::MlpNames;
use super::parts::{EPSILON, Merger, MergerShape, Mlp, in_parts};
use super::table;
use super::windows::order;
use crate::backend::{Activation, Activations, Backend, Heads};
use crate::check::Check;
use crate::error::{Error, Result};
use crate::media::Pixels;
use crate::nn::{Linear, Loader, Matrix, Norm, NormKind};

/// How a tower is put together, and what its tensors are called.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub norms: NormKind,
    pub mlp: MlpNames,
    /// The norm and the two layers of a merger.
    pub merger: [&'static str; 3],
    pub patch_bias: bool,
}

pub(super) struct Tower<B: Backend> {
    config: TowerConfig,
    backend: B,
    /// The patch convolution as a product: stride equals kernel, so each patch is one row.
    patches: Linear<B>,
    /// `[places, width]`.
    table: Option<Vec<f32>>,
    frequencies: Frequencies,
    blocks: Vec<Block<B>>,
    merger: Merger<B>,
    /// By the place of their block in the configuration.
    deepstack: Vec<Merger<B>>,
}

struct Block<B: Backend> {
    attention_norm: Norm<B>,
    fused: Linear<B>,
    output: Linear<B>,
    mlp_norm: Norm<B>,
    mlp: Mlp<B>,
}

/// The rows of a picture, `[cells, out]` each, cells row by row.
pub(super) struct Made<B: Backend> {
    pub rows: Matrix<B>,
    /// Added by the first layers of the decoder, one behind the other.
    pub behind: Vec<Matrix<B>>,
}

impl<B: Backend> Tower<B> {
    /// Loads the tensors under `prefix` (`...visual.`).
    pub(super) fn load(config: TowerConfig, loader: &Loader<'_, B>, prefix: &str, loaded: Loaded<'_>) -> Result<Self> {
        let (width, plan) = (config.width, config.plan);
        if let (MlpNames::Gated, act) = (plan.mlp, config.act)
            && act != Activation::Silu
        {
            return Err(Error::UnsupportedModel {
                reason: format!("activation {act:?} in a gated MLP; only silu is known"),
                known: Vec::new(),
            });
        }
        let heads = heads(&config);
        loader.backend.require_heads(heads)?;
        let norm = |name: &str| Norm::load(plan.norms, loader, name, width, EPSILON);
        let block = |index: usize| {
            let at = |name: &str| format!("{prefix}blocks.{index}.{name}");
            let block = Block {
                attention_norm: norm(&at("norm1"))?,
                fused: loader.linear(&[(&at("attn.qkv"), heads.fused())], width, true)?,
                output: loader.linear(&[(&at("attn.proj"), width)], width, true)?,
                mlp_norm: norm(&at("norm2"))?,
                mlp: Mlp::load(plan.mlp, config.act, loader, &at(""), (width, config.inner))?,
            };
            loaded(loader.tally().bytes)?;
            Ok(block)
        };
        let blocks = (0..config.depth).map(block).collect::<Result<_>>()?;
        let shape = MergerShape { patches: config.merge * config.merge, width, out: config.out };
        let merger = |name: &str, joined| {
            Merger::load(loader, &format!("{prefix}{name}."), plan.merger, plan.norms, shape, joined)
        };
        let deepstack = (0..config.deepstack.len())
            .map(|index| merger(&format!("deepstack_merger_list.{index}"), true))
            .collect::<Result<_>>()?;
        let table = match config.table {
            Some(side) => {
                let places =
                    loader.matrix(&format!("{prefix}pos_embed.weight"), &[side * side, width], side * side, width)?;
                Some(places.to_vec()?)
            }
            None => None,
        };
        let (side, name) = (config.patch, format!("{prefix}patch_embed.proj"));
        let kernel = [width, 3, config.frames, side, side];
        let columns = 3 * config.frames * side * side;
        let patches = match plan.patch_bias {
            true => loader.convolution(&name, &kernel)?,
            false => loader.reshaped(&format!("{name}.weight"), &kernel, width, columns)?,
        };
        Ok(Tower {
            patches,
            table,
            frequencies: frequencies(heads.dim, config.theta),
            blocks,
            merger: merger("merger", false)?,
            deepstack,
            backend: loader.backend.clone(),
            config,
        })
    }

    /// A picture, or a group of frames of a video, whose sides are whole cells. The last frame stands for those that are missing.
    pub(super) fn forward(&self, frames: &[Pixels], check: Check<'_>) -> Result<Made<B>> {
        let TowerConfig { merge, windows, .. } = &self.config;
        let alike = |of: &&Pixels| frames.iter().all(|frame| (frame.width, frame.height) == (of.width, of.height));
        let Some(pixels) = frames.first().filter(|_| frames.len() <= self.config.frames).filter(alike) else {
            return Err(Error::Internal(format!("{} tiles that are no group of frames", frames.len())));
        };
        let cell = self.config.cell();
        let (rows, columns) = (pixels.height / cell, pixels.width / cell);
        if rows * columns == 0 || (rows * cell, columns * cell) != (pixels.height, pixels.width) {
            let (height, width) = (pixels.height, pixels.width);
            return Err(Error::Internal(format!("an image of {width} x {height} in cells of {cell}")));
        }
        let side = windows.as_ref().map_or(usize::MAX, |windows| windows.side);
        let (cells, sizes) = order(rows, columns, side.min(rows.max(columns)));
        let places: Vec<(usize, usize)> = cells.iter().flat_map(|cell| patches_of(*cell, columns, *merge)).collect();
        let mut x = self.embed(frames, &places, check)?;
        let phases: Vec<Phase> = places.iter().map(|(row, column)| [0, *row as u32, *column as u32]).collect();
        let rotary = self.backend.rotary_at(&self.frequencies, &phases)?;
        let within: Vec<usize> = sizes.iter().map(|cells| cells * merge * merge).collect();
        let (whole, heads) = ([places.len()], heads(&self.config));
        let mut behind = Vec::with_capacity(self.deepstack.len());
        for (index, block) in self.blocks.iter().enumerate() {
            check()?;
            let windowed = windows.as_ref().is_some_and(|windows| !windows.whole.contains(&index));
            let segments = if windowed { &within[..] } else { &whole };
            let fused = block.fused.forward(&block.attention_norm.forward(&x)?)?;
            let mixed = self.backend.segmented(&fused, heads, &rotary, segments, check)?;
            drop(fused);
            x = x.plus(&block.output.forward(&mixed)?)?;
            let inner = block.mlp.forward(&self.backend, &block.mlp_norm, &x, check)?;
            x = x.plus(&inner)?;
            if let Some(place) = self.config.deepstack.iter().position(|behind| *behind == index) {
                behind.push(self.deepstack[place].forward(&x, check)?);
            }
        }
        let rows = self.row_by_row(self.merger.forward(&x, check)?, &cells)?;
        Ok(Made { rows, behind: behind.into_iter().map(|rows| self.row_by_row(rows, &cells)).collect::<Result<_>>()? })
    }

    /// The patches at `places`, `[patches, width]`, some at a time, since a patch has more samples than numbers.
    fn embed(&self, frames: &[Pixels], places: &[(usize, usize)], check: Check<'_>) -> Result<Matrix<B>> {
        let (side, width) = (self.config.patch, self.config.width);
        let grid = (frames[0].height / side, frames[0].width / side);
        in_parts::<B>(places.len(), check, |start, n| {
            let places = &places[start..start + n];
            let samples = places.iter().flat_map(|place| self.samples(frames, *place)).collect();
            let samples = self.backend.matrix(samples, n, 3 * self.config.frames * side * side)?;
            let x = self.patches.forward(&self.backend.input(&samples))?;
            let (Some(table), Some(of)) = (&self.table, self.config.table) else { return Ok(x) };
            let mut learned = vec![0.0; n * width];
            for (place, out) in places.iter().zip(learned.chunks_exact_mut(width)) {
                table::add(table, of, *place, grid, out);
            }
            x.plus(&self.backend.matrix(learned, n, width)?)
        })
    }

    /// The samples of a patch: channel by channel, in each the frames.
    fn samples<'p>(&self, frames: &'p [Pixels], (row, column): (usize, usize)) -> impl Iterator<Item = f32> + 'p {
        let (side, number) = (self.config.patch, self.config.frames);
        let lines = (0..3).flat_map(move |channel| {
            (0..number).flat_map(move |frame| {
                let pixels = &frames[frame.min(frames.len() - 1)];
                (0..side).map(move |y| (pixels, channel * pixels.height + row * side + y))
            })
        });
        lines.flat_map(move |(pixels, line)| {
            let start = line * pixels.width + column * side;
            pixels.data[start..start + side].iter().copied()
        })
    }

    /// Rows that come in the order `cells`, in the order of their numbers.
    fn row_by_row(&self, rows: Matrix<B>, cells: &[usize]) -> Result<Matrix<B>> {
        if cells.is_sorted() {
            return Ok(rows);
        }
        let (data, width) = (rows.to_vec()?, rows.columns());
        let mut sorted = vec![0.0; data.len()];
        for (row, cell) in data.chunks_exact(width).zip(cells) {
            sorted[cell * width..(cell + 1) * width].copy_from_slice(row);
        }
        self.backend.matrix(sorted, cells.len(), width)
    }
}

/// The rows and columns of the patches of a cell, of a picture with so many `columns` of cells.
fn patches_of(cell: usize, columns: usize, merge: usize) -> impl Iterator<Item = (usize, usize)> {
    let (top, left) = (cell / columns * merge, cell % columns * merge);
    (top..top + merge).flat_map(move |row| (left..left + merge).map(move |column| (row, column)))
}

/// The first half of the frequencies turns by rows, the second, which is the same, by columns.
fn frequencies(dim: usize, theta: f32) -> Frequencies {
    let quarter = dim / 4;
    let one = |i: usize| 1.0 / theta.powf((2 * i) as f32 / (dim / 2) as f32);
    let inverse = (0..quarter).chain(0..quarter).map(one).collect();
    Frequencies::new(inverse, Some(Sections { sizes: [0, quarter, quarter], interleaved: false }))
}

fn heads(config: &TowerConfig) -> Heads {
    Heads { query: config.heads, kv: config.heads, dim: config.width / config.heads }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_patches_of_a_cell_follow_each_other() {
        assert_eq!(patches_of(0, 3, 2).collect::<Vec<_>>(), [(0, 0), (0, 1), (1, 0), (1, 1)]);
        assert_eq!(patches_of(4, 3, 2).collect::<Vec<_>>(), [(2, 2), (2, 3), (3, 2), (3, 3)]);
    }

    #[test]
    fn half_of_a_head_turns_by_rows_and_half_by_columns() {
        let angles = frequencies(8, 10_000.0).angles([[7, 2, 3]]);
        let want = [2.0f32, 0.02, 3.0, 0.03];
        assert!(angles.cos.iter().zip(want).all(|(cos, want)| (cos - want.cos()).abs() < 1e-6), "{:?}", angles.cos);
    }
}
