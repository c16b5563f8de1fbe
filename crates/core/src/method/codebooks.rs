//! Levels of codes that a calibration finds, with the ranges of the channels of keys: how they are found, and the files that hold them.
//!
//! Hooper et al. 2024, KVQuant: Towards 10 Million Context Length LLM Inference with KV Cache Quantization, arXiv 2401.18079.

use std::collections::BTreeSet;

use prefixkv_kernels::codec::{Basis, Channels, Found};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

use super::budget::ModelKey;
use super::calibration::{CalibratedModel, MOST_LAYERS, bad, read};
use crate::error::Result;

/// `format` of a file with codebooks.
pub const FORMAT: &str = "prefixkv-codebooks";
/// The version that is written and read.
pub const VERSION: u32 = 1;
/// The most of the numbers of a row that may lie apart: a limit on what comes from outside.
pub(crate) const MOST_APART: f64 = 0.25;

/// Levels of codes per layer, with the ranges of the channels of keys before their rotary embedding: `model.calibrateKvquant` makes it,
/// `kvquant({ calibration })` uses it.
///
/// ```ts
/// import { type CodebookCalibration, kvquant, load } from "prefixkv";
///
/// await using model = await load();
/// const samples = [{ prompt: "USER: Which shapes are there, and where do they lie in the image? ASSISTANT:" }];
/// const calibration: CodebookCalibration = await model.calibrateKvquant({ samples, bits: 4 });
/// const { memory } = await model.generate({ prompt: "USER: Hello ASSISTANT:", cache: kvquant({ calibration }), maxTokens: 8 });
/// console.log(calibration.layers.length, memory.effectiveBits);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CodebookCalibration {
    /// `"prefixkv-codebooks"`, which marks such a file.
    pub format: String,
    /// The version of the format: 1.
    pub version: u32,
    /// The model that it belongs to, with all layers of its language model; a size that is not said is not checked.
    pub model: CalibratedModel,
    /// Bits of a code: 2 or 4.
    pub bits: u32,
    /// The share of the numbers of each key and each value of a head that lie apart in f16, rounded up to a whole number of them.
    pub outliers: f64,
    /// Prompts that were read for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<u64>,
    /// Positions of them whose keys and values were looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positions: Option<u64>,
    /// Where it comes from, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// One for each layer that has keys and values of its own, by rising number.
    pub layers: Vec<LayerCodebooks>,
}

/// The codebooks of a layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LayerCodebooks {
    /// Its number in the model.
    pub layer: usize,
    /// The levels of keys, rising, for channels whose range is from -1 to 1.
    pub keys: Vec<f32>,
    /// The levels of values, rising, for entries whose range is from -1 to 1.
    pub values: Vec<f32>,
    /// Half the range of each channel of each KV head's keys before their rotary embedding, head by head.
    pub scales: Vec<f32>,
    /// The middle of that range.
    pub zeros: Vec<f32>,
}

impl CodebookCalibration {
    /// Reads such a file.
    pub fn parse(value: &Value) -> Result<CodebookCalibration> {
        let calibration: CodebookCalibration = read(value, FORMAT, VERSION)?;
        calibration.check()?;
        Ok(calibration)
    }

    fn check(&self) -> Result<()> {
        if self.bits != 2 && self.bits != 4 {
            return Err(bad(format!("`bits` is {}, expected 2 or 4", self.bits)));
        }
        if !(0.0..=MOST_APART).contains(&self.outliers) {
            return Err(bad(format!("`outliers` is {}, expected a share from 0 to {MOST_APART}", self.outliers)));
        }
        let layers = self.model.layers;
        if layers == 0 || layers > MOST_LAYERS || self.layers.is_empty() {
            return Err(bad(format!("{} of {layers} layers, expected some of 1 to {MOST_LAYERS}", self.layers.len())));
        }
        let mut seen = BTreeSet::new();
        for books in &self.layers {
            let layer = books.layer;
            if layer >= layers || !seen.insert(layer) {
                return Err(bad(format!("layer {layer} of {layers} is not there, or there twice")));
            }
            if books.keys.len() != 1 << self.bits || books.values.len() != 1 << self.bits {
                return Err(bad(format!(
                    "layer {layer} has {} levels of keys and {} of values for {} bits",
                    books.keys.len(),
                    books.values.len(),
                    self.bits
                )));
            }
            books.found(0..books.scales.len()).map_err(|reason| bad(format!("layer {layer} has {reason}")))?;
        }
        Ok(())
    }

