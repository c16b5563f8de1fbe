//! Bases of heads: coordinates in which keys and values are stored as fewer numbers, or in another order.
//!
//! A key `k = D c` is read without being brought back, since `q . (D c) = (D^t q) . c`; of values `D c` the weighted sum is
//! `D (sum of w c)`. Both happen once per layer and step, whatever the number of entries. `D` is a choice of channels, an order of them,
//! or has orthonormal columns, of each head by itself or of all heads of a lane together; `c = D^t k`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Found;

/// The coordinates of keys, or of values.
#[derive(Clone, Debug)]
pub struct Map {
    heads: usize,
    dim: usize,
    cut: Cut,
    kind: Kind,
}

/// How many rows an entry has on one side, and how many numbers each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cut {
    /// One per head, or one for all.
    pub rows: u16,
    pub width: u16,
}

#[derive(Clone, Debug)]
enum Kind {
    /// The channels of each head in the order in which they are stored, `[heads, width]`; those that are not stored read as 0.
    Channels(Box<[u16]>),
    /// Orthonormal rows, the columns of `D`: `[heads, width, dim]`, or `[width, heads * dim]` of all heads together.
    Rows(Box<[f32]>),
}

impl Map {
    /// Stores these channels of each head, `[heads, width]`, in this order. Refuses channels that a head of `dim` has not, or twice.
    pub fn channels(heads: usize, dim: usize, channels: Vec<u16>) -> Result<Map, String> {
        let width = channels.len() / heads.max(1);
        let cut = cut(heads, heads, dim, width)?;
        if channels.len() != heads * width {
            return Err(format!("{} channels of {heads} heads", channels.len()));
        }
        for of in channels.chunks_exact(width) {
            let mut seen = vec![false; dim];
            for channel in of {
                match seen.get_mut(usize::from(*channel)) {
                    Some(seen) if !*seen => *seen = true,
                    _ => {
                        return Err(format!("channel {channel} of a head of {dim}, which is not there or there twice"));
                    }
                }
            }
        }
        Ok(Map { heads, dim, cut, kind: Kind::Channels(channels.into()) })
    }

    /// Stores the coordinates of each head along `width` orthonormal rows: `rows` is `[heads, width, dim]`.
    pub fn per_head(heads: usize, dim: usize, width: usize, rows: Vec<f32>) -> Result<Map, String> {
        Map::rows(heads, dim, cut(heads, heads, dim, width)?, rows)
    }

    /// Stores the coordinates of all heads together along `width` orthonormal rows: `rows` is `[width, heads * dim]`.
    pub fn joint(heads: usize, dim: usize, width: usize, rows: Vec<f32>) -> Result<Map, String> {
        Map::rows(heads, dim, cut(1, heads, dim, width)?, rows)
    }

    /// As [`Map::per_head`], or with one row as [`Map::joint`], of coordinates in which others have a part too, so that there may be more of them
    /// than channels.
    pub fn part(heads: usize, dim: usize, (of, width): (usize, usize), rows: Vec<f32>) -> Result<Map, String> {
        match (u16::try_from(of), u16::try_from(width)) {
            (Ok(of), Ok(width @ 1..)) if of == 1 || usize::from(of) == heads => {
                Map::rows(heads, dim, Cut { rows: of, width }, rows)
            }
            _ => Err(format!("{width} coordinates in {of} rows of {heads} heads")),
        }
    }

    fn rows(heads: usize, dim: usize, cut: Cut, rows: Vec<f32>) -> Result<Map, String> {
        let numbers = usize::from(cut.width) * dim * heads;
        if rows.len() != numbers {
            return Err(format!("rows of {} numbers in all, {numbers} are meant", rows.len()));
        }
        if rows.iter().any(|x| !x.is_finite()) {
            return Err("rows with numbers that are not finite".into());
        }
        Ok(Map { heads, dim, cut, kind: Kind::Rows(rows.into()) })
    }

    pub fn cut(&self) -> Cut {
        self.cut
    }

    /// The row of an entry that belongs to `head`.
    pub fn row(&self, head: usize) -> usize {
        if self.cut.rows == 1 { 0 } else { head }
    }

