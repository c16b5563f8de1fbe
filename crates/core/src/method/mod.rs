//! Methods that make the cache small.
//!
//! A method says what it [needs](planner::Needs) and answers [moments](plan::Moment) with a [plan](plan::Plan): data that says which
//! entries of which lane stay. It sees a sequence through a [view](view::View) and never touches it; the sequence carries plans out.
//!
//! Most methods are a [`Recipe`]: a [`Score`](score::Score) says which entries matter, a [`Budget`](budget::Budget) how many each lane
//! keeps, [`Protected`] which may not go, and [`Eviction`] which goes while generating. A named recipe with the defaults of its source
//! is one file under `methods/` and one line in [`METHODS`].

pub mod bits;
pub mod budget;
pub mod calibration;
mod caps;
pub mod channels;
pub mod codebooks;
mod decision;
pub mod directions;
pub mod eviction;
pub mod external;
pub mod guard;
pub mod heads;
pub mod keep;
pub mod latent;
mod methods;
pub mod normal;
mod options;
pub mod pictures;
pub mod plan;
pub mod planner;
mod recipe;
pub mod score;
pub mod sharing;
pub mod spec;
pub mod stage;
pub mod store;
mod together;
pub mod trace;
pub mod view;
mod watching;

use std::sync::Arc;

use serde_json::Value;

pub use crate::keep::Keep;
pub use decision::{Attention, Decision};
pub use methods::METHODS;
pub use plan::{Encode, Evicted, Join, LanePlan, Merge, Moment, Plan};
pub use planner::{Needs, Planner, Plans, Profile};
pub use recipe::Recipe;
pub use spec::{BudgetKind, MethodSpec, OptionKind, OptionSpec, Role, Stage, VARIANT, Variant};
pub use trace::{Cumulative, LayerRecord, Record};

use crate::cache::{Bookkeeping, Memory, Shape};
use crate::error::{Error, Result};
use crate::fields::{describe, nearest, refuse};
use budget::ModelKey;
use external::{External, ExternalPlanner};
use keep::{Cost, Price};
use options::Options;
use recipe::RecipePlanner;
use sharing::Sharing;
use stage::{Refine, Staged};
use store::{Encoder, Store};

/// Which entry goes when generation has made a lane too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// None: the cache grows by every token.
    Never,
    /// The one this many entries before the end of what the prompt has left (the fixed point of Elastic Cache and PrefixKV).
    Distance(usize),
    /// The one with the lowest score. Scores grow by the attention that entries get.
    LowestScore,
    /// The first that is not protected.
    Oldest,
    /// Several at once, each time that `every` tokens have come: those with the lowest scores; or where there is a `window`, ranked anew by
    /// what the last `window` tokens have given by then.
    Together { every: usize, window: Option<usize> },
}