    /// Refuses another model than the one that was calibrated. `model` has all layers.
    pub fn check_model(&self, model: &ModelKey) -> Result<()> {
        self.model.check(model)?;
        let width = model.shape.kv_heads * model.shape.head_dim;
        match self.layers.iter().find(|books| books.scales.len() != width) {
            Some(books) => Err(bad(format!(
                "layer {} has the ranges of {} channels, and the keys of the model have {width}",
                books.layer,
                books.scales.len()
            ))),
            None => Ok(()),
        }
    }

    /// Numbers of a row of a head of `dim` channels that lie apart.
    pub fn apart(&self, dim: usize) -> u8 {
        apart(self.outliers, dim)
    }

    /// The findings for the KV heads `heads` of a layer; None: it has no codebooks.
    pub fn basis(&self, layer: usize, heads: std::ops::Range<usize>, dim: usize) -> Result<Option<Arc<Basis>>> {
        let Some(books) = self.layers.iter().find(|books| books.layer == layer) else { return Ok(None) };
        let found = books.found(heads.start * dim..heads.end * dim);
        let basis = found.and_then(|(keys, values)| Basis::calibrated(heads.len(), dim, keys, values));
        basis.map(Some).map_err(|reason| bad(format!("layer {layer} has {reason}")))
    }
}

impl LayerCodebooks {
    /// Of some channels of the keys.
    fn found(&self, channels: std::ops::Range<usize>) -> Result<(Found, Found), String> {
        let of = |all: &[f32]| all.get(channels.clone()).map(<[f32]>::to_vec);
        let (Some(scales), Some(zeros)) = (of(&self.scales), of(&self.zeros)) else {
            return Err(format!("{} scales and {} zeros of channels", self.scales.len(), self.zeros.len()));
        };
        if self.scales.len() != self.zeros.len() {
            return Err(format!("{} scales and {} zeros of channels", self.scales.len(), self.zeros.len()));
        }
        let keys = Found::new(&self.keys, Some(Channels { scales, zeros }))?;
        Ok((keys, Found::new(&self.values, None)?))
    }

    /// Finds the codebooks of a layer from keys before their rotary embedding and values of some positions, `[positions, KV heads, dim]`
    /// each, of which a share lies apart; `weights` says how much each position counts in the clusters. Numbers must be finite, weights above 0,
    /// and there must be a position.
    ///
    /// The range of a channel covers the numbers that do not lie apart ([`ranges`]). Levels are means of clusters (Lloyd 1982, from equal
    /// parts of all numbers) over a histogram of the numbers within their ranges.
    pub fn find(
        layer: usize,
        keys: &[f32],
        values: &[f32],
        weights: &[f64],
        (width, dim): (usize, usize),
        bits: u32,
        outliers: f64,
    ) -> LayerCodebooks {
        let (count, mut order) = (usize::from(apart(outliers, dim)).min(dim - 1), Vec::with_capacity(dim));
        let (scales, zeros) = ranges(keys, width, dim, count);
        let (mut of_keys, mut of_values) = (Histogram::new(), Histogram::new());
        for (row, weight) in keys.chunks_exact(width).zip(weights) {
            for (x, (scale, zero)) in row.iter().zip(scales.iter().zip(&zeros)) {
                of_keys.add((x - zero) / scale, *weight);
            }
        }
        for (index, row) in values.chunks_exact(dim).enumerate() {
            let mean = (row.iter().map(|x| f64::from(*x)).sum::<f64>() / dim as f64) as f32;
            order.clear();
            order.extend_from_slice(row);
            // Of two that are as far it does not matter which, since both are taken out of the range or none.
            order.sort_by(|a, b| (b - mean).abs().total_cmp(&(a - mean).abs()));
            let left = &order[count..];
            let (low, high) = left.iter().fold((f32::MAX, f32::MIN), |(a, b), x| (a.min(*x), b.max(*x)));
            let (scale, zero) = (((high - low) * 0.5).max(LEAST), (high + low) * 0.5);
            left.iter().for_each(|x| of_values.add((x - zero) / scale, weights[index / (width / dim)]));
        }
        let levels = 1 << bits;
        LayerCodebooks { layer, keys: of_keys.levels(levels), values: of_values.levels(levels), scales, zeros }
    }
}

