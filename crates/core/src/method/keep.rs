//! Reading the asked size of the cache, and what it comes to.

use prefixkv_kernels::codec::KvCodec;
use serde_json::Value;

use crate::cache::{Bookkeeping, Shape};
use crate::error::{Error, Result};
use crate::fields::{Fields, describe, refuse};
pub use crate::keep::Keep;
use crate::units::ByteSize;

impl Keep {
    /// Reads a share in (0, 1], `{ "tokens": N }` or `{ "bytes": N | "64MiB" }`.
    pub fn parse(value: Value) -> Result<Keep> {
        match value {
            Value::Number(number) => match number.as_f64() {
                Some(share) if share > 0.0 && share <= 1.0 => Ok(Keep::Share(share)),
                _ => Err(refuse(format!(
                    "`keep` must be the retained share, above 0 and at most 1, found {number}; write {{ tokens: N }} or \
                     {{ bytes: N }} for an absolute size"
                ))),
            },
            Value::Object(_) => {
                let mut fields = Fields::new(value, "`keep`", &["tokens", "bytes"])?;
                match (fields.take::<u64>("tokens")?, fields.take::<ByteSize>("bytes")?) {
                    (Some(0), None) => Err(refuse("`tokens` of `keep` must be at least 1, found 0")),
                    (Some(tokens), None) => Ok(Keep::Tokens(usize::try_from(tokens).unwrap_or(usize::MAX))),
                    (None, Some(ByteSize(bytes))) => Ok(Keep::Bytes(bytes)),
                    _ => Err(refuse("`keep` takes either `tokens` or `bytes`")),
                }
            }
            other => Err(refuse(format!(
                "`keep` must be a share, {{ tokens: N }} or {{ bytes: N }}, found {}",
                describe(&other)
            ))),
        }
    }

    /// Whether the size is the same however long the sequence grows.
    pub fn is_cap(self) -> bool {
        !matches!(self, Keep::Share(_))
    }

    /// Entries over all layers that may be kept of `positions` seen, a layer's entry counting one.
    pub fn total(self, positions: usize, cost: &Cost) -> usize {
        let all = cost.layers * positions;
        match self {
            Keep::Share(share) => ((share * all as f64 + 0.5).floor() as usize).min(all),
            Keep::Tokens(tokens) => tokens.saturating_mul(cost.layers).min(all),
            Keep::Bytes(bytes) => cost.entries(bytes).min(all as u64) as usize,
        }
    }

    /// The least size that holds `entries` entries of `positions` seen, in the terms of this one.
    pub fn least(self, entries: usize, positions: usize, cost: &Cost) -> Keep {
        match self {
            // Rounded up, so that following the advice works.
            Keep::Share(_) => Keep::Share((entries as f64 / (cost.layers * positions) as f64 * 1e4).ceil() / 1e4),
            Keep::Tokens(_) => Keep::Tokens(entries.div_ceil(cost.layers)),
            Keep::Bytes(_) => Keep::Bytes(cost.bytes(entries as u64)),
        }
    }
}

/// The cost of entries.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub layers: usize,
    /// Bytes of one entry of one layer over all its lanes, bookkeeping included.
    pub entry: u64,
    /// Bytes of an empty sequence with an extent in every lane.
    pub fixed: u64,
    /// The cost of entries that are no longer recent, if a store makes that less.
    pub settled: Option<Settled>,
}

/// How a store keeps entries, as far as their bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    /// Of entries that are no longer recent.
    pub codec: KvCodec,
    /// The last entries by position, which stay as new ones are stored.
    pub window: usize,
    /// Entries that are encoded at once while generating, at least.
    pub block: usize,
    /// Bytes of a layer beside its entries, at most: of the bases that its lanes have.
    pub beside: u64,
}

/// Bytes of a basis without its numbers, and of its place in a lane.
const BASIS: usize = 256;

impl Price {
    /// Bytes of the bases of a layer that name so many channels of each head, which may have a lane each.
    pub fn of_channels(heads: usize, channels: usize) -> u64 {
        (heads * (channels * size_of::<u16>() + BASIS)) as u64
    }

    /// Bytes of the bases of a layer of `heads`, which may have a lane each, with so many numbers in all.
    pub fn of_numbers(heads: usize, numbers: usize) -> u64 {
        (heads * BASIS + numbers * size_of::<f32>()) as u64
    }
}

/// The cost of entries behind a store.
#[derive(Clone, Copy, Debug)]
pub struct Settled {
    /// Bytes of one entry that is no longer recent, of one layer over all its lanes, bookkeeping included.
    pub entry: u64,
    /// Entries over all layers that are recent, at most.
    pub recent: u64,
}

