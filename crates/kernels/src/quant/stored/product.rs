//! Products with weights that are unpacked tile by tile.

use std::marker::PhantomData;
use std::ops::Range;

use super::super::BLOCK;
use super::super::activations::{Activations, Scale};
use super::super::level::{Level, Line, Operations, ROWS, STEP, Work};
use super::super::product::{COLUMNS, Format, Steps, each_range, rows};
use super::Stored;
use super::kinds::{Block, Kind, Layout, SMALL};
use crate::shared::Disjoint;

/// Blocks of a row that are unpacked at a time.
const BLOCKS: usize = COLUMNS / BLOCK;

/// Bytes that are asked for before they are needed: memory answers after about as long as a core takes for so many.
const AHEAD: usize = 8 << 10;

/// Rows of activations up to which codes are multiplied as they are unpacked, which takes half the time there; more share what was
/// unpacked to lines.
const FEW: usize = 8;

/// Lines of a block of sixteen rows.
const LINES: usize = BLOCK / STEP;

/// Where results go: `[n, stride]` numbers, of which the product has the columns from `at` on.
pub(super) struct Out<'a> {
    pub(super) all: Disjoint<'a, f32>,
    pub(super) stride: usize,
    pub(super) at: usize,
}

/// [`BLOCKS`] blocks of the tiles at work together, each of sixteen rows.
struct Buffer<L> {
    bias: i32,
    lines: Vec<[Line; LINES]>,
    scales: Scales<L>,
}

/// Of each part of blocks the scales, and the minima where there are some.
struct Scales<L> {
    scales: Vec<[f32; ROWS]>,
    minima: Vec<[f32; ROWS]>,
    layout: PhantomData<L>,
}

impl<L: Layout> Scales<L> {
    fn new(blocks: usize) -> Self {
        let scales = vec![[0.0; ROWS]; blocks * L::PARTS];
        Scales { minima: if L::MINIMA { scales.clone() } else { Vec::new() }, scales, layout: PhantomData }
    }

    /// Those of the parts of a block.
    #[inline(always)]
    fn of(&self, block: usize) -> (&[[f32; ROWS]], &[[f32; ROWS]]) {
        let scales = &self.scales[block * L::PARTS..][..L::PARTS];
        (scales, if L::MINIMA { &self.minima[block * L::PARTS..][..L::PARTS] } else { scales })
    }

    /// Unpacks those of some groups of sixteen rows, to the blocks from `first` on.
    #[inline(always)]
    fn unpack<S: Operations, K: Kind<Layout = L>>(&mut self, rows: &Rows<'_, K>, first: usize) {
        for group in 0..rows.groups {
            let rows = rows.at(group);
            self.group::<S, K>(&rows, steps::<S, K>(&rows), first + group * K::BLOCKS);
        }
    }

    /// Those of a group of sixteen rows, to the blocks from `first` on.
    #[inline(always)]
    fn group<S: Operations, K: Kind<Layout = L>>(
        &mut self,
        rows: &[&K::Block; ROWS],
        [scale, minimum]: [S::Floats; 2],
        first: usize,
    ) {
        let parts = first * L::PARTS..(first + K::BLOCKS) * L::PARTS;
        let Some(from) = K::SMALL else {
            S::store(scale, &mut self.scales[parts.start]);
            if L::MINIMA {
                S::store(minimum, &mut self.minima[parts.start]);
            }
            return;
        };
        let bytes = S::transpose(&small(rows, from));
        for (part, to) in self.scales[parts.clone()].iter_mut().enumerate() {
            S::store(S::mul(scale, S::from_i8(&K::small(&bytes, part).0)), to);
        }
        if L::MINIMA {
            for (part, to) in self.minima[parts].iter_mut().enumerate() {
                S::store(S::mul(minimum, S::from_i8(&K::small(&bytes, part).1)), to);
            }
        }
    }
}