    /// The element of `D`, of `head`, that takes a coordinate to a channel.
    pub fn back(&self, head: usize, channel: usize, coordinate: usize) -> f32 {
        let width = self.width();
        match &self.kind {
            Kind::Channels(channels) => {
                f32::from(u8::from(usize::from(channels[head * width + coordinate]) == channel))
            }
            Kind::Rows(rows) => self.along(rows, head, coordinate)[channel],
        }
    }

    /// The part of an orthonormal row that is of `head`.
    fn along<'a>(&self, rows: &'a [f32], head: usize, coordinate: usize) -> &'a [f32] {
        let (dim, width) = (self.dim, self.width());
        let start = match self.cut.rows {
            1 => coordinate * self.heads * dim + head * dim,
            _ => (head * width + coordinate) * dim,
        };
        &rows[start..start + dim]
    }

    fn width(&self) -> usize {
        self.cut.width.into()
    }

    /// Bytes of channels and matrices.
    fn bytes(&self) -> usize {
        match &self.kind {
            Kind::Channels(channels) => size_of_val(&channels[..]),
            Kind::Rows(rows) => size_of_val(&rows[..]),
        }
    }

    /// Brings `n` entries, `[heads, n, dim]`, to the coordinates in which they are stored, `[rows, n, width]`.
    pub fn project(&self, entries: &[f32], n: usize) -> Vec<f32> {
        let Map { heads, dim, .. } = *self;
        let (rows, width) = (usize::from(self.cut.rows), self.width());
        assert_eq!(entries.len(), heads * n * dim, "{n} entries of {heads} heads");
        let mut out = vec![0.0; rows * n * width];
        match &self.kind {
            Kind::Channels(channels) => {
                let heads = entries.chunks_exact((n * dim).max(1)).zip(out.chunks_exact_mut((n * width).max(1)));
                for ((entries, out), channels) in heads.zip(channels.chunks_exact(width)) {
                    for (entry, out) in entries.chunks_exact(dim).zip(out.chunks_exact_mut(width)) {
                        out.iter_mut().zip(channels).for_each(|(out, channel)| *out = entry[usize::from(*channel)]);
                    }
                }
            }
            Kind::Rows(along) => {
                for (head, entries) in entries.chunks_exact((n * dim).max(1)).enumerate() {
                    let out = &mut out[self.row(head) * n * width..][..n * width];
                    for (entry, out) in entries.chunks_exact(dim).zip(out.chunks_exact_mut(width)) {
                        for (coordinate, out) in out.iter_mut().enumerate() {
                            *out += dot(self.along(along, head, coordinate), entry);
                        }
                    }
                }
            }
        }
        out
    }

    /// Brings stored rows of `head`, `[n, width]`, back: `[n, dim]`.
    pub fn expand(&self, head: usize, stored: &[f32], to: &mut [f32]) {
        let (dim, width) = (self.dim, self.width());
        assert_eq!(stored.len() * dim, to.len() * width);
        for (stored, to) in stored.chunks_exact(width).zip(to.chunks_exact_mut(dim)) {
            to.fill(0.0);
            self.add(head, stored, to);
        }
    }

    /// The queries of `head`, `[queries, dim]`, as they meet stored rows: `[queries, width]`.
    pub fn queries(&self, head: usize, queries: &[f32], to: &mut [f32]) {
        let (dim, width) = (self.dim, self.width());
        assert_eq!(queries.len() * width, to.len() * dim);
        for (query, to) in queries.chunks_exact(dim).zip(to.chunks_exact_mut(width)) {
            match &self.kind {
                Kind::Channels(channels) => {
                    let channels = &channels[head * width..][..width];
                    to.iter_mut().zip(channels).for_each(|(to, channel)| *to = query[usize::from(*channel)]);
                }
                Kind::Rows(rows) => {
                    for (coordinate, to) in to.iter_mut().enumerate() {
                        *to = dot(self.along(rows, head, coordinate), query);
                    }
                }
            }
        }
    }

    /// Adds weighted sums of stored rows of `head`, `[queries, width]`, to results, `[queries, dim]`.
    pub fn outputs(&self, head: usize, sums: &[f32], out: &mut [f32]) {
        for (sums, out) in sums.chunks_exact(self.width()).zip(out.chunks_exact_mut(self.dim)) {
            self.add(head, sums, out);
        }
    }

    /// Adds one stored row of `head`, brought back.
    fn add(&self, head: usize, stored: &[f32], to: &mut [f32]) {
        let width = self.width();
        match &self.kind {
            Kind::Channels(channels) => {
                let channels = &channels[head * width..][..width];
                stored.iter().zip(channels).for_each(|(x, channel)| to[usize::from(*channel)] += x);
            }
            Kind::Rows(rows) => {
                for (coordinate, x) in stored.iter().enumerate() {
                    let row = self.along(rows, head, coordinate);
                    to.iter_mut().zip(row).for_each(|(to, of)| *to += x * of);
                }
            }
        }
    }
}

