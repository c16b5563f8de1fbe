//! Stores that keep all entries but the most recent in one codec.

use prefixkv_kernels::codec::{Codec, Dtype, Dual, KvCodec, Levels};

use super::super::keep::Price;
use super::super::options::Options;
use super::super::plan::{LanePlan, Plan};
use super::super::spec::common::{choice, count, flag};
use super::super::spec::{OptionKind, OptionSpec};
use super::super::view::View;
use super::super::{Method, Positions};
use super::{Encoder, Quantiser, Store};
use crate::cache::Shape;
use crate::error::Result;
use crate::fields::refuse;

/// Entries that are encoded together while generating, at least.
pub(in crate::method) const BLOCK: usize = 32;

/// One codec for all entries that are no longer recent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::method) struct Uniform {
    name: &'static str,
    dtype: Dtype,
    window: usize,
    scheme: Scheme,
}

/// How the numbers of a dtype are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    /// Themselves.
    Plain,
    /// Evenly spaced numbers.
    Even { quantiser: Quantiser, rotate: bool, rope: Rope },
    /// Levels of the standard normal distribution, with a scale per entry, after a random rotation.
    Normal,
}

/// Where keys are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rope {
    After,
    Before,
}

/// Options of stores.
pub(in crate::method) const GROUP: OptionSpec = OptionSpec {
    name: "group",
    kind: OptionKind::Count { least: 8, most: 64 },
    default: "32",
    text: "numbers that share a scale and a zero, a multiple of 8: entries of a channel, or channels of an entry as far as they divide a head",
};

/// 2 or 4.
pub(in crate::method) const fn bits(default: &'static str) -> OptionSpec {
    OptionSpec { name: "bits", kind: OptionKind::Count { least: 2, most: 4 }, default, text: "bits of a code, 2 or 4" }
}

pub(in crate::method) const fn window(default: &'static str) -> OptionSpec {
    count("window", default, "most recent entries that stay in full precision, per layer and head")
}

pub(in crate::method) const fn keys(default: &'static str) -> OptionSpec {
    choice(
        "keys",
        &["channel", "entry"],
        default,
        "the numbers of the keys that share a scale: a channel over a group of entries, which are then freed together, or channels of one entry",
    )
}

pub(in crate::method) const ROTATE: OptionSpec = flag(
    "rotate",
    "store keys and values through a Hadamard transform, which spreads outliers over the channels of a head",
);

pub(in crate::method) const ROPE: OptionSpec = choice(
    "rope",
    &["after", "before"],
    "\"after\"",
    "whether keys are stored after their rotary embedding or before it; before it they are rotated whenever they are read, on the CPU only",
);

impl Rope {
    fn of(options: &Options) -> Result<Rope> {
        Ok(if options.choice("rope")? == "before" { Rope::Before } else { Rope::After })
    }
}

impl Uniform {
    /// Codes by the options of `int8` and its kin.
    pub(in crate::method) fn of(name: &'static str, dtype: Dtype, options: &Options) -> Result<Uniform> {
        Uniform::even(name, dtype, Quantiser::of(options)?, options.flag("rotate")?, options)
    }

    /// Evenly spaced codes of 2 or 4 bits, keys per channel and values per entry.
    pub(in crate::method) fn kivi(name: &'static str, options: &Options) -> Result<Uniform> {
        Uniform::even(name, width(name, options)?, Quantiser::new(options, true)?, false, options)
    }

    fn even(
        name: &'static str,
        dtype: Dtype,
        quantiser: Quantiser,
        rotate: bool,
        options: &Options,
    ) -> Result<Uniform> {
        let rope = Rope::of(options)?;
        if rotate && rope == Rope::Before {
            return Err(refuse(format!(
                "`rotate` of {name} transforms keys that are rotated already, and with `rope: \"before\"` they are rotated when they are \
                 read; take one of the two"
            )));
        }
        let scheme = Scheme::Even { quantiser, rotate, rope };
        Ok(Uniform { name, dtype, window: options.count("window")?, scheme })
    }

    /// A store of numbers that stand for themselves.
    pub(in crate::method) fn plain(name: &'static str, dtype: Dtype, options: &Options) -> Result<Uniform> {
        Ok(Uniform { name, dtype, window: options.count("window")?, scheme: Scheme::Plain })
    }

    /// A store of levels of the standard normal distribution, after a random rotation.
    pub(in crate::method) fn normal(name: &'static str, options: &Options) -> Result<Uniform> {
        let (dtype, window) = (width(name, options)?, options.count("window")?);
        Ok(Uniform { name, dtype, window, scheme: Scheme::Normal })
    }