impl Lanes {
    /// Lanes per layer.
    fn of(self, shape: &Shape) -> usize {
        match self {
            Lanes::PerLayer => 1,
            Lanes::PerHead => shape.kv_heads,
        }
    }
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

/// A method with its options, and the stages behind it.
#[derive(Debug)]
pub struct Method {
    /// As a request gives it; several stages joined by " + ".
    pub name: String,
    chooser: Chooser,
    stages: Vec<Box<dyn Refine>>,
    /// How what stays is stored; None: in full precision.
    store: Option<Box<dyn Store>>,
    /// Which layers read the entries of others; None: those that do so in the model.
    sharing: Option<Sharing>,
}

/// The part that chooses the entries that stay.
#[derive(Debug)]
enum Chooser {
    Recipe { keep: Keep, recipe: Arc<Recipe> },
    External(Arc<External>),
    Plans(Arc<dyn Plans>),
}

impl Method {
    /// Reads the `cache` of a request: `{ "method": NAME, "keep": ..., ...options }`, or an array of such objects, the stages of one
    /// method. None is the plain cache.
    pub fn parse(value: &Value) -> Result<Option<Arc<Method>>> {
        let elements = match value {
            Value::Array(elements) => elements.as_slice(),
            one => std::slice::from_ref(one),
        };
        let mut whole: Option<Method> = None;
        let mut store: Option<Box<dyn Store>> = None;
        let mut sharing: Option<Sharing> = None;
        let mut refining: Vec<&str> = Vec::new();
        let both = |first: &Method, second: &str| {
            refuse(format!(
                "`cache` combines {:?} and {second:?}, which both choose the entries that stay; take one of them",
                first.name
            ))
        };
        let behind = |store: &dyn Store, second: &str| {
            let store = store.name();
            refuse(format!(
                "{store:?} stores what the stages before it leave, so it comes behind {second:?}: `cache: [{second}(...), {store}(...)]`"
            ))
        };
        for element in elements {
            if let Some(external) = External::parse(element)? {
                if let Some(first) = &whole {
                    return Err(both(first, external::NAME));
                }
                if let Some(store) = store.as_deref() {
                    return Err(behind(store, external::NAME));
                }
                let chooser = Chooser::External(Arc::new(external));
                whole = Some(Method::new(external::NAME, chooser));
                continue;
            }
            let (spec, mut options, asked) = Method::parse_one(element)?;
            let stage = (spec.build)(&mut options)?;
            match (&stage, store.as_deref()) {
                (Stage::Stores(_), Some(first)) => {
                    return Err(refuse(format!(
                        "`cache` combines {:?} and {:?}, which both say how entries are stored; take one of them",
                        first.name(),
                        spec.name
                    )));
                }
                (
                    Stage::Chooses(_) | Stage::ChoosesAndRefines(..) | Stage::Plans(_) | Stage::Refines(_),
                    Some(store),
                ) => {
                    return Err(behind(store, spec.name));
                }
                _ => {}
            }
            let chosen = |recipe: Recipe, stages: Vec<Box<dyn Refine>>| match &whole {
                Some(first) => Err(both(first, spec.name)),
                None => Ok(Method { stages, ..Method::checked(spec, &options, recipe, asked)? }),
            };
            match stage {
                Stage::Nothing => {}
                Stage::Stores(asked) => store = Some(asked),
                Stage::Shares(asked) => {
                    let first = whole.as_ref().map(|whole| &whole.name[..]);
                    if let Some(first) = first.or(store.as_deref().map(|store| store.name())) {
                        return Err(refuse(format!(
                            "{0:?} says which layers hold entries, so it comes before {first:?}: `cache: [{0}(...), {first}(...)]`",
                            spec.name
                        )));
                    }
                    if sharing.replace(asked).is_some() {
                        return Err(refuse(format!("`cache` has {} twice", spec.name)));
                    }
                }
                Stage::Chooses(recipe) => whole = Some(chosen(*recipe, Vec::new())?),
                Stage::ChoosesAndRefines(recipe, own) => whole = Some(chosen(*recipe, vec![own])?),
                Stage::Plans(plans) => {
                    if let Some(first) = &whole {
                        return Err(both(first, spec.name));
                    }
                    let (name, chooser) = (spec.name, Chooser::Plans(plans));
                    whole = Some(Method::new(name, chooser));
                }
                Stage::Refines(stage) => {
                    if refining.contains(&spec.name) {
                        return Err(refuse(format!("`cache` has {} twice", spec.name)));
                    }
                    refining.push(spec.name);
                    let Some(whole) = &mut whole else {
                        return Err(refuse(format!(
                            "{0} changes what a method frees, and no method is before it: `cache: [METHOD, {0}]`",
                            spec.name
                        )));
                    };
                    if refining.len() == 1 && !whole.stages.is_empty() {
                        return Err(refuse(format!(
                            "{} merges what it frees by itself; leave {} out, or set its `merge` to \"none\"",
                            whole.name, spec.name
                        )));
                    }
                    if matches!(whole.chooser, Chooser::Plans(_)) {
                        return Err(refuse(format!(
                            "{} changes what a method frees, and {} frees no entries of a prompt: leave one of them out",
                            spec.name, whole.name
                        )));
                    }
                    whole.name += &format!(" + {}", spec.name);
                    whole.stages.push(stage);
                }
            }
        }
        if let Some(store) = store {
            let mut storing = match whole {
                Some(mut whole) => {
                    whole.name += &format!(" + {}", store.name());
                    whole
                }
                None => Method::everything(store.name()),
            };
            store.check(&storing)?;
            if store.before_rope()
                && storing.recipe().is_some_and(|recipe| recipe.score.last_queries() > 0 || recipe.score.repeats())
            {
                return Err(refuse(format!(
                    "{} looks at the attention of single queries, for which {} has no keys as they have attended: it stores them before \
                     their rotary embedding; take another store, or one with `rope: \"after\"` where it has the choice",
                    storing.name,
                    store.name()
                )));
            }
            storing.store = Some(store);
            whole = Some(storing);
        }
        if let Some(sharing) = sharing {
            let mut shared = match whole {
                Some(whole) => {
                    sharing.check(&whole)?;
                    Method { name: format!("{} + {}", sharing.name(), whole.name), ..whole }
                }
                None => Method::everything(sharing.name()),
            };
            shared.sharing = Some(sharing);
            whole = Some(shared);
        }
        Ok(whole.map(Arc::new))
    }

