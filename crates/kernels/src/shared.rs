//! Output that parallel tasks write at places known to be disjoint.

use std::marker::PhantomData;

/// A mutable slice that tasks may write at the same time, each at its own places.
#[derive(Clone, Copy)]
pub(crate) struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: the pointer comes from a unique borrow of a slice of Send elements; callers of `part` promise disjointness.
unsafe impl<T: Send> Send for Disjoint<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// The elements `offset .. offset + len`.
    ///
    /// # Safety
    /// No other task may hold a part that overlaps this one.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn part(&self, offset: usize, len: usize) -> &mut [T] {
        assert!(offset + len <= self.len, "part {offset}+{len} of {}", self.len);
        // SAFETY: in bounds by the assertion, disjoint by the caller's promise, alive for 'a.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(offset), len) }
    }
}
