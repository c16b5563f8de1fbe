//! How the entries of the cache are stored, as data: a [`KvCodec`] says it of keys and of values, a [`Run`] is entries that lie one
//! after another in one codec. Attention, copies and norms read the description; nothing else in the house knows a format.
//!
//! | part | layout |
//! | --- | --- |
//! | numbers | `[heads, capacity, dim]`, or the rows and the width of a [`Basis`]; an entry's codes packed along its channels, the first in the low bits |
//! | scales per channel | `[heads, capacity / group, 2, dim]` f16: the scales of the channels, then their zeros |
//! | scales per entry | `[heads, capacity, dim / group, 2]` f16: the scale and the zero of each group of channels |
//!
//! Codes that are looked up in a table ([`Levels`]) have no zeros: their scales per entry are `[heads, capacity, dim / group]` f16, and a
//! code stands for `level * scale`, the nearest number of those that there are.
//!
//! Levels that were found (`Scales::Apart`) have their own: beside an entry's codes lie its scale and its zero, or none where channels have
//! them, and then each number that lies apart behind its channel, `[heads, capacity, 2 * (1 or 0 + count)]` f16.
//!
//! Any other code stands for `code * scale + zero`; the scale is (largest - smallest) / most and the zero the smallest number, both rounded to
//! f16 before the codes are chosen. This is the asymmetric quantisation of KIVI (Liu et al. 2024, arXiv 2402.02750).

mod basis;
mod decode;
mod dual;
mod encode;
mod found;
mod levels;
mod owned;
mod run;

pub use basis::{Based, Basis, Cut, Map};
pub use decode::decode_rows;
pub(crate) use dual::turns;
pub use dual::{Dual, Transform};
pub use encode::encode;
pub use found::{Channels, Found, encode_in};
pub use levels::{Levels, TABLES, Table};
pub use owned::OwnedRun;
pub use run::{Gains, Parts, Run, append, parts_mut};

use std::fmt;
use std::ops::Range;

use half::f16;

/// How one number is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    F32,
    F16,
    /// The upper half of an f32.
    Bf16,
    /// Eight bits of E4M3FN (Micikevicius et al. 2022, arXiv 2209.05433): a sign, 4 bits of exponent, 3 of mantissa, no infinity. Numbers
    /// above 448 are stored as 448.
    F8,
    /// Codes of eight bits.
    U8,
    /// Codes of four bits.
    U4,
    /// Codes of two bits.
    U2,
}

impl Dtype {
    pub const fn bits(self) -> usize {
        match self {
            Dtype::F32 => 32,
            Dtype::F16 | Dtype::Bf16 => 16,
            Dtype::F8 | Dtype::U8 => 8,
            Dtype::U4 => 4,
            Dtype::U2 => 2,
        }
    }

    /// Whether the numbers are codes, which need scales.
    pub const fn is_code(self) -> bool {
        matches!(self, Dtype::U8 | Dtype::U4 | Dtype::U2)
    }

    /// Whether numbers are in full precision: the formats in which new entries arrive, and which are multiplied where they lie.
    pub const fn is_plain(self) -> bool {
        matches!(self, Dtype::F32 | Dtype::F16)
    }

    /// The largest code.
    pub const fn most(self) -> u8 {
        match self {
            Dtype::U4 => 15,
            Dtype::U2 => 3,
            _ => 255,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
            Dtype::F8 => "f8",
            Dtype::U8 => "u8",
            Dtype::U4 => "u4",
            Dtype::U2 => "u2",
        })
    }
}

/// Which codes share a scale, and a zero where they have one. `clip` is in hundredths, see [`Codec::clip`]; it is known to writers only, and lies
/// here where it takes no room: every segment has a codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scales {
    /// Numbers stand for themselves.
    None,
    /// Those of a channel over `group` consecutive entries, the first of a run being a group's first.
    PerChannel { group: u16, clip: u8 },
    /// `group` consecutive channels of an entry.
    PerEntry { group: u16, clip: u8 },
    /// The channels of an entry have those that lie in the run's [`Found`], where `of_channels`, else the entry has its own; and `count` of its
    /// numbers lie apart, whole.
    Apart { count: u8, of_channels: bool },
}

