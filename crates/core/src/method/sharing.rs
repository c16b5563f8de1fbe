//! Layers that read the keys and values of others because a method asks for it, and the files that say which.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::budget::ModelKey;
use super::calibration::{CalibratedModel, MOST_LAYERS, bad, read};
use super::{Chooser, Method};
use crate::cache::LayerCache;
use crate::error::{Error, Result};
use crate::fields::refuse;

/// `format` of a file with a map of layers.
pub const FORMAT: &str = "prefixkv-sharing";
/// The version that is written and read.
pub const VERSION: u32 = 1;

/// Which layers may read the keys and values of which others, found before: `model.calibrateSharing` makes it,
/// `kvsharer({ calibration })` uses it.
///
/// ```ts
/// import { kvsharer, load, type SharingCalibration } from "prefixkv";
///
/// await using model = await load();
/// const samples = [{ prompt: "USER: Which shapes are there, and where do they lie in the image? ASSISTANT:" }];
/// const calibration: SharingCalibration = await model.calibrateSharing({ samples, layers: 2 });
/// const cache = kvsharer({ calibration, layers: 1 });
/// const { memory } = await model.generate({ prompt: "USER: Hello ASSISTANT:", cache, maxTokens: 8 });
/// console.log(calibration.pairs, memory.keptPerLayer);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SharingCalibration {
    /// `"prefixkv-sharing"`, which marks such a file.
    pub format: String,
    /// The version of the format: 1.
    pub version: u32,
    /// The model that it belongs to, with all layers of its language model; a size that is not said is not checked.
    pub model: CalibratedModel,
    /// Prompts over which keys and values, and then the likeness of the results, are averaged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<u64>,
    /// How the distances were taken: `"paper"` or `"official"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// The likeness that every pair has left, at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// Where it comes from, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// In the order in which they were found: the first so many are a map of so many layers.
    pub pairs: Vec<SharedLayer>,
}

/// A layer that reads the keys and values of one before it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SharedLayer {
    /// The layer that reads.
    pub layer: usize,
    /// The layer whose keys and values it reads; where that one reads another's, it is the other's.
    pub source: usize,
    /// How far apart the keys and values of the two are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distance: Option<f64>,
    /// The cosine of the last hidden states with this pair and all before it to those of the model as it is, the mean over the samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub similarity: Option<f64>,
}

/// Layers that read those of others, as a request asks for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sharing {
    name: &'static str,
    /// The layer that each of these layers is to read, chains not yet followed.
    sources: BTreeMap<usize, usize>,
    /// The model that the map was found for.
    model: Option<CalibratedModel>,
}

impl SharingCalibration {
    /// Reads such a file.
    pub fn parse(value: &Value) -> Result<SharingCalibration> {
        let calibration: SharingCalibration = read(value, FORMAT, VERSION)?;
        calibration.check()?;
        Ok(calibration)
    }

    fn check(&self) -> Result<()> {
        let layers = self.model.layers;
        if layers == 0 || layers > MOST_LAYERS {
            return Err(bad(format!("{layers} layers, expected 1 to {MOST_LAYERS}")));
        }
        let mut seen = BTreeSet::new();
        for (index, SharedLayer { layer, source, .. }) in self.pairs.iter().enumerate() {
            if layer <= source || *layer >= layers {
                return Err(bad(format!(
                    "pair {index} has layer {layer} read layer {source}, which must be one before it, of {layers} layers"
                )));
            }
            if !seen.insert(*layer) {
                return Err(bad(format!("layer {layer} is in two pairs")));
            }
        }
        Ok(())
    }
}

impl Sharing {
    /// A map as it is written by hand: by the layer that reads, the one that it is to read.
    pub(super) fn by_hand(name: &'static str, sources: BTreeMap<usize, usize>) -> Result<Sharing> {
        if sources.is_empty() {
            return Err(refuse(format!("`sources` of {name} is empty; to share nothing, leave {name} out")));
        }
        if let Some((layer, source)) = sources.iter().find(|(layer, source)| source >= layer) {
            return Err(refuse(format!(
                "`sources` of {name} has layer {layer} read layer {source}, which must be a layer before it"
            )));
        }
        Ok(Sharing { name, sources, model: None })
    }