fn cut(rows: usize, heads: usize, dim: usize, width: usize) -> Result<Cut, String> {
    let most = heads * dim / rows.max(1);
    let narrow = |n: usize| u16::try_from(n).map_err(|_| format!("{n} numbers in a row"));
    match width {
        0 => Err(format!("no coordinates of heads of {dim}")),
        _ if width > most => Err(format!("{width} coordinates of {most} channels")),
        _ => Ok(Cut { rows: narrow(rows)?, width: narrow(width)? }),
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut out = [0.0];
    crate::simd::scores(a, a.len(), b, 1.0, &mut out, 1);
    out[0]
}

/// The coordinates in which the entries of some heads are stored: of keys, of values, or of both.
#[derive(Clone, Debug)]
pub struct Basis {
    id: u32,
    heads: usize,
    dim: usize,
    pub keys: Option<Map>,
    pub values: Option<Map>,
    /// Of keys and of values.
    found: Option<Box<[Found; 2]>>,
    /// Where keys and values are stored as one row of coordinates: the weights with which they make it.
    shared: Option<[f32; 2]>,
}

/// A basis as a codec names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Based {
    /// Which one; 0 where only its sizes are known.
    pub id: u32,
    pub keys: Cut,
    /// Without rows where values are read from the coordinates of keys.
    pub values: Cut,
}

impl Based {
    /// Whether keys and values are stored as one row of coordinates.
    pub const fn is_shared(self) -> bool {
        self.values.rows == 0
    }

    /// One of which only the sizes are known: rows of an entry and numbers of each, of keys and of values. None for more than can be said.
    pub fn of_sizes(keys: (usize, usize), values: (usize, usize)) -> Option<Based> {
        let cut = |(rows, width)| Some(Cut { rows: u16::try_from(rows).ok()?, width: u16::try_from(width).ok()? });
        Some(Based { id: 0, keys: cut(keys)?, values: cut(values)? })
    }
}

impl PartialEq for Basis {
    fn eq(&self, other: &Basis) -> bool {
        self.id == other.id
    }
}