impl<L: Layout> Scales<L> {
    /// `held` and the products of a block of sixteen rows with a row of activations, whose integer sums are given. `whole` is of the group.
    #[inline(always)]
    fn add<S: Operations, K: Kind<Layout = L>>(
        &self,
        mut held: S::Floats,
        ints: [S::Ints; 2],
        x: &Scale,
        whole: [S::Floats; 2],
        block: usize,
    ) -> S::Floats {
        for part in 0..L::PARTS {
            let [scale, minimum] = match K::SMALL {
                None => whole,
                Some(_) => {
                    let (scales, minima) = self.of(block);
                    [S::load(&scales[part]), S::load(&minima[part])]
                }
            };
            let start = start::<S, L>(K::BIAS, x.sum::<Buffer<L>>(part));
            let scale = S::mul(scale, S::splat(x.step));
            held = S::add(held, S::mul(S::floats(S::add_ints(ints[part], start)), scale));
            if L::MINIMA {
                held = S::sub(held, S::mul(minimum, S::splat(x.total::<Buffer<L>>(part))));
            }
        }
        held
    }
}

/// The scales of a group of sixteen rows, and what is subtracted where there are minima.
#[inline(always)]
fn steps<S: Operations, K: Kind>(of: &[&K::Block; ROWS]) -> [S::Floats; 2] {
    let [scale, minimum] = S::from_f16_pairs([
        K::steps(of[0]),
        K::steps(of[1]),
        K::steps(of[2]),
        K::steps(of[3]),
        K::steps(of[4]),
        K::steps(of[5]),
        K::steps(of[6]),
        K::steps(of[7]),
        K::steps(of[8]),
        K::steps(of[9]),
        K::steps(of[10]),
        K::steps(of[11]),
        K::steps(of[12]),
        K::steps(of[13]),
        K::steps(of[14]),
        K::steps(of[15]),
    ]);
    [scale, if K::ADDED { S::mul(minimum, S::splat(-1.0)) } else { minimum }]
}

impl<L: Layout> Format for Buffer<L> {
    const BLOCKS: usize = 1;
    const PARTS: usize = L::PARTS;
    const MINIMA: bool = L::MINIMA;
    type Lines = [Line; LINES];
    type Group<'a, S: Operations>
        = (&'a [[f32; ROWS]], &'a [[f32; ROWS]])
    where
        Self: 'a;

    fn groups(&self) -> usize {
        BLOCKS
    }
    fn lines(&self) -> &[Self::Lines] {
        &self.lines
    }
    #[inline(always)]
    fn group<S: Operations>(&self, at: usize) -> Self::Group<'_, S> {
        self.scales.of(at)
    }
    #[inline(always)]
    fn scale<S: Operations>(group: &Self::Group<'_, S>, _: usize, part: usize) -> (S::Floats, S::Floats) {
        (S::load(&group.0[part]), S::load(&group.1[part]))
    }
    #[inline(always)]
    fn start<S: Operations>(&self, sum: i32) -> S::Ints {
        start::<S, L>(self.bias, sum)
    }
    #[inline(always)]
    fn steps<S: Operations>(lines: &Self::Lines, index: usize) -> Steps<S> {
        [S::line(&lines[2 * index]), S::line(&lines[2 * index + 1])]
    }
    #[inline(always)]
    fn dot<S: Operations>(sums: S::Ints, codes: S::Codes, x: i32) -> S::Ints {
        if L::WIDE { S::dot_biased(sums, codes, x) } else { S::dot_unsigned(sums, codes, x) }
    }
}

/// The first `rows` rows with all rows of activations.
pub(super) fn product<K: Kind>(level: Level, weights: &Stored, rows: usize, x: &Activations, out: &Out<'_>) {
    let tiles = Tiles { weights, data: weights.data(), row: weights.row_bytes(), rows };
    each_range(rows, x.blocks, x.rows(), |range| match x.rows() {
        1 => few::<true, K>(level, &tiles, x, out, range),
        2..=FEW => few::<false, K>(level, &tiles, x, out, range),
        _ => together::<K>(level, &tiles, x, out, range),
    });
}

