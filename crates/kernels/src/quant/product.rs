//! Products of weights in blocks, for any number of rows of activations.

use std::ops::Range;

use rayon::prelude::*;

use super::activations::Activations;
use super::level::{Level, MOST_TILES, Operations, ROWS, Work};
use crate::shared::Disjoint;

/// Two lines' worth of codes, four columns each.
pub(super) type Steps<S> = [<S as Operations>::Codes; 2];

/// Pairs of four columns in a block.
const PAIRS: usize = 4;

/// Weights of tiles of sixteen rows, in groups of blocks of 32 columns.
pub(super) trait Format: Sync {
    /// Blocks of a group.
    const BLOCKS: usize;
    /// Parts of a block that have scales of their own: 1, or 2 of sixteen columns.
    const PARTS: usize;
    /// Whether a part has minima, which are subtracted.
    const MINIMA: bool;
    /// The codes of a block.
    type Lines;
    /// Data that the blocks of a group share; each has a scale of its own beside it.
    type Group<'a, S: Operations>: Copy
    where
        Self: 'a;

    /// Groups of a row.
    fn groups(&self) -> usize;
    /// The codes of all blocks, those of a tile one behind the other.
    fn lines(&self) -> &[Self::Lines];
    /// A group by its place among those of all tiles.
    fn group<S: Operations>(&self, at: usize) -> Self::Group<'_, S>;
    /// The scales of a part of a block of a group, and its minima.
    fn scale<S: Operations>(group: &Self::Group<'_, S>, block: usize, part: usize) -> (S::Floats, S::Floats);
    /// The start value of a part's dot products, given the sum of its activations.
    fn start<S: Operations>(&self, sum: i32) -> S::Ints;
    /// The codes of eight columns from `8 * index`.
    fn steps<S: Operations>(lines: &Self::Lines, index: usize) -> Steps<S>;
    fn dot<S: Operations>(sums: S::Ints, codes: S::Codes, x: i32) -> S::Ints;
}

/// Weights that are worth a task for one row of activations: some 25 us of reading. Tasks of a quarter take as long altogether, and a
/// fifth more of the processors' time.
const TASK: usize = 1280 * 1024;

/// Rows of activations that take as long as reading the weights does.
const ROWS_OF_A_READ: usize = 8;

/// Tasks for each thread, so that one that is held up does not hold up all.
const TASKS_PER_THREAD: usize = 4;

/// Columns at a time: two tiles of so many, and the activations beside them, fit the first-level cache.
pub(super) const COLUMNS: usize = 512;

/// Runs `task` for ranges of tiles, whose product with `n` rows of activations is worth a thread's while.
pub(super) fn each_range(rows: usize, blocks: usize, n: usize, task: impl Fn(Range<usize>) + Sync) {
    let tiles = rows.div_ceil(ROWS);
    let work = rows * blocks * super::BLOCK * (ROWS_OF_A_READ + n) / ROWS_OF_A_READ;
    let tasks = (rayon::current_num_threads() * TASKS_PER_THREAD).min(work / TASK).max(1);
    let step = tiles.div_ceil(tasks).next_multiple_of(MOST_TILES);
    let task = |from: usize| task(from..tiles.min(from + step));
    if step >= tiles {
        task(0);
    } else {
        (0..tiles.div_ceil(step)).into_par_iter().with_max_len(1).for_each(|index| task(index * step));
    }
}

/// `out[i, r] = x[i] . weight[r]`; `out` is `[n, rows]`.
pub(super) fn product<F: Format>(level: Level, weights: &F, x: &Activations, out: &mut [f32], rows: usize) {
    let n = out.len() / rows;
    let out = &Disjoint::new(out);
    each_range(rows, x.blocks, n, |tiles| level.run(Task { weights, x, tiles, out, n, rows }));
}

struct Task<'a, F> {
    weights: &'a F,
    x: &'a Activations,
    tiles: Range<usize>,
    out: &'a Disjoint<'a, f32>,
    n: usize,
    rows: usize,
}

impl<F: Format> Work for Task<'_, F> {
    #[inline(always)]
    fn run<S: Operations>(self) {
        body::<S, F>(self.weights, self.x, self.tiles, self.out, self.n, self.rows);
    }
}

/// Some tiles against all rows of activations.
#[inline(always)]
fn body<S: Operations, F: Format>(
    weights: &F,
    x: &Activations,
    tiles: Range<usize>,
    out: &Disjoint<'_, f32>,
    n: usize,
    rows: usize,
) {
    let at_once = S::TILES;
    let mut sums = vec![[0.0; ROWS]; n * at_once];
    let mut tile = tiles.start;
    while tile < tiles.end {
        let some = at_once.min(tiles.end - tile);
        let sums = &mut sums[..n * some];
        if some == 2 {
            strip::<S, F, 2>(weights, x, tile, sums);
        } else {
            strip::<S, F, 1>(weights, x, tile, sums);
        }
        for (row, sums) in sums.chunks_exact(some).enumerate() {
            let from = tile * ROWS;
            let len = (some * ROWS).min(rows - from);
            // SAFETY: each task has tiles of its own, and so places of its own in every row of the output.
            let out = unsafe { out.part(row * rows + from, len) };
            out.copy_from_slice(&sums.as_flattened()[..len]);
        }
        tile += some;
    }
}

