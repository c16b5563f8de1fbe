//! Prefix configurations that were found before: what a calibration file holds.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::budget::ModelKey;
use crate::error::{Error, Result};
use crate::fields::describe;

/// `format` of a calibration file.
pub const FORMAT: &str = "prefixkv-calibration";
/// The version that is written and read.
pub const VERSION: u32 = 1;
/// Most layers and most rows of a file: limits on what comes from outside.
pub(super) const MOST_LAYERS: usize = 4096;
const MOST_ROWS: usize = 1024;

/// How much each layer keeps, found before: `model.calibrate` makes it, `prefixkv({ calibration })` uses it instead of a search per prompt.
///
/// ```ts
/// import { type Calibration, load, prefixkv } from "prefixkv";
///
/// await using model = await load();
/// const samples = [{ prompt: "USER: Which shapes are there, and where do they lie in the image? ASSISTANT:" }];
/// const calibration: Calibration = await model.calibrate({ method: prefixkv(), samples, keeps: [0.4, 0.6] });
/// console.log(calibration.rows[0]?.retained);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Calibration {
    /// `"prefixkv-calibration"`, which marks such a file.
    pub format: String,
    /// The version of the format: 1.
    pub version: u32,
    /// The model that it belongs to; a size that is not said is not checked.
    pub model: CalibratedModel,
    /// Prompts over which the shares are averaged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<u64>,
    /// The score from which the shares come; a method that uses them ranks by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<String>,
    /// The score's option of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<u64>,
    /// The score's option of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// The score's option of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_size: Option<u64>,
    /// Each layer is rounded by itself, as the published code does with its configurations, instead of meeting the asked whole.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub published: bool,
    /// Where it comes from, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// By rising `keep`; sizes in between are interpolated.
    pub rows: Vec<Row>,
}

/// The model that a calibration belongs to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CalibratedModel {
    /// Its name, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Layers of the language model that methods size: all but those that read another's keys and values or that have a window.
    pub layers: usize,
    /// KV heads per layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_heads: Option<usize>,
    /// Channels per head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// `ModelInfo.fingerprint`; without one only the sizes are compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

/// The shares for one size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", rename = "CalibrationRow")]
pub struct Row {
    /// The retained share of the whole.
    pub keep: f64,
    /// The retained share of every layer.
    pub retained: Vec<f64>,
    /// One less that, as a published configuration has it: subtracting twice would change its last bit, and so a rounding.
    #[serde(skip)]
    evicted: Option<Vec<f64>>,
}

impl CalibratedModel {
    /// Refuses another model.
    pub(super) fn check(&self, model: &ModelKey) -> Result<()> {
        let wrong = |what: &str, expected: String, found: String| {
            Err(Error::Calibration {
                reason: format!(
                    "it belongs to another model: {what} {expected} there, {found} here; calibrate this model"
                ),
            })
        };
        let CalibratedModel { layers, kv_heads, head_dim, fingerprint, .. } = self;
        let sizes = [
            ("layers", Some(*layers), model.shape.layers),
            ("KV heads", *kv_heads, model.shape.kv_heads),
            ("head size", *head_dim, model.shape.head_dim),
        ];
        for (what, expected, found) in sizes {
            if let Some(expected) = expected.filter(|expected| *expected != found) {
                return wrong(what, expected.to_string(), found.to_string());
            }
        }
        match fingerprint {
            Some(fingerprint) if *fingerprint != model.fingerprint => {
                wrong("fingerprint", fingerprint.clone(), model.fingerprint.clone())
            }
            _ => Ok(()),
        }
    }
}

impl Row {
    /// The evicted share of every layer.
    pub fn evicted(&self) -> Vec<f64> {
        self.evicted.clone().unwrap_or_else(|| self.retained.iter().map(|retained| 1.0 - retained).collect())
    }
}

impl Calibration {
    /// Reads a calibration file, or a configuration of the published code: an array with the **evicted** share of every layer.
    pub fn parse(value: &Value) -> Result<Calibration> {
        let calibration = match value {
            Value::Array(evicted) => Calibration::published(evicted)?,
            Value::Object(_) => read(value, FORMAT, VERSION)?,
            other => return Err(bad(format!("expected an object or an array of numbers, found {}", describe(other)))),
        };
        calibration.check()?;
        Ok(calibration)
    }

