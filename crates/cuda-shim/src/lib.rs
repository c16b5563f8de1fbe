//! Runs the CUDA sources of `prefixkv-kernels` on the CPU, for tests only: the same files, compiled as C++.
//!
//! It finds wrong indices, wrong results, divergence at barriers and shuffles, missing barriers (run a kernel in both
//! [`Order`]s), reads of shared memory that nobody wrote (it is NaN), writes behind shared or device memory, loads that are not
//! aligned. It says nothing about the compiler, the memory model or the speed of a device. `docs/design/cuda.md`
//! has the whole list.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prefixkv_kernels::cuda::{Backend, Error, Geometry, Gpu, Memory, Multiply, Number, PoolUse, Result};

/// Bytes before and behind an allocation that must stay as they are.
const MARGIN: usize = 4096;
const POISON: u8 = 0xff;
/// Bytes that the device has where nothing else is said.
const TOTAL: u64 = 1 << 40;

/// In which order blocks and the threads of a block are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    FirstToLast,
    LastToFirst,
}

unsafe extern "C" {
    fn shim_launch(
        name: *const c_char,
        grid: *const u32,
        threads: u32,
        shared: u32,
        args: *const c_void,
        size: usize,
        reverse: c_int,
        error: *mut c_char,
        room: usize,
    ) -> c_int;
    fn shim_field(index: usize, owner: *mut *const c_char, name: *mut *const c_char, offset: *mut usize) -> c_int;
    fn shim_widen_half(bits: u16) -> f32;
    fn shim_narrow_half(x: f32) -> u16;
    fn shim_widen_bfloat(bits: u16) -> f32;
    fn shim_narrow_bfloat(x: f32) -> u16;
}

/// A device of the CPU. Allocations lie between two margins that are watched, and are NaN until they are written.
pub struct Shim {
    gpu: Gpu,
    machine: Arc<Machine>,
}

struct Machine {
    order: Order,
    processors: u32,
    launched: Mutex<Vec<String>>,
    traffic: Mutex<Traffic>,
    allocations: Mutex<HashMap<u64, Allocation>>,
    total: AtomicU64,
    /// The most bytes that were ever allocated.
    most: AtomicU64,
    failing_allocations: Mutex<Failing>,
    failing_launches: Mutex<Failing>,
    hollow: AtomicBool,
}

/// Calls that fail: which, and how many there were.
#[derive(Default)]
struct Failing {
    calls: Range<usize>,
    seen: usize,
    /// The bytes of the allocation that has just failed.
    failed: Option<usize>,
}

impl Failing {
    fn next(&mut self) -> bool {
        self.seen += 1;
        self.calls.contains(&(self.seen - 1))
    }

    /// As [`Failing::next`]; asking for as much again at once is the same call.
    fn next_of(&mut self, bytes: usize) -> bool {
        if self.failed.take() == Some(bytes) {
            return true;
        }
        let fails = self.next();
        self.failed = fails.then_some(bytes);
        fails
    }
}

/// Calls of the host that cost a device time. Those of nothing, which a device is not asked, are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Kernels of ours.
    pub launches: usize,
    /// Matrix products, which the device's library launches.
    pub products: usize,
    pub allocations: usize,
    pub frees: usize,
    /// Copies to the device.
    pub writes: usize,
    /// Copies from the device; each waits for all before it.
    pub reads: usize,
    /// Their bytes.
    pub read_bytes: usize,
    /// Copies within the device.
    pub copies: usize,
    /// Waits for the device: those of reads, and others.
    pub waits: usize,
}

struct Allocation {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
    /// Of `len`, those that are in use; nobody writes to the others.
    used: usize,
}

impl Allocation {
    fn new(len: usize) -> Self {
        let mut bytes = vec![POISON; len + 2 * MARGIN + 256];
        let margin = bytes.as_mut_ptr() as usize + MARGIN;
        let start = MARGIN + margin.next_multiple_of(256) - margin;
        Allocation { bytes, start, len, used: len }
    }

    fn renew(&mut self, bytes: usize) {
        self.used = bytes;
        self.bytes.fill(POISON);
    }

    fn intact(&self) -> bool {
        let end = self.start + self.used;
        self.bytes[..self.start].iter().chain(&self.bytes[end..]).all(|byte| *byte == POISON)
    }
}

impl Shim {
    /// A device with so many multiprocessors, which decides how work is cut.
    pub fn new(order: Order, processors: u32) -> Self {
        let machine = Arc::new(Machine {
            order,
            processors,
            launched: Mutex::default(),
            traffic: Mutex::default(),
            allocations: Mutex::default(),
            total: AtomicU64::new(TOTAL),
            most: AtomicU64::new(0),
            failing_allocations: Mutex::default(),
            failing_launches: Mutex::default(),
            hollow: AtomicBool::new(false),
        });
        Shim { gpu: Gpu::new(Handle(machine.clone())), machine }
    }

    /// The kernels launched so far.
    pub fn launched(&self) -> Vec<String> {
        lock(&self.machine.launched).clone()
    }