/// The rows of a product, sixteen in each tile.
struct Tiles<'a> {
    weights: &'a Stored,
    data: &'a [u8],
    /// Bytes of a row.
    row: usize,
    rows: usize,
}

impl Tiles<'_> {
    /// Some groups of each row of a tile. Rows behind the last one are that one again; nobody reads their sums.
    fn groups<K: Kind>(&self, tile: usize, groups: Range<usize>) -> Rows<'_, K> {
        let rows = std::array::from_fn(|row| {
            let row = self.weights.place((tile * ROWS + row).min(self.rows - 1));
            &K::Block::all(&self.data[row * self.row..][..self.row])[groups.clone()]
        });
        Rows::new(rows)
    }

    /// Where the rows begin that come some way behind a tile; perhaps behind all of them.
    fn ahead(&self, tile: usize) -> *const u8 {
        let bytes = ROWS * self.row;
        self.data.as_ptr().wrapping_add(tile * bytes + bytes.max(AHEAD))
    }

    /// Writes the sums of some tiles with one row of activations.
    fn write(&self, tile: usize, row: usize, sums: &[[f32; ROWS]], out: &Out<'_>) {
        let from = tile * ROWS;
        let len = (sums.len() * ROWS).min(self.rows - from);
        // SAFETY: each task has tiles of its own, and so places of its own in every row of the output.
        let out = unsafe { out.all.part(row * out.stride + out.at + from, len) };
        out.copy_from_slice(&sums.as_flattened()[..len]);
    }
}

/// Groups of the sixteen rows of a tile, of each as many.
struct Rows<'a, K: Kind> {
    starts: [*const K::Block; ROWS],
    groups: usize,
    rows: PhantomData<&'a K::Block>,
}

impl<'a, K: Kind> Rows<'a, K> {
    fn new(rows: [&'a [K::Block]; ROWS]) -> Self {
        let groups = rows[0].len();
        assert!(rows.iter().all(|row| row.len() == groups), "rows of one length");
        Rows { starts: rows.map(<[K::Block]>::as_ptr), groups, rows: PhantomData }
    }

    /// A group of each row. Where it lies is checked once for all of them.
    #[inline(always)]
    fn at(&self, group: usize) -> [&'a K::Block; ROWS] {
        assert!(group < self.groups);
        // SAFETY: every row has `groups` groups, which are borrowed for 'a.
        let of = |row: usize| unsafe { &*self.starts[row].add(group) };
        [
            of(0),
            of(1),
            of(2),
            of(3),
            of(4),
            of(5),
            of(6),
            of(7),
            of(8),
            of(9),
            of(10),
            of(11),
            of(12),
            of(13),
            of(14),
            of(15),
        ]
    }
}

/// Some tiles with a few rows of activations, or `ONE`: codes are multiplied as they are unpacked.
fn few<const ONE: bool, K: Kind>(level: Level, tiles: &Tiles<'_>, x: &Activations, out: &Out<'_>, range: Range<usize>) {
    let mut scales = Scales::new(K::BLOCKS);
    for tile in range {
        let mut sums = [[0.0; ROWS]; FEW];
        let rows = tiles.groups::<K>(tile, 0..x.blocks / K::BLOCKS);
        let sums = &mut sums[..x.rows()];
        level.run(Few::<ONE, K> { rows, ahead: tiles.ahead(tile), scales: &mut scales, x, sums });
        for (row, sums) in sums.iter().enumerate() {
            tiles.write(tile, row, std::slice::from_ref(sums), out);
        }
    }
}

/// Sixteen rows with a few rows of activations.
struct Few<'a, const ONE: bool, K: Kind> {
    rows: Rows<'a, K>,
    /// Bytes that are read soon. Each row is a stream of its own, too many for the processor to foresee.
    ahead: *const u8,
    /// Of a group.
    scales: &'a mut Scales<K::Layout>,
    x: &'a Activations,
    /// One for each row of activations, all 0.
    sums: &'a mut [[f32; ROWS]],
}

