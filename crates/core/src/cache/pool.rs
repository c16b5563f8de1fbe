//! Where every byte of the cache comes from, and is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prefixkv_kernels::codec::KvCodec;
use serde::{Deserialize, Serialize};

use super::memory::Memory;
use crate::device::Cpu;
use crate::error::{Error, Result};
use crate::metrics;

/// The number format of cache entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    F32,
    F16,
}

impl Format {
    /// Keys and values as they are.
    pub fn codec(self) -> KvCodec {
        match self {
            Format::F32 => KvCodec::F32,
            Format::F16 => KvCodec::F16,
        }
    }

    /// Bytes of one number.
    pub fn bytes(self) -> usize {
        self.codec().key.dtype.bits() / 8
    }
}

/// The memory of one device. All sequences of a model draw on one pool; clones are handles to the same pool.
#[derive(Clone, Debug)]
pub struct Pool<M = Cpu>(Arc<Shared<M>>);

#[derive(Debug)]
struct Shared<M> {
    counters: Arc<Counters>,
    memory: M,
}

#[derive(Debug)]
struct Counters {
    cap: u64,
    used: AtomicU64,
    peak: AtomicU64,
    /// Of an account, what it draws on.
    pool: Option<Arc<Counters>>,
}

impl Counters {
    fn new(cap: u64, pool: Option<Arc<Counters>>) -> Arc<Self> {
        Arc::new(Counters { cap, used: AtomicU64::new(0), peak: AtomicU64::new(0), pool })
    }

    /// Takes bytes that an account no longer has alone out of the pool.
    fn give_back(&self, bytes: u64) {
        if let Some(pool) = &self.pool {
            pool.remove(bytes);
            metrics::CACHE_BYTES.remove(bytes);
        }
    }

