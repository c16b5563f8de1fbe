//! Codes that are spaced evenly: which of them share a scale and a zero.

use prefixkv_kernels::codec::{Codec, Dtype, Dual, KvCodec};

use super::super::Method;
use super::super::bits::Pair;
use super::super::keep::Keep;
use super::super::options::Options;
use super::channels;
use crate::cache::Shape;
use crate::error::Result;
use crate::fields::refuse;

/// Which numbers share a scale and a zero, whatever their bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantiser {
    /// How many: entries of a channel, or channels of an entry as far as they divide a head.
    pub group: usize,
    /// Those of the keys are a channel's over `group` entries, and not an entry's.
    pub keys_per_channel: bool,
}

impl Quantiser {
    /// By the options `group` and `keys`.
    pub(in crate::method) fn of(options: &Options) -> Result<Quantiser> {
        Quantiser::new(options, options.choice("keys")? == "channel")
    }

    /// By the option `group`.
    pub(in crate::method) fn new(options: &Options, keys_per_channel: bool) -> Result<Quantiser> {
        let group = options.count("group")?;
        if !group.is_multiple_of(8) {
            return Err(refuse(format!("`group` of {} must be a multiple of 8, found {group}", options.method())));
        }
        Ok(Quantiser { group, keys_per_channel })
    }

    /// Refuses a method that it cannot stand behind.
    pub(super) fn check(self, name: &str, method: &Method) -> Result<()> {
        if self.keys_per_channel && matches!(method.keep(), Some(Keep::Bytes(_))) {
            return Err(refuse(format!(
                "{name} frees entries in groups, whose bytes stay until the last of them is evicted, so a `keep` in bytes cannot be held; \
                 take int4 or int2 with `keys: \"entry\"`, or a `keep` in tokens"
            )));
        }
        Ok(())
    }

    /// The keys and the values of heads of `dim` channels.
    pub(super) fn codecs(self, name: &str, dim: usize, key: Dtype, value: Dtype) -> Result<(Codec, Codec)> {
        let channels = channels(name, dim, self.group)?;
        let entry = |dtype| Codec::per_entry(dtype, channels);
        let key = if self.keys_per_channel { Codec::per_channel(key, self.group as u16) } else { entry(key) };
        Ok((key, entry(value)))
    }

    /// How heads of a model of this shape are stored in these bits, of which 16 are the format of the cache.
    pub(crate) fn codec(self, name: &str, pair: Pair, shape: &Shape) -> Result<KvCodec> {
        let plain = shape.format.codec();
        let dtype = |bits: u8| match bits {
            8 => Some(Dtype::U8),
            4 => Some(Dtype::U4),
            2 => Some(Dtype::U2),
            _ => None,
        };
        let (key, value) = (dtype(pair.key), dtype(pair.value));
        let (keys, values) = self.codecs(name, shape.head_dim, key.unwrap_or(Dtype::U8), value.unwrap_or(Dtype::U8))?;
        let keys = if key.is_some() { keys } else { plain.key };
        let values = if value.is_some() { values } else { plain.value };
        let codec = KvCodec::new(keys, values, Dual::None);
        codec.check(shape.head_dim).map_err(|reason| refuse(format!("{name} cannot store {reason}")))?;
        Ok(codec)
    }
}
