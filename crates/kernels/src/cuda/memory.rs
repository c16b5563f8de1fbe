//! Memory of a device, typed and with its length.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use half::{bf16, f16};

use super::kept::Block;
use super::{Gpu, Number, Result};

/// Types whose bytes are their value, without padding.
///
/// # Safety
/// Every byte of a value is initialised, and any bytes are a value.
pub unsafe trait Plain: Copy + 'static {}

// SAFETY: numbers without padding, of which every pattern of bits is one.
unsafe impl Plain for f32 {}
// SAFETY: as above.
unsafe impl Plain for f16 {}
// SAFETY: as above.
unsafe impl Plain for bf16 {}
// SAFETY: as above.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}

pub(super) fn bytes<T: Plain>(slice: &[T]) -> &[u8] {
    // SAFETY: the bytes of plain values are initialised; the length is theirs.
    unsafe { std::slice::from_raw_parts(slice.as_ptr().cast(), size_of_val(slice)) }
}

fn bytes_mut<T: Plain>(slice: &mut [T]) -> &mut [u8] {
    // SAFETY: as above, and any bytes are values.
    unsafe { std::slice::from_raw_parts_mut(slice.as_mut_ptr().cast(), size_of_val(slice)) }
}

/// A number format of the network or of stored entries that the kernels exist for.
pub trait Element: Plain {
    /// As the names of the kernels say it.
    const NAME: &'static str;
    const NUMBER: Number;
    /// Elements of 16 bytes.
    const WIDTH: usize = 16 / size_of::<Self>();
}

impl Element for f32 {
    const NAME: &'static str = "f32";
    const NUMBER: Number = Number::F32;
}

impl Element for f16 {
    const NAME: &'static str = "f16";
    const NUMBER: Number = Number::F16;
}

impl Element for bf16 {
    const NAME: &'static str = "bf16";
    const NUMBER: Number = Number::Bf16;
}

/// The memory of a buffer, freed with the last handle after what was launched before.
#[derive(Debug)]
struct Memory {
    gpu: Gpu,
    address: u64,
    bytes: usize,
    /// Bytes of the block, if it is working memory.
    room: Option<usize>,
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(room) = self.room {
            self.gpu.put(Block { address: self.address, room });
        } else if self.bytes > 0 {
            // SAFETY: allocated in `Buffer::new` with this size; the slices of it are gone.
            unsafe { self.gpu.free(self.address, self.bytes) }
        }
    }
}

/// Keeps the memory of a buffer although the buffer goes.
#[derive(Clone, Debug)]
pub struct Held(Arc<Memory>);

impl Held {
    /// Whether these bytes are some of it.
    pub(super) fn covers(&self, address: u64, bytes: usize) -> bool {
        let memory = &self.0;
        address.checked_sub(memory.address).is_some_and(|at| at + bytes as u64 <= memory.bytes as u64)
    }
}