    fn add(&self, bytes: u64) -> Result<(), u64> {
        let added = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|total| *total <= self.cap)
        });
        match added {
            Ok(before) => {
                self.peak.fetch_max(before + bytes, Ordering::Relaxed);
                Ok(())
            }
            Err(used) => Err(self.cap.saturating_sub(used)),
        }
    }

    fn remove(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Pool {
    /// A pool that only counts.
    pub fn unlimited() -> Self {
        Pool::with_cap(u64::MAX)
    }

    /// A pool that refuses to hold more than `cap` bytes, metadata included.
    pub fn with_cap(cap: u64) -> Self {
        Pool::on(Cpu, cap)
    }
}

impl<M: Memory> Pool<M> {
    /// The same for entries in `memory`.
    pub fn on(memory: M, cap: u64) -> Self {
        Pool(Arc::new(Shared { counters: Counters::new(cap, None), memory }))
    }

    /// Bytes held now.
    pub fn used(&self) -> u64 {
        self.0.counters.used.load(Ordering::Relaxed)
    }

    /// The most bytes ever held at once.
    pub fn peak(&self) -> u64 {
        self.0.counters.peak.load(Ordering::Relaxed)
    }

    /// Bytes that may still be taken.
    pub fn available(&self) -> u64 {
        self.0.counters.cap.saturating_sub(self.used())
    }

    /// Opens the account of one sequence.
    pub fn account(&self) -> Account<M> {
        let own = Counters::new(u64::MAX, Some(self.0.counters.clone()));
        Account { own, pool: self.clone() }
    }
}

/// The share of one sequence in the pool.
#[derive(Clone, Debug)]
pub struct Account<M = Cpu> {
    own: Arc<Counters>,
    pool: Pool<M>,
}

impl<M: Memory> Account<M> {
    /// Where the entries are.
    pub(super) fn memory(&self) -> &M {
        &self.pool.0.memory
    }

    /// Bytes held now.
    pub fn used(&self) -> u64 {
        self.own.used.load(Ordering::Relaxed)
    }

    /// The most bytes ever held at once.
    pub fn peak(&self) -> u64 {
        self.own.peak.load(Ordering::Relaxed)
    }

    /// Refuses work that will take `bytes` more than there is room for in the pool, before it begins.
    pub fn admit(&self, bytes: u64) -> Result<()> {
        let available = self.pool.available();
        if bytes > available { Err(refusal(bytes, available)) } else { Ok(()) }
    }

    /// Counts bytes that are held elsewhere (metadata) until the charge is dropped.
    pub fn charge(&self, bytes: u64) -> Result<Charge> {
        self.pool.0.counters.add(bytes).map_err(|available| refusal(bytes, available))?;
        metrics::CACHE_BYTES.add(bytes);
        // The account itself has no cap, so this cannot fail.
        let _ = self.own.add(bytes);
        Ok(Charge { own: self.own.clone(), bytes, pooled: bytes })
    }

    /// Counts `bytes` of its own, as [`Account::charge`], and what it now holds together with others: that is in the pool already.
    pub(super) fn join(&self, shared: &Pooled, bytes: u64) -> Result<Charge> {
        let mut charge = self.charge(bytes)?;
        let _ = self.own.add(shared.bytes);
        charge.bytes += shared.bytes;
        Ok(charge)
    }

    /// Opens the account of another sequence in the same pool.
    pub(crate) fn another(&self) -> Account<M> {
        self.pool.account()
    }
}

fn refusal(needed: u64, available: u64) -> Error {
    let advice = "the cache is at its limit; shorten the prompt, close sessions, use a calibration or raise cacheLimit";
    Error::OutOfMemory { needed, available, advice: advice.into() }
}

/// Bytes on an account; given back when dropped.
#[derive(Debug)]
pub struct Charge {
    own: Arc<Counters>,
    /// On the account.
    bytes: u64,
    /// Of them, those that are in the pool for this account alone.
    pooled: u64,
}

impl Charge {
    /// Makes `bytes` of the charge such that other accounts can [join](Account::join): the pool counts them until the last of all has
    /// let go of them.
    pub(super) fn share(mut self, bytes: u64) -> (Charge, Pooled) {
        self.pooled -= bytes;
        let account = self.own.clone();
        (self, Pooled { account, bytes })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.own.remove(self.bytes);
        self.own.give_back(self.pooled);
    }
}

/// Bytes in the pool that several accounts may hold together, each with a charge of its own; given back to the pool when dropped.
#[derive(Debug)]
pub(super) struct Pooled {
    /// Of whoever was first, which knows the pool.
    account: Arc<Counters>,
    bytes: u64,
}

impl Pooled {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.account.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_and_given_back() {
        let pool = Pool::with_cap(1000);
        let (a, b) = (pool.account(), pool.account());
        let first = a.charge(400).expect("400 bytes fit");
        let second = b.charge(400).expect("400 more fit");
        assert_eq!((pool.used(), a.used(), b.used()), (800, 400, 400));
        match a.charge(204) {
            Err(Error::OutOfMemory { needed: 204, available: 200, .. }) => {}
            other => panic!("expected out of memory, got {other:?}"),
        }
        assert_eq!(pool.used(), 800, "a refused request changes nothing");
        drop(first);
        assert_eq!((pool.used(), a.used(), a.peak()), (400, 0, 400));
        drop(second);
        assert_eq!((pool.used(), pool.peak()), (0, 800));
    }
    #[test]
    fn bytes_that_two_hold_are_in_the_pool_once_and_on_both_accounts() {
        let pool = Pool::unlimited();
        let (a, b) = (pool.account(), pool.account());
        let (first, shared) = a.charge(100).expect("no cap").share(90);
        let second = b.join(&shared, 7).expect("no cap");
        assert_eq!((pool.used(), a.used(), b.used()), (107, 100, 97));
        drop(first);
        assert_eq!((pool.used(), a.used(), b.used()), (97, 0, 97));
        drop(second);
        assert_eq!((pool.used(), b.used()), (90, 0), "it is there as long as somebody has it");
        drop(shared);
        assert_eq!(pool.used(), 0);
    }
}
