//! The options of a lane, as it keeps them.

use prefixkv_kernels::codec::{Codec, Dual, KvCodec};

use super::lane::{LaneOptions, Rotation};
use crate::error::{Error, Result};

/// [`LaneOptions`] in as little room as they need: there may be a lane for every head of every layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contents {
    codecs: [Codec; 2],
    dual: Dual,
    rotation: Rotation,
    scored: bool,
    folded: bool,
    head_dim: u16,
}

impl Contents {
    pub(super) fn new(LaneOptions { head_dim, codec, folded, rotation, scored }: LaneOptions) -> Result<Self> {
        let head_dim = u16::try_from(head_dim).map_err(|_| Error::Internal(format!("heads of {head_dim} elements")))?;
        Ok(Contents { codecs: [codec.key, codec.value], dual: codec.dual, rotation, scored, folded, head_dim })
    }

    pub(super) fn options(self) -> LaneOptions {
        let Contents { codecs: [key, value], dual, rotation, scored, folded, head_dim } = self;
        LaneOptions { head_dim: head_dim.into(), codec: KvCodec::new(key, value, dual), folded, rotation, scored }
    }
}