/// An allocation of `len` elements.
pub struct Buffer<T> {
    memory: Arc<Memory>,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Plain> Buffer<T> {
    /// Of unspecified contents.
    pub fn new(gpu: &Gpu, len: usize) -> Result<Self> {
        let bytes = len * size_of::<T>();
        // Nothing is not asked for: that would be a call of the driver for each layer of a step.
        let address = if len == 0 { 0 } else { gpu.allocate(bytes)? };
        let memory = Memory { gpu: gpu.clone(), address, bytes, room: None };
        Ok(Buffer { memory: Arc::new(memory), len, element: PhantomData })
    }

    /// Of unspecified contents, for the launches of one pass: kept for others when it is dropped.
    pub fn working(gpu: &Gpu, len: usize) -> Result<Self> {
        if len == 0 {
            return Buffer::new(gpu, 0);
        }
        let bytes = len * size_of::<T>();
        let Block { address, room } = gpu.take(bytes)?;
        let memory = Memory { gpu: gpu.clone(), address, bytes, room: Some(room) };
        Ok(Buffer { memory: Arc::new(memory), len, element: PhantomData })
    }

    /// A handle of the memory.
    pub fn held(&self) -> Held {
        Held(self.memory.clone())
    }

    fn address(&self) -> u64 {
        self.memory.address
    }

    pub fn from_slice(gpu: &Gpu, from: &[T]) -> Result<Self> {
        Buffer::new(gpu, from.len())?.filled(from)
    }

    /// As [`Buffer::from_slice`] in [`Buffer::working`] memory.
    pub fn working_from(gpu: &Gpu, from: &[T]) -> Result<Self> {
        Buffer::working(gpu, from.len())?.filled(from)
    }

    fn filled(self, from: &[T]) -> Result<Self> {
        let mut buffer = self;
        buffer.write(0, from)?;
        Ok(buffer)
    }

    /// Copies `from` to the elements from `at` on.
    pub fn write(&mut self, at: usize, from: &[T]) -> Result<()> {
        let to = self.slice(at..at + from.len()).address;
        // SAFETY: in bounds, which `slice` checks.
        unsafe { self.gpu().write(to, bytes(from)) }
    }

    pub fn read(&self) -> Result<Vec<T>> {
        // SAFETY: any bytes are values of a plain type.
        let mut to = vec![unsafe { std::mem::zeroed() }; self.len];
        self.read_at(0, &mut to)?;
        Ok(to)
    }

    /// Copies the elements from `at` on to `to`.
    pub fn read_at(&self, at: usize, to: &mut [T]) -> Result<()> {
        let from = self.slice(at..at + to.len()).address;
        // SAFETY: in bounds, which `slice` checks; any bytes are values.
        unsafe { self.gpu().read(from, bytes_mut(to)) }
    }

    /// Copies elements of another allocation to the elements from `at` on.
    pub fn copy(&mut self, at: usize, from: Slice<'_, T>) -> Result<()> {
        let to = self.slice(at..at + from.len()).address;
        // SAFETY: in bounds, which `slice` checks; `self` is borrowed uniquely, so `from` is elsewhere.
        unsafe { self.gpu().copy(from.address, to, from.len() * size_of::<T>()) }
    }

    pub fn gpu(&self) -> &Gpu {
        &self.memory.gpu
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn slice(&self, range: Range<usize>) -> Slice<'_, T> {
        assert!(range.start <= range.end && range.end <= self.len, "elements {range:?} of {}", self.len);
        Slice { address: self.address() + (range.start * size_of::<T>()) as u64, len: range.len(), memory: PhantomData }
    }

    pub fn all(&self) -> Slice<'_, T> {
        self.slice(0..self.len)
    }

    pub fn all_mut(&mut self) -> SliceMut<'_, T> {
        SliceMut { address: self.address(), len: self.len, memory: PhantomData }
    }
}

impl<T> std::fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} elements at {:#x})", self.len, self.memory.address)
    }
}

/// Data of a launch beside its argument: parts of several types, collected on the host and sent in one write to one
/// allocation.
#[must_use]
pub(super) struct Upload {
    parts: Vec<u8>,
    to: Buffer<u8>,
}

impl Upload {
    const ALIGN: usize = 16;

    /// Bytes that a part of `n` elements takes.
    pub(super) const fn room<T: Plain>(n: usize) -> usize {
        (n * size_of::<T>()).next_multiple_of(Self::ALIGN)
    }

    /// For parts of `room` bytes together.
    pub(super) fn new(gpu: &Gpu, room: usize) -> Result<Self> {
        Ok(Upload { parts: Vec::with_capacity(room), to: Buffer::working(gpu, room)? })
    }

    /// Adds a part, and says where on the device it will be once it is sent.
    pub(super) fn add<T: Plain>(&mut self, part: &[T]) -> u64 {
        const { assert!(align_of::<T>() <= Self::ALIGN) };
        let at = self.parts.len();
        self.parts.extend_from_slice(bytes(part));
        self.parts.resize(at + Self::room::<T>(part.len()), 0);
        assert!(self.parts.len() <= self.to.len(), "{} bytes of {}", self.parts.len(), self.to.len());
        self.to.address() + at as u64
    }