    /// How entries of heads of `dim` elements are stored.
    fn codec(&self, dim: usize) -> Result<KvCodec> {
        let codec = match self.scheme {
            Scheme::Plain => KvCodec::plain(self.dtype),
            Scheme::Even { quantiser, rotate, .. } => {
                let (key, value) = quantiser.codecs(self.name, dim, self.dtype, self.dtype)?;
                KvCodec::new(key, value, if rotate { Dual::Hadamard } else { Dual::None })
            }
            Scheme::Normal => {
                let all =
                    u16::try_from(dim).map_err(|_| refuse(format!("{} cannot store heads of {dim}", self.name)))?;
                let codec = Codec::of_levels(self.dtype, Levels::Normal, all);
                KvCodec::new(codec, codec, Dual::Random)
            }
        };
        codec.check(dim).map_err(|reason| refuse(format!("{} cannot store {reason}", self.name)))?;
        Ok(codec)
    }
}

/// Option `bits`.
fn width(name: &str, options: &Options) -> Result<Dtype> {
    match options.count("bits")? {
        4 => Ok(Dtype::U4),
        2 => Ok(Dtype::U2),
        bits => Err(refuse(format!("`bits` of {name} must be 2 or 4, found {bits}"))),
    }
}

impl Store for Uniform {
    fn name(&self) -> &'static str {
        self.name
    }

    fn check(&self, method: &Method) -> Result<()> {
        let ranks = method.recipe().is_some_and(|recipe| recipe.positions == Positions::Cache);
        let (through, quantiser) = match self.scheme {
            Scheme::Plain => (None, None),
            Scheme::Even { quantiser, rotate, .. } => (rotate.then_some("`rotate` of "), Some(quantiser)),
            Scheme::Normal => (Some(""), None),
        };
        if ranks && self.before_rope() {
            return Err(refuse(format!(
                "`rope: \"before\"` of {} rotates keys to their own positions when they are read, and {} with positions \"cache\" to their \
                 ranks; leave `rope` out, its keys are stored before their rotary embedding anyway",
                self.name, method.name
            )));
        }
        if let Some(through) = through.filter(|_| ranks) {
            return Err(refuse(format!(
                "{through}{} transforms keys that are rotated already, and {} with positions \"cache\" rotates them when they \
                 are read",
                self.name, method.name
            )));
        }
        quantiser.map_or(Ok(()), |quantiser| quantiser.check(self.name, method))
    }

    fn before_rope(&self) -> bool {
        matches!(self.scheme, Scheme::Even { rope: Rope::Before, .. })
    }

    fn leaves_all(&self) -> bool {
        true
    }

    fn encoder(&self, shape: &Shape) -> Result<Box<dyn Encoder>> {
        let codec = self.codec(shape.head_dim)?;
        let price = Price { codec, window: self.window, block: BLOCK, beside: 0 };
        Ok(Box::new(OneCodec { price }))
    }
}

/// A uniform store at work.
#[derive(Clone, Copy, Debug)]
struct OneCodec {
    price: Price,
}

impl Encoder for OneCodec {
    fn dual(&self) -> Dual {
        self.price.codec.dual
    }

    fn price(&self) -> Option<Price> {
        Some(self.price)
    }

    fn fork(&self) -> Box<dyn Encoder> {
        Box::new(*self)
    }

    fn encode(&mut self, layer: usize, view: &View<'_>, plan: &mut Plan) -> Result<()> {
        settle(self.price.codec, self.price.window, layer, view, plan);
        Ok(())
    }
}

/// How many of the entries that are not encoded yet are to be.
pub(crate) fn settled(codec: KvCodec, window: usize, unencoded: usize) -> usize {
    let settled = unencoded.saturating_sub(window);
    if settled < BLOCK.max(codec.group()) { 0 } else { settled / codec.group() * codec.group() }
}

/// Stores the entries of a layer in `codec` that are no longer among the `window` most recent, once there are enough of them.
pub(super) fn settle(codec: KvCodec, window: usize, layer: usize, view: &View<'_>, plan: &mut Plan) {
    for (index, lane) in view.cache.of(layer).enumerate() {
        let count = settled(codec, window, lane.unencoded());
        if count == 0 {
            continue;
        }
        let oldest = lane.sorted_unencoded().into_iter().take(count);
        let positions = oldest.map(|entry| entry.position).collect();
        plan.push(LanePlan::encoding(layer, index, [(codec, positions)]));
    }
}
