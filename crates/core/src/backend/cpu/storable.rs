//! Whether queries, keys and values can be attended to and stored.

use prefixkv_kernels::attention::Rows;
use prefixkv_kernels::rotary;

use super::attention::RopeAngles;
use crate::backend::{Heads, LayerKind};
use crate::cache::Format;
use crate::error::{Error, Result};
use crate::weights::numbers::{BEYOND_F16, Element};

/// From this magnitude on the products of queries and keys can be past the greatest f32.
const TOO_LARGE: f32 = 1e17;

/// The queries, keys and values of a fused projection, as [`Rows`].
pub(super) type Parts<'a> = [Rows<'a>; 3];

/// The projections of a layer's new rows: keys and values where it has its own.
pub(super) struct Projected<'a> {
    pub(super) queries: Rows<'a>,
    pub(super) stored: Option<[Rows<'a>; 2]>,
}

/// Errors with [`Error::Numbers`] when one of the `n` new queries, keys and values of a layer is NaN or infinite, or cannot be attended to,
/// or a key or value becomes infinite in the cache's format. Attention passes over what is no number without a word, and an entry that is
/// none would take part in every later step.
pub(super) fn storable(
    rows: &Projected<'_>,
    n: usize,
    kind: &LayerKind,
    turn: &RopeAngles,
    format: Format,
) -> Result<()> {
    let (layer, heads) = (kind.layer, kind.heads);
    let narrow = format == Format::F16;
    let (mut key, mut value) = (0.0, 0.0);
    if let Some([keys, values]) = rows.stored {
        (key, value) = (most(keys, n, heads.kv * heads.dim), most(values, n, heads.kv * heads.dim));
        // A rotation makes no number larger than by the square root of 2; only near the limit it has to be done.
        if let RopeAngles::Stored(angles) = turn
            && narrow
            && key < BEYOND_F16
            && key > BEYOND_F16 / 2.0
        {
            let mut rotated = vec![0.0; n * heads.kv * heads.dim];
            rotary::rotate(keys, heads.kv, heads.dim, angles, &mut rotated);
            key = f32::magnitude(f32::most(&rotated));
        }
    }
    let stored = |limit: f32| if narrow { BEYOND_F16 } else { limit };
    for (what, most, limit) in [
        ("queries", most(rows.queries, n, heads.query * heads.dim), TOO_LARGE),
        ("keys", key, stored(TOO_LARGE)),
        ("values", value, stored(f32::INFINITY)),
    ] {
        if most < limit {
            continue;
        }
        let wider = if narrow { vec!["f32"] } else { Vec::new() };
        let reason = match (most.is_finite(), narrow) {
            (true, true) if limit == BEYOND_F16 => format!(
                "the {what} of layer {layer} reach {most}, and the f16 cache beside such weights holds up to 65504; load with weights \
                 \"f32\", beside which the cache is f32"
            ),
            (true, _) => format!("the {what} of layer {layer} reach {most}, too much for attention; {DAMAGED}"),
            (false, true) => format!(
                "the model computes no numbers: the {what} of layer {layer} have NaN or infinity; load with weights \"f32\", which hold \
                 larger numbers, and if that does not help, {DAMAGED}"
            ),
            (false, false) => {
                format!("the model computes no numbers: the {what} of layer {layer} have NaN or infinity; {DAMAGED}")
            }
        };
        return Err(Error::Numbers { reason, fits: wider });
    }
    Ok(())
}

const DAMAGED: &str = "the weights or the configuration of the model are damaged: take another revision of it";

/// As [`storable`], for a projection whose `n` rows attend to each other and are not stored.
pub(super) fn attendable([queries, keys, values]: Parts<'_>, n: usize, heads: Heads) -> Result<()> {
    for (rows, heads_of, limit) in
        [(queries, heads.query, TOO_LARGE), (keys, heads.kv, TOO_LARGE), (values, heads.kv, f32::INFINITY)]
    {
        let most = most(rows, n, heads_of * heads.dim);
        if most < limit {
            continue;
        }
        let found = if most.is_finite() { format!("numbers up to {most}") } else { "NaN or infinity".to_owned() };
        let reason =
            format!("the vision tower computes no features of an image: its attention meets {found}; {DAMAGED}");
        return Err(Error::Numbers { reason, fits: Vec::new() });
    }
    Ok(())
}

/// The greatest magnitude of the first `width` elements of `n` rows; NaN where one is.
fn most(rows: Rows<'_>, n: usize, width: usize) -> f32 {
    let bits = (0..n).map(|row| f32::most(rows.part(row, 0, width))).max();
    f32::magnitude(bits.unwrap_or(0))
}