    /// A method as it was asked for, as a text that is the same for the same options.
    pub fn written(asked: Option<&Value>) -> String {
        asked.map_or_else(String::new, Value::to_string)
    }

    fn new(name: &str, chooser: Chooser) -> Method {
        Method { name: name.into(), chooser, stages: Vec::new(), store: None, sharing: None }
    }

    /// One that chooses nothing: every entry stays.
    fn everything(name: &str) -> Method {
        Method::new(name, Chooser::Recipe { keep: Keep::Share(1.0), recipe: Arc::new(store::everything()) })
    }

    /// The full cache, which keeps the last `queries` queries of a prompt for
    /// [`Sequence::take_queries`](crate::sequence::Sequence::take_queries).
    pub(crate) fn watching(queries: usize) -> Method {
        Method::new("full", Chooser::Plans(Arc::new(watching::Watching { queries })))
    }

    fn parse_one(value: &Value) -> Result<(&'static MethodSpec, Options, Option<Keep>)> {
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
        if asked.is_some() && !spec.takes_keep() {
            return Err(refuse(format!("{name} takes no `keep`")));
        }
        Ok((spec, Options::new(spec, given)?, asked))
    }

    /// Refuses parts that do not go together.
    fn checked(spec: &MethodSpec, options: &Options, mut recipe: Recipe, asked: Option<Keep>) -> Result<Method> {
        let name = spec.name;
        let keep = match asked.or_else(|| recipe.budget.default_keep()) {
            Some(keep) => keep,
            None => return Err(refuse(format!("{name} needs `keep`: a share, {{ tokens: N }} or {{ bytes: N }}"))),
        };
        recipe.budget.check_keep(keep)?;
        recipe.budget.check_lanes(recipe.lanes)?;
        if recipe.budget.needs_mass() && !recipe.score.has_mass() {
            return Err(refuse(format!(
                "the budget \"{}\" of {name} compares shares of attention, and the score \"{}\" is none",
                recipe.budget.name(),
                recipe.score.name()
            )));
        }
        if recipe.positions == Positions::Cache && recipe.lanes == Lanes::PerHead && recipe.budget.is_ragged() {
            return Err(refuse(format!(
                "positions \"cache\" give a layer's heads one rank for a position, and the budget \"{}\" gives them sizes of their own",
                recipe.budget.name()
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
            recipe.eviction = if recipe.score.ranks_generated() { Eviction::LowestScore } else { Eviction::Oldest };
        }
        if recipe.eviction == Eviction::LowestScore && !recipe.score.ranks_generated() {
            if options.given("decode") {
                return Err(refuse(format!(
                    "the score \"{}\" of {name} ranks a prompt and no generated token, so `decode` cannot be \"lowest-score\"; take \"oldest\" or \"none\"",
                    recipe.score.name()
                )));
            }
            recipe.eviction = Eviction::Oldest;
        }
        let chooser = Chooser::Recipe { keep, recipe: Arc::new(recipe) };
        Ok(Method::new(name, chooser))
    }

    /// Its parts; None for a method that is no recipe.
    pub fn recipe(&self) -> Option<&Recipe> {
        match &self.chooser {
            Chooser::Recipe { recipe, .. } => Some(recipe),
            Chooser::External(_) | Chooser::Plans(_) => None,
        }
    }

    /// The size that is asked for; None where the method takes none.
    fn keep(&self) -> Option<Keep> {
        match &self.chooser {
            Chooser::Recipe { keep, .. } => Some(*keep),
            Chooser::External(external) => external.keep(),
            Chooser::Plans(_) => None,
        }
    }

    /// Which layers read the entries of others; None: those that do so in the model.
    pub fn sharing(&self) -> Option<&Sharing> {
        self.sharing.as_ref()
    }

    /// Refuses a model that the method cannot be used with.
    pub fn check_model(&self, model: &ModelKey) -> Result<()> {
        match &self.chooser {
            Chooser::Recipe { recipe, .. } => recipe.budget.check_model(model),
            Chooser::External(_) => Ok(()),
            Chooser::Plans(plans) => plans.check_layers(model.shape.layers),
        }
    }

    /// How what stays is stored; None: in full precision.
    pub fn store(&self) -> Option<&dyn Store> {
        self.store.as_deref()
    }

    /// Refuses to have what it leaves behind a prompt saved, of which a store may know more than there is in the entries.
    pub fn require_saved(&self) -> Result<()> {
        match self.store.as_deref() {
            Some(store) if !store.leaves_all() => Err(refuse(format!(
                "{} of {} keeps what it has found in a prompt beside the entries, and no snapshot holds that; save a prefix with int8, int4, int2, \
                 kivi, kvtuner, turboquant, fp8, bf16 or without a store",
                store.name(),
                self.name
            ))),
            _ => Ok(()),
        }
    }

    /// The store for entries that stay on a model of this shape; None: they are in full precision. Refuses heads that cannot be stored
    /// so.
    pub fn encoder(&self, shape: &Shape) -> Result<Option<Box<dyn Encoder>>> {
        self.store.as_ref().map(|store| store.encoder(shape)).transpose()
    }

    /// The method at work on a sequence of its own, whose entries have `price` once they are no longer recent. `carry` keeps what further prompts on
    /// it need.
    pub fn planner<M: Memory>(self: Arc<Self>, shape: &Shape, carry: bool, price: Option<Price>) -> Box<dyn Planner> {
        let bookkeeping = Bookkeeping::of::<M>();
        let cost = |lanes: Lanes, scores: bool| {
            let lanes = lanes.of(shape);
            let cost = Cost::new(shape, lanes, scores, bookkeeping);
            price.map_or(cost, |price| cost.with(&price, shape, lanes, scores, bookkeeping))
        };
        let first: Box<dyn Planner> = match &self.chooser {
            Chooser::Recipe { keep, recipe } => {
                Box::new(RecipePlanner::new(self.name.clone(), *keep, recipe.clone(), carry, cost))
            }
            Chooser::External(external) => Box::new(ExternalPlanner::new(external.clone(), shape.kv_heads, cost)),
            Chooser::Plans(plans) => plans.clone().planner(),
        };
        if self.stages.is_empty() { first } else { Box::new(Staged { first, method: self }) }
    }
}