impl<const ONE: bool, K: Kind> Work for Few<'_, ONE, K> {
    #[inline(always)]
    fn run<S: Operations>(self) {
        // No closures: they would be compiled without the instructions of the level where they are not inlined.
        let n = if ONE { 1 } else { self.sums.len() };
        let slice = ROWS * size_of::<K::Block>() / K::BLOCKS;
        let mut held = S::splat(0.0);
        for group in 0..self.rows.groups {
            let rows = self.rows.at(group);
            let whole = steps::<S, K>(&rows);
            if K::SMALL.is_some() {
                self.scales.group::<S, K>(&rows, whole, 0);
            }
            for block in 0..K::BLOCKS {
                let at = group * K::BLOCKS + block;
                S::prefetch(self.ahead.wrapping_add(at * slice), slice);
                let codes = Unpacked::<S>::new::<K>(&rows, block);
                for (row, sums) in self.sums.iter_mut().enumerate().take(n) {
                    if !ONE {
                        held = S::load(sums);
                    }
                    let at = row * self.x.blocks + at;
                    let ints = codes.across::<K>(&self.x.codes[at]);
                    held = self.scales.add::<S, K>(held, ints, &self.x.scales[at], whole, block);
                    if !ONE {
                        S::store(held, sums);
                    }
                }
            }
        }
        if ONE {
            S::store(held, &mut self.sums[0]);
        }
    }
}

/// The codes of a block of sixteen rows, in registers.
enum Unpacked<S: Operations> {
    Fours([S::Fours; ROWS / 4]),
    Twos([S::Twos; ROWS / 2]),
}

impl<S: Operations> Unpacked<S> {
    #[inline(always)]
    fn new<K: Kind>(of: &[&K::Block; ROWS], block: usize) -> Self {
        // No loops, whose vectors would go through memory.
        if K::NIBBLES {
            return Unpacked::Fours([
                K::codes([of[0], of[4], of[8], of[12]], block),
                K::codes([of[1], of[5], of[9], of[13]], block),
                K::codes([of[2], of[6], of[10], of[14]], block),
                K::codes([of[3], of[7], of[11], of[15]], block),
            ]);
        }
        Unpacked::Twos([
            K::codes([of[0], of[4]], block),
            K::codes([of[1], of[5]], block),
            K::codes([of[2], of[6]], block),
            K::codes([of[3], of[7]], block),
            K::codes([of[8], of[12]], block),
            K::codes([of[9], of[13]], block),
            K::codes([of[10], of[14]], block),
            K::codes([of[11], of[15]], block),
        ])
    }

    /// The sums of products with a row of activations, of each part that has a scale.
    #[inline(always)]
    fn across<K: Kind>(&self, x: &[i32; LINES]) -> [S::Ints; 2] {
        match self {
            Unpacked::Fours(fours) => {
                let sums = match K::Layout::WIDE {
                    true => S::across_fours::<true>(fours, x),
                    false => S::across_fours::<false>(fours, x),
                };
                [sums, sums]
            }
            Unpacked::Twos(twos) => {
                let [first, last] = match K::Layout::WIDE {
                    true => S::across_twos::<true>(twos, x),
                    false => S::across_twos::<false>(twos, x),
                };
                if K::Layout::PARTS == 1 { [S::add_ints(first, last), last] } else { [first, last] }
            }
        }
    }
}

/// The codes of a block of sixteen rows. No loop, whose vectors would go through memory.
#[inline(always)]
fn codes<S: Operations, K: Kind>(of: &[&K::Block; ROWS], block: usize) -> [S::Bytes; ROWS] {
    [
        K::codes([of[0]], block),
        K::codes([of[1]], block),
        K::codes([of[2]], block),
        K::codes([of[3]], block),
        K::codes([of[4]], block),
        K::codes([of[5]], block),
        K::codes([of[6]], block),
        K::codes([of[7]], block),
        K::codes([of[8]], block),
        K::codes([of[9]], block),
        K::codes([of[10]], block),
        K::codes([of[11]], block),
        K::codes([of[12]], block),
        K::codes([of[13]], block),
        K::codes([of[14]], block),
        K::codes([of[15]], block),
    ]
}

