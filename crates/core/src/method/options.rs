//! Reading the options of a method against its specification, so that names, ranges and defaults stand in one place.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::bits::{BitsCalibration, Pair};
use super::calibration::{Calibration, MOST_LAYERS};
use super::channels::ChannelsCalibration;
use super::codebooks::CodebookCalibration;
use super::heads::HeadsCalibration;
use super::latent::Latent;
use super::sharing::SharingCalibration;
use super::spec::{MethodSpec, OptionKind, OptionSpec, VARIANT};
use crate::error::Result;
use crate::fields::{Fields, describe, refuse};

/// The options of one method, checked and with their defaults.
pub struct Options {
    spec: &'static MethodSpec,
    given: Map<String, Value>,
    /// Values that win over the defaults where nothing is given.
    fallback: Map<String, Value>,
}

impl Options {
    /// Checks names, types and ranges of everything in `given`.
    pub(super) fn new(spec: &'static MethodSpec, given: Map<String, Value>) -> Result<Options> {
        let known: Vec<&str> = spec.options.iter().map(|option| option.name).collect();
        // For its error, which suggests the nearest name.
        Fields::new(Value::Object(given.clone()), format!("the options of {}", spec.name), &known)?;
        for option in spec.options {
            if let Some(value) = given.get(option.name) {
                check(spec.name, option, value)?;
            }
        }
        Ok(Options { spec, given, fallback: Map::new() })
    }

    fn value(&self, name: &str) -> Result<Value> {
        let option = self.spec.options.iter().find(|option| option.name == name);
        let option = option.ok_or_else(|| {
            crate::Error::Internal(format!("{} reads an option `{name}` that it does not list", self.spec.name))
        })?;
        if let Some(value) = self.given.get(name).or_else(|| self.fallback.get(name)) {
            return Ok(value.clone());
        }
        let chosen = self.given.get(VARIANT).and_then(Value::as_str);
        let variant = self.spec.variants.iter().find(|variant| Some(variant.name) == chosen);
        match variant.map_or(option.default, |variant| variant.default(option)) {
            "" => Ok(Value::Null),
            default => serde_json::from_str(default)
                .map_err(|error| crate::Error::Internal(format!("default of `{name}`: {error}"))),
        }
    }

    /// The name of the method.
    pub fn method(&self) -> &'static str {
        self.spec.name
    }

    /// Whether the caller has given the option.
    pub fn given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// A value for an option that the caller has not given; checked as if he had.
    pub fn fall_back(&mut self, name: &'static str, value: Value) -> Result<()> {
        if let Some(option) = self.spec.options.iter().find(|option| option.name == name) {
            check(self.spec.name, option, &value)?;
        }
        self.fallback.insert(name.into(), value);
        Ok(())
    }

    pub fn count(&self, name: &str) -> Result<usize> {
        Ok(self.value(name)?.as_u64().unwrap_or(0) as usize)
    }

    pub fn share(&self, name: &str) -> Result<f64> {
        Ok(self.value(name)?.as_f64().unwrap_or(0.0))
    }

    pub fn number(&self, name: &str) -> Result<f64> {
        Ok(self.value(name)?.as_f64().unwrap_or(0.0))
    }

    pub fn flag(&self, name: &str) -> Result<bool> {
        Ok(self.value(name)?.as_bool().unwrap_or(false))
    }

    pub fn choice(&self, name: &str) -> Result<String> {
        Ok(self.value(name)?.as_str().unwrap_or_default().to_owned())
    }

    /// For each of these layers, the one before it; None where nothing is given.
    pub fn layers(&self, name: &str) -> Option<BTreeMap<usize, usize>> {
        self.given.get(name).and_then(layers)
    }

    pub fn sharing(&self, name: &str) -> Result<Option<SharingCalibration>> {
        self.given.get(name).map(SharingCalibration::parse).transpose()
    }

    /// Bits of keys and of values; None where nothing is given.
    pub fn pairs(&self, name: &str) -> Option<Vec<Pair>> {
        self.given.get(name).and_then(Pair::all)
    }

    pub fn bits(&self, name: &str) -> Result<Option<BitsCalibration>> {
        self.given.get(name).map(BitsCalibration::parse).transpose()
    }

    pub fn channels(&self, name: &str) -> Result<Option<ChannelsCalibration>> {
        self.given.get(name).map(ChannelsCalibration::parse).transpose()
    }

    pub fn codebooks(&self, name: &str) -> Result<Option<CodebookCalibration>> {
        self.given.get(name).map(CodebookCalibration::parse).transpose()
    }

    pub fn directions(&self, name: &str) -> Result<Option<Latent>> {
        self.given.get(name).map(Latent::parse).transpose()
    }

    pub fn heads(&self, name: &str) -> Result<Option<HeadsCalibration>> {
        self.given.get(name).map(HeadsCalibration::parse).transpose()
    }

    pub fn calibration(&self, name: &str) -> Result<Option<Calibration>> {
        match self.given.get(name) {
            Some(value) => Calibration::parse(value).map(Some),
            None => Ok(None),
        }
    }
}

