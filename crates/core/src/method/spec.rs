//! A method's facts about itself: the one source of its TypeScript constructor, its command-line help and its page.

use std::sync::Arc;

use serde::Serialize;

use super::Recipe;
use super::options::Options;
use super::planner::Plans;
use super::sharing::Sharing;
use super::stage::Refine;
use super::store::Store;
use crate::error::Result;

/// How the entries that a method keeps relate to the asked budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BudgetKind {
    /// After the prompt exactly the asked number of entries, over all layers.
    Exact,
    /// Never more than asked.
    AtMost,
    /// An outcome; the budget is not asked for.
    Outcome,
}

/// One option of a method.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OptionSpec {
    pub name: &'static str,
    pub kind: OptionKind,
    /// As JSON; empty where leaving it out means something of its own.
    pub default: &'static str,
    pub text: &'static str,
}

/// The values of an option.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum OptionKind {
    /// A whole number in a range.
    Count {
        least: u64,
        most: u64,
    },
    /// A share, from 0 to 1.
    Share,
    /// A number in a range.
    Number {
        least: f64,
        most: f64,
    },
    Flag,
    Choice {
        values: &'static [&'static str],
    },
    /// A prefix configuration: a calibration file's content, or evicted shares per layer.
    Calibration,
    /// For some layers, by their numbers, the number of one before it.
    Layers,
    /// The content of a file that says which layers share.
    Sharing,
    /// Bits of keys and of values, for each layer or once for all.
    Pairs,
    /// The content of a file that says how many bits each layer takes.
    Bits,
    /// The content of a file that says in which order channels are stored.
    Channels,
    /// The content of a file with codebooks.
    Codebooks,
    /// The content of a file with directions.
    Directions,
    /// The content of a file with directions of two layers together.
    Latents,
    /// The content of a file with the scores of heads.
    Heads,
}

/// A method: a named combination of score, budget and eviction with the defaults of its source.
pub struct MethodSpec {
    /// As requests and the command line name it, and the name of its TypeScript constructor.
    pub name: &'static str,
    /// As its authors write it.
    pub title: &'static str,
    /// The entries that it keeps, in one line.
    pub summary: &'static str,
    /// Where it comes from.
    pub source: &'static str,
    /// Its page: the formulas and what deviates from the source and why, in Markdown.
    pub page: &'static str,
    pub budget: BudgetKind,
    pub role: Role,
    /// Its options beside `keep`.
    pub options: &'static [OptionSpec],
    /// Other sets of defaults, by the values of its option `variant`; that option's own default has the defaults of the
    /// options and is not listed.
    pub variants: &'static [Variant],
    /// Puts the parts together.
    pub build: fn(&mut Options) -> Result<Stage>,
}

/// The part of a method in a request's `cache`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Chooses the entries that stay, all of them for the plain cache.
    Chooses,
    /// Goes behind a method and changes its plans, and does nothing alone.
    Refines,
    /// Goes behind a method or stands alone, and says how what stays is stored.
    Stores,
    /// Goes before a method or stands alone, and says which layers read the entries of others.
    Shares,
}

/// The contribution of an element of a request's `cache` to the whole.
#[derive(Debug)]
pub enum Stage {
    /// Nothing: the plain cache.
    Nothing,
    /// Chooses the entries that stay.
    Chooses(Box<Recipe>),
    /// Chooses them, and changes its own plans.
    ChoosesAndRefines(Box<Recipe>, Box<dyn Refine>),
    /// Makes plans of its own, which free no entries of a prompt.
    Plans(Arc<dyn Plans>),
    /// Changes the plans of what chooses.
    Refines(Box<dyn Refine>),
    /// Says how what stays is stored.
    Stores(Box<dyn Store>),
    /// Says which layers read the entries of others.
    Shares(Sharing),
}

/// A value of the option `variant` with its own defaults.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    pub name: &'static str,
    /// The options whose defaults differ, with those as JSON. The caller's values win over both.
    pub defaults: &'static [(&'static str, &'static str)],
}

impl Variant {
    /// The default of an option in this variant, as JSON; empty where it has none.
    pub fn default(&self, option: &OptionSpec) -> &'static str {
        let own = self.defaults.iter().find(|(name, _)| *name == option.name);
        own.map_or(option.default, |(_, default)| default)
    }
}

/// The name of the option that chooses a [`Variant`].
pub const VARIANT: &str = "variant";

impl MethodSpec {
    /// Whether the method takes `keep`.
    pub fn takes_keep(&self) -> bool {
        self.budget != BudgetKind::Outcome
    }
}

/// Options that several methods share.
pub(super) mod common {
    use super::{OptionKind, OptionSpec};

    const MOST: u64 = 1_000_000;

    pub(in crate::method) const fn count(name: &'static str, default: &'static str, text: &'static str) -> OptionSpec {
        OptionSpec { name, kind: OptionKind::Count { least: 0, most: MOST }, default, text }
    }

    pub(in crate::method) const fn positive(
        name: &'static str,
        default: &'static str,
        text: &'static str,
    ) -> OptionSpec {
        OptionSpec { name, kind: OptionKind::Count { least: 1, most: MOST }, default, text }
    }

    pub(in crate::method) const fn flag(name: &'static str, text: &'static str) -> OptionSpec {
        OptionSpec { name, kind: OptionKind::Flag, default: "false", text }
    }

    pub(in crate::method) const fn choice(
        name: &'static str,
        values: &'static [&'static str],
        default: &'static str,
        text: &'static str,
    ) -> OptionSpec {
        OptionSpec { name, kind: OptionKind::Choice { values }, default, text }
    }

    pub(in crate::method) const PROTECT_TEXT: OptionSpec =
        flag("protectText", "never evict positions that are text of the prompt");
}