/// How keys, or values, are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Codec {
    pub dtype: Dtype,
    /// Of codes; [`Levels::Even`] of numbers that stand for themselves.
    pub levels: Levels,
    pub scales: Scales,
}

/// Bytes of a scale, or of a zero.
const SCALE: usize = size_of::<f16>();
/// Channels that are read at once, by a vector of the CPU and by a thread of a GPU.
const CHANNELS: usize = 8;

impl Codec {
    pub const F32: Codec = Codec::plain(Dtype::F32);
    pub const F16: Codec = Codec::plain(Dtype::F16);

    pub const fn plain(dtype: Dtype) -> Codec {
        Codec { dtype, levels: Levels::Even, scales: Scales::None }
    }

    /// Codes with a scale per channel over `group` entries.
    pub const fn per_channel(dtype: Dtype, group: u16) -> Codec {
        Codec { dtype, levels: Levels::Even, scales: Scales::PerChannel { group, clip: 100 } }
    }

    /// Codes with a scale per entry and `group` channels.
    pub const fn per_entry(dtype: Dtype, group: u16) -> Codec {
        Codec { dtype, levels: Levels::Even, scales: Scales::PerEntry { group, clip: 100 } }
    }

    /// Codes that are looked up in a table, with a scale per entry and `group` channels.
    pub const fn of_levels(dtype: Dtype, levels: Levels, group: u16) -> Codec {
        Codec { dtype, levels, scales: Scales::PerEntry { group, clip: 100 } }
    }

    /// Codes that are looked up in the levels of the run's [`Found`], with `count` numbers of a row apart.
    pub const fn apart(dtype: Dtype, count: u8, of_channels: bool) -> Codec {
        Codec { dtype, levels: Levels::Found, scales: Scales::Apart { count, of_channels } }
    }

    /// The same with codes that cover `percent` hundredths of the range.
    pub const fn clipped(self, percent: u8) -> Codec {
        let scales = match self.scales {
            Scales::None => Scales::None,
            Scales::PerChannel { group, .. } => Scales::PerChannel { group, clip: percent },
            Scales::PerEntry { group, .. } => Scales::PerEntry { group, clip: percent },
            apart @ Scales::Apart { .. } => apart,
        };
        Codec { scales, ..self }
    }

    /// The part of the range of numbers that share a scale which codes cover: both ends are scaled by it before scale and zero are taken.
    pub fn clip(self) -> f32 {
        match self.scales {
            Scales::None | Scales::Apart { .. } => 1.0,
            Scales::PerChannel { clip, .. } | Scales::PerEntry { clip, .. } => f32::from(clip) / 100.0,
        }
    }

    /// Entries that can only be encoded together.
    pub const fn entries(self) -> usize {
        match self.scales {
            Scales::PerChannel { group, .. } => group as usize,
            _ => 1,
        }
    }

    /// Bytes of the numbers of one entry of one head.
    pub const fn row(self, dim: usize) -> usize {
        dim * self.dtype.bits() / 8
    }

    /// Bytes of the scales of [`Self::entries`] entries of one head.
    pub const fn scales_row(self, dim: usize) -> usize {
        match self.scales {
            Scales::None => 0,
            Scales::PerChannel { .. } => dim * 2 * SCALE,
            Scales::PerEntry { group, .. } => dim / group as usize * self.scales_width(),
            // Beside scale and zero a channel and its number each.
            Scales::Apart { count, of_channels } => (count as usize + !of_channels as usize) * 2 * SCALE,
        }
    }

