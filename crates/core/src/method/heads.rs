//! How much each attention head matters, and the files that say it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::budget::ModelKey;
use super::calibration::{CalibratedModel, MOST_LAYERS, bad, read};
use crate::error::{Error, Result};

/// `format` of a file with scores of heads.
pub const FORMAT: &str = "prefixkv-heads";
/// The version that is written and read.
pub const VERSION: u32 = 1;
/// Most query heads of a layer: a limit on what comes from outside.
const MOST_HEADS: usize = 4096;

/// How much each attention head matters, found before: `model.calibrateHeads` makes it, `sparseMm({ calibration })` and
/// `headKv({ calibration })` size heads by it.
///
/// ```ts
/// import { type HeadsCalibration, image, load, sparseMm } from "prefixkv";
///
/// await using model = await load();
/// const messages = [{ role: "user", content: [image("scene.png"), "What color is the star?"] }];
/// const calibration: HeadsCalibration = await model.calibrateHeads({ samples: [{ messages, answer: "green" }] });
/// const { memory } = await model.generate({ messages, cache: sparseMm({ keep: 0.3, calibration }), maxTokens: 8 });
/// console.log(calibration.scores[0], memory.keptPerLayer);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HeadsCalibration {
    /// `"prefixkv-heads"`, which marks such a file.
    pub format: String,
    /// The version of the format: 1.
    pub version: u32,
    /// The model that it belongs to, with the layers that methods size; its `kvHeads` must be there.
    pub model: CalibratedModel,
    /// How the heads were scored.
    pub measure: HeadMeasure,
    /// Last positions of each sample that were looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queries: Option<u64>,
    /// Prompts over which the scores are averaged: those of which some position counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<u64>,
    /// Positions of them that counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positions: Option<u64>,
    /// Where it comes from, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// For each layer that methods size, the score of every query head, from 0; those of the query heads of a KV head count together.
    pub scores: Vec<Vec<f64>>,
}

/// How a head is scored, each as the mean over positions: whether it looks at an image most (`"image-hits"`), how much of its attention images
/// get (`"image-mass"`), or how much of it goes to where the next token stood before (`"copies"`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadMeasure {
    #[default]
    ImageHits,
    ImageMass,
    Copies,
}

impl HeadsCalibration {
    /// Reads such a file.
    pub fn parse(value: &Value) -> Result<HeadsCalibration> {
        let calibration: HeadsCalibration = read(value, FORMAT, VERSION)?;
        calibration.check()?;
        Ok(calibration)
    }

    fn check(&self) -> Result<()> {
        let layers = self.model.layers;
        if layers == 0 || layers > MOST_LAYERS || self.scores.len() != layers {
            return Err(bad(format!(
                "the scores of {} layers of {layers}, expected all of 1 to {MOST_LAYERS} layers",
                self.scores.len()
            )));
        }
        let Some(kv_heads) = self.model.kv_heads else {
            return Err(bad("`model` does not say its `kvHeads`".into()));
        };
        for (layer, scores) in self.scores.iter().enumerate() {
            if scores.is_empty() || scores.len() > MOST_HEADS || kv_heads == 0 || !scores.len().is_multiple_of(kv_heads)
            {
                return Err(bad(format!(
                    "layer {layer} has the scores of {} heads, expected a multiple of {kv_heads} KV heads, up to {MOST_HEADS}",
                    scores.len()
                )));
            }
            if let Some(score) = scores.iter().find(|score| !(score.is_finite() && **score >= 0.0)) {
                return Err(bad(format!("layer {layer} has a score of {score}, expected numbers from 0")));
            }
        }
        match self.scores.iter().flatten().sum::<f64>() {
            sum if sum.is_finite() && sum > 0.0 => Ok(()),
            sum => Err(bad(format!("the scores of all heads sum to {sum}, which is no whole to take shares of"))),
        }
    }

    /// The share of each KV head in the scores of the model, `[layer][KV head]`.
    pub fn shares(&self) -> Vec<Vec<f64>> {
        let whole: f64 = self.scores.iter().flatten().sum();
        let heads = self.model.kv_heads.unwrap_or(1).max(1);
        let of = |scores: &Vec<f64>| {
            let groups = scores.chunks((scores.len() / heads).max(1));
            groups.map(|group| group.iter().sum::<f64>() / whole).collect()
        };
        self.scores.iter().map(of).collect()
    }

    /// Refuses another model than the one that was calibrated. `model` has the layers that methods size.
    pub fn check_model(&self, model: &ModelKey) -> Result<()> {
        self.model.check(model)
    }
}

/// The error of a method without a calibration.
pub(super) fn needed(method: &str, measure: &str) -> Error {
    crate::fields::refuse(format!(
        "{method} needs `calibration`, the scores of the model's heads: `model.calibrateHeads({{ samples, measure: \"{measure}\" }})` or \
         `prefixkv calibrate --method {method}` finds them"
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn file() -> Value {
        json!({
            "format": FORMAT, "version": 1, "model": { "layers": 2, "kvHeads": 2 }, "measure": "copies",
            "scores": [[1, 2, 0, 1], [0, 0, 3, 1]],
        })
    }

    #[test]
    fn query_heads_of_a_kv_head_count_together() {
        let found = HeadsCalibration::parse(&file()).unwrap();
        assert_eq!(found.shares(), [[0.375, 0.125], [0.0, 0.5]]);
        let written = serde_json::to_value(&found).unwrap();
        assert_eq!(HeadsCalibration::parse(&written).unwrap(), found);
    }

    #[test]
    fn broken_files_are_refused() {
        let mut broken = vec![json!("x"), json!([0.5]), json!({}), json!({ "format": "prefixkv-sharing" })];
        for scores in [
            json!([]),
            json!([[1, 2, 0, 1]]),
            json!([[1, 2, 0, 1], [0, 0, 3]]),
            json!([[1, 2, 0, 1], []]),
            json!([[1, 2, 0, -1], [0, 0, 3, 1]]),
            json!([[1, 2, 0, null], [0, 0, 3, 1]]),
            json!([[0, 0], [0, 0]]),
            json!([[1e308, 1e308], [1e308, 0]]),
        ] {
            let mut file = file();
            file["scores"] = scores;
            broken.push(file);
        }
        for (key, value) in [
            ("version", json!(2)),
            ("model", json!({ "layers": 2 })),
            ("model", json!({ "layers": 0, "kvHeads": 2 })),
            ("model", json!({ "layers": 2, "kvHeads": 0 })),
            ("measure", json!("boxes")),
            ("rows", json!([])),
        ] {
            let mut file = file();
            file[key] = value;
            broken.push(file);
        }
        for value in broken {
            assert_eq!(HeadsCalibration::parse(&value).expect_err(&value.to_string()).code(), "calibration");
        }
    }
}