    fn published(evicted: &[Value]) -> Result<Calibration> {
        let evicted: Vec<f64> = evicted
            .iter()
            .map(Value::as_f64)
            .collect::<Option<_>>()
            .ok_or_else(|| bad("a configuration of the published code is an array of numbers".into()))?;
        let retained: Vec<f64> = evicted.iter().map(|share| 1.0 - share).collect();
        let keep = retained.iter().sum::<f64>() / retained.len().max(1) as f64;
        Ok(Calibration {
            format: FORMAT.into(),
            version: VERSION,
            model: CalibratedModel { layers: retained.len(), ..CalibratedModel::default() },
            samples: None,
            score: None,
            window: None,
            pool: None,
            pool_size: None,
            published: true,
            origin: None,
            rows: vec![Row { keep, retained, evicted: Some(evicted) }],
        })
    }

    /// The options of the method that the sizes follow from, by their names. The published code has one score and does not say it.
    pub fn ranking(&self) -> Vec<(&'static str, Value)> {
        let score = self.score.clone().or(self.published.then(|| "columns".into()));
        let found = [
            ("score", score.map(Value::from)),
            ("window", self.window.map(Value::from)),
            ("pool", self.pool.clone().map(Value::from)),
            ("poolSize", self.pool_size.map(Value::from)),
        ];
        found.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    fn check(&self) -> Result<()> {
        let layers = self.model.layers;
        if layers == 0 || layers > MOST_LAYERS || self.rows.is_empty() || self.rows.len() > MOST_ROWS {
            return Err(bad(format!(
                "{} rows for {layers} layers, expected 1 to {MOST_ROWS} rows for 1 to {MOST_LAYERS} layers",
                self.rows.len()
            )));
        }
        let share = |value: f64| (0.0..=1.0).contains(&value);
        for (index, row) in self.rows.iter().enumerate() {
            if row.retained.len() != layers {
                return Err(bad(format!("row {index} has {} layers, expected {layers}", row.retained.len())));
            }
            if !share(row.keep) || !row.retained.iter().all(|retained| share(*retained)) {
                return Err(bad(format!("row {index} has a share that is not from 0 to 1")));
            }
            if index > 0 && self.rows[index - 1].keep >= row.keep {
                return Err(bad(format!("row {index} does not have a higher `keep` than the row before")));
            }
        }
        Ok(())
    }

    /// Refuses another model than the one that was calibrated.
    pub fn check_model(&self, model: &ModelKey) -> Result<()> {
        self.model.check(model)
    }

    /// Refuses shares that come from another of the `known` scores than the method's; those that do not say theirs are taken.
    pub fn check_score(&self, score: &str, known: &[&str]) -> Result<()> {
        match self.score.as_deref() {
            Some(found) if !known.contains(&found) => {
                let found: String = found.chars().take(40).collect();
                Err(bad(format!("`score` is {found:?}; known are {}", known.join(", "))))
            }
            Some(found) if found != score => Err(Error::Calibration {
                reason: format!(
                    "its shares come from `score: \"{found}\"`, and the method ranks by \"{score}\"; give the method that \
                     score, or calibrate with this one"
                ),
            }),
            _ => Ok(()),
        }
    }

    /// The row for exactly this size.
    pub fn row(&self, keep: f64) -> Option<&Row> {
        self.rows.iter().find(|row| (row.keep - keep).abs() < 1e-9)
    }

    /// The retained share of every layer for any size between the least and the highest row, linear between rows; everything
    /// for 1.
    pub fn read_off(&self, keep: f64) -> Result<Vec<f64>> {
        if let Some(row) = self.row(keep) {
            return Ok(row.retained.clone());
        }
        if keep >= 1.0 {
            return Ok(vec![1.0; self.model.layers]);
        }
        let above = self.rows.iter().position(|row| row.keep > keep).filter(|above| *above > 0);
        let Some(above) = above else {
            let (least, most) = (self.rows[0].keep, self.rows[self.rows.len() - 1].keep);
            let holds = if self.rows.len() == 1 {
                format!("only keep {least:.4}")
            } else {
                format!("keep {least:.4} to {most:.4}")
            };
            return Err(Error::Calibration {
                reason: format!(
                    "it holds {holds}, asked is {keep:.4}; calibrate that size, or leave the calibration out"
                ),
            });
        };
        let (low, high) = (&self.rows[above - 1], &self.rows[above]);
        let part = (keep - low.keep) / (high.keep - low.keep);
        Ok(low.retained.iter().zip(&high.retained).map(|(low, high)| low + part * (high - low)).collect())
    }
}

/// Reads a file that a calibration has written, of this format and version.
pub(super) fn read<T: DeserializeOwned>(value: &Value, format: &str, version: u32) -> Result<T> {
    if !value.is_object() {
        return Err(bad(format!("expected an object, found {}", describe(value))));
    }
    let found = value.get("format").and_then(Value::as_str);
    if found != Some(format) {
        return Err(bad(format!("`format` is {found:?}, expected \"{format}\"")));
    }
    let file = serde_json::from_value(value.clone()).map_err(|error| bad(error.to_string()))?;
    match value.get("version").and_then(Value::as_u64) {
        Some(found) if found != u64::from(version) => {
            Err(bad(format!("`version` is {found}, this library reads {version}")))
        }
        _ => Ok(file),
    }
}

pub(super) fn bad(reason: String) -> Error {
    Error::Calibration { reason: format!("it cannot be read: {reason}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cache::{Format, Shape};

    fn file() -> Value {
        json!({
            "format": FORMAT, "version": 1, "model": { "layers": 2, "kvHeads": 4, "headDim": 8, "fingerprint": "a" },
            "rows": [{ "keep": 0.2, "retained": [0.3, 0.1] }, { "keep": 0.6, "retained": [0.7, 0.5] }],
        })
    }

    #[test]
    fn rows_are_read_off_in_between() {
        let calibration = Calibration::parse(&file()).unwrap();
        assert_eq!(calibration.read_off(0.2).unwrap(), [0.3, 0.1]);
        let half = calibration.read_off(0.4).unwrap();
        assert!((half[0] - 0.5).abs() < 1e-12 && (half[1] - 0.3).abs() < 1e-12);
        assert_eq!(calibration.read_off(1.0).unwrap(), [1.0, 1.0]);
        for keep in [0.1, 0.7] {
            let error = calibration.read_off(keep).unwrap_err().to_string();
            assert!(error.contains("0.2000 to 0.6000"), "{error}");
        }
    }

    #[test]
    fn published_configurations_are_evicted_shares() {
        let calibration = Calibration::parse(&json!([0.25, 0.75])).unwrap();
        assert!(calibration.published);
        let row = &calibration.rows[0];
        assert_eq!((row.keep, &row.retained[..], row.evicted()), (0.5, &[0.75, 0.25][..], vec![0.25, 0.75]));
    }

    #[test]
    fn another_model_is_refused() {
        let calibration = Calibration::parse(&file()).unwrap();
        let shape = Shape { layers: 2, kv_heads: 4, head_dim: 8, format: Format::F32 };
        let key = |shape, fingerprint: &str| ModelKey { shape, fingerprint: fingerprint.into() };
        assert!(calibration.check_model(&key(shape, "a")).is_ok());
        for other in [key(shape, "b"), key(Shape { layers: 3, ..shape }, "a"), key(Shape { head_dim: 9, ..shape }, "a")]
        {
            assert_eq!(calibration.check_model(&other).unwrap_err().code(), "calibration");
        }
    }

    #[test]
    fn another_score_is_refused() {
        let with = |score: &str| {
            let mut file = file();
            file["score"] = json!(score);
            Calibration::parse(&file).unwrap()
        };
        let known = ["columns", "window", "text"];
        assert!(Calibration::parse(&file()).unwrap().check_score("text", &known).is_ok());
        for score in known {
            for other in known {
                assert_eq!(with(score).check_score(other, &known).is_ok(), score == other, "{score} {other}");
            }
        }
        for unknown in ["", "colums", &"x".repeat(10_000)] {
            let error = with(unknown).check_score("columns", &known).unwrap_err();
            assert_eq!(error.code(), "calibration");
            assert!(error.to_string().len() < 200 && error.to_string().contains("known are columns, window, text"));
        }
    }

    #[test]
    fn broken_files_are_refused() {
        let mut broken =
            vec![json!("x"), json!([]), json!(["a"]), json!([1.5]), json!({}), json!({ "format": "other" })];
        for (key, value) in [
            ("version", json!(2)),
            ("rows", json!([])),
            ("rows", json!([{ "keep": 0.5, "retained": [0.5] }])),
            ("rows", json!([{ "keep": 0.5, "retained": [0.5, 1.5] }])),
            ("rows", json!([{ "keep": 0.5, "retained": [0.5, 0.5] }, { "keep": 0.5, "retained": [0.5, 0.5] }])),
            ("model", json!({ "layers": 0 })),
            ("model", json!({ "layers": 2, "heads": 4 })),
        ] {
            let mut file = file();
            file[key] = value;
            broken.push(file);
        }
        for value in broken {
            assert_eq!(Calibration::parse(&value).expect_err(&value.to_string()).code(), "calibration");
        }
    }
}
