//! How much of the cache is kept.

use serde_json::Value;

use crate::cache::{Lane, Shape};
use crate::error::{Error, Result};
use crate::fields::{Fields, describe, refuse};

/// The asked size of the cache.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Keep {
    /// This share of all positions seen, prompt and generated: the cache grows by it per new token.
    Share(f64),
    /// Never more than this many entries per layer, on average over the layers.
    Tokens(usize),
    /// Never more than this many bytes, bookkeeping included, from the end of the prompt on.
    Bytes(u64),
}

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
                match (fields.take::<u64>("tokens")?, fields.take::<Value>("bytes")?) {
                    (Some(0), None) => Err(refuse("`tokens` of `keep` must be at least 1, found 0")),
                    (Some(tokens), None) => Ok(Keep::Tokens(usize::try_from(tokens).unwrap_or(usize::MAX))),
                    (None, Some(value)) => bytes("bytes", &value).map(Keep::Bytes),
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
            Keep::Bytes(bytes) => (bytes.saturating_sub(cost.fixed) / cost.entry).min(all as u64) as usize,
        }
    }

    /// The least size that holds `entries` entries of `positions` seen, in the terms of this one.
    pub fn least(self, entries: usize, positions: usize, cost: &Cost) -> String {
        match self {
            // Rounded up, so that following the advice works.
            Keep::Share(_) => {
                format!("{:.4}", (entries as f64 / (cost.layers * positions) as f64 * 1e4).ceil() / 1e4)
            }
            Keep::Tokens(_) => format!("{{ tokens: {} }}", entries.div_ceil(cost.layers)),
            Keep::Bytes(_) => format!("{{ bytes: {} }}", cost.fixed + entries as u64 * cost.entry),
        }
    }

    /// As in requests.
    pub fn name(self) -> String {
        match self {
            // Hundreds of zeros tell nobody anything.
            Keep::Share(share) if share < 1e-4 => format!("{share:e}"),
            Keep::Share(share) => share.to_string(),
            Keep::Tokens(tokens) => format!("{{ tokens: {tokens} }}"),
            Keep::Bytes(bytes) => format!("{{ bytes: {bytes} }}"),
        }
    }
}

/// What entries cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub layers: usize,
    /// Bytes of one entry of one layer over all its lanes, bookkeeping included.
    pub entry: u64,
    /// Bytes of an empty sequence with an extent in every lane.
    pub fixed: u64,
}

impl Cost {
    /// `lanes` per layer, with a mark per entry or without, on a GPU or not.
    pub fn new(shape: &Shape, lanes: usize, marked: bool, on_gpu: bool) -> Cost {
        let per_entry = size_of::<u32>() + if marked { size_of::<f32>() } else { 0 };
        // A growing tail is cut into stretches of about this many entries, each with bookkeeping of its own.
        const PER_STRETCH: usize = 16;
        let stretch = crate::cache::bookkeeping(on_gpu);
        let bookkeeping = lanes * (per_entry + stretch.div_ceil(PER_STRETCH));
        Cost {
            layers: shape.layers,
            entry: (shape.bytes_per_position() / shape.layers + bookkeeping) as u64,
            fixed: (shape.layers * lanes * (size_of::<Lane>() + 2 * stretch)) as u64,
        }
    }
}

/// A number of bytes, or a text such as `"64MiB"`.
pub(crate) fn bytes(name: &str, value: &Value) -> Result<u64> {
    let bytes = match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => parse_size(text),
        _ => None,
    };
    bytes
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| refuse(format!("`{name}` must be a number of bytes or a text such as \"64MiB\", found {value}")))
}

/// A size by the grammar of `ts/format.ts`, with which a test compares it: `512`, `1.5GiB`, `8 MB`, `2g`.
fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || part.is_empty() || part.contains('.') {
        return None;
    }
    let unit = unit.trim_start().to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let factor = match unit.strip_suffix('i') {
        Some(prefix) => 1u64 << (10 * power(prefix).filter(|power| *power > 0)?),
        None => 1000u64.pow(power(unit)?),
    };
    let bytes = number.parse::<f64>().ok()? * factor as f64;
    (bytes.is_finite() && bytes < 2f64.powi(62)).then_some(bytes as u64)
}

/// How many thousands a prefix stands for.
fn power(prefix: &str) -> Option<u32> {
    ["", "k", "m", "g", "t"].iter().position(|known| *known == prefix).map(|power| power as u32)
}

/// An error that says the least possible size.
pub(super) fn too_small(keep: Keep, entries: usize, positions: usize, cost: &Cost, why: &str) -> Error {
    Error::Budget { asked: keep.name(), least: keep.least(entries, positions, cost), reason: why.into() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sizes_are_read_as_typescript_reads_them() {
        let table: Vec<(String, Option<u64>)> =
            serde_json::from_str(include_str!("../../../../tests/fixtures/sizes.json")).unwrap();
        assert!(table.len() > 30);
        for (text, bytes) in table {
            assert_eq!(parse_size(&text), bytes, "{text:?}");
        }
    }

    #[test]
    fn every_form_is_read() {
        assert_eq!(Keep::parse(json!(0.5)).unwrap(), Keep::Share(0.5));
        assert_eq!(Keep::parse(json!(1)).unwrap(), Keep::Share(1.0));
        assert_eq!(Keep::parse(json!({ "tokens": 256 })).unwrap(), Keep::Tokens(256));
        assert_eq!(Keep::parse(json!({ "bytes": "64MiB" })).unwrap(), Keep::Bytes(64 << 20));
        assert_eq!(Keep::parse(json!({ "bytes": 1000 })).unwrap(), Keep::Bytes(1000));
    }

    #[test]
    fn a_share_is_named_as_it_is_written() {
        for (share, name) in [(0.5, "0.5"), (1.0, "1"), (0.0001, "0.0001"), (1e-5, "1e-5"), (1.5e-300, "1.5e-300")] {
            assert_eq!(Keep::Share(share).name(), name);
        }
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
        let cost = Cost { layers: 10, entry: 1500, fixed: 4000 };
        for keep in [Keep::Share(0.01), Keep::Tokens(1), Keep::Bytes(10)] {
            let least = keep.least(25, 187, &cost).replace("tokens", "\"tokens\"").replace("bytes", "\"bytes\"");
            let least = Keep::parse(serde_json::from_str(&least).unwrap()).unwrap();
            assert!(least.total(187, &cost) >= 25, "{least:?}");
        }
    }
}