impl Basis {
    /// A side without a map is stored as it is. Refuses maps that are not of `heads` heads of `dim` channels.
    pub fn new(heads: usize, dim: usize, keys: Option<Map>, values: Option<Map>) -> Result<Arc<Basis>, String> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        if let Some(map) = keys.iter().chain(&values).find(|map| (map.heads, map.dim) != (heads, dim)) {
            return Err(format!("a map of {} heads of {} for {heads} heads of {dim}", map.heads, map.dim));
        }
        cut(heads, heads, dim, dim)?;
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(Basis { id, heads, dim, keys, values, found: None, shared: None }))
    }

    /// One row of coordinates for keys and values together: either is brought back by its own map, and the coordinates are the sum of what
    /// the two maps make of keys and values, times `weights`. Refuses maps with rows of other numbers.
    pub fn shared(heads: usize, dim: usize, keys: Map, values: Map, weights: [f32; 2]) -> Result<Arc<Basis>, String> {
        let (cut, other) = (keys.cut, values.cut);
        if cut != other {
            return Err(format!("one row of coordinates for {cut:?} of keys and {other:?} of values"));
        }
        if weights.iter().any(|weight| !weight.is_finite()) {
            return Err("weights that are not finite".into());
        }
        let basis = Arc::unwrap_or_clone(Basis::new(heads, dim, Some(keys), Some(values))?);
        Ok(Arc::new(Basis { shared: Some(weights), ..basis }))
    }

    /// The part that keys and values, `[heads, n, dim]` each, have in their one row of coordinates, `[rows, n, width]`; None where each has its
    /// own.
    pub fn coordinates(&self, keys: &[f32], values: &[f32], n: usize) -> Option<Vec<f32>> {
        let ([of_key, of_value], keys_map, values_map) = (self.shared?, self.keys.as_ref()?, self.values.as_ref()?);
        let mut out = keys_map.project(keys, n);
        let add = |(out, x): (&mut f32, f32)| *out = of_key * *out + of_value * x;
        out.iter_mut().zip(values_map.project(values, n)).for_each(add);
        Some(out)
    }

    /// The coordinates of the heads, in codes whose levels a calibration has found.
    pub fn calibrated(heads: usize, dim: usize, keys: Found, values: Found) -> Result<Arc<Basis>, String> {
        for found in [&keys, &values] {
            if let Some(channels) = found.channels().filter(|channels| channels.scales.len() != heads * dim) {
                return Err(format!("scales of {} channels for {heads} heads of {dim}", channels.scales.len()));
            }
        }
        let basis = Arc::unwrap_or_clone(Basis::new(heads, dim, None, None)?);
        Ok(Arc::new(Basis { found: Some(Box::new([keys, values])), ..basis }))
    }

    /// The findings of a calibration about keys.
    pub fn found_keys(&self) -> Option<&Found> {
        self.found.as_deref().map(|[keys, _]| keys)
    }

    /// The findings of a calibration about values.
    pub fn found_values(&self) -> Option<&Found> {
        self.found.as_deref().map(|[_, values]| values)
    }

    /// KV heads, and channels of each.
    pub fn shape(&self) -> (usize, usize) {
        (self.heads, self.dim)
    }

    /// Its name and sizes in codecs.
    pub fn based(&self) -> Based {
        let whole = Cut { rows: self.heads as u16, width: self.dim as u16 };
        let of = |map: &Option<Map>| map.as_ref().map_or(whole, Map::cut);
        let (keys, values) = (of(&self.keys), of(&self.values));
        let rows = if self.shared.is_some() { 0 } else { values.rows };
        Based { id: self.id, keys, values: Cut { rows, ..values } }
    }

    /// Bytes that it takes, whoever shares it.
    pub fn bytes(&self) -> usize {
        let found: usize = self.found.iter().flat_map(|both| both.iter()).map(Found::bytes).sum();
        size_of::<Basis>() + found + self.keys.iter().chain(&self.values).map(Map::bytes).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Deterministic, between -1 and 1.
    fn numbers(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 37 + seed * 101) % 61) as f32 / 30.0 - 1.0).collect()
    }

    fn maps(heads: usize, dim: usize, width: usize) -> Vec<Map> {
        let channels = (0..heads).flat_map(|head| (0..width).map(move |i| ((i * 5 + head) % dim) as u16)).collect();
        let rows = numbers(heads * dim * width, 1);
        vec![
            Map::channels(heads, dim, channels).expect("channels"),
            Map::per_head(heads, dim, width, rows.clone()).expect("rows per head"),
            Map::joint(heads, dim, width, rows).expect("rows of all"),
        ]
    }

    #[test]
    fn entries_are_projected_as_the_matrices_say() {
        let (heads, dim, width, n) = (3, 16, 11, 5);
        let entries = numbers(heads * n * dim, 3);
        for map in maps(heads, dim, width) {
            let rows = usize::from(map.cut().rows);
            let into = |head: usize, coordinate: usize, channel: usize| match &map.kind {
                Kind::Channels(channels) => f32::from(u8::from(channels[head * width + coordinate] == channel as u16)),
                Kind::Rows(along) if rows == 1 => along[coordinate * heads * dim + head * dim + channel],
                Kind::Rows(along) => along[(head * width + coordinate) * dim + channel],
            };
            let got = map.project(&entries, n);
            for (i, got) in got.iter().enumerate() {
                let (row, entry, coordinate) = (i / (n * width), i / width % n, i % width);
                let of = |head: usize| -> f64 {
                    let entry = &entries[(head * n + entry) * dim..][..dim];
                    let terms =
                        entry.iter().enumerate().map(|(c, x)| f64::from(into(head, coordinate, c)) * f64::from(*x));
                    terms.sum()
                };
                let want: f64 = if rows == 1 { (0..heads).map(of).sum() } else { of(row) };
                assert!((f64::from(*got) - want).abs() < 1e-4, "{got} for {want}");
            }
        }
    }

    #[test]
    fn queries_meet_stored_rows_as_they_meet_keys() {
        let (heads, dim, width) = (2, 16, 9);
        for map in maps(heads, dim, width) {
            for head in 0..heads {
                let (stored, query) = (numbers(width, 7), numbers(dim, 8));
                let want: Vec<f64> = (0..dim)
                    .map(|channel| {
                        let terms = stored.iter().enumerate();
                        terms.map(|(c, x)| f64::from(map.back(head, channel, c)) * f64::from(*x)).sum()
                    })
                    .collect();
                let (mut key, mut out, mut turned) = (vec![9.0; dim], vec![0.5; dim], vec![9.0; width]);
                map.expand(head, &stored, &mut key);
                map.outputs(head, &stored, &mut out);
                map.queries(head, &query, &mut turned);
                for ((key, out), want) in key.iter().zip(&out).zip(&want) {
                    assert!((f64::from(*key) - want).abs() < 1e-5 && (f64::from(*out) - want - 0.5).abs() < 1e-5);
                }
                let score = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
                assert!((score(&query, &key) - score(&turned, &stored)).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn one_row_of_coordinates_is_made_from_both_sides() {
        let (heads, dim, width, n) = (2, 16, 9, 3);
        let [keys, values] = [1, 2].map(|seed| numbers(heads * n * dim, seed));
        for (map, other) in maps(heads, dim, width).into_iter().zip(maps(heads, dim, width)) {
            let basis = Basis::shared(heads, dim, map.clone(), other.clone(), [0.5, 3.0]).expect("alike");
            let based = basis.based();
            assert!(based.is_shared() && based.keys == map.cut() && based.values.width == map.cut().width);
            let want = map.project(&keys, n).into_iter().zip(other.project(&values, n)).map(|(k, v)| 0.5 * k + 3.0 * v);
            assert_eq!(basis.coordinates(&keys, &values, n).expect("one row"), want.collect::<Vec<_>>());
            let apart = Basis::new(heads, dim, Some(map), Some(other)).expect("a basis");
            assert!(!apart.based().is_shared() && apart.coordinates(&keys, &values, n).is_none());
        }
        let [_, each, joint] = &maps(heads, dim, width)[..] else { panic!("three maps") };
        let refuse = |weights| Basis::shared(heads, dim, each.clone(), joint.clone(), weights).expect_err("apart");
        assert!(refuse([1.0; 2]).contains("one row"));
        assert!(Basis::shared(heads, dim, each.clone(), each.clone(), [1.0, f32::NAN]).is_err());
    }

    #[test]
    fn impossible_maps_say_why() {
        let refuse = |map: Result<Map, String>| map.expect_err("an impossible map");
        assert!(refuse(Map::channels(2, 8, vec![0, 1, 8, 2])).contains("channel 8"));
        assert!(refuse(Map::channels(2, 8, vec![0, 1, 3, 3])).contains("twice"));
        assert!(refuse(Map::channels(2, 8, vec![0, 1, 3])).contains("3 channels of 2 heads"));
        assert!(refuse(Map::channels(2, 8, vec![])).contains("no coordinates"));
        assert!(refuse(Map::per_head(2, 8, 9, vec![0.0; 144])).contains("9 coordinates of 8"));
        assert!(refuse(Map::joint(2, 8, 9, vec![0.0; 143])).contains("143"));
        assert!(refuse(Map::joint(1, 8, 1, vec![f32::NAN; 8])).contains("not finite"));
        assert!(Map::part(2, 8, (2, 9), vec![0.0; 144]).is_ok() && Map::part(2, 8, (1, 33), vec![0.0; 528]).is_ok());
        for impossible in [(3, 4), (2, 0), (1, 70_000)] {
            assert!(refuse(Map::part(2, 8, impossible, vec![0.0; 64])).contains("rows of 2 heads"));
        }
        assert!(refuse(Map::part(2, 8, (2, 9), vec![0.0; 143])).contains("143"));
        let map = Map::joint(2, 8, 9, vec![0.0; 144]).expect("a map");
        assert!(Basis::new(2, 16, Some(map), None).expect_err("other heads").contains("heads of 8"));
    }
}