/// Half the range and its middle for each channel of keys, `[positions, width]`, such that it covers what is left of every row of a head when
/// the `count` numbers that are farthest out by these ranges lie apart: from the range of all on, until it stays what it is.
fn ranges(keys: &[f32], width: usize, dim: usize, count: usize) -> (Vec<f32>, Vec<f32>) {
    let cover = |left: &[(f32, f32)]| -> (Vec<f32>, Vec<f32>) {
        left.iter().map(|(low, high)| (((high - low) * 0.5).max(LEAST), (high + low) * 0.5)).unzip()
    };
    let none = vec![(f32::INFINITY, f32::NEG_INFINITY); width];
    let mut seen = none.clone();
    for row in keys.chunks_exact(width) {
        seen.iter_mut().zip(row).for_each(|((low, high), x)| (*low, *high) = (low.min(*x), high.max(*x)));
    }
    let (mut order, rounds): (Vec<usize>, _) = ((0..dim).collect(), if count > 0 { ROUNDS } else { 0 });
    for _ in 0..rounds {
        let (scales, zeros) = cover(&seen);
        let mut left = none.clone();
        for row in keys.chunks_exact(width) {
            for (head, row) in row.chunks_exact(dim).enumerate() {
                let away = |c: usize| ((row[c] - zeros[head * dim + c]) / scales[head * dim + c]).abs();
                order.sort_by(|a, b| away(*b).total_cmp(&away(*a)).then(a.cmp(b)));
                for c in &order[count..] {
                    let (low, high) = &mut left[head * dim + c];
                    (*low, *high) = (low.min(row[*c]), high.max(row[*c]));
                }
            }
        }
        // Of a channel that always lies apart nothing is left.
        left.iter_mut().zip(&seen).filter(|(left, _)| left.0 > left.1).for_each(|(left, seen)| *left = *seen);
        if std::mem::replace(&mut seen, left) == seen {
            break;
        }
    }
    cover(&seen)
}

/// Rounds of [`ranges`] at most.
const ROUNDS: usize = 8;
/// Half of the least range.
const LEAST: f32 = 1e-6;

fn apart(outliers: f64, dim: usize) -> u8 {
    (outliers * dim as f64).ceil().min(255.0) as u8
}

/// Numbers from -1 to 1 with their weights, counted in cells, so that how many there are takes no room and their order does not matter.
struct Histogram {
    counts: Vec<f64>,
    sums: Vec<f64>,
}

impl Histogram {
    const CELLS: usize = 1 << 16;
    /// Rounds of Lloyd's iteration at most.
    const ROUNDS: usize = 500;

    fn new() -> Histogram {
        Histogram { counts: vec![0.0; Histogram::CELLS], sums: vec![0.0; Histogram::CELLS] }
    }

    /// Leaves out what is beyond the range.
    fn add(&mut self, x: f32, weight: f64) {
        if (-1.0..=1.0).contains(&x) {
            let cell = ((f64::from(x) + 1.0) * (Histogram::CELLS as f64 / 2.0)) as usize;
            let cell = cell.min(Histogram::CELLS - 1);
            self.counts[cell] += weight;
            self.sums[cell] += weight * f64::from(x);
        }
    }

