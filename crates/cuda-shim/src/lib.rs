//! Runs the CUDA sources of `prefixkv-kernels` on the CPU, for tests only: the same files, compiled as C++.
//!
//! What it finds: wrong indices, wrong results, divergence at barriers and shuffles, missing barriers (run a kernel in both
//! [`Order`]s), reads of shared memory that nobody wrote (it is NaN), writes behind shared or device memory, loads that are not
//! aligned. What it cannot: anything about the compiler, the memory model or the speed of a device. `docs/design/cuda.md` has
//! the whole list.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};

use prefixkv_kernels::cuda::{Backend, Error, Geometry, Plain, Result};

/// Bytes before and behind an allocation that must stay as they are.
const MARGIN: usize = 4096;
const POISON: u8 = 0xff;

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

/// A device of the CPU.
pub struct Shim {
    order: Order,
    processors: u32,
    launched: RefCell<Vec<String>>,
}

/// An allocation between two margins. Its contents are NaN until they are written.
pub struct Memory {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Memory {
    fn new(len: usize) -> Self {
        let mut bytes = vec![POISON; len + 2 * MARGIN + 256];
        let margin = bytes.as_mut_ptr() as usize + MARGIN;
        let start = MARGIN + margin.next_multiple_of(256) - margin;
        Memory { bytes, start, len }
    }

    fn intact(&self) -> bool {
        let end = self.start + self.len;
        self.bytes[..self.start].iter().chain(&self.bytes[end..]).all(|byte| *byte == POISON)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.intact(), "a kernel wrote outside an allocation of {} bytes", self.len);
        }
    }
}

impl Shim {
    /// A device with so many multiprocessors, which decides how work is cut.
    pub fn new(order: Order, processors: u32) -> Self {
        Shim { order, processors, launched: RefCell::default() }
    }

    /// The kernels launched so far.
    pub fn launched(&self) -> Vec<String> {
        self.launched.borrow().clone()
    }
}

impl Backend for Shim {
    type Memory = Memory;

    fn allocate(&self, bytes: usize) -> Result<Memory> {
        Ok(Memory::new(bytes))
    }

    fn address(&self, memory: &Memory) -> u64 {
        memory.bytes.as_ptr() as u64 + memory.start as u64
    }

    fn write(&self, to: &mut Memory, from: &[u8]) -> Result<()> {
        to.bytes[to.start..to.start + to.len][..from.len()].copy_from_slice(from);
        Ok(())
    }

    fn read(&self, from: &Memory, to: &mut [u8]) -> Result<()> {
        to.copy_from_slice(&from.bytes[from.start..from.start + from.len][..to.len()]);
        Ok(())
    }

    fn processors(&self) -> u32 {
        self.processors
    }

    unsafe fn launch<A: Plain>(&self, kernel: &str, geometry: Geometry, args: &A) -> Result<()> {
        let name = CString::new(kernel).map_err(|error| Error::Driver(error.to_string()))?;
        self.launched.borrow_mut().push(kernel.to_owned());
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
                std::ptr::from_ref(args).cast(),
                size_of::<A>(),
                (self.order == Order::LastToFirst).into(),
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
