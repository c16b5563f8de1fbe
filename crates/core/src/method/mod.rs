//! Methods that make the cache small.
//!
//! Four parts combine: a [`Score`](score::Score) says which entries matter, a [`Budget`](budget::Budget) how many each layer
//! keeps, a store how what stays is held, and a schedule when. A *method* is a named combination with the defaults of its
//! source: one file under `methods/` and one line in [`METHODS`].

pub mod budget;
pub mod calibration;
pub mod guard;
pub mod keep;
mod methods;
mod options;
pub mod score;
pub mod spec;
pub mod trace;

use std::sync::Arc;

use serde_json::Value;

pub use crate::keep::Keep;
pub use methods::METHODS;
pub use spec::{BudgetKind, MethodSpec, OptionKind, OptionSpec, VARIANT, Variant};
pub use trace::{Cumulative, LayerRecord, Record};

use crate::error::{Error, Result};
use crate::fields::{describe, nearest, refuse};
use budget::{Budget, ModelKey};
use guard::Protected;
use options::Options;
use score::Score;

/// Which entry goes when generation has made a lane too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// None: the cache grows by every token.
    Never,
    /// The one this many entries before the end of what the prompt has left (the fixed point of Elastic Cache and PrefixKV).
    Distance(usize),
    /// The one with the lowest mark. Marks start as the scores and grow by the attention that entries get.
    LowestScore,
    /// The first that is not protected.
    Oldest,
}

/// Which heads of a layer share their entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lanes {
    /// All.
    PerLayer,
    /// None.
    PerHead,
}

/// To which positions queries and keys are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positions {
    /// Their places in the original sequence.
    True,
    /// Their ranks among the entries that are left (StreamingLLM).
    Cache,
    /// Keys to their places, new tokens to the number of entries that are left in the first layer: what the published code of
    /// PrefixKV and Elastic Cache does, for reproduction only.
    Official,
}

/// The parts of a method.
#[derive(Debug)]
pub struct Recipe {
    pub score: Box<dyn Score>,
    pub budget: Box<dyn Budget>,
    pub protected: Protected,
    pub eviction: Eviction,
    pub lanes: Lanes,
    pub positions: Positions,
}

/// A method with its options.
#[derive(Debug)]
pub struct Method {
    pub name: &'static str,
    pub keep: Keep,
    pub recipe: Recipe,
}

impl Method {
    /// Reads the `cache` of a request: `{ "method": NAME, "keep": ..., ...options }`, or an array of such objects. None is the
    /// plain cache.
    pub fn parse(value: &Value) -> Result<Option<Arc<Method>>> {
        let one = match value {
            Value::Array(stages) => {
                let mut stages =
                    stages.iter().filter(|stage| stage.get("method").and_then(Value::as_str) != Some("full"));
                match (stages.next(), stages.next()) {
                    (None, _) => return Ok(None),
                    (Some(stage), None) => stage,
                    (Some(first), Some(second)) => {
                        let name = |stage: &Value| stage.get("method").map(Value::to_string).unwrap_or_default();
                        return Err(refuse(format!(
                            "`cache` combines {} and {}, which both choose the entries that stay; take one of them",
                            name(first),
                            name(second)
                        )));
                    }
                }
            }
            other => other,
        };
        Method::parse_one(one)
    }

    fn parse_one(value: &Value) -> Result<Option<Arc<Method>>> {
        let Value::Object(given) = value else {
            return Err(refuse(format!("`cache` must be an object with `method`, found {}", describe(value))));
        };
        let mut given = given.clone();
        let names: Vec<&str> = METHODS.iter().map(|spec| spec.name).collect();
        let name = match given.shift_remove("method") {
            Some(Value::String(name)) => name,
            _ => return Err(refuse(format!("`cache` needs `method`, one of {}", names.join(", ")))),
        };
        let Some(spec) = METHODS.iter().find(|spec| spec.name == name) else {
            return Err(Error::Option {
                reason: format!("unknown method `{name}`; known are {}", names.join(", ")),
                suggestion: nearest(&name, &names),
            });
        };
        let asked = given.shift_remove("keep").map(Keep::parse).transpose()?;
        let mut options = Options::new(spec, given)?;
        if asked.is_some() && !spec.takes_keep() {
            return Err(refuse(format!("{name} takes no `keep`")));
        }
        let Some(mut recipe) = (spec.build)(&mut options)? else { return Ok(None) };
        let keep = match asked.or_else(|| recipe.budget.default_keep()) {
            Some(keep) => keep,
            None => return Err(refuse(format!("{name} needs `keep`: a share, {{ tokens: N }} or {{ bytes: N }}"))),
        };
        recipe.budget.check_keep(keep)?;
        if recipe.budget.needs_mass() && !recipe.score.has_mass() {
            return Err(refuse(format!(
                "the budget of {name} compares shares of attention, and its score {:?} is none",
                recipe.score
            )));
        }
        if keep.is_cap() && recipe.eviction == Eviction::Never {
            if options.given("decode") {
                let evicting = spec.options.iter().find(|option| option.name == "decode").map(|option| &option.kind);
                let Some(OptionKind::Choice { values }) = evicting else {
                    return Err(Error::Internal(format!("{name} has no `decode`")));
                };
                let others: Vec<String> =
                    values.iter().filter(|value| **value != "none").map(|value| format!("\"{value}\"")).collect();
                return Err(refuse(format!(
                    "`keep` of {} is a cap for the whole sequence, which `decode: \"none\"` cannot hold; take {} or a share",
                    keep,
                    others.join(", ")
                )));
            }
            recipe.eviction = Eviction::LowestScore;
        }
        Ok(Some(Arc::new(Method { name: spec.name, keep, recipe })))
    }

    /// Refuses a model that the method cannot be used with.
    pub fn check_model(&self, model: &ModelKey) -> Result<()> {
        self.recipe.budget.check_model(model)
    }

    /// Whether entries have marks. `carry` keeps them for a next turn.
    pub fn marked(&self, carry: bool) -> bool {
        self.recipe.eviction == Eviction::LowestScore || (carry && self.recipe.score.has_mass())
    }
}