    /// The means of so many clusters, rising.
    fn levels(&self, count: usize) -> Vec<f32> {
        let cells: Vec<(f64, f64)> =
            self.counts.iter().zip(&self.sums).filter(|(n, _)| **n > 0.0).map(|(n, sum)| (*n, *sum)).collect();
        let total: f64 = cells.iter().map(|(n, _)| n).sum();
        // The numbers in the middles of equal parts of all.
        let quantile = |part: f64| {
            let mut seen = 0.0;
            let at = cells.iter().find(|(n, _)| {
                seen += n;
                seen > part * total
            });
            at.map_or(0.0, |(n, sum)| sum / n)
        };
        let mut levels: Vec<f64> = (0..count).map(|i| quantile((i as f64 + 0.5) / count as f64)).collect();
        for _ in 0..Histogram::ROUNDS {
            let mut clusters = vec![(0.0, 0.0); count];
            let mut cluster = 0;
            for (n, sum) in &cells {
                let mean = sum / n;
                while cluster + 1 < count && mean > (levels[cluster] + levels[cluster + 1]) * 0.5 {
                    cluster += 1;
                }
                clusters[cluster].0 += n;
                clusters[cluster].1 += sum;
            }
            let mut moved = 0.0f64;
            for (level, (n, sum)) in levels.iter_mut().zip(&clusters) {
                if *n > 0.0 {
                    moved = moved.max((sum / n - *level).abs());
                    *level = sum / n;
                }
            }
            if moved < 1e-9 {
                break;
            }
        }
        // Fewer different numbers than levels leave some of them equal.
        let mut rising: Vec<f32> = levels.iter().map(|level| *level as f32).collect();
        for i in 1..count {
            rising[i] = rising[i].max(rising[i - 1] + 1e-5);
        }
        rising
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn levels_are_where_the_numbers_are() {
        let mut histogram = Histogram::new();
        for i in 0..3000 {
            histogram.add([-0.9, -0.2, 0.3, 0.75][i % 4] + (i % 7) as f32 * 1e-3, 1.0);
        }
        histogram.add(7.0, 1.0);
        for (level, want) in histogram.levels(4).iter().zip([-0.897, -0.197, 0.303, 0.753]) {
            assert!((level - want).abs() < 1e-3, "{level} for {want}");
        }
        let one = Histogram::new().levels(16);
        assert!(one.is_sorted_by(|a, b| a < b), "{one:?}");
    }

    fn file() -> Value {
        let books = |layer: usize| {
            let (keys, scales) = (json!([-0.7, -0.1, 0.1, 0.8]), json!([1, 2, 3, 4, 5, 6, 7, 8]));
            json!({ "layer": layer, "keys": keys, "values": keys, "scales": scales, "zeros": [0, 0, 0, 0, 0, 0, 0, 1] })
        };
        json!({
            "format": FORMAT, "version": 1, "model": { "layers": 2 }, "bits": 2, "outliers": 0.01, "layers": [books(0), books(1)],
        })
    }

    #[test]
    fn broken_files_are_refused() {
        let sound = CodebookCalibration::parse(&file()).expect("a file");
        assert_eq!((sound.apart(128), sound.apart(64), sound.apart(8)), (2, 1, 1));
        assert!(sound.basis(1, 0..1, 8).expect("sound").is_some() && sound.basis(2, 0..1, 8).expect("sound").is_none());
        let mut broken = vec![json!("x"), json!([0.5]), json!({}), json!({ "format": "prefixkv-calibration" })];
        for (key, value) in [
            ("version", json!(2)),
            ("bits", json!(3)),
            ("bits", json!(4)),
            ("outliers", json!(0.5)),
            ("outliers", json!(-0.1)),
            ("model", json!({ "layers": 0 })),
            ("model", json!({ "layers": 1 })),
            ("layers", json!([])),
            ("rows", json!([])),
        ] {
            let mut file = file();
            file[key] = value;
            broken.push(file);
        }
        for (key, value) in [
            ("layer", json!(1)),
            ("keys", json!([0, 1, 1, 2])),
            ("values", json!([0, 1, 2])),
            ("scales", json!([1, 2, 3])),
            ("scales", json!([1, 2, 3, 4, 5, 6, 7, 0])),
            ("zeros", json!([0, 0])),
        ] {
            let mut file = file();
            file["layers"][0][key] = value;
            broken.push(file);
        }
        for value in broken {
            assert_eq!(CodebookCalibration::parse(&value).expect_err(&value.to_string()).code(), "calibration");
        }
    }
}
