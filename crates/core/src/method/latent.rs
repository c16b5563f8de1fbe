//! Directions along which keys and values of a model's heads are stored, as a calibration has found them, and the files that hold them.

use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use prefixkv_kernels::codec::{Basis, Map};
use rayon::prelude::*;
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
/// Parts of the vectors of two layers: keys and values of either.
pub const PARTS: usize = 4;
/// Most bytes of the directions in a file, as text: what a request may bring, with room for the rest.
pub const MOST_TEXT: usize = 23 << 20;

/// Directions of keys, before their rotary embedding, and of values, the most important ones first: `model.calibrateCskv` makes it,
/// `cskv({ calibration })` uses it; or of keys and values of two layers together, from `model.calibrateClla` for `clla`.
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
    /// Whether keys and values of a layer have directions of their own each, as where it is left out, or those of two layers some together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<DirectionsSpan>,
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
    /// One for each layer that has keys and values of its own, by rising number; with `span: "pair"` two and two go together, and of an odd
    /// number of layers the last is left out.
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

/// The rows that have directions together: the keys of a layer, and its values (`"layer"`); or the keys and values of two neighbouring layers
/// (`"pair"`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DirectionsSpan {
    #[default]
    Layer,
    Pair,
}

/// The directions of a layer, each a vector of whole numbers of which the largest magnitude is 127: base64 of 8 bits each, `[heads, rank, head
/// size]`, or `[rank, heads * head size]` of all heads together. They become unit vectors at right angles when they are read. Of two layers
/// they are the parts of longer vectors: keys and values of the first, then of the second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LayerDirections {
    /// Its number in the model.
    pub layer: usize,
    /// Of its keys, before their rotary embedding.
    pub keys: String,
    /// Of its values.
    pub values: String,
    /// With `span: "pair"`, the root mean squares of the numbers of its keys and of its values, by which they are divided before they are
    /// brought to coordinates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sizes: Option<[f64; 2]>,
}

/// The directions of a file, read.
#[derive(Debug)]
pub struct Latent {
    model: CalibratedModel,
    heads: DirectionsHeads,
    span: DirectionsSpan,
    rank: usize,
    layers: Vec<Found>,
}

/// The part of a file for one layer.
#[derive(Debug)]
struct Found {
    layer: usize,
    /// Of keys and of values.
    sides: [Vec<i8>; 2],
    /// 1 where layers have directions of their own.
    sizes: [f64; 2],
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
        let [keys, values] = [keys, values].map(|codes| base64::bytes(codes.into_iter()));
        LayerDirections { layer, keys, values, sizes: None }
    }
}

impl Latent {
    /// Reads such a file.
    pub fn parse(value: &Value) -> Result<Latent> {
        let DirectionsCalibration { model, heads, span, rank, layers, .. } = read(value, FORMAT, VERSION)?;
        let (count, span) = (model.layers, span.unwrap_or_default());
        if count == 0 || count > MOST_LAYERS || layers.is_empty() {
            return Err(bad(format!("{} of {count} layers, expected some of 1 to {MOST_LAYERS}", layers.len())));
        }
        let mut seen = BTreeSet::new();
        let mut read: Vec<Found> = Vec::with_capacity(layers.len());
        for LayerDirections { layer, keys, values, sizes } in layers {
            if layer >= count || !seen.insert(layer) {
                return Err(bad(format!("layer {layer} of {count} is not there, or there twice")));
            }
            let sizes = match (span, sizes) {
                (DirectionsSpan::Layer, None) => [1.0; 2],
                (DirectionsSpan::Pair, Some(sizes)) if sizes.iter().all(|size| SIZES.contains(size)) => sizes,
                (_, sizes) => return Err(bad(format!("layer {layer} of a {span:?} has the `sizes` {sizes:?}"))),
            };
            let [keys, values] = [keys, values].map(|text| base64::read_bytes(&text));
            let (Some(keys), Some(values)) = (keys, values) else {
                return Err(bad(format!("the directions of layer {layer} are no base64")));
            };
            read.push(Found { layer, sides: [keys, values], sizes });
        }
        if span == DirectionsSpan::Pair && !(read.len().is_multiple_of(2) && read.is_sorted_by_key(|found| found.layer))
        {
            return Err(bad(format!("{} layers, which are no pairs by rising number", read.len())));
        }
        let numbers = read[0].sides[0].len();
        if rank == 0 || !numbers.is_multiple_of(rank) || numbers / rank > MOST_CHANNELS {
            return Err(bad(format!("{numbers} numbers for `rank` {rank}")));
        }
        match read.iter().find(|found| found.sides.iter().any(|side| side.len() != numbers || numbers == 0)) {
            Some(found) => Err(bad(format!("layer {} has not {numbers} numbers on both sides", found.layer))),
            None => Ok(Latent { model, heads, span, rank, layers: read }),
        }
    }