/// The bytes of sixteen rows that have their small scales.
#[inline(always)]
fn small<B: Block>(of: &[&B; ROWS], from: usize) -> [[u8; SMALL]; ROWS] {
    let mut bytes = [[0; SMALL]; ROWS];
    for (bytes, of) in bytes.iter_mut().zip(of) {
        *bytes = *of.bytes()[from..].first_chunk().expect("a whole group");
    }
    bytes
}

/// Where a part's dot products start from, given the sum of its activations.
#[inline(always)]
fn start<S: Operations, L: Layout>(bias: i32, sum: i32) -> S::Ints {
    if L::WIDE { S::start_biased(sum) } else { S::ints(-bias * sum) }
}

/// Some tiles with all rows of activations: codes are unpacked to a buffer first.
fn together<K: Kind>(level: Level, tiles: &Tiles<'_>, x: &Activations, out: &Out<'_>, range: Range<usize>) {
    let at_once = level.tiles();
    let lines = vec![[Line([0; ROWS * STEP]); LINES]; at_once * BLOCKS];
    let mut buffer = Buffer::<K::Layout> { bias: K::BIAS, lines, scales: Scales::new(at_once * BLOCKS) };
    let mut sums = vec![[0.0; ROWS]; x.rows() * at_once];
    for tile in range.clone().step_by(at_once) {
        let some = at_once.min(range.end - tile);
        let sums = &mut sums[..x.rows() * some];
        sums.fill([0.0; ROWS]);
        for from in (0..x.blocks).step_by(BLOCKS) {
            let blocks = from..x.blocks.min(from + BLOCKS);
            for index in 0..some {
                let rows = tiles.groups::<K>(tile + index, blocks.start / K::BLOCKS..blocks.end / K::BLOCKS);
                level.run(Unpack::<K> { rows, buffer: &mut buffer, at: index * BLOCKS });
            }
            level.run(Multiply { buffer: &buffer, x, blocks, tiles: some, sums });
        }
        for (row, sums) in sums.chunks_exact(some).enumerate() {
            tiles.write(tile, row, sums, out);
        }
    }
}

/// Unpacks groups of sixteen rows to the blocks of a buffer from `at` on.
struct Unpack<'a, K: Kind> {
    rows: Rows<'a, K>,
    buffer: &'a mut Buffer<K::Layout>,
    at: usize,
}

impl<K: Kind> Work for Unpack<'_, K> {
    #[inline(always)]
    fn run<S: Operations>(self) {
        self.buffer.scales.unpack::<S, K>(&self.rows, self.at);
        for group in 0..self.rows.groups {
            let rows = self.rows.at(group);
            for block in 0..K::BLOCKS {
                let codes = codes::<S, K>(&rows, block);
                S::lines(&codes, &mut self.buffer.lines[self.at + group * K::BLOCKS + block]);
            }
        }
    }
}

/// Some blocks of one or two tiles in a buffer with all rows of activations.
struct Multiply<'a, L> {
    buffer: &'a Buffer<L>,
    x: &'a Activations,
    blocks: Range<usize>,
    tiles: usize,
    sums: &'a mut [[f32; ROWS]],
}

impl<L: Layout> Work for Multiply<'_, L> {
    #[inline(always)]
    fn run<S: Operations>(self) {
        let (from, groups) = (self.blocks.start, 0..self.blocks.len());
        if S::TILES == 2 && self.tiles == 2 {
            rows::<S, Buffer<L>, 2>(self.buffer, self.x, 0, groups, from, self.sums);
        } else {
            rows::<S, Buffer<L>, 1>(self.buffer, self.x, 0, groups, from, self.sums);
        }
    }
}
