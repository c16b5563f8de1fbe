//! Entries that lie one after another in one codec, on the CPU and on a GPU alike.

use std::ops::Range;

use super::found::decode_in;
use super::{Based, Basis, Codec, Dtype, KvCodec, Map};
use crate::element::Element;
use crate::rotary::{self, New};

/// The four parts of entries; those without scales have empty ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts<B> {
    pub keys: B,
    pub key_scales: B,
    pub values: B,
    pub value_scales: B,
}

impl<B> Parts<B> {
    pub fn map<T>(self, mut of: impl FnMut(B) -> T) -> Parts<T> {
        Parts {
            keys: of(self.keys),
            key_scales: of(self.key_scales),
            values: of(self.values),
            value_scales: of(self.value_scales),
        }
    }
}

/// Factors of entries whose rows are shared by lanes that differ in the size of theirs: what is read is the row times its factor.
#[derive(Clone, Copy, Debug)]
pub struct Gains<'a> {
    /// Of the keys, `[heads, capacity]`.
    pub keys: &'a [f32],
    /// Of the values, likewise.
    pub values: &'a [f32],
}

/// Entries in one codec, whose parts are bytes: `&[u8]` on the CPU, `cuda::Slice<u8>` on a GPU.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a, B> {
    pub codec: KvCodec,
    /// The basis that the codec names.
    pub basis: Option<&'a Basis>,
    /// The factors of its rows; None: 1.
    pub gains: Option<Gains<'a>>,
    /// Entries in use.
    pub len: usize,
    /// Entries that there is room for, per head; a multiple of the codec's group.
    pub capacity: usize,
    pub parts: Parts<B>,
}

impl<'a> Run<'a, &'a [u8]> {
    /// The entries in a buffer that is laid out as [`KvCodec::layout`] says.
    pub fn of(codec: KvCodec, bytes: &'a [u8], heads: usize, dim: usize, len: usize, capacity: usize) -> Self {
        let parts = codec.layout(heads, dim, capacity).map(|range| &bytes[range]);
        Run { codec, basis: None, gains: None, len, capacity, parts }
    }

    /// The same in the basis that its codec names; values that have one row of coordinates with keys are read from theirs.
    pub fn with(self, basis: Option<&'a Basis>) -> Self {
        let based = basis.map(Basis::based);
        assert_eq!(based, self.codec.basis, "the basis of a run is the one that its codec names");
        let parts = match based.is_some_and(Based::is_shared) {
            true => Parts { values: self.parts.keys, value_scales: self.parts.key_scales, ..self.parts },
            false => self.parts,
        };
        Run { basis, parts, ..self }
    }

    /// The same with factors of its rows.
    pub fn scaled(self, gains: Option<Gains<'a>>) -> Self {
        Run { gains, ..self }
    }

    /// Keys and values that stand for themselves, `[heads, capacity, dim]` each.
    pub fn plain<T: Element>(keys: &'a [T], values: &'a [T], len: usize, capacity: usize) -> Self {
        let (keys, values) = (T::bytes(keys), T::bytes(values));
        let parts = Parts { keys, key_scales: &[][..], values, value_scales: &[][..] };
        Run { codec: KvCodec::plain(T::DTYPE), basis: None, gains: None, len, capacity, parts }
    }

    /// The coordinates of keys; None: those of the heads.
    pub fn key_map(&self) -> Option<&'a Map> {
        self.basis?.keys.as_ref()
    }

    /// Like [`Self::key_map`].
    pub fn value_map(&self) -> Option<&'a Map> {
        self.basis?.values.as_ref()
    }

    /// The keys of the entries of a head from `from` on, in the coordinates of the head: as many rows of `dim` as `to` holds.
    pub fn read_keys(&self, head: usize, from: usize, dim: usize, to: &mut [f32]) {
        self.read_unit_keys(head, from, dim, to);
        scale(self.key_gains(head, from), dim, to);
    }

    /// Like [`Self::read_keys`].
    pub fn read_values(&self, head: usize, from: usize, dim: usize, to: &mut [f32]) {
        read(self.value_map(), head, dim, to, |row, width, to| self.read_stored_values(row, from, width, to));
        scale(self.value_gains(head, from), dim, to);
    }

    /// As [`Self::read_keys`], without their factors.
    pub(crate) fn read_unit_keys(&self, head: usize, from: usize, dim: usize, to: &mut [f32]) {
        read(self.key_map(), head, dim, to, |row, width, to| self.read_stored_keys(row, from, width, to));
    }

    /// The factors of the keys of a head from entry `from` on.
    pub(crate) fn key_gains(&self, head: usize, from: usize) -> Option<&'a [f32]> {
        self.gains.map(|Gains { keys, .. }| &keys[head * self.capacity + from..(head + 1) * self.capacity])
    }

    /// Like [`Self::key_gains`].
    pub(crate) fn value_gains(&self, head: usize, from: usize) -> Option<&'a [f32]> {
        self.gains.map(|Gains { values, .. }| &values[head * self.capacity + from..(head + 1) * self.capacity])
    }

    /// The numbers of a row of the keys from entry `from` on as they are stored, `width` of each entry.
    pub(crate) fn read_stored_keys(&self, row: usize, from: usize, width: usize, to: &mut [f32]) {
        let Parts { keys, key_scales, .. } = self.parts;
        let found = self.basis.and_then(Basis::found_keys);
        decode_in(self.codec.key, found, keys, key_scales, (row, self.capacity), from, width, to);
    }

    /// Like [`Self::read_stored_keys`].
    pub(crate) fn read_stored_values(&self, row: usize, from: usize, width: usize, to: &mut [f32]) {
        let Parts { values, value_scales, .. } = self.parts;
        let found = self.basis.and_then(Basis::found_values);
        decode_in(self.codec.value, found, values, value_scales, (row, self.capacity), from, width, to);
    }

    /// The keys of a head where they are, if they are of this type, in its coordinates and in their size.
    pub(crate) fn keys<T: Element>(&self, head: usize, entries: Range<usize>, dim: usize) -> Option<&'a [T]> {
        if self.key_map().is_some() || self.gains.is_some() { None } else { self.stored_keys(head, entries, dim) }
    }

    /// Like [`Self::keys`].
    pub(crate) fn values<T: Element>(&self, head: usize, entries: Range<usize>, dim: usize) -> Option<&'a [T]> {
        if self.value_map().is_some() || self.gains.is_some() { None } else { self.stored_values(head, entries, dim) }
    }

    /// A row of the keys where they are, if they are of this type.
    pub(crate) fn stored_keys<T: Element>(&self, row: usize, entries: Range<usize>, width: usize) -> Option<&'a [T]> {
        rows(self.codec.key, self.parts.keys, row * self.capacity, entries, width)
    }

    /// Like [`Self::stored_keys`].
    pub(crate) fn stored_values<T: Element>(&self, row: usize, entries: Range<usize>, width: usize) -> Option<&'a [T]> {
        rows(self.codec.value, self.parts.values, row * self.capacity, entries, width)
    }
}

