//! Lanes as attention on a device sees them.

use super::args;
use super::{Plain, Result, Slice, SliceMut, count, require};
use crate::attention::AttentionParams;
use crate::codec::{Codec, Dtype, Dual, KvCodec, Parts, Run, Transform};
use crate::element::Element;

impl<'a> Run<'a, Slice<'a, u8>> {
    /// The entries in a buffer that is laid out as [`KvCodec::layout`] says.
    pub fn of_slice(
        codec: KvCodec,
        bytes: Slice<'a, u8>,
        heads: usize,
        dim: usize,
        len: usize,
        capacity: usize,
    ) -> Self {
        let parts = codec.layout(heads, dim, capacity).map(|range| bytes.part(range));
        Run { codec, basis: None, gains: None, len, capacity, parts }
    }

    /// Keys and values that stand for themselves, `[heads, capacity, dim]` each.
    pub fn of_plain<T: Element + Plain>(keys: Slice<'a, T>, values: Slice<'a, T>, len: usize, capacity: usize) -> Self {
        let (keys, values) = (keys.bytes(), values.bytes());
        let parts = Parts { keys, key_scales: keys.part(0..0), values, value_scales: values.part(0..0) };
        Run { codec: KvCodec::plain(T::DTYPE), basis: None, gains: None, len, capacity, parts }
    }
}

/// The parts of a buffer that is laid out as [`KvCodec::layout`] says, to be written.
pub fn parts_mut(
    codec: KvCodec,
    bytes: SliceMut<'_, u8>,
    heads: usize,
    dim: usize,
    capacity: usize,
) -> Parts<SliceMut<'_, u8>> {
    // SAFETY: the parts of a layout do not overlap, and `bytes` is borrowed for as long as they are.
    codec.layout(heads, dim, capacity).map(|range| unsafe {
        assert!(range.end <= bytes.len(), "bytes {range:?} of {}", bytes.len());
        SliceMut::from_address(bytes.address() + range.start as u64, range.len())
    })
}

/// Refuses numbers and scales that are not as large, or not so aligned, as a part of a run must be.
pub(super) fn require_part(
    codec: Codec,
    numbers: (usize, u64),
    scales: (usize, u64),
    (heads, dim, capacity): (usize, usize, usize),
) -> Result<()> {
    codec.check(dim).map_err(super::Error::Argument)?;
    let group = codec.entries();
    let want = heads * capacity * codec.row(dim);
    let want_scales = heads * (capacity / group) * codec.scales_row(dim);
    require(capacity.is_multiple_of(group) && numbers.0 == want && scales.0 == want_scales, || {
        format!(
            "{} bytes and {} of scales for {heads} heads of {capacity} entries of {dim}, {want} and {want_scales} bytes as {codec:?}",
            numbers.0, scales.0
        )
    })?;
    let width = codec.dtype.bits().min(16) as u64;
    let pairs = codec.scales_width() as u64;
    require(numbers.1.is_multiple_of(width) && (want_scales == 0 || scales.1.is_multiple_of(pairs)), || {
        format!("entries that are not aligned to {width} bytes, or scales that are not to {pairs}")
    })
}

/// How a transform is told to a kernel.
pub(super) fn number_of(transform: Transform) -> u32 {
    match transform {
        Transform::None => 0,
        Transform::Hadamard => 1,
        Transform::Random => 2,
    }
}

/// Refuses numbers that are not in full precision.
pub(super) fn dtype_of(codec: Codec) -> Result<u32> {
    match codec.dtype {
        Dtype::F32 | Dtype::F16 => Ok(args::Codec::from(codec).dtype),
        other => require(false, || format!("entries in {other} are written by `encode`")).map(|()| 0),
    }
}

/// A lane: its runs in order of position, of any codecs with one transform, keys stored rotated.
#[derive(Clone)]
pub struct Lane<'a> {
    /// KV heads of the lane.
    pub heads: usize,
    pub runs: Vec<Run<'a, Slice<'a, u8>>>,
    /// Which entries no longer count (over all runs, in order), the same for all heads. On the host: sent with a launch. None: all
    /// count.
    pub dead: Option<&'a [bool]>,
    /// The position of every entry, in any order; the same for all heads. On the host: sent where a window needs it.
    pub positions: Option<&'a [u32]>,
    /// How many of the last entries, which are the queries' own, each query of [`prefill`](super::prefill) sees, as
    /// [`LaneView::ends`](crate::attention::LaneView::ends). On the host: sent with a launch. None: those up to its own.
    pub ends: Option<&'a [u32]>,
}

impl<'a> Lane<'a> {
    /// A lane whose entries all count.
    pub fn new(heads: usize, runs: Vec<Run<'a, Slice<'a, u8>>>) -> Self {
        Lane { heads, runs, dead: None, positions: None, ends: None }
    }

    /// The positions of the entries, when `params` have a window.
    pub(super) fn windowed(&self, params: &AttentionParams) -> Result<Option<&'a [u32]>> {
        if params.window.is_none() {
            return Ok(None);
        }
        let positions = self.positions.unwrap_or(&[]);
        require(positions.len() == self.len(), || {
            format!("{} positions of {} entries under a window", positions.len(), self.len())
        })?;
        Ok(Some(positions))
    }

    /// Entries per head.
    pub fn len(&self) -> usize {
        self.runs.iter().map(|run| run.len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.runs.iter().all(|run| run.len == 0)
    }

    /// The marks of the dead as the kernels read them; none while all entries count.
    pub(super) fn marks(&self) -> Vec<u8> {
        self.dead.unwrap_or_default().iter().map(|dead| u8::from(*dead)).collect()
    }

    /// The transforms that the keys and values were stored through.
    pub fn dual(&self) -> Dual {
        self.runs.first().map_or(Dual::None, |run| run.codec.dual)
    }

    /// Checks the lane and adds its runs to those of a launch.
    pub(super) fn describe(&self, dim: usize, runs: &mut Vec<args::Run>) -> Result<()> {
        let (mut start, dual) = (0, self.dual());
        for run in &self.runs {
            let Run { codec, len, capacity, parts: Parts { keys, key_scales, values, value_scales }, .. } = run;
            let (shape, of) = ((self.heads, dim, *capacity), |part: &Slice<'_, u8>| (part.len(), part.address()));
            require(len <= capacity && codec.dual == dual, || {
                format!("{len} of {capacity} entries, {:?} beside {dual:?}", codec.dual)
            })?;
            require(codec.basis.is_none(), || "entries in a basis, which the CUDA kernels do not read".into())?;
            require(run.gains.is_none(), || "entries with factors, which the CUDA kernels do not read".into())?;
            dual.check(dim).map_err(super::Error::Argument)?;
            require_part(codec.key, of(keys), of(key_scales), shape)?;
            require_part(codec.value, of(values), of(value_scales), shape)?;
            runs.push(args::Run {
                keys: keys.address(),
                key_scales: key_scales.address(),
                values: values.address(),
                value_scales: value_scales.address(),
                start: count(start, "entries")?,
                len: count(*len, "entries")?,
                capacity: count(*capacity, "entries")?,
                key: codec.key.into(),
                value: codec.value.into(),
                unused: 0,
            });
            start += len;
        }
        count(start, "entries")?;
        require(self.dead.as_ref().is_none_or(|dead| dead.len() == start), || {
            format!("{start} entries, as many marks of the dead")
        })
    }
}
