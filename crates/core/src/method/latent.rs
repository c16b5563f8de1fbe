//! Directions along which keys and values of a model's heads are stored, as a calibration has found them, and the files that hold them.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use prefixkv_kernels::codec::{Basis, Map};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::budget::ModelKey;
use super::calibration::{CalibratedModel, MOST_LAYERS, bad, read};
use crate::base64;
use crate::error::{Error, Result};
use crate::spectrum::Spectrum;

/// `format` of a file with directions.
pub const FORMAT: &str = "prefixkv-directions";
/// The version that is written and read.
pub const VERSION: u32 = 1;
/// Most channels that directions are found for: matrices up to this size are taken apart in seconds.
pub const LARGEST: usize = 512;
/// Most bytes of the directions in a file, as text: what a request may bring, with room for the rest.
pub const MOST_TEXT: usize = 23 << 20;

/// Directions of keys, before their rotary embedding, and of values, the most important ones first: `model.calibrateCskv` makes it,
/// `cskv({ calibration })` uses it.
///
/// ```ts
/// import { cskv, type DirectionsCalibration, load } from "prefixkv";
///
/// await using model = await load();
/// const samples = [{ prompt: "USER: Which shapes are there, and where do they lie in the image? ASSISTANT:" }];
/// const calibration: DirectionsCalibration = await model.calibrateCskv({ samples });
/// const { memory } = await model.generate({ prompt: "USER: Hello ASSISTANT:", cache: cskv({ calibration }), maxTokens: 8 });
/// console.log(calibration.rank, memory.effectiveBits);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DirectionsCalibration {
    /// `"prefixkv-directions"`, which marks such a file.
    pub format: String,
    /// The version of the format: 1.
    pub version: u32,
    /// The model that it belongs to, with all layers of its language model; a size that is not said is not checked.
    pub model: CalibratedModel,
    /// How they were found.
    pub init: DirectionsInit,
    /// With `init: "asvd"`, the power of the mean magnitudes by which the weights are scaled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// Whether each head has directions of its own, or all of a layer have some together.
    pub heads: DirectionsHeads,
    /// How many of them there are, of keys and of values each.
    pub rank: usize,
    /// Prompts that were read for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<u64>,
    /// Positions of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positions: Option<u64>,
    /// Where it comes from, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// One for each layer that has keys and values of its own, by rising number.
    pub layers: Vec<LayerDirections>,
}

/// How directions are found: those in which the keys and values of the prompts lie (`"covariance"`), or the left singular vectors of the
/// weights, scaled by the size of what goes into them (`"asvd"`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DirectionsInit {
    #[default]
    Covariance,
    Asvd,
}

/// Whose directions: of each KV head (`"each"`), or of all heads of a layer together (`"joint"`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DirectionsHeads {
    #[default]
    Each,
    Joint,
}

/// The directions of a layer, each a vector of whole numbers of which the largest magnitude is 127: base64 of 8 bits each, `[heads, rank, head
/// size]`, or `[rank, heads * head size]` of all heads together. They become unit vectors at right angles when they are read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LayerDirections {
    /// Its number in the model.
    pub layer: usize,
    /// Of its keys, before their rotary embedding.
    pub keys: String,
    /// Of its values.
    pub values: String,
}

/// The directions of a file, read.
#[derive(Debug)]
pub struct Latent {
    model: CalibratedModel,
    heads: DirectionsHeads,
    rank: usize,
    layers: Vec<(usize, [Vec<i8>; 2])>,
}

/// The first `rank` directions of a symmetric matrix, `[size, size]`, as a file holds them.
pub(crate) fn directions(matrix: Vec<f64>, size: usize, rank: usize) -> Vec<i8> {
    let vectors = Spectrum::new(matrix, size).vectors;
    let codes = |row: &[f64]| -> Vec<i8> {
        let most = row.iter().fold(0.0f64, |most, x| most.max(x.abs()));
        row.iter().map(|x| (x / most * 127.0).round() as i8).collect()
    };
    vectors.chunks_exact(size).take(rank).flat_map(codes).collect()
}

impl LayerDirections {
    /// Of the directions of keys and of values.
    pub fn new(layer: usize, [keys, values]: [Vec<i8>; 2]) -> LayerDirections {
        LayerDirections { layer, keys: base64::bytes(keys.into_iter()), values: base64::bytes(values.into_iter()) }
    }
}