impl Cost {
    /// `lanes` per layer, with a score per entry or without.
    pub fn new(shape: &Shape, lanes: usize, scored: bool, bookkeeping: Bookkeeping) -> Cost {
        let per_entry = size_of::<u32>() + if scored { size_of::<f32>() } else { 0 };
        // A growing tail is cut into segments of about this many entries, each with bookkeeping of its own.
        const PER_STRETCH: usize = 16;
        let Bookkeeping { lane, segment } = bookkeeping;
        let bookkeeping = lanes * (per_entry + segment.div_ceil(PER_STRETCH));
        Cost {
            layers: shape.layers,
            entry: (shape.bytes_per_position() / shape.layers + bookkeeping) as u64,
            fixed: (shape.layers * lanes * (lane + 2 * segment)) as u64,
            settled: None,
        }
    }

    /// With a store behind the method.
    pub fn with(self, store: &Price, shape: &Shape, lanes: usize, scored: bool, bookkeeping: Bookkeeping) -> Cost {
        let Price { codec, window, block, beside } = *store;
        let per_entry = size_of::<u32>() + if scored { size_of::<f32>() } else { 0 };
        // While generating a segment is made of so many entries.
        let at_once = block.max(codec.group());
        let bookkeeping = lanes * (per_entry + bookkeeping.segment.div_ceil(at_once));
        let bytes = codec.bytes(shape.kv_heads, shape.head_dim, codec.group()).div_ceil(codec.group());
        let entry = (bytes + bookkeeping) as u64;
        // Slots of evicted entries, until others are encoded.
        let fixed = self.fixed + (entry * at_once as u64 + beside) * shape.layers as u64;
        let recent = (shape.layers * (window + at_once)) as u64;
        Cost { fixed, settled: Some(Settled { entry, recent }), ..self }
    }

    /// Entries that bytes hold.
    fn entries(&self, bytes: u64) -> u64 {
        let left = bytes.saturating_sub(self.fixed);
        match self.settled {
            Some(Settled { entry, recent }) if left > recent * self.entry => {
                recent + (left - recent * self.entry) / entry
            }
            _ => left / self.entry,
        }
    }

    /// Bytes that entries take.
    fn bytes(&self, entries: u64) -> u64 {
        let (recent, rest) = match self.settled {
            Some(Settled { entry, recent }) => (entries.min(recent), entries.saturating_sub(recent) * entry),
            None => (entries, 0),
        };
        self.fixed + recent * self.entry + rest
    }
}

/// An error that says the least possible size.
pub(crate) fn too_small(keep: Keep, entries: usize, positions: usize, cost: &Cost, why: &str) -> Error {
    Error::Budget { asked: keep, least: keep.least(entries, positions, cost), reason: why.into() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_form_is_read() {
        assert_eq!(Keep::parse(json!(0.5)).unwrap(), Keep::Share(0.5));
        assert_eq!(Keep::parse(json!(1)).unwrap(), Keep::Share(1.0));
        assert_eq!(Keep::parse(json!({ "tokens": 256 })).unwrap(), Keep::Tokens(256));
        assert_eq!(Keep::parse(json!({ "bytes": "64MiB" })).unwrap(), Keep::Bytes(64 << 20));
        assert_eq!(Keep::parse(json!({ "bytes": 1000 })).unwrap(), Keep::Bytes(1000));
    }

    #[test]
    fn nonsense_is_refused() {
        let bad = [
            json!(0),
            json!(-0.5),
            json!(1.5),
            json!("0.5"),
            json!({}),
            json!({ "tokens": 0 }),
            json!({ "bytes": "64 apples" }),
            json!({ "tokens": 5, "bytes": 5 }),
            json!({ "token": 5 }),
            json!([0.5]),
        ];
        for value in bad {
            let error = Keep::parse(value.clone()).expect_err(&value.to_string());
            assert_eq!(error.code(), "option");
        }
    }

    #[test]
    fn the_least_size_is_enough() {
        let plain = Cost { layers: 10, entry: 1500, fixed: 4000, settled: None };
        let settled = |recent| Cost { settled: Some(Settled { entry: 300, recent }), ..plain };
        for cost in [plain, settled(0), settled(20), settled(60)] {
            for keep in [Keep::Share(0.01), Keep::Tokens(1), Keep::Bytes(10)] {
                let least = Keep::parse(json!(keep.least(25, 187, &cost))).unwrap();
                assert!(least.total(187, &cost) >= 25, "{least:?}");
            }
            // No more entries than their bytes.
            for bytes in (0..80_000).step_by(613) {
                let entries = Keep::Bytes(bytes).total(1000, &cost);
                assert!(entries == 0 || cost.bytes(entries as u64) <= bytes, "{entries} in {bytes}");
            }
        }
    }
}