    /// Requests to the device since this was last asked.
    pub fn traffic(&self) -> Traffic {
        std::mem::take(&mut lock(&self.machine.traffic))
    }

    /// Bytes that are allocated, without working memory that is kept: it is given back first.
    pub fn allocated(&self) -> usize {
        self.gpu.release();
        self.machine.used()
    }

    /// From now on the device has so many bytes; what is allocated stays.
    pub fn set_memory(&self, bytes: u64) {
        self.machine.total.store(bytes, Ordering::Relaxed);
    }

    /// Of the allocations from now on, these find no room, and none when it is asked for again at once. Nothing is kept from before.
    pub fn fail_allocations(&self, calls: Range<usize>) {
        self.gpu.release();
        *lock(&self.machine.failing_allocations) = Failing { calls, seen: 0, failed: None };
    }

    /// From now on launches and products do nothing, and results are 0, so that what is left is the host's work.
    pub fn set_hollow(&self) {
        self.machine.hollow.store(true, Ordering::Relaxed);
    }

    /// Of the launches and products from now on, these fail.
    pub fn fail_launches(&self, calls: Range<usize>) {
        *lock(&self.machine.failing_launches) = Failing { calls, seen: 0, failed: None };
    }
}

impl std::ops::Deref for Shim {
    type Target = Gpu;

    fn deref(&self) -> &Gpu {
        &self.gpu
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Machine {
    fn used(&self) -> usize {
        lock(&self.allocations).values().map(|allocation| allocation.len).sum()
    }

    fn free(&self) -> u64 {
        self.total.load(Ordering::Relaxed).saturating_sub(self.used() as u64)
    }

    fn count(&self, one: impl FnOnce(&mut Traffic)) {
        one(&mut lock(&self.traffic));
    }

    fn launch(&self) -> Result<()> {
        match lock(&self.failing_launches).next() {
            true => Err(Error::Driver("the launch failed, as asked".into())),
            false => Ok(()),
        }
    }
}

struct Handle(Arc<Machine>);

impl Handle {
    /// Checks that bytes are all within one allocation.
    fn require(&self, address: u64, len: usize) -> Result<()> {
        let allocations = lock(&self.0.allocations);
        let inside = |(start, allocation): (&u64, &Allocation)| {
            *start <= address && address + len as u64 <= start + allocation.len as u64
        };
        if len == 0 || allocations.iter().any(inside) {
            return Ok(());
        }
        Err(Error::Driver(format!("{len} bytes at {address:#x} are not in one allocation")))
    }
}

impl Backend for Handle {
    fn name(&self) -> String {
        "the shim".into()
    }

    fn is_emulated(&self) -> bool {
        true
    }

    fn processors(&self) -> u32 {
        self.0.processors
    }

    fn memory(&self) -> Result<Memory> {
        let (used, most) = (self.0.used() as u64, self.0.most.load(Ordering::Relaxed));
        // Nothing is kept for reuse here.
        let pool = PoolUse { reserved: used, most_reserved: most, used, most_used: most };
        Ok(Memory { free: self.0.free(), total: self.0.total.load(Ordering::Relaxed), pool })
    }

    fn trim(&self) -> Result<()> {
        self.synchronize()
    }

    fn synchronize(&self) -> Result<()> {
        self.0.count(|traffic| traffic.waits += 1);
        Ok(())
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.0.count(|traffic| traffic.allocations += 1);
        let (needed, free) = (bytes as u64, self.0.free());
        if lock(&self.0.failing_allocations).next_of(bytes) || needed > free {
            return Err(Error::OutOfMemory { needed, free });
        }
        let allocation = Allocation::new(bytes);
        let address = allocation.bytes.as_ptr() as u64 + allocation.start as u64;
        lock(&self.0.allocations).insert(address, allocation);
        self.0.most.fetch_max(self.0.used() as u64, Ordering::Relaxed);
        Ok(address)
    }

    fn renew(&self, address: u64, room: usize, bytes: usize) {
        let mut allocations = lock(&self.0.allocations);
        let allocation = allocations.get_mut(&address).expect("only what was allocated is used again");
        assert_eq!(allocation.len, room, "used again with another size");
        assert!(allocation.intact(), "a kernel wrote outside {} bytes of working memory", allocation.used);
        allocation.renew(bytes);
    }

    unsafe fn free(&self, address: u64, bytes: usize) {
        self.0.count(|traffic| traffic.frees += 1);
        let allocation = lock(&self.0.allocations).remove(&address);
        if !std::thread::panicking() {
            let allocation = allocation.expect("only what was allocated is freed");
            assert_eq!(allocation.len, bytes, "freed with another size");
            assert!(allocation.intact(), "a kernel wrote outside an allocation of {bytes} bytes");
        }
    }

    unsafe fn write(&self, to: u64, from: &[u8]) -> Result<()> {
        self.0.count(|traffic| traffic.writes += usize::from(!from.is_empty()));
        self.require(to, from.len())?;
        // SAFETY: within an allocation by the check.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to as *mut u8, from.len()) };
        Ok(())
    }

    unsafe fn read(&self, from: u64, to: &mut [u8]) -> Result<()> {
        self.0.count(|traffic| {
            traffic.reads += usize::from(!to.is_empty());
            traffic.read_bytes += to.len();
            traffic.waits += 1;
        });
        self.require(from, to.len())?;
        if self.0.hollow.load(Ordering::Relaxed) {
            to.fill(0);
            return Ok(());
        }
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        self.0.count(|traffic| traffic.copies += usize::from(bytes > 0));
        self.require(from, bytes)?;
        self.require(to, bytes)?;
        // SAFETY: as above, twice; apart by the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes) };
        Ok(())
    }

    unsafe fn launch(&self, kernel: &str, geometry: Geometry, args: &[u8]) -> Result<()> {
        let name = CString::new(kernel).map_err(|error| Error::Driver(error.to_string()))?;
        lock(&self.0.launched).push(kernel.to_owned());
        self.0.count(|traffic| traffic.launches += 1);
        self.0.launch()?;
        if self.0.hollow.load(Ordering::Relaxed) {
            return Ok(());
        }
        let grid = [geometry.grid[0], geometry.grid[1], 1];
        let mut error = [0 as c_char; 512];
        // SAFETY: the pointers are alive for the call with the lengths given; what the kernel does with its arguments is the
        // caller's promise.
        let failed = unsafe {
            shim_launch(
                name.as_ptr(),
                grid.as_ptr(),
                geometry.threads,
                geometry.shared,
                args.as_ptr().cast(),
                args.len(),
                (self.0.order == Order::LastToFirst).into(),
                error.as_mut_ptr(),
                error.len(),
            )
        };
        if failed == 0 {
            return Ok(());
        }
        // SAFETY: the shim ended the text with a zero within the buffer.
        Err(Error::Driver(unsafe { CStr::from_ptr(error.as_ptr()) }.to_string_lossy().into_owned()))
    }

    unsafe fn product(&self, args: &Multiply) -> Result<()> {
        self.0.count(|traffic| traffic.products += 1);
        self.0.launch()?;
        if self.0.hollow.load(Ordering::Relaxed) {
            return Ok(());
        }
        let Multiply { x, weight, y, n, rows, columns, number, onto } = *args;
        let bytes = if number == Number::F32 { 4 } else { 2 };
        self.require(x, n * columns * bytes)?;
        self.require(weight, rows * columns * bytes)?;
        self.require(y, n * rows * 4)?;
        let read = |address: u64, len: usize| -> Vec<f32> {
            // SAFETY: within allocations by the checks, aligned by the caller's promise.
            unsafe {
                match number {
                    Number::F32 => std::slice::from_raw_parts(address as *const f32, len).to_vec(),
                    Number::F16 => {
                        std::slice::from_raw_parts(address as *const u16, len).iter().map(|x| widen_half(*x)).collect()
                    }
                    Number::Bf16 => std::slice::from_raw_parts(address as *const u16, len)
                        .iter()
                        .map(|x| widen_bfloat(*x))
                        .collect(),
                }
            }
        };
        let (x, weight) = (read(x, n * columns), read(weight, rows * columns));
        // SAFETY: as above; nothing else uses it by the caller's promise.
        let y = unsafe { std::slice::from_raw_parts_mut(y as *mut f32, n * rows) };
        for (x, y) in x.chunks_exact(columns).zip(y.chunks_exact_mut(rows)) {
            for (weight, y) in weight.chunks_exact(columns).zip(y) {
                *y = if onto { dot(x, weight) + *y } else { dot(x, weight) };
            }
        }
        Ok(())
    }
}

/// In sixteen sums, which the compiler computes at once.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 16];
    let (a, b) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a.zip(b) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
    }
    sums.iter().sum::<f32>() + rest
}

