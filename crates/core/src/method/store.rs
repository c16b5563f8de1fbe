//! How entries that stay are stored once they are no longer recent.

use prefixkv_kernels::codec::{Codec, Dtype, Dual, KvCodec};

use super::budget::Uniform;
use super::guard::{Protected, Recent};
use super::options::Options;
use super::score::Recency;
use super::spec::common::{choice, count, flag};
use super::spec::{OptionKind, OptionSpec};
use super::{Eviction, Keep, Lanes, Method, Positions, Recipe};
use crate::cache::{Settling, Shape};
use crate::error::Result;
use crate::fields::refuse;

/// Entries that are encoded together while generating, at least.
const BLOCK: usize = 32;

/// A store as a request asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Store {
    name: &'static str,
    dtype: Dtype,
    /// Numbers that share a scale and a zero, at most.
    group: usize,
    window: usize,
    keys_per_channel: bool,
    rotate: bool,
}

/// Options of stores.
pub(super) const GROUP: OptionSpec = OptionSpec {
    name: "group",
    kind: OptionKind::Count { least: 8, most: 64 },
    default: "32",
    text: "numbers that share a scale and a zero, a multiple of 8: entries of a channel, or channels of an entry as far as they divide a head",
};

pub(super) const fn window(default: &'static str) -> OptionSpec {
    count("window", default, "most recent entries that stay in full precision, per layer and head")
}

pub(super) const fn keys(default: &'static str) -> OptionSpec {
    choice(
        "keys",
        &["channel", "entry"],
        default,
        "the numbers of the keys that share a scale: a channel over a group of entries, which are then freed together, or channels of one entry",
    )
}

pub(super) const ROTATE: OptionSpec = flag(
    "rotate",
    "store keys and values through a Hadamard transform, which spreads outliers over the channels of a head",
);

/// Of a store that stands alone: every entry stays.
pub(super) fn everything() -> Recipe {
    Recipe {
        score: Box::new(Recency),
        budget: Box::new(Uniform),
        protected: Protected { sinks: 0, recent: Recent::Entries(0), text: false },
        eviction: Eviction::Never,
        lanes: Lanes::PerLayer,
        positions: Positions::True,
    }
}

impl Store {
    pub(super) fn of(name: &'static str, dtype: Dtype, options: &Options) -> Result<Store> {
        let group = options.count("group")?;
        if !group.is_multiple_of(8) {
            return Err(refuse(format!("`group` of {name} must be a multiple of 8, found {group}")));
        }
        Ok(Store {
            name,
            dtype,
            group,
            window: options.count("window")?,
            keys_per_channel: options.choice("keys")? == "channel",
            rotate: options.flag("rotate")?,
        })
    }

    /// A store of numbers that stand for themselves.
    pub(super) fn plain(name: &'static str, dtype: Dtype, options: &Options) -> Result<Store> {
        let window = options.count("window")?;
        Ok(Store { name, dtype, group: 1, window, keys_per_channel: false, rotate: false })
    }

    /// As requests name it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Refuses a method that it cannot stand behind.
    pub(super) fn check(&self, method: &Method) -> Result<()> {
        if self.rotate && method.recipe().is_some_and(|recipe| recipe.positions == Positions::Cache) {
            return Err(refuse(format!(
                "`rotate` of {} transforms keys that are rotated already, and {} with positions \"cache\" rotates them when they \
                 are read",
                self.name, method.name
            )));
        }
        if self.keys_per_channel && matches!(method.keep(), Some(Keep::Bytes(_))) {
            return Err(refuse(format!(
                "{} frees entries in groups, whose bytes stay until the last of them is evicted, so a `keep` in bytes cannot be held; \
                 take `keys: \"entry\"`, or a `keep` in tokens",
                self.name
            )));
        }
        Ok(())
    }

    /// The transform that all entries of a lane go through.
    pub fn dual(&self) -> Dual {
        if self.rotate { Dual::Hadamard } else { Dual::None }
    }

    /// The store at work on a model of this shape. Refuses heads that cannot be stored so.
    pub fn settling(&self, shape: &Shape) -> Result<Settling> {
        if !self.dtype.is_code() {
            return Ok(Settling { codec: KvCodec::plain(self.dtype), window: self.window, block: BLOCK });
        }
        let dim = shape.head_dim;
        let channels = Codec::channels(dim, self.group).ok_or_else(|| {
            refuse(format!("{} takes heads of a multiple of 8 channels, and those of the model have {dim}", self.name))
        })?;
        let entry = Codec::per_entry(self.dtype, channels);
        let key = if self.keys_per_channel { Codec::per_channel(self.dtype, self.group as u16) } else { entry };
        let codec = KvCodec { key, value: entry, dual: self.dual() };
        codec.check(dim).map_err(|reason| refuse(format!("{} cannot store {reason}", self.name)))?;
        Ok(Settling { codec, window: self.window, block: BLOCK })
    }
}