impl Latent {
    /// Reads such a file.
    pub fn parse(value: &Value) -> Result<Latent> {
        let DirectionsCalibration { model, heads, rank, layers, .. } = read(value, FORMAT, VERSION)?;
        let count = model.layers;
        if count == 0 || count > MOST_LAYERS || layers.is_empty() {
            return Err(bad(format!("{} of {count} layers, expected some of 1 to {MOST_LAYERS}", layers.len())));
        }
        let mut seen = BTreeSet::new();
        let mut read = Vec::with_capacity(layers.len());
        for LayerDirections { layer, keys, values } in layers {
            if layer >= count || !seen.insert(layer) {
                return Err(bad(format!("layer {layer} of {count} is not there, or there twice")));
            }
            let [keys, values] = [keys, values].map(|text| base64::read_bytes(&text));
            let (Some(keys), Some(values)) = (keys, values) else {
                return Err(bad(format!("the directions of layer {layer} are no base64")));
            };
            read.push((layer, [keys, values]));
        }
        let numbers = read[0].1[0].len();
        if rank == 0 || !numbers.is_multiple_of(rank) || numbers / rank > MOST_CHANNELS {
            return Err(bad(format!("{numbers} numbers for `rank` {rank}")));
        }
        match read.iter().find(|(_, sides)| sides.iter().any(|side| side.len() != numbers || numbers == 0)) {
            Some((layer, _)) => Err(bad(format!("layer {layer} has not {numbers} numbers on both sides"))),
            None => Ok(Latent { model, heads, rank, layers: read }),
        }
    }

    /// Refuses another model than the one that was calibrated. `model` has all layers.
    pub fn check_model(&self, model: &ModelKey) -> Result<()> {
        self.model.check(model)?;
        let channels = model.shape.kv_heads * model.shape.head_dim;
        let size = if self.is_joint() { channels } else { model.shape.head_dim };
        let numbers = self.layers[0].1[0].len();
        if self.rank > size || numbers != self.rank * channels {
            return Err(bad(format!(
                "{numbers} numbers in {} directions, and the model has {} KV heads of {} channels",
                self.rank, model.shape.kv_heads, model.shape.head_dim
            )));
        }
        Ok(())
    }

    /// Whether they are of all heads of a layer together.
    pub fn is_joint(&self) -> bool {
        self.heads == DirectionsHeads::Joint
    }

    /// How many there are.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The first `widths` directions of the keys and of the values of some of the `of` KV heads of a layer.
    pub fn basis(
        &self,
        layer: usize,
        (heads, of, dim): (Range<usize>, usize, usize),
        widths: [usize; 2],
    ) -> Result<Arc<Basis>> {
        let Some((_, sides)) = self.layers.iter().find(|(number, _)| *number == layer) else {
            return Err(Error::Calibration {
                reason: format!("it has no directions of layer {layer}; calibrate this model"),
            });
        };
        let map = |codes: &[i8], width: usize| -> Result<Map, String> {
            if self.is_joint() {
                return Map::joint(of, dim, width, orthonormal(&codes[..width * of * dim], of * dim)?);
            }
            let mut rows = Vec::with_capacity(heads.len() * width * dim);
            for head in heads.clone() {
                let codes = &codes[head * self.rank * dim..][..width * dim];
                rows.extend(orthonormal(codes, dim)?);
            }
            Map::per_head(heads.len(), dim, width, rows)
        };
        let [keys, values] = [0, 1].map(|side| map(&sides[side], widths[side]));
        keys.and_then(|keys| Basis::new(heads.len(), dim, Some(keys), Some(values?)))
            .map_err(|reason| bad(format!("layer {layer} has {reason}")))
    }
}

/// Most channels of a head, or of all heads of a layer: a limit on what comes from outside.
const MOST_CHANNELS: usize = 1 << 20;
/// The least part of a direction that must be its own, at right angles to those before it. Rounding leaves more than 0.99.
const OWN: f64 = 0.5;

/// Unit vectors at right angles that span what the rows of codes span, one by one.
fn orthonormal(codes: &[i8], size: usize) -> Result<Vec<f32>, String> {
    let mut rows: Vec<f64> = Vec::with_capacity(codes.len());
    for codes in codes.chunks_exact(size) {
        let mut row: Vec<f64> = codes.iter().map(|code| f64::from(*code)).collect();
        let whole = norm(&row);
        // Twice, since the first time leaves what rounding has added.
        for _ in 0..2 {
            for other in rows.chunks_exact(size) {
                let along: f64 = row.iter().zip(other).map(|(a, b)| a * b).sum();
                row.iter_mut().zip(other).for_each(|(a, b)| *a -= along * b);
            }
        }
        let own = norm(&row);
        if whole == 0.0 || own < OWN * whole {
            return Err("directions that are not at right angles".into());
        }
        rows.extend(row.iter().map(|x| x / own));
    }
    Ok(rows.into_iter().map(|x| x as f32).collect())
}

