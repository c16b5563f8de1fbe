//! Memory of a device, typed and with its length.

use std::marker::PhantomData;
use std::ops::Range;

use half::{bf16, f16};

use super::{Backend, Result};

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
    /// Elements of 16 bytes.
    const WIDTH: usize = 16 / size_of::<Self>();
}

impl Element for f32 {
    const NAME: &'static str = "f32";
}

impl Element for f16 {
    const NAME: &'static str = "f16";
}

impl Element for bf16 {
    const NAME: &'static str = "bf16";
}

/// An allocation of `len` elements.
pub struct Buffer<T, M> {
    memory: M,
    address: u64,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Plain, M> Buffer<T, M> {
    /// Of unspecified contents.
    pub fn new<B: Backend<Memory = M>>(backend: &B, len: usize) -> Result<Self> {
        let memory = backend.allocate(len * size_of::<T>())?;
        Ok(Buffer { address: backend.address(&memory), memory, len, element: PhantomData })
    }

    pub fn from_slice<B: Backend<Memory = M>>(backend: &B, from: &[T]) -> Result<Self> {
        let mut buffer = Buffer::new(backend, from.len())?;
        backend.write(&mut buffer.memory, bytes(from))?;
        Ok(buffer)
    }

    pub fn read<B: Backend<Memory = M>>(&self, backend: &B) -> Result<Vec<T>> {
        // SAFETY: any bytes are values of a plain type.
        let mut to = vec![unsafe { std::mem::zeroed() }; self.len];
        backend.read(&self.memory, bytes_mut(&mut to))?;
        Ok(to)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn slice(&self, range: Range<usize>) -> Slice<'_, T> {
        assert!(range.start <= range.end && range.end <= self.len, "elements {range:?} of {}", self.len);
        Slice { address: self.address + (range.start * size_of::<T>()) as u64, len: range.len(), memory: PhantomData }
    }

    pub fn all(&self) -> Slice<'_, T> {
        self.slice(0..self.len)
    }

    pub fn all_mut(&mut self) -> SliceMut<'_, T> {
        SliceMut { address: self.address, len: self.len, memory: PhantomData }
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