/// `N` tiles against all rows of activations, [`COLUMNS`] at a time. `sums` has `N` of each row.
#[inline(always)]
fn strip<S: Operations, F: Format, const N: usize>(
    weights: &F,
    x: &Activations,
    tile: usize,
    sums: &mut [[f32; ROWS]],
) {
    sums.fill([0.0; ROWS]);
    let groups = weights.groups();
    let step = COLUMNS / (F::BLOCKS * super::BLOCK);
    for from in (0..groups).step_by(step) {
        let some = from..groups.min(from + step);
        rows::<S, F, N>(weights, x, tile, some.clone(), some.start * F::BLOCKS, sums);
    }
}

/// Some groups of `N` tiles against all rows of activations, whose blocks from `column` are those of the groups.
#[inline(always)]
pub(super) fn rows<S: Operations, F: Format, const N: usize>(
    weights: &F,
    x: &Activations,
    tile: usize,
    groups: Range<usize>,
    column: usize,
    sums: &mut [[f32; ROWS]],
) {
    let n = sums.len() / N;
    let mut row = 0;
    while row < n {
        let at = (row, column);
        let left = n - row;
        let sums = &mut sums[row * N..];
        row += if S::REGISTERS >= 32 {
            match left {
                1 => square::<S, F, 1, N>(weights, x, tile, groups.clone(), at, sums),
                2 => square::<S, F, 2, N>(weights, x, tile, groups.clone(), at, sums),
                3 => square::<S, F, 3, N>(weights, x, tile, groups.clone(), at, sums),
                _ => square::<S, F, 4, N>(weights, x, tile, groups.clone(), at, sums),
            }
        } else {
            match left {
                1 => square::<S, F, 1, N>(weights, x, tile, groups.clone(), at, sums),
                _ => square::<S, F, 2, N>(weights, x, tile, groups.clone(), at, sums),
            }
        };
    }
}

/// Some groups of `N` tiles against `M` rows of activations from a row and a block. Returns `M`.
#[allow(clippy::needless_range_loop)] // Indices into several arrays at once, of lengths that the compiler knows.
#[inline(always)]
fn square<S: Operations, F: Format, const M: usize, const N: usize>(
    weights: &F,
    x: &Activations,
    tile: usize,
    groups: Range<usize>,
    (row, column): (usize, usize),
    sums: &mut [[f32; ROWS]],
) -> usize {
    // No closures: they would be compiled without the instruction set of the function around them where they are not inlined.
    let mut held = [[S::splat(0.0); N]; M];
    for m in 0..M {
        for n in 0..N {
            held[m][n] = S::load(&sums[m * N + n]);
        }
    }
    let lines = weights.lines();
    let start = groups.start;
    for group in groups {
        let first = tile * weights.groups() + group;
        let mut shared = [weights.group::<S>(first); N];
        for n in 1..N {
            shared[n] = weights.group::<S>(first + n * weights.groups());
        }
        for block in 0..F::BLOCKS {
            let column = column + (group - start) * F::BLOCKS + block;
            let mut codes = [&x.codes[row * x.blocks + column]; M];
            let mut scales = [x.scales[row * x.blocks + column]; M];
            for m in 0..M {
                let at = (row + m) * x.blocks + column;
                codes[m] = &x.codes[at];
                scales[m] = x.scales[at];
            }
            for part in 0..F::PARTS {
                let mut ints = [[S::ints(0); N]; M];
                for m in 0..M {
                    ints[m] = [weights.start::<S>(scales[m].sum::<F>(part)); N];
                }
                for pair in part * (PAIRS / F::PARTS)..(part + 1) * (PAIRS / F::PARTS) {
                    for n in 0..N {
                        let at = (first + n * weights.groups()) * F::BLOCKS + block;
                        let steps = F::steps::<S>(&lines[at], pair);
                        for half in 0..2 {
                            for m in 0..M {
                                ints[m][n] = F::dot::<S>(ints[m][n], steps[half], codes[m][2 * pair + half]);
                            }
                        }
                    }
                }
                for n in 0..N {
                    let (scale, minimum) = F::scale::<S>(&shared[n], block, part);
                    for m in 0..M {
                        let scale = S::mul(scale, S::splat(scales[m].step));
                        held[m][n] = S::add(held[m][n], S::mul(S::floats(ints[m][n]), scale));
                        if F::MINIMA {
                            let total = scales[m].total::<F>(part);
                            held[m][n] = S::sub(held[m][n], S::mul(minimum, S::splat(total)));
                        }
                    }
                }
            }
        }
    }
    for m in 0..M {
        for n in 0..N {
            S::store(held[m][n], &mut sums[m * N + n]);
        }
    }
    M
}