fn norm(row: &[f64]) -> f64 {
    row.iter().map(|x| x * x).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cache::{Format, Shape};

    /// A rotation of two channels, as a file writes it.
    fn file(heads: &str) -> Value {
        let codes = [127i8, 95, -95, 127, 127, 0, 0, 127];
        let rows = match heads {
            "joint" => [vec![127, 0, 0, 0], vec![0, 0, 127, 0]].concat(),
            _ => codes.to_vec(),
        };
        let layer =
            |layer: usize| serde_json::to_value(LayerDirections::new(layer, [rows.clone(), rows.clone()])).unwrap();
        json!({
            "format": FORMAT, "version": 1, "model": { "layers": 2 }, "init": "covariance", "heads": heads, "rank": 2,
            "layers": [layer(0), layer(1)],
        })
    }

    fn key(kv_heads: usize, head_dim: usize) -> ModelKey {
        let shape = Shape { layers: 2, kv_heads, head_dim, format: Format::F32 };
        ModelKey { shape, fingerprint: "a".into() }
    }

    #[test]
    fn directions_are_read_as_unit_vectors_at_right_angles() {
        let sound = Latent::parse(&file("each")).expect("a file");
        assert!(sound.check_model(&key(2, 2)).is_ok() && !sound.is_joint());
        for other in [key(1, 2), key(2, 4), key(4, 1)] {
            assert_eq!(sound.check_model(&other).expect_err("another model").code(), "calibration");
        }
        let basis = sound.basis(1, (0..2, 2, 2), [2, 1]).expect("there");
        let (keys, values) = (basis.keys.as_ref().expect("keys"), basis.values.as_ref().expect("values"));
        assert_eq!((keys.cut().width, values.cut().width), (2, 1));
        let long = (127.0f64 * 127.0 + 95.0 * 95.0).sqrt();
        for (channel, coordinate, want) in [(0, 0, 127.0), (1, 0, 95.0), (0, 1, -95.0), (1, 1, 127.0)] {
            assert!((f64::from(keys.back(0, channel, coordinate)) - want / long).abs() < 1e-6);
        }
        assert_eq!(sound.basis(1, (1..2, 2, 2), [2, 2]).expect("one head").shape(), (1, 2));
        let joint = Latent::parse(&file("joint")).expect("a file");
        assert!(joint.check_model(&key(2, 2)).is_ok() && joint.is_joint());
        assert_eq!(joint.basis(0, (0..2, 2, 2), [2, 2]).expect("joint").based().keys.rows, 1);
    }

    #[test]
    fn the_directions_of_a_matrix_are_its_largest() {
        // 9 along (3, 4), 4 along (-4, 3), over 25.
        let matrix = vec![
            (9.0 * 9.0 + 4.0 * 16.0) / 25.0,
            (9.0 - 4.0) * 12.0 / 25.0,
            (9.0 - 4.0) * 12.0 / 25.0,
            (9.0 * 16.0 + 4.0 * 9.0) / 25.0,
        ];
        assert_eq!(directions(matrix.clone(), 2, 1), [95, 127]);
        assert_eq!(directions(matrix, 2, 2), [95, 127, 127, -95]);
    }

    #[test]
    fn broken_files_are_refused() {
        let mut broken = vec![json!("x"), json!([0.5]), json!({}), json!({ "format": "prefixkv-codebooks" })];
        for (name, value) in [
            ("version", json!(2)),
            ("init", json!("svd")),
            ("heads", json!("all")),
            ("rank", json!(0)),
            ("rank", json!(3)),
            ("model", json!({ "layers": 0 })),
            ("model", json!({ "layers": 1 })),
            ("layers", json!([])),
            ("rows", json!([])),
        ] {
            let mut file = file("each");
            file[name] = value;
            broken.push(file);
        }
        for (name, value) in [("layer", json!(1)), ("keys", json!("?")), ("keys", json!("AAAA")), ("values", json!(""))]
        {
            let mut file = file("each");
            file["layers"][0][name] = value;
            broken.push(file);
        }
        for value in broken {
            assert_eq!(Latent::parse(&value).map(|_| ()).expect_err(&value.to_string()).code(), "calibration");
        }
        // Sound but for what its numbers say.
        let mut flat = file("each");
        flat["layers"][0]["keys"] = json!(base64::bytes([127i8, 95, 127, 95, 127, 0, 0, 127].into_iter()));
        let flat = Latent::parse(&flat).expect("numbers");
        let error = flat.basis(0, (0..2, 2, 2), [2, 2]).expect_err("one direction twice");
        assert!(error.code() == "calibration" && error.to_string().contains("right angles"));
        assert!(flat.basis(0, (0..2, 2, 2), [1, 2]).is_ok() && flat.basis(2, (0..2, 2, 2), [1, 2]).is_err());
    }
}
