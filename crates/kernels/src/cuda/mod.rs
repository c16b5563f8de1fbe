//! The kernels on CUDA: what the host does for each, over any [`Gpu`].
//!
//! The functions here mirror those of the CPU, with [`Slice`]s of device memory for slices. They check shapes, build the
//! descriptors of [`args`], choose the variant and its geometry, and launch. `device::Device` (feature `cuda`) launches on a
//! GPU; the tests of `crates/cuda-shim` launch the same sources on the CPU through the same functions.
//!
//! Launches are asynchronous and in order: what a function is given may be freed or read after it returned, because a backend
//! frees and copies in the same order.

pub mod args;
pub mod check;
mod codec;
#[cfg(any(test, feature = "cuda"))]
mod cublas_path;
mod decode;
#[cfg(feature = "cuda")]
pub mod device;
#[cfg(any(test, feature = "cuda"))]
mod errors;
mod gather;
mod kept;
mod lane;
mod memory;
mod network;
mod prefill;
mod product;
#[cfg(any(test, feature = "cuda"))]
mod ring;
mod rotary;
mod step;

pub use codec::{EncodeItem, Source, encode, transform};
pub use decode::{DecodeItem, decode};
pub use gather::{GatherItem, MoveItem, NormItem, gather, key_norms, move_entries};
pub use lane::{Lane, parts_mut};
pub use memory::{Buffer, Element, Held, Plain, Slice, SliceMut};
pub use network::{
    Function, activate, add, add_bias, cap, choose, convert, glu, head_norms, layer_norm, place_columns, rms_norm,
    scale, take_rows,
};
pub use prefill::{Gather, prefill};
pub use product::{Multiply, Number, product, product_onto};
pub use rotary::{Angles, AppendItem, New, Queries, Rows, append, append_and_rotate, rotate};
pub use step::{Planner, Step, StepLane};

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kept::{Block, Kept};

use crate::attention::AttentionParams;

/// The sources of the kernels, for the tests.
pub const SOURCES: &[&str] = &["codec.cu", "decode.cu", "gather.cu", "network.cu", "prefill.cu", "rotary.cu"];

/// Why something could not be done on the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// There is no device to work on: what is missing, and what to do.
    Unavailable(String),
    /// Arguments that do not fit together. Nothing was launched.
    Argument(String),
    /// The device has no room, with what was kept for reuse given back.
    OutOfMemory { needed: u64, free: u64 },
    /// A call of the driver, or of cuBLAS, failed. The text says so when the process must be started again.
    Driver(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unavailable(text) | Error::Argument(text) | Error::Driver(text) => f.write_str(text),
            Error::OutOfMemory { needed, free } => {
                write!(f, "the device is out of memory: {needed} bytes needed, {free} free")
            }
        }
    }
}

impl std::error::Error for Error {}

pub type Result<T> = std::result::Result<T, Error>;

/// How many blocks of how many threads, with how many bytes of shared memory each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub grid: [u32; 2],
    pub threads: u32,
    pub shared: u32,
}

/// A device that holds memory and runs kernels, in the order in which it is asked. [`Gpu`] is how it is used.
pub trait Backend: Send + Sync {
    /// The device's name for itself.
    fn name(&self) -> String;
    /// The software that results depend on, with its versions, such as `cuBLAS 13.0.2`.
    fn software(&self) -> Vec<String> {
        Vec::new()
    }
    /// Whether a CPU plays the device, so that large shapes take minutes.
    fn is_emulated(&self) -> bool {
        false
    }
    /// Multiprocessors, for the number of blocks that fill the device.
    fn processors(&self) -> u32;
    /// Bytes that can be allocated, bytes that there are, and those of the pool.
    fn memory(&self) -> Result<Memory>;
    /// Gives memory that is kept for reuse back to the device.
    fn trim(&self) -> Result<()>;
    /// Waits until everything launched is done.
    fn synchronize(&self) -> Result<()>;

    /// The address of at least `bytes` bytes, aligned to 256, of unspecified contents. `bytes` may be 0.
    fn allocate(&self, bytes: usize) -> Result<u64>;

    /// Frees what [`Backend::allocate`] gave, after what was launched before.
    ///
    /// # Safety
    /// `address` was allocated here with `bytes` and is not used any more.
    unsafe fn free(&self, address: u64, bytes: usize);

    /// An allocation of `room` bytes is used anew, for `bytes` of them, and its contents are unspecified. A device has nothing to do; one that
    /// looks for mistakes may.
    fn renew(&self, address: u64, room: usize, bytes: usize) {
        let _ = (address, room, bytes);
    }

    /// Copies to the device; `from` is taken over before the call returns.
    ///
    /// # Safety
    /// As many bytes at `to` are allocated here.
    unsafe fn write(&self, to: u64, from: &[u8]) -> Result<()>;

    /// Copies from the device, after everything launched before.
    ///
    /// # Safety
    /// As many bytes at `from` are allocated here.
    unsafe fn read(&self, from: u64, to: &mut [u8]) -> Result<()>;

    /// Copies within the device, in order.
    ///
    /// # Safety
    /// As many bytes are allocated here at both addresses, and they do not overlap.
    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()>;

    /// Runs a kernel on its argument, the bytes of the one struct that it takes.
    ///
    /// # Safety
    /// The addresses in `args` must be valid for what the kernel, by its contract, reads and writes there, and nothing else may
    /// use what it writes until a later call in order.
    unsafe fn launch(&self, kernel: &str, geometry: Geometry, args: &[u8]) -> Result<()>;