/// `{ "6": 2 }`.
fn layers(value: &Value) -> Option<BTreeMap<usize, usize>> {
    let number = |number: u64| usize::try_from(number).ok().filter(|number| *number < MOST_LAYERS);
    // As JSON writes a number, so that no layer has two names.
    let name = |text: &str| text.parse().ok().and_then(number).filter(|number| number.to_string() == text);
    let pair = |(layer, source): (&String, &Value)| Some((name(layer)?, number(source.as_u64()?)?));
    value.as_object()?.iter().map(pair).collect()
}

fn check(method: &str, option: &OptionSpec, value: &Value) -> Result<()> {
    let name = option.name;
    let expected = match option.kind {
        OptionKind::Count { least, most } => match value.as_u64() {
            Some(number) if (least..=most).contains(&number) => return Ok(()),
            _ => format!("a whole number from {least} to {most}"),
        },
        OptionKind::Share => match value.as_f64() {
            Some(number) if (0.0..=1.0).contains(&number) => return Ok(()),
            _ => "a number from 0 to 1".into(),
        },
        OptionKind::Number { least, most } => match value.as_f64() {
            Some(number) if (least..=most).contains(&number) => return Ok(()),
            _ => format!("a number from {least} to {most}"),
        },
        OptionKind::Flag if value.is_boolean() => return Ok(()),
        OptionKind::Flag => "true or false".into(),
        OptionKind::Choice { values } => match value.as_str() {
            Some(text) if values.contains(&text) => return Ok(()),
            _ => format!("one of {}", values.join(", ")),
        },
        OptionKind::Calibration if value.is_object() || value.is_array() => return Ok(()),
        OptionKind::Calibration => "a calibration, or the evicted share of every layer".into(),
        OptionKind::Layers if layers(value).is_some() => return Ok(()),
        OptionKind::Layers => {
            "an object with the number of a layer for the numbers of others, such as { \"6\": 2 }".into()
        }
        OptionKind::Sharing if value.is_object() => return Ok(()),
        OptionKind::Sharing => "a calibration of layers that share".into(),
        OptionKind::Pairs if Pair::all(value).is_some() => return Ok(()),
        OptionKind::Pairs => {
            "an array of bits of keys and of values, each 2, 4, 8 or 16, such as [[8, 4], [4, 2]]".into()
        }
        OptionKind::Channels if value.is_object() => return Ok(()),
        OptionKind::Channels => "a calibration of the order of channels".into(),
        OptionKind::Bits if value.is_object() => return Ok(()),
        OptionKind::Bits => "a calibration of the bits of each layer".into(),
        OptionKind::Codebooks if value.is_object() => return Ok(()),
        OptionKind::Codebooks => "a calibration of codebooks".into(),
        OptionKind::Directions if value.is_object() => return Ok(()),
        OptionKind::Directions => "a calibration of directions".into(),
        OptionKind::Heads if value.is_object() => return Ok(()),
        OptionKind::Heads => "a calibration of the scores of heads".into(),
        OptionKind::Latents if value.is_object() => return Ok(()),
        OptionKind::Latents => "a calibration of directions of two layers".into(),
    };
    let found = match value {
        Value::Number(_) | Value::String(_) => value.to_string(),
        other => describe(other).into(),
    };
    Err(refuse(format!("`{name}` of {method} must be {expected}, found {found}")))
}
