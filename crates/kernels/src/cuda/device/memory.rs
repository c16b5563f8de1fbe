//! Memory of a GPU and the ways into and out of it.

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::sync::{Mutex, PoisonError};

use cudarc::driver::sys::{
    self, CUevent_flags_enum as EventFlags, CUmemAllocationHandleType_enum as Handles,
    CUmemAllocationType_enum as Allocation, CUmemLocationType_enum as Location, CUmemPool_attribute_enum as Attribute,
};
use cudarc::driver::{DriverError, result};

use super::failure;
use crate::cuda::ring::Ring;
use crate::cuda::{Error, Memory, PoolUse, Result};

/// Memory that is freed stays with the device for the next allocation, in the order of one stream, until it is trimmed: the default
/// threshold of 0 would give it back to the driver at each synchronisation. The pool is our own, so that what others in the process do
/// with the device's is left alone.
pub(super) struct Pool {
    pool: sys::CUmemoryPool,
    stream: sys::CUstream,
}

impl Pool {
    /// # Safety
    /// The device's context is current on the calling thread. `stream` is alive as long as the pool.
    pub(super) unsafe fn new(device: i32, stream: sys::CUstream) -> Result<Self> {
        // SAFETY: numbers, of which zeros are values (the allocation type 0 is the invalid one and is set below), and a null pointer.
        let mut properties: sys::CUmemPoolProps = unsafe { MaybeUninit::zeroed().assume_init() };
        properties.allocType = Allocation::CU_MEM_ALLOCATION_TYPE_PINNED;
        properties.handleTypes = Handles::CU_MEM_HANDLE_TYPE_NONE;
        properties.location.type_ = Location::CU_MEM_LOCATION_TYPE_DEVICE;
        properties.location.id = device;
        // SAFETY: the properties are filled in as the documentation asks.
        let pool =
            unsafe { result::mem_pool::create(&raw const properties) }.map_err(|error| failure("no pool", error))?;
        let pool = Pool { pool, stream };
        let mut threshold = u64::MAX;
        // SAFETY: the pool is alive and the attribute is of 64 bits.
        unsafe {
            let attribute = Attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
            result::mem_pool::set_attribute(pool.pool, attribute, (&raw mut threshold).cast())
        }
        .map_err(|error| failure("the pool keeps nothing", error))?;
        Ok(pool)
    }

    /// Trims and tries again when there is no room.
    ///
    /// # Safety
    /// The context is current on the calling thread.
    pub(super) unsafe fn allocate(&self, bytes: usize) -> Result<u64> {
        // The driver does not allocate nothing.
        let room = bytes.max(1);
        // SAFETY: pool and stream are alive.
        let allocate = || unsafe { result::mem_pool::alloc_async(self.pool, room, self.stream) };
        let full = |error: &DriverError| error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY;
        let error = match allocate() {
            Err(error) if full(&error) => {
                // SAFETY: the caller's promise.
                unsafe { self.trim() }?;
                match allocate() {
                    Ok(address) => return Ok(address),
                    Err(error) => error,
                }
            }
            Ok(address) => return Ok(address),
            Err(error) => error,
        };
        if full(&error) {
            // SAFETY: the caller's promise.
            let free = unsafe { self.memory() }.map_or(0, |memory| memory.free);
            return Err(Error::OutOfMemory { needed: bytes as u64, free });
        }
        Err(failure(&format!("{bytes} bytes were not allocated"), error))
    }

    /// # Safety
    /// `address` comes from [`Pool::allocate`] and is freed once. The context is current on the calling thread.
    pub(super) unsafe fn free(&self, address: u64) {
        // A failure here means that the driver is going away.
        // SAFETY: the caller's promise.
        let _ = unsafe { result::free_async(address, self.stream) };
    }

    /// Waits, because what is freed can be given back only once the stream has come past it.
    ///
    /// # Safety
    /// The context is current on the calling thread.
    pub(super) unsafe fn trim(&self) -> Result<()> {
        // SAFETY: stream and pool are alive.
        unsafe {
            result::stream::synchronize(self.stream)?;
            Ok(result::mem_pool::trim_to(self.pool, 0)?)
        }
    }

