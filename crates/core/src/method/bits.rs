//! Bits of keys and of values for every layer, and the files that say which.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::calibration::{CalibratedModel, MOST_LAYERS, bad, read};
use crate::error::{Error, Result};
use crate::fields::refuse;

/// `format` of a file with bits for layers.
pub const FORMAT: &str = "prefixkv-bits";
/// The version that is written and read.
pub const VERSION: u32 = 1;
/// Most points of a file: a limit on what comes from outside.
const MOST_POINTS: usize = 65_536;

/// Bits of the keys and of the values of a layer, each 2, 4 or 8, or 16 for the format of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    pub key: u8,
    pub value: u8,
}

/// How many bits keys and values of each layer may take, found before: `model.calibrateBits` makes it, `kvtuner({ calibration })` uses it.
///
/// ```ts
/// import { type BitsCalibration, image, kvtuner, load } from "prefixkv";
///
/// await using model = await load();
/// const messages = [{ role: "user", content: [image("scene.png"), "What color is the star?"] }];
/// const samples = [{ messages, answer: "green" }];
/// const calibration: BitsCalibration = await model.calibrateBits({ samples, groups: 1, trials: 12 });
/// const { memory } = await model.generate({ messages, cache: kvtuner({ calibration, bits: 5 }), maxTokens: 8 });
/// console.log(calibration.points, memory.effectiveBits);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BitsCalibration {
    /// `"prefixkv-bits"`, which marks such a file.
    pub format: String,
    /// The version of the format: 1.
    pub version: u32,
    /// The model that it belongs to, with all layers of its language model; a size that is not said is not checked.
    pub model: CalibratedModel,
    /// The quantiser that the bits were found for.
    pub quantiser: BitsQuantiser,
    /// Prompts over which sensitivities and losses are averaged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<u64>,
    /// Tokens of their answers together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// The kind of the losses: `"kl"`, the divergence from the full cache, or `"ppl"`, the negative log-likelihood of the answers; both in nats
    /// per token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<String>,
    /// Where it comes from, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The loss of the full cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<f64>,
    /// How many choices of bits were measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trials: Option<u64>,
    /// The bits of keys and of values whose sensitivity was measured in every layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<Vec<[u8; 2]>>,
    /// By layer, for each of `tried`, how far the results of its attention are off, relative to their length; empty for a layer that reads
    /// another's keys and values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sensitivity: Option<Vec<Vec<f64>>>,
    /// Layers that get the same bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<BitsGroup>>,
    /// By rising bits and falling losses: no other choice that was measured has fewer bits and no larger a loss.
    pub points: Vec<BitsPoint>,
}

/// The numbers that share a scale and a zero, as `kvtuner` has them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BitsQuantiser {
    /// Its option of this name.
    pub group: u64,
    /// Its option of this name.
    pub window: u64,
    /// Its option of this name: `"channel"` or `"entry"`.
    pub keys: String,
}

/// Layers whose bits are chosen together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BitsGroup {
    /// Their numbers.
    pub layers: Vec<usize>,
    /// The bits of keys and of values that were left to choose from.
    pub pairs: Vec<[u8; 2]>,
}

/// A choice of bits for all layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BitsPoint {
    /// Bits of a number without its scales, the mean over layers, keys and values.
    pub bits: f64,
    /// The loss on the samples.
    pub loss: f64,
    /// The bits of keys and of values of every layer.
    pub pairs: Vec<[u8; 2]>,
}

impl Pair {
    /// None for bits in which nothing is stored.
    pub fn new([key, value]: [u8; 2]) -> Option<Pair> {
        let is_width = |bits| matches!(bits, 2 | 4 | 8 | 16);
        (is_width(key) && is_width(value)).then_some(Pair { key, value })
    }

    /// `[[8, 4], [4, 2]]`; None for anything else, and where there are no pairs or too many.
    pub fn all(value: &Value) -> Option<Vec<Pair>> {
        let pairs: Vec<[u8; 2]> = serde_json::from_value(value.clone()).ok()?;
        if pairs.is_empty() || pairs.len() > MOST_LAYERS {
            return None;
        }
        pairs.into_iter().map(Pair::new).collect()
    }

    /// The mean over layers, keys and values.
    fn mean(pairs: &[Pair]) -> f64 {
        let sum: u64 = pairs.iter().map(|pair| u64::from(pair.key) + u64::from(pair.value)).sum();
        sum as f64 / (2 * pairs.len()).max(1) as f64
    }
}

impl BitsCalibration {
    /// Reads such a file.
    pub fn parse(value: &Value) -> Result<BitsCalibration> {
        let calibration: BitsCalibration = read(value, FORMAT, VERSION)?;
        calibration.check()?;
        Ok(calibration)
    }