    /// Sends the parts. They stay until the buffer is dropped.
    pub(super) fn send(mut self) -> Result<Buffer<u8>> {
        self.to.write(0, &self.parts)?;
        Ok(self.to)
    }
}

/// Bytes that are staged at once, so that a copy of any length is asynchronous.
const STAGED: usize = 512 << 10;

/// Data of several launches, collected before its place is known: parts are named by where they begin.
#[derive(Default)]
pub(super) struct Table(Vec<u8>);

impl Table {
    /// Adds a part, and says where it begins.
    pub(super) fn add<T: Plain>(&mut self, part: &[T]) -> u64 {
        const { assert!(align_of::<T>() <= Upload::ALIGN) };
        let at = self.0.len();
        self.0.extend_from_slice(bytes(part));
        self.0.resize(at + Upload::room::<T>(part.len()), 0);
        at as u64
    }

    pub(super) fn send(self, gpu: &Gpu) -> Result<Buffer<u8>> {
        let mut to = Buffer::working(gpu, self.0.len())?;
        for (index, part) in self.0.chunks(STAGED).enumerate() {
            to.write(index * STAGED, part)?;
        }
        Ok(to)
    }
}

/// Elements on a device, to be read.
#[derive(Clone, Copy)]
pub struct Slice<'a, T> {
    address: u64,
    len: usize,
    memory: PhantomData<&'a [T]>,
}

/// Elements on a device, to be written.
pub struct SliceMut<'a, T> {
    address: u64,
    len: usize,
    memory: PhantomData<&'a mut [T]>,
}

macro_rules! slice {
    ($name:ident) => {
        impl<'a, T> $name<'a, T> {
            /// # Safety
            /// `len` elements at `address` must be memory of the device that the slice is used on, alive for `'a` and free for
            /// this use.
            pub unsafe fn from_address(address: u64, len: usize) -> Self {
                $name { address, len, memory: PhantomData }
            }

            /// Some of the elements.
            pub fn part(self, range: Range<usize>) -> Self {
                assert!(range.start <= range.end && range.end <= self.len, "elements {range:?} of {}", self.len);
                let address = self.address + (range.start * size_of::<T>()) as u64;
                $name { address, len: range.len(), memory: PhantomData }
            }

            pub fn address(&self) -> u64 {
                self.address
            }

            pub fn len(&self) -> usize {
                self.len
            }

            pub fn is_empty(&self) -> bool {
                self.len == 0
            }

            /// Whether the first element is aligned to `bytes`.
            pub(super) fn aligned(&self, bytes: usize) -> bool {
                self.address.is_multiple_of(bytes as u64)
            }
        }
    };
}
slice!(Slice);
slice!(SliceMut);

impl<'a, T: Plain> Slice<'a, T> {
    /// The bytes of the elements.
    pub fn bytes(self) -> Slice<'a, u8> {
        Slice { address: self.address, len: self.len * size_of::<T>(), memory: PhantomData }
    }
}

impl<'a, T: Plain> SliceMut<'a, T> {
    /// The bytes of the elements.
    pub fn bytes(self) -> SliceMut<'a, u8> {
        SliceMut { address: self.address, len: self.len * size_of::<T>(), memory: PhantomData }
    }
}

impl<'a, T> SliceMut<'a, T> {
    /// Two parts, the second from element `at`.
    pub fn split_at(self, at: usize) -> (SliceMut<'a, T>, SliceMut<'a, T>) {
        assert!(at <= self.len, "element {at} of {}", self.len);
        let address = self.address + (at * size_of::<T>()) as u64;
        (
            SliceMut { address: self.address, len: at, memory: PhantomData },
            SliceMut { address, len: self.len - at, memory: PhantomData },
        )
    }
}