    /// # Safety
    /// The context is current on the calling thread.
    pub(super) unsafe fn memory(&self) -> Result<Memory> {
        let (free, total) = result::mem_get_info()?;
        let number = |attribute| -> Result<u64> {
            let mut value = 0u64;
            // SAFETY: the pool is alive and the attributes are of 64 bits.
            unsafe { result::mem_pool::get_attribute(self.pool, attribute, (&raw mut value).cast()) }?;
            Ok(value)
        };
        let pool = PoolUse {
            reserved: number(Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?,
            most_reserved: number(Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH)?,
            used: number(Attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?,
            most_used: number(Attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH)?,
        };
        // Memory that the pool keeps unused can be allocated as well.
        Ok(Memory { free: free as u64 + pool.reserved.saturating_sub(pool.used), total: total as u64, pool })
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // A failure here means that the driver is going away.
        // SAFETY: created once and destroyed once; nobody can allocate from it any more.
        let _ = unsafe { result::mem_pool::destroy(self.pool) };
    }
}

/// Memory of the host that the device reads and writes itself.
struct Pinned {
    start: *mut u8,
    len: usize,
}

impl Pinned {
    /// # Safety
    /// The context is current on the calling thread, also when the value is dropped.
    unsafe fn new(len: usize) -> Result<Self> {
        // SAFETY: the context is set; the contents are written before they are read.
        let start = unsafe { result::malloc_host(len, 0) };
        let start = start.map_err(|error| failure(&format!("{len} bytes of the host were not pinned"), error))?;
        Ok(Pinned { start: start.cast(), len })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // A failure here means that the driver is going away.
        // SAFETY: allocated once and freed once.
        let _ = unsafe { result::free_host(self.start.cast::<c_void>()) };
    }
}

/// Copies between the host and the device.
///
/// The driver says of a copy from ordinary memory that it "may be synchronous": it may wait for the stream, which would make every launch
/// wait for all before it, as each brings its descriptors. So small data goes through pinned memory, from which a copy is asynchronous
/// for certain, and which is filled round and round. Large data (weights) is handed over as it is, at the speed of the driver's own
/// staging, and waited for: whether the driver has read ordinary memory when its call returns is not promised on every system.
pub(super) struct Staging {
    writes: Mutex<Writes>,
    /// Reads come through here when they fit: they need not be staged by the driver.
    reads: Mutex<Pinned>,
    stream: sys::CUstream,
}

struct Writes {
    ring: Ring,
    memory: Pinned,
    /// After the last copy out of each part; used once it is `recorded`.
    events: Vec<Event>,
}

struct Event {
    event: sys::CUevent,
    recorded: bool,
}

impl Drop for Event {
    fn drop(&mut self) {
        // A failure here means that the driver is going away.
        // SAFETY: created once and destroyed once.
        let _ = unsafe { result::event::destroy(self.event) };
    }
}

/// 4 MiB in all, so that a mark is set once in many writes.
const SEGMENT: usize = 512 << 10;
const SEGMENTS: usize = 8;
/// The logits of one row, of any vocabulary that there is, and of 64 rows of most.
const READ: usize = 8 << 20;

// SAFETY: pinned memory, events and streams may be used by any thread; what changes is behind locks.
unsafe impl Send for Staging {}
// SAFETY: as above.
unsafe impl Sync for Staging {}

impl Staging {
    /// # Safety
    /// The context is current on the calling thread, also when the value is dropped, and `stream` is alive until then and idle at that time.
    pub(super) unsafe fn new(stream: sys::CUstream) -> Result<Self> {
        let ring = Ring::new(SEGMENT, SEGMENTS);
        // SAFETY: the caller's promise, twice.
        let (memory, reads) = unsafe { (Pinned::new(ring.len())?, Pinned::new(READ)?) };
        let event = || -> Result<Event> {
            let event = result::event::create(EventFlags::CU_EVENT_DISABLE_TIMING)?;
            Ok(Event { event, recorded: false })
        };
        let events = (0..SEGMENTS).map(|_| event()).collect::<Result<_>>()?;
        Ok(Staging { writes: Mutex::new(Writes { ring, memory, events }), reads: Mutex::new(reads), stream })
    }

    /// # Safety
    /// As many bytes at `to` are allocated. The context is current on the calling thread.
    pub(super) unsafe fn write(&self, to: u64, from: &[u8]) -> Result<()> {
        let mut writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        if from.len() > writes.ring.most() {
            drop(writes);
            // SAFETY: in bounds by the caller's promise; `from` is borrowed until the stream has caught up.
            unsafe {
                result::memcpy_htod_async(to, from, self.stream)?;
                return Ok(result::stream::synchronize(self.stream)?);
            }
        }
        let Writes { ring, memory, events } = &mut *writes;
        let step = ring.next(from.len());
        if let Some((full, next)) = step.turn {
            // SAFETY: events and stream are alive.
            unsafe {
                result::event::record(events[full].event, self.stream)?;
                events[full].recorded = true;
                if events[next].recorded {
                    result::event::synchronize(events[next].event)?;
                }
            }
        }
        ring.take(&step);
        // SAFETY: the part is within the memory and no copy reads it: those of the round before were waited for above.
        let staged = unsafe {
            let start = memory.start.add(step.range.start);
            debug_assert!(step.range.end <= memory.len);
            start.copy_from_nonoverlapping(from.as_ptr(), from.len());
            std::slice::from_raw_parts(start, from.len())
        };
        // SAFETY: in bounds by the caller's promise; what is staged stays as it is until the event of its part.
        Ok(unsafe { result::memcpy_htod_async(to, staged, self.stream) }?)
    }

    /// # Safety
    /// As many bytes at `from` are allocated. The context is current on the calling thread.
    pub(super) unsafe fn read(&self, from: u64, to: &mut [u8]) -> Result<()> {
        let reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        if to.len() > reads.len {
            drop(reads);
            // SAFETY: in bounds by the caller's promise; `to` is borrowed until the stream has caught up.
            unsafe {
                result::memcpy_dtoh_async(to, from, self.stream)?;
                return Ok(result::stream::synchronize(self.stream)?);
            }
        }
        // SAFETY: in bounds by the caller's promise and the check above; nobody else uses the pinned memory, and its bytes are those of the
        // device once the stream has caught up.
        unsafe {
            // By its address, because bytes that nobody wrote make no slice.
            sys::cuMemcpyDtoHAsync_v2(reads.start.cast(), from, to.len(), self.stream).result()?;
            result::stream::synchronize(self.stream)?;
            to.as_mut_ptr().copy_from_nonoverlapping(reads.start, to.len());
        }
        Ok(())
    }
}