    fn check(&self) -> Result<()> {
        let layers = self.model.layers;
        if layers == 0 || layers > MOST_LAYERS || self.points.is_empty() || self.points.len() > MOST_POINTS {
            return Err(bad(format!(
                "{} points for {layers} layers, expected 1 to {MOST_POINTS} points for 1 to {MOST_LAYERS} layers",
                self.points.len()
            )));
        }
        for (index, point) in self.points.iter().enumerate() {
            if point.pairs.len() != layers {
                return Err(bad(format!("point {index} has {} layers, expected {layers}", point.pairs.len())));
            }
            let Some(pairs) = point.pairs() else {
                return Err(bad(format!("point {index} has bits that are not 2, 4, 8 or 16")));
            };
            let mean = Pair::mean(&pairs);
            if !((point.bits - mean).abs() < 1e-6 && point.loss >= 0.0) {
                return Err(bad(format!(
                    "point {index} has {} bits and a loss of {}, expected {mean} bits and a loss of at least 0",
                    point.bits, point.loss
                )));
            }
            if index > 0 && !(self.points[index - 1].bits < point.bits && self.points[index - 1].loss > point.loss) {
                return Err(bad(format!(
                    "point {index} does not have more bits and a smaller loss than the one before"
                )));
            }
        }
        Ok(())
    }

    /// The bits of all layers at the point with the most bits up to `most`.
    pub(super) fn within(&self, name: &str, most: f64) -> Result<Vec<Pair>> {
        let point = self.points.iter().rev().find(|point| point.bits <= most + 1e-9);
        point.and_then(BitsPoint::pairs).ok_or_else(|| Error::Calibration {
            reason: format!(
                "its least is {} bits, and `bits` of {name} asks for at most {most}",
                self.points.first().map_or(0.0, |point| point.bits)
            ),
        })
    }
}

impl BitsPoint {
    fn pairs(&self) -> Option<Vec<Pair>> {
        self.pairs.iter().copied().map(Pair::new).collect()
    }
}

impl BitsQuantiser {
    /// Refuses other groups than those that the bits were found for: what a layer loses in so many bits depends on them.
    pub(super) fn check(&self, name: &str, group: usize, keys: &str) -> Result<()> {
        if self.group == group as u64 && self.keys == keys {
            return Ok(());
        }
        Err(refuse(format!(
            "the calibration of {name} is for `group: {}` and `keys: {:?}`, asked is `group: {group}` and `keys: {keys:?}`; leave these \
             options out, or calibrate with them",
            self.group, self.keys
        )))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn file() -> Value {
        json!({
            "format": FORMAT, "version": 1, "model": { "layers": 2 },
            "quantiser": { "group": 32, "window": 32, "keys": "channel" },
            "points": [
                { "bits": 3, "loss": 0.5, "pairs": [[4, 4], [2, 2]] },
                { "bits": 5, "loss": 0.25, "pairs": [[8, 4], [4, 4]] },
            ],
        })
    }

    #[test]
    fn the_point_with_the_most_bits_is_taken() {
        let found = BitsCalibration::parse(&file()).unwrap();
        for (most, want) in [(3.0, [4, 2]), (4.9, [4, 2]), (5.0, [8, 4]), (16.0, [8, 4])] {
            let keys: Vec<u8> = found.within("kvtuner", most).unwrap().iter().map(|pair| pair.key).collect();
            assert_eq!(keys, want, "{most}");
        }
        let error = found.within("kvtuner", 2.9).unwrap_err();
        assert!(error.code() == "calibration" && error.to_string().contains("its least is 3 bits"), "{error}");
    }

    #[test]
    fn pairs_are_of_widths_that_there_are() {
        assert_eq!(Pair::all(&json!([[8, 4]])), Some(vec![Pair { key: 8, value: 4 }]));
        for bad in
            [json!([]), json!([[8]]), json!([[8, 3]]), json!([8, 4]), json!([[8, 4, 2]]), json!(4), json!([[4.5, 2]])]
        {
            assert_eq!(Pair::all(&bad), None, "{bad}");
        }
    }

    #[test]
    fn broken_files_are_refused() {
        let mut broken = vec![json!("x"), json!([0.5]), json!({}), json!({ "format": "prefixkv-sharing" })];
        let mut points = |change: &dyn Fn(&mut Value)| {
            let mut file = file();
            change(&mut file["points"]);
            broken.push(file);
        };
        points(&|points| *points = json!([]));
        points(&|points| points[0]["pairs"] = json!([[4, 4]]));
        points(&|points| points[0]["pairs"][0] = json!([4, 5]));
        points(&|points| points[0]["bits"] = json!(4));
        points(&|points| points[0]["loss"] = json!(-1));
        points(&|points| points[0]["loss"] = json!(0.25));
        points(&|points| points[1]["more"] = json!(0));
        points(&|points| points.as_array_mut().unwrap().reverse());
        for (key, value) in [("version", json!(2)), ("model", json!({ "layers": 0 })), ("rows", json!([]))] {
            let mut file = file();
            file[key] = value;
            broken.push(file);
        }
        for value in broken {
            assert_eq!(BitsCalibration::parse(&value).expect_err(&value.to_string()).code(), "calibration");
        }
    }
}