/// Multiplies rows by their factors.
fn scale(gains: Option<&[f32]>, dim: usize, rows: &mut [f32]) {
    for (row, gain) in rows.chunks_exact_mut(dim).zip(gains.into_iter().flatten()) {
        row.iter_mut().for_each(|x| *x *= gain);
    }
}

/// Rows of `head` from what `stored` gives of the row that it has in the store.
fn read(map: Option<&Map>, head: usize, dim: usize, to: &mut [f32], stored: impl Fn(usize, usize, &mut [f32])) {
    let Some(map) = map else { return stored(head, dim, to) };
    let width = usize::from(map.cut().width);
    let mut narrow = vec![0.0; to.len() / dim * width];
    stored(map.row(head), width, &mut narrow);
    map.expand(head, &narrow, to);
}

fn rows<T: Element>(codec: Codec, bytes: &[u8], start: usize, entries: Range<usize>, dim: usize) -> Option<&[T]> {
    let row = codec.row(dim);
    let bytes = || &bytes[(start + entries.start) * row..(start + entries.end) * row];
    (codec.dtype == T::DTYPE).then(|| T::of_bytes(bytes()))
}

/// The parts of a buffer that is laid out as [`KvCodec::layout`] says, to be written.
pub fn parts_mut(codec: KvCodec, bytes: &mut [u8], heads: usize, dim: usize, capacity: usize) -> Parts<&mut [u8]> {
    let Parts { keys, key_scales, values, value_scales } = codec.layout(heads, dim, capacity);
    let parts = [keys, key_scales, values, value_scales];
    let mut order = [0, 1, 2, 3];
    // Of two that start at one place, the empty one comes first.
    order.sort_by_key(|part| (parts[*part].start, parts[*part].end));
    let mut cut: [Option<&mut [u8]>; 4] = [const { None }; 4];
    let (mut left, mut at) = (bytes, 0);
    for part in order {
        let (this, rest) = left.split_at_mut(parts[part].end - at);
        (cut[part], left, at) = (Some(this), rest, parts[part].end);
    }
    let [keys, key_scales, values, value_scales] = cut.map(Option::unwrap_or_default);
    Parts { keys, key_scales, values, value_scales }
}

/// Writes new positions into a plain run of the KV heads `heads`; the first new row goes to entry `at`.
pub fn append(codec: KvCodec, new: New<'_>, heads: Range<usize>, dim: usize, to: Parts<&mut [u8]>, at: usize) {
    assert!(codec.is_plain(), "{codec:?}: only full precision is appended to");
    match (codec.key.dtype, codec.value.dtype) {
        (Dtype::F32, Dtype::F32) => one::<f32, f32>(codec, new, heads, dim, to, at),
        (Dtype::F32, _) => one::<f32, half::f16>(codec, new, heads, dim, to, at),
        (_, Dtype::F32) => one::<half::f16, f32>(codec, new, heads, dim, to, at),
        _ => one::<half::f16, half::f16>(codec, new, heads, dim, to, at),
    }
}

fn one<K: Element, V: Element>(
    codec: KvCodec,
    new: New<'_>,
    heads: Range<usize>,
    dim: usize,
    to: Parts<&mut [u8]>,
    at: usize,
) {
    rotary::append(new, codec.dual, heads, dim, K::of_bytes_mut(to.keys), V::of_bytes_mut(to.values), at);
}