    /// Bytes of the scales that are read at once, to which they are aligned.
    pub const fn scales_width(self) -> usize {
        match (self.scales, self.levels) {
            (Scales::PerChannel { .. }, _) => CHANNELS * SCALE,
            // The scale and the zero.
            (_, Levels::Even) | (Scales::Apart { .. }, _) => 2 * SCALE,
            _ => SCALE,
        }
    }

    /// Why heads of `dim` elements cannot be stored so.
    pub fn check(self, dim: usize) -> Result<(), String> {
        if let Scales::Apart { count, .. } = self.scales {
            return match self.dtype {
                _ if self.levels != Levels::Found => Err(format!("numbers apart from {:?} levels", self.levels)),
                _ if usize::from(count) > dim => Err(format!("{count} numbers apart of {dim}")),
                Dtype::U4 | Dtype::U2 if dim.is_multiple_of(CHANNELS) => Ok(()),
                dtype => Err(format!("{dim} channels in {dtype} of levels that were found")),
            };
        }
        if self.levels != Levels::Even {
            let per_entry = matches!(self.scales, Scales::PerEntry { .. });
            if self.levels.number(self.dtype).is_none() || !per_entry {
                return Err(format!("{} of {:?} levels with {:?}", self.dtype, self.levels, self.scales));
            }
        }
        match (self.dtype.is_code(), self.scales) {
            (false, Scales::None) => return Ok(()),
            (true, Scales::PerChannel { group: 1.., .. }) => {}
            (true, Scales::PerEntry { group, .. }) if group > 0 && dim.is_multiple_of(group.into()) => {
                if !usize::from(group).is_multiple_of(CHANNELS) {
                    return Err(format!("groups of {group} channels, which are no multiple of {CHANNELS}"));
                }
            }
            (true, Scales::PerEntry { group, .. }) => return Err(format!("{dim} channels in groups of {group}")),
            _ => return Err(format!("numbers of {} with {:?}", self.dtype, self.scales)),
        }
        match dim.is_multiple_of(CHANNELS) {
            true => Ok(()),
            false => Err(format!("heads of {dim} channels, which are no multiple of {CHANNELS}")),
        }
    }

    /// The largest group of channels up to `most` into which heads of `dim` elements can be cut; None: there is none.
    pub fn channels(dim: usize, most: usize) -> Option<u16> {
        let groups = (1..=most.min(dim) / CHANNELS).rev().map(|times| times * CHANNELS);
        groups.filter(|group| dim.is_multiple_of(*group)).find_map(|group| u16::try_from(group).ok())
    }
}

/// How entries are deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// The slot of a deleted entry is taken by the last one, and used again by the next append.
    Entry,
    /// A deleted entry stays, masked, until all of its group are deleted.
    Group,
}

/// How the entries of a run are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KvCodec {
    pub key: Codec,
    pub value: Codec,
    /// The transform that keys and values went through before they were stored; all runs of a lane have one.
    pub dual: Dual,
    /// The coordinates in which keys and values are stored behind that, which each run of a lane may have for itself; None: those of the
    /// heads.
    pub basis: Option<Based>,
}

impl KvCodec {
    pub const F32: KvCodec = KvCodec::plain(Dtype::F32);
    pub const F16: KvCodec = KvCodec::plain(Dtype::F16);

    /// Keys and values as they are.
    pub const fn plain(dtype: Dtype) -> KvCodec {
        KvCodec::new(Codec::plain(dtype), Codec::plain(dtype), Dual::None)
    }

    /// In the coordinates of the heads.
    pub const fn new(key: Codec, value: Codec, dual: Dual) -> KvCodec {
        KvCodec { key, value, dual, basis: None }
    }

    /// Whether keys and values are in full precision and in the coordinates of the heads, so that new entries can be appended.
    pub const fn is_plain(self) -> bool {
        self.key.dtype.is_plain() && self.value.dtype.is_plain() && self.basis.is_none()
    }

    /// Rows that the keys of an entry have, and numbers of each, of a lane of `heads` heads of `dim`.
    pub const fn keys(self, heads: usize, dim: usize) -> (usize, usize) {
        match self.basis {
            Some(Based { keys, .. }) => (keys.rows as usize, keys.width as usize),
            None => (heads, dim),
        }
    }

