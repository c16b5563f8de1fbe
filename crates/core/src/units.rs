//! Sizes in bytes, as requests write them.

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A number of bytes, or a text such as `"64MiB"`.
///
/// ```json
/// { "anyOf": [{ "type": "integer", "minimum": 1 }, { "type": "string" }] }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ByteSize(pub(crate) u64);

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let bytes = match &value {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => parse_size(text),
            _ => None,
        };
        let wrong =
            || D::Error::custom(format!("must be a number of bytes or a text such as \"64MiB\", found {value}"));
        bytes.filter(|bytes| *bytes > 0).map(ByteSize).ok_or_else(wrong)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_typescript_reads_them() {
        let table: Vec<(String, Option<u64>)> =
            serde_json::from_str(include_str!("../../../tests/fixtures/sizes.json")).unwrap();
        assert!(table.len() > 30);
        for (text, bytes) in table {
            assert_eq!(parse_size(&text), bytes, "{text:?}");
        }
    }
}