    /// Multiplies matrices; [`product`] is the safe way.
    ///
    /// # Safety
    /// The addresses in `args` must be valid for the sizes given with them, aligned to their elements, and what is written must
    /// not overlap with what is read.
    unsafe fn product(&self, args: &Multiply) -> Result<()>;
}

/// Bytes of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// That can be allocated, those kept for reuse included.
    pub free: u64,
    pub total: u64,
    pub pool: PoolUse,
}

/// Bytes of the pool from which a process allocates on a device. Bytes that are reserved and not used are kept for the next allocation, or
/// cannot be given back because a block of it is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolUse {
    /// Held from the device.
    pub reserved: u64,
    /// The most that was ever held.
    pub most_reserved: u64,
    /// In allocations that are alive.
    pub used: u64,
    /// The most that was ever in use.
    pub most_used: u64,
}

/// A device, shared by everything that lives on it.
#[derive(Clone)]
pub struct Gpu(Arc<Shared<dyn Backend>>);

/// Behind the handles of one device.
struct Shared<B: Backend + ?Sized> {
    kept: Mutex<Kept>,
    backend: B,
}

impl<B: Backend + ?Sized> Drop for Shared<B> {
    fn drop(&mut self) {
        for Block { address, room } in self.kept.get_mut().unwrap_or_else(PoisonError::into_inner).take_all() {
            // SAFETY: allocated here with this size, and in no buffer.
            unsafe { self.backend.free(address, room) }
        }
    }
}

impl Gpu {
    pub fn new(backend: impl Backend + 'static) -> Self {
        Gpu(Arc::new(Shared { kept: Mutex::default(), backend }))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frees the working memory that is kept for the next launches; says whether there was any.
    pub fn release(&self) -> bool {
        let blocks = self.kept().take_all();
        for Block { address, room } in &blocks {
            // SAFETY: allocated here with this size, and in no buffer.
            unsafe { self.0.backend.free(*address, *room) }
        }
        !blocks.is_empty()
    }

    /// As [`Backend::trim`], with the working memory that is kept here.
    pub fn trim(&self) -> Result<()> {
        self.release();
        self.0.backend.trim()
    }

    /// As [`Backend::memory`]; the working memory that is kept is free.
    pub fn memory(&self) -> Result<Memory> {
        let kept = self.kept().bytes();
        let Memory { free, total, pool } = self.0.backend.memory()?;
        Ok(Memory { free: free + kept, total, pool: PoolUse { used: pool.used.saturating_sub(kept), ..pool } })
    }

    /// As [`Backend::allocate`]; where there is no room, once more without the working memory that is kept.
    pub fn allocate(&self, bytes: usize) -> Result<u64> {
        match self.0.backend.allocate(bytes) {
            Err(Error::OutOfMemory { .. }) if self.release() => self.0.backend.allocate(bytes),
            allocated => allocated,
        }
    }

    /// Working memory for at least `bytes` bytes: kept memory, or new one.
    fn take(&self, bytes: usize) -> Result<Block> {
        let room = kept::room(bytes);
        let found = self.kept().take(room);
        let block = match found {
            Some(block) => block,
            None => Block { address: self.allocate(room)?, room },
        };
        self.0.backend.renew(block.address, block.room, bytes);
        Ok(block)
    }

    /// Takes back what [`Gpu::take`] gave, for launches to come: all of them are behind those that use it now.
    fn put(&self, block: Block) {
        let gone = self.kept().put(block);
        for Block { address, room } in gone {
            // SAFETY: allocated here with this size, and in no buffer.
            unsafe { self.0.backend.free(address, room) }
        }
    }

    /// Runs a kernel on its argument.
    ///
    /// # Safety
    /// As [`Backend::launch`]; `A` is the struct that the kernel takes.
    pub unsafe fn launch<A: Plain>(&self, kernel: &str, geometry: Geometry, args: &A) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.0.backend.launch(kernel, geometry, memory::bytes(std::slice::from_ref(args))) }
    }

    /// Whether two handles are of one device.
    pub fn is(&self, other: &Gpu) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl std::ops::Deref for Gpu {
    type Target = dyn Backend;

    fn deref(&self) -> &(dyn Backend + 'static) {
        &self.0.backend
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gpu({})", self.name())
    }
}

/// Refuses arguments unless `holds`.
fn require(holds: bool, text: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Argument(text())) }
}

/// A count as the kernels take it: in 32 bits, with room for a step of the grid.
fn count(n: usize, what: &str) -> Result<u32> {
    u32::try_from(n)
        .ok()
        .filter(|n| *n <= i32::MAX as u32)
        .ok_or_else(|| Error::Argument(format!("{n} {what} are more than a kernel can number")))
}

/// Blocks that cover `n` units of work, `per` to a block, but not more than keep the device busy; blocks stride.
fn blocks(gpu: &Gpu, n: u32, per: u32) -> u32 {
    n.div_ceil(per).clamp(1, gpu.processors().max(1) * 16)
}

/// The height of a grid, which devices bound.
fn height(n: usize, what: &str) -> Result<u32> {
    require(n <= 65_535, || format!("{n} {what} in one launch, of which there may be 65535"))?;
    Ok(n as u32)
}

/// Parameters that the attention kernels take.
fn require_params(params: &AttentionParams) -> Result<()> {
    let dim = params.dim;
    params.check().map_err(Error::Argument)?;
    require(dim > 0 && dim <= 256 && dim.is_multiple_of(8), || {
        format!("heads of {dim} elements: the CUDA kernels take multiples of 8 up to 256")
    })
}