    /// Like [`Self::keys`].
    pub const fn values(self, heads: usize, dim: usize) -> (usize, usize) {
        match self.basis {
            Some(Based { values, .. }) => (values.rows as usize, values.width as usize),
            None => (heads, dim),
        }
    }

    /// Entries that can only be encoded, and freed, together.
    pub const fn group(self) -> usize {
        let (key, value) = (self.key.entries(), self.value.entries());
        if key > value { key } else { value }
    }

    pub const fn deletion(self) -> Deletion {
        if self.group() > 1 { Deletion::Group } else { Deletion::Entry }
    }

    /// Bytes of the numbers of one entry of `heads` heads.
    pub const fn payload(self, heads: usize, dim: usize) -> usize {
        let ((keys, key), (values, value)) = (self.keys(heads, dim), self.values(heads, dim));
        keys * self.key.row(key) + values * self.value.row(value)
    }

    /// Bytes of the scales of [`Self::group`] entries of `heads` heads.
    pub const fn scales(self, heads: usize, dim: usize) -> usize {
        let ((keys, key), (values, value)) = (self.keys(heads, dim), self.values(heads, dim));
        let of_keys = self.group() / self.key.entries() * keys * self.key.scales_row(key);
        of_keys + self.group() / self.value.entries() * values * self.value.scales_row(value)
    }

    /// Bytes of `capacity` entries of `heads` heads, all parts.
    pub const fn bytes(self, heads: usize, dim: usize, capacity: usize) -> usize {
        capacity * self.payload(heads, dim) + capacity / self.group() * self.scales(heads, dim)
    }

    /// Bits that a number of a head takes, scales included.
    pub fn effective_bits(self, heads: usize, dim: usize) -> f64 {
        let bytes = self.payload(heads, dim) as f64 + self.scales(heads, dim) as f64 / self.group() as f64;
        bytes * 8.0 / (2 * heads * dim) as f64
    }

    /// Why heads of `dim` elements cannot be stored so.
    pub fn check(self, dim: usize) -> Result<(), String> {
        self.key.check(self.keys(1, dim).1)?;
        self.value.check(self.values(1, dim).1)?;
        if self.basis.is_some_and(Based::is_shared) && self.key != self.value {
            return Err(format!("one row of coordinates as {:?} and as {:?}", self.key, self.value));
        }
        let (key, value) = (self.key.entries(), self.value.entries());
        if key > 1 && value > 1 && key != value {
            return Err(format!("keys in groups of {key} entries and values in groups of {value}"));
        }
        self.dual.check(dim)
    }

    /// Where the parts of `capacity` entries lie in one buffer: those that are read in the widest words come first, so that all are
    /// aligned without padding.
    pub fn layout(self, heads: usize, dim: usize, capacity: usize) -> Parts<Range<usize>> {
        let numbers = |codec: Codec, (rows, width)| (rows * capacity * codec.row(width), codec.dtype.bits().min(16));
        let scales = |codec: Codec, (rows, width)| {
            (rows * (capacity / codec.entries()) * codec.scales_row(width), codec.scales_width())
        };
        let (keys, values) = (self.keys(heads, dim), self.values(heads, dim));
        let sizes =
            [numbers(self.key, keys), scales(self.key, keys), numbers(self.value, values), scales(self.value, values)];
        let mut order = [0, 1, 2, 3];
        order.sort_by_key(|part| std::cmp::Reverse(sizes[*part].1));
        let (mut ranges, mut end) = ([const { 0..0 }; 4], 0);
        for part in order {
            ranges[part] = end..end + sizes[part].0;
            end += sizes[part].0;
        }
        let [keys, key_scales, values, value_scales] = ranges;
        Parts { keys, key_scales, values, value_scales }
    }
}

#[cfg(test)]
mod tests;