/// Every field of the structs of `args.cuh` as the C++ compiler lays them out: struct, field (empty for the struct itself),
/// and offset (the size for the struct itself).
pub fn fields() -> Vec<(String, String, usize)> {
    let mut all = Vec::new();
    let (mut owner, mut name, mut offset) = (std::ptr::null(), std::ptr::null(), 0);
    // SAFETY: the pointers are to places of the right types; on 0 they hold texts that live for ever.
    while unsafe { shim_field(all.len(), &mut owner, &mut name, &mut offset) } == 0 {
        // SAFETY: as above.
        let text = |text| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
        all.push((text(owner), text(name), offset));
    }
    all
}

/// `__half2float` of the shim.
pub fn widen_half(bits: u16) -> f32 {
    // SAFETY: a function of numbers.
    unsafe { shim_widen_half(bits) }
}

/// `__float2half_rn` of the shim.
pub fn narrow_half(x: f32) -> u16 {
    // SAFETY: as above.
    unsafe { shim_narrow_half(x) }
}

/// `__bfloat162float` of the shim.
pub fn widen_bfloat(bits: u16) -> f32 {
    // SAFETY: as above.
    unsafe { shim_widen_bfloat(bits) }
}

/// `__float2bfloat16_rn` of the shim.
pub fn narrow_bfloat(x: f32) -> u16 {
    // SAFETY: as above.
    unsafe { shim_narrow_bfloat(x) }
}
