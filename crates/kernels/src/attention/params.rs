//! Parameters of attention, apart from queries and lanes.

/// Which entries a query may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// The last `n` entries of the lane are the queries' own; query `i` sees all up to its own, or as far as the lane's `ends` say.
    Causal,
    /// Every query sees every entry (image towers).
    None,
}

/// The parameters of one layer's attention, the same for every query and lane of a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionParams {
    /// Query heads of the layer, grouped evenly over its KV heads.
    pub query_heads: usize,
    pub kv_heads: usize,
    /// Elements of a head.
    pub dim: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// A score `s`, already scaled, becomes `softcap * tanh(s / softcap)`.
    pub softcap: Option<f32>,
    /// The query at position `p` sees no entry before position `p - window + 1`, at least 1. Counts positions and not entries, since
    /// entries in between may be gone; so every lane must know the positions of its entries. Only with [`Mask::Causal`].
    pub window: Option<u32>,
    /// Of [`prefill`](super::prefill); [`decode`](super::decode) has one query per lane, which sees what the window leaves.
    pub mask: Mask,
}

impl AttentionParams {
    /// Causal, scaled by `1 / sqrt(dim)`, without a cap and a window.
    pub fn new(query_heads: usize, kv_heads: usize, dim: usize) -> Self {
        let scale = 1.0 / (dim as f32).sqrt();
        AttentionParams { query_heads, kv_heads, dim, scale, softcap: None, window: None, mask: Mask::Causal }
    }

    /// Query heads that share a KV head.
    pub fn group(&self) -> usize {
        self.query_heads / self.kv_heads
    }

    /// The first position that the query at `position` sees.
    pub fn since(&self, position: u32) -> u32 {
        self.window.map_or(0, |window| position.saturating_add(1).saturating_sub(window))
    }

    /// How many entries a query sees that has so many before its own, where none is missing in between.
    pub fn sees(&self, before: usize) -> usize {
        self.window.map_or(before + 1, |window| (window as usize).min(before + 1))
    }

    /// Why the queries of the last `n` entries of a lane cannot see as far as `ends` say.
    pub(crate) fn check_ends(&self, ends: Option<&[u32]>, n: usize) -> Result<(), String> {
        let Some(ends) = ends else { return Ok(()) };
        if self.mask != Mask::Causal || ends.len() != n {
            return Err(format!("the ends of {} queries for {n}, under {:?}", ends.len(), self.mask));
        }
        let own = ends.iter().enumerate().all(|(own, end)| (own + 1..=n).contains(&(*end as usize)));
        if own && ends.is_sorted() {
            Ok(())
        } else {
            Err("a query that sees less than its own entry or one before it".into())
        }
    }

    /// Why these parameters cannot be.
    pub fn check(&self) -> Result<(), String> {
        let AttentionParams { query_heads, kv_heads, dim, softcap, window, mask, .. } = *self;
        if kv_heads == 0 || query_heads == 0 || !query_heads.is_multiple_of(kv_heads) {
            return Err(format!("{query_heads} query heads over {kv_heads} KV heads"));
        }
        if dim == 0 {
            return Err("heads without elements".into());
        }
        if let Some(cap) = softcap.filter(|cap| !cap.is_normal() || *cap < 0.0) {
            return Err(format!("a soft cap of {cap}"));
        }
        match window {
            Some(0) => Err("a window of no position".into()),
            Some(_) if mask == Mask::None => Err("a window without a causal mask".into()),
            _ => Ok(()),
        }
    }
}