    /// The first pairs of a file, `layers` of them, or all.
    pub(super) fn found(name: &'static str, found: SharingCalibration, layers: Option<usize>) -> Result<Sharing> {
        let there = found.pairs.len();
        let take = layers.unwrap_or(there);
        if take > there {
            return Err(Error::Calibration {
                reason: format!(
                    "it has {there} layers that read those of others, and `layers` of {name} asks for {take}; calibrate more"
                ),
            });
        }
        let sources = found.pairs[..take].iter().map(|pair| (pair.layer, pair.source)).collect();
        Ok(Sharing { name, sources, model: Some(found.model) })
    }

    /// As requests name the method.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Refuses a method that does not go with layers that hold no entries.
    pub(super) fn check(&self, method: &Method) -> Result<()> {
        let (name, other) = (self.name, &method.name);
        match &method.chooser {
            Chooser::Recipe { recipe, .. } if recipe.score.repeats() => Err(refuse(format!(
                "{other} reads prompts twice, which needs layers with entries of their own, and with {name} some read those of others; leave one \
                 of the two out"
            ))),
            Chooser::Plans(plans) if plans.clone().planner().needs().rows => Err(refuse(format!(
                "{other} ends the way of positions between layers, which needs layers with entries of their own, and with {name} some read \
                 those of others; leave one of the two out"
            ))),
            Chooser::Recipe { recipe, .. } if recipe.budget.is_of_layers() => {
                let out = if recipe.budget.has_another() { "the calibration" } else { &other[..] };
                Err(refuse(format!(
                    "the calibration of {other} has a share for every layer of the model, and with {name} some hold no entries; leave {out} \
                     out, or {name}"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Refuses another model than the one that the map was found for. `model` has all layers.
    pub fn check_model(&self, model: &ModelKey) -> Result<()> {
        self.model.as_ref().map_or(Ok(()), |own| own.check(model))
    }

    /// The layers of a model with this map on top of its own: every chain leads to a layer that has its own. Refuses a layer that is not
    /// there, that shares by itself, or whose keys and values are of another kind than those it is to read.
    pub fn layers(&self, own: &[LayerCache]) -> Result<Vec<LayerCache>> {
        let (name, mut layers) = (self.name, own.to_vec());
        // Ascending, so that the source of a source is known.
        for (&layer, &source) in &self.sources {
            let Some(kind) = own.get(layer) else {
                let last = own.len().saturating_sub(1);
                return Err(refuse(format!("{name} names layer {layer}, and the last layer of the model is {last}")));
            };
            if kind.source != layer {
                return Err(refuse(format!(
                    "{name} has layer {layer} read layer {source}, but in this model it reads layer {} already",
                    kind.source
                )));
            }
            let root = layers[source].source;
            let window = |layer: usize| match own[layer].window {
                Some(window) => format!("sees {window} positions"),
                None => "sees all positions".into(),
            };
            if own[root].window != kind.window {
                return Err(refuse(format!(
                    "{name} has layer {layer} read layer {root}, but one {} and the other {}",
                    window(layer),
                    window(root)
                )));
            }
            if own[root].rope != kind.rope {
                return Err(refuse(format!(
                    "{name} has layer {layer} read layer {root}, but their rotary embeddings differ"
                )));
            }
            layers[layer].source = root;
        }
        // Layers of the model that read one that reads another's now.
        for layer in 0..layers.len() {
            layers[layer].source = layers[layers[layer].source].source;
        }
        Ok(layers)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn layers(kinds: &[(usize, Option<u32>, usize)]) -> Vec<LayerCache> {
        kinds.iter().map(|&(source, window, rope)| LayerCache { source, window, rope }).collect()
    }

    fn by_hand(sources: &[(usize, usize)]) -> Result<Sharing> {
        Sharing::by_hand("kvsharer", sources.iter().copied().collect())
    }

    fn sources(sharing: &Sharing, own: &[LayerCache]) -> Result<Vec<usize>> {
        Ok(sharing.layers(own)?.iter().map(|layer| layer.source).collect())
    }

    #[test]
    fn chains_lead_to_a_layer_with_its_own() {
        let plain = layers(&[0, 1, 2, 3, 4, 5].map(|layer| (layer, None, 0)));
        for (map, want) in [
            (vec![(5, 3)], [0, 1, 2, 3, 4, 3]),
            (vec![(5, 3), (3, 2)], [0, 1, 2, 2, 4, 2]),
            (vec![(5, 4), (4, 3), (3, 2), (2, 1), (1, 0)], [0; 6]),
        ] {
            assert_eq!(sources(&by_hand(&map).unwrap(), &plain).unwrap(), want, "{map:?}");
        }
        // On top of a model's own: its layer 4 reads layer 2, which reads layer 0 now.
        let own = layers(&[(0, None, 0), (1, None, 0), (2, None, 0), (3, None, 0), (2, None, 0)]);
        assert_eq!(sources(&by_hand(&[(2, 0)]).unwrap(), &own).unwrap(), [0, 1, 0, 3, 0]);
    }

    #[test]
    fn layers_of_another_kind_are_not_read() {
        let own =
            layers(&[(0, None, 0), (1, Some(4), 1), (2, Some(4), 1), (3, Some(9), 1), (4, None, 1), (0, None, 0)]);
        let refused = |map: &[(usize, usize)], text: &str| {
            let error = by_hand(map).and_then(|sharing| sharing.layers(&own)).unwrap_err();
            assert!(error.code() == "option" && error.to_string().contains(text), "{error}");
        };
        assert_eq!(sources(&by_hand(&[(2, 1)]).unwrap(), &own).unwrap(), [0, 1, 1, 3, 4, 0]);
        refused(&[(1, 0)], "one sees 4 positions and the other sees all positions");
        refused(&[(3, 2)], "one sees 9 positions and the other sees 4 positions");
        refused(&[(4, 0)], "rotary embeddings differ");
        refused(&[(5, 0)], "reads layer 0 already");
        refused(&[(6, 0)], "the last layer of the model is 5");
        refused(&[(0, 0)], "must be a layer before it");
        refused(&[(1, 2)], "must be a layer before it");
        refused(&[], "is empty");
    }

    fn file() -> Value {
        json!({
            "format": FORMAT, "version": 1, "model": { "layers": 6 },
            "pairs": [{ "layer": 5, "source": 3 }, { "layer": 3, "source": 1, "similarity": 0.9 }],
        })
    }

    #[test]
    fn the_first_pairs_of_a_file_are_a_map() {
        let found = SharingCalibration::parse(&file()).unwrap();
        let plain = layers(&[0, 1, 2, 3, 4, 5].map(|layer| (layer, None, 0)));
        for (take, want) in [
            (Some(0), [0, 1, 2, 3, 4, 5]),
            (Some(1), [0, 1, 2, 3, 4, 3]),
            (Some(2), [0, 1, 2, 1, 4, 1]),
            (None, [0, 1, 2, 1, 4, 1]),
        ] {
            let sharing = Sharing::found("kvsharer", found.clone(), take).unwrap();
            assert_eq!(sources(&sharing, &plain).unwrap(), want);
        }
        let error = Sharing::found("kvsharer", found, Some(3)).unwrap_err();
        assert!(error.code() == "calibration" && error.to_string().contains("calibrate more"), "{error}");
    }

    #[test]
    fn broken_files_are_refused() {
        let mut broken = vec![json!("x"), json!([0.5]), json!({}), json!({ "format": "prefixkv-calibration" })];
        for (key, value) in [
            ("version", json!(2)),
            ("model", json!({ "layers": 0 })),
            ("model", json!({ "layers": 5 })),
            ("pairs", json!([{ "layer": 1, "source": 1 }])),
            ("pairs", json!([{ "layer": 2, "source": 1 }, { "layer": 2, "source": 0 }])),
            ("pairs", json!([{ "layer": 2 }])),
            ("rows", json!([])),
        ] {
            let mut file = file();
            file[key] = value;
            broken.push(file);
        }
        for value in broken {
            assert_eq!(SharingCalibration::parse(&value).expect_err(&value.to_string()).code(), "calibration");
        }
    }
}