    /// Refuses directions of another span.
    pub fn check_span(&self, wanted: DirectionsSpan) -> Result<()> {
        let (has, make) = match wanted {
            DirectionsSpan::Layer => ("two layers together", "calibrateCskv"),
            DirectionsSpan::Pair => ("each layer by itself", "calibrateClla"),
        };
        match self.span == wanted {
            true => Ok(()),
            false => {
                let reason = format!("it has directions of {has}, and others are meant: those of model.{make}");
                Err(Error::Calibration { reason })
            }
        }
    }

    /// Refuses another model than the one that was calibrated. `model` has all layers.
    pub fn check_model(&self, model: &ModelKey) -> Result<()> {
        self.model.check(model)?;
        let channels = model.shape.kv_heads * model.shape.head_dim;
        let size = if self.is_joint() { channels } else { model.shape.head_dim };
        let size = if self.span == DirectionsSpan::Pair { PARTS * size } else { size };
        let numbers = self.layers[0].sides[0].len();
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
        let Some(Found { sides, .. }) = self.layers.iter().find(|found| found.layer == layer) else {
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

impl Latent {
    /// The pair that a layer is of, by rising number; None: it has no directions.
    pub fn pair(&self, layer: usize) -> Option<[usize; 2]> {
        let at = self.layers.iter().position(|found| found.layer == layer)?;
        let [first, second] = self.layers.get(at / 2 * 2..at / 2 * 2 + 2)? else { return None };
        Some([first.layer, second.layer])
    }

    /// The bases in which some of the `of` KV heads of either layer of a pair have `width` coordinates together.
    pub fn bases(
        &self,
        pair: [usize; 2],
        (heads, of, dim): (Range<usize>, usize, usize),
        width: usize,
    ) -> Result<[Arc<Basis>; 2]> {
        let at = self.layers.iter().position(|found| found.layer == pair[0]).unwrap_or(self.layers.len());
        let Some(found @ [first, second]) = self.layers.get(at..at + 2) else {
            return Err(Error::Internal(format!("directions of the layers {pair:?}, which are no pair")));
        };
        let parts = [&first.sides[0], &first.sides[1], &second.sides[0], &second.sides[1]];
        // Of all heads together the rows are those of one long head.
        let (long, blocks) = if self.is_joint() { (of * dim, 0..1) } else { (dim, heads.clone()) };
        let of_block = |block: usize| -> Result<Vec<f32>, String> {
            let row = |index: usize| parts.map(|part| &part[(block * self.rank + index) * long..][..long]).concat();
            orthonormal(&(0..width).flat_map(row).collect::<Vec<_>>(), PARTS * long)
        };
        let bad = |reason: String| bad(format!("layers {pair:?} have {reason}"));
        let rows: Vec<Vec<f32>> = blocks.into_par_iter().map(of_block).collect::<Result<_, _>>().map_err(bad)?;
        let map = |part: usize, size: f64| {
            let own = |row: &[f32]| row[part * long..(part + 1) * long].to_vec();
            let of_part = rows.iter().flat_map(|block| block.chunks_exact(PARTS * long)).flat_map(own);
            let scaled = of_part.map(|x| (f64::from(x) * size) as f32).collect();
            Map::part(heads.len(), dim, (rows.len(), width), scaled)
        };
        // A part is divided by its size twice: its map multiplies by it.
        let basis = |side: usize| -> Result<Arc<Basis>, String> {
            let [key, value] = found[side].sizes;
            let weights = [key, value].map(|size| (1.0 / (size * size)) as f32);
            Basis::shared(heads.len(), dim, map(2 * side, key)?, map(2 * side + 1, value)?, weights)
        };
        Ok([basis(0).map_err(bad)?, basis(1).map_err(bad)?])
    }
}

/// The `sizes` of a file: those whose squares f32 can hold.
const SIZES: RangeInclusive<f64> = 1e-12..=1e12;
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

    /// Two layers of two heads of two channels, with two directions for each head.
    fn pairs() -> Value {
        let mut file = file("each");
        file["span"] = json!("pair");
        for (layer, sizes) in [(0, [0.5, 2.0]), (1, [1.0, 4.0])] {
            file["layers"][layer]["sizes"] = json!(sizes);
        }
        file
    }

    #[test]
    fn two_layers_have_their_rows_from_the_same_coordinates() {
        let latent = Latent::parse(&pairs()).expect("a file");
        assert!(latent.check_model(&key(2, 2)).is_ok() && latent.check_span(DirectionsSpan::Pair).is_ok());
        assert!(latent.check_span(DirectionsSpan::Layer).expect_err("pairs").to_string().contains("calibrateCskv"));
        let error = Latent::parse(&file("each")).expect("a file").check_span(DirectionsSpan::Pair);
        assert!(error.expect_err("layers").to_string().contains("calibrateClla"));
        assert_eq!([latent.pair(0), latent.pair(1), latent.pair(2)], [Some([0, 1]), Some([0, 1]), None]);
        let bases = latent.bases([0, 1], (0..2, 2, 2), 2).expect("bases");
        // Vectors that lie along the two directions come back whole: the parts times the sizes.
        let sizes = [[0.5f32, 2.0], [1.0, 4.0]];
        let own = |head: usize, c: [f32; 2], size: f32| -> Vec<f32> {
            let rows = if head == 0 { [[127.0f32, 95.0], [-95.0, 127.0]] } else { [[127.0, 0.0], [0.0, 127.0]] };
            (0..2).map(|at| (c[0] * rows[0][at] + c[1] * rows[1][at]) * size).collect()
        };
        let along = [[0.01, -0.02], [0.03, 0.005]];
        let entry = |layer: usize, side: usize| -> Vec<f32> {
            (0..2).flat_map(|head| own(head, along[head], sizes[layer][side])).collect()
        };
        let mut sum = [0.0; 4];
        for (layer, basis) in bases.iter().enumerate() {
            let coordinates = basis.coordinates(&entry(layer, 0), &entry(layer, 1), 1).expect("together");
            sum.iter_mut().zip(coordinates).for_each(|(sum, x)| *sum += x);
        }
        for (layer, basis) in bases.iter().enumerate() {
            for (side, map) in [&basis.keys, &basis.values].into_iter().enumerate() {
                for head in 0..2 {
                    let mut back = [0.0; 2];
                    map.as_ref().expect("both").expand(head, &sum[2 * head..][..2], &mut back);
                    let want = own(head, along[head], sizes[layer][side]);
                    assert!(back.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-4), "{back:?} for {want:?}");
                }
            }
        }
        for (name, value) in [("sizes", json!(null)), ("sizes", json!([1, 0])), ("layer", json!(7))] {
            let mut broken = pairs();
            broken["layers"][1][name] = value;
            assert_eq!(Latent::parse(&broken).map(|_| ()).expect_err(name).code(), "calibration");
        }
        let mut odd = pairs();
        odd["layers"].as_array_mut().expect("layers").pop();
        assert!(Latent::parse(&odd).expect_err("one layer").to_string().contains("no pairs"));
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
            ("span", json!("pair")),
            ("span", json!("model")),
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
