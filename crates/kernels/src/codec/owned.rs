//! Entries that own their memory.

use std::sync::Arc;

use super::{Basis, Gains, KvCodec, Map, Parts, Run, Transform, encode_in, parts_mut};
use crate::element::Element;

/// Entries of some heads in one codec, on the CPU: for whoever has no pool to take memory from.
#[derive(Clone, Debug)]
pub struct OwnedRun {
    codec: KvCodec,
    basis: Option<Arc<Basis>>,
    /// Factors of the keys and of the values.
    gains: Option<[Vec<f32>; 2]>,
    heads: usize,
    dim: usize,
    len: usize,
    capacity: usize,
    /// Aligned for every dtype. The bytes behind the last part are not of the run.
    words: Vec<f32>,
}

impl OwnedRun {
    /// Room for `capacity` entries; what is not written reads as NaN.
    pub fn new(codec: KvCodec, heads: usize, dim: usize, capacity: usize) -> Self {
        let words = codec.bytes(heads, dim, capacity).div_ceil(size_of::<f32>());
        OwnedRun {
            codec,
            basis: None,
            gains: None,
            heads,
            dim,
            len: 0,
            capacity,
            words: vec![f32::from_bits(u32::MAX); words],
        }
    }

    /// As [`OwnedRun::new`], in a basis.
    pub fn based(codec: KvCodec, basis: Arc<Basis>, capacity: usize) -> Self {
        let (heads, dim) = basis.shape();
        let codec = KvCodec { basis: Some(basis.based()), ..codec };
        OwnedRun { basis: Some(basis), ..OwnedRun::new(codec, heads, dim, capacity) }
    }

    /// Writes entries behind the others; `keys` and `values` are `[heads, n, dim]`. In a codec of groups `n` is a multiple of them.
    pub fn push(&mut self, keys: &[f32], values: &[f32]) {
        let OwnedRun { codec, heads, dim, capacity, len: at, .. } = *self;
        let n = keys.len() / (heads * dim);
        let transformed = |rows: &[f32], through: Transform, map: Option<&Map>| {
            let mut rows = rows.to_vec();
            through.apply(&mut rows, dim);
            map.map_or(rows.clone(), |map| map.project(&rows, n))
        };
        let through = [codec.dual.keys(), codec.dual.values()];
        let basis = self.basis.as_deref();
        let shared = basis.filter(|basis| basis.based().is_shared());
        let [keys, values] = match shared.and_then(|basis| {
            basis.coordinates(&transformed(keys, through[0], None), &transformed(values, through[1], None), n)
        }) {
            Some(both) => [both, Vec::new()],
            None => [
                transformed(keys, through[0], basis.and_then(|basis| basis.keys.as_ref())),
                transformed(values, through[1], basis.and_then(|basis| basis.values.as_ref())),
            ],
        };
        let size = codec.bytes(heads, dim, capacity);
        let bytes = &mut f32::bytes_mut(&mut self.words)[..size];
        let to = parts_mut(codec, bytes, heads, dim, capacity);
        let ((rows, width), (value_rows, value_width)) = (codec.keys(heads, dim), codec.values(heads, dim));
        let (found, found_values) = (basis.and_then(Basis::found_keys), basis.and_then(Basis::found_values));
        encode_in(codec.key, found, &keys, rows, width, to.keys, to.key_scales, capacity, at);
        encode_in(
            codec.value,
            found_values,
            &values,
            value_rows,
            value_width,
            to.values,
            to.value_scales,
            capacity,
            at,
        );
        self.len += n;
    }

    /// The entries with factors of their rows, `[heads, capacity]` each.
    pub fn scaled(self, keys: Vec<f32>, values: Vec<f32>) -> Self {
        let numbers = self.heads * self.capacity;
        assert!(keys.len() == numbers && values.len() == numbers, "a factor for every row");
        OwnedRun { gains: Some([keys, values]), ..self }
    }

    pub fn codec(&self) -> KvCodec {
        self.codec
    }

    /// KV heads.
    pub fn heads(&self) -> usize {
        self.heads
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The parts in one buffer, as [`KvCodec::layout`] says.
    pub fn bytes(&self) -> &[u8] {
        &f32::bytes(&self.words)[..self.codec.bytes(self.heads, self.dim, self.capacity)]
    }

    pub fn parts(&self) -> Parts<&[u8]> {
        self.run().parts
    }

    pub fn run(&self) -> Run<'_, &[u8]> {
        let gains = self.gains.as_ref().map(|[keys, values]| Gains { keys, values });
        let run = Run::of(self.codec, self.bytes(), self.heads, self.dim, self.len, self.capacity);
        run.with(self.basis.as_deref()).scaled(gains)
    }
}
