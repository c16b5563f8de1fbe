//! The memory of the caller: every pointer that is followed is followed here.

use std::ffi::c_char;
use std::ptr;
use std::slice;

use prefixkv_core::Error;
use prefixkv_core::wire::{MAX_JSON, MAX_PICTURES};

use crate::call::Failure;
use crate::status;

/// Where the text of a call goes.
pub(crate) struct Out {
    text: *mut u8,
    capacity: usize,
    size: *mut u32,
}

impl Out {
    /// # Safety
    ///
    /// `text` is valid for `capacity` bytes and `size` for one value, or null, for as long as this lives.
    pub(crate) unsafe fn new(text: *mut c_char, capacity: usize, size: *mut u32) -> Result<Out, i32> {
        let wrong = (text.is_null() && capacity > 0) || capacity > isize::MAX as usize || !size.is_aligned();
        if wrong { Err(status::INVALID) } else { Ok(Out { text: text.cast(), capacity, size }) }
    }

    /// Writes a text and its size; false when it does not fit, and then only the size.
    pub(crate) fn write(&self, text: &str) -> bool {
        if !self.size.is_null() {
            // SAFETY: `new` promises that a size that is not null is valid, and has checked that it is aligned.
            unsafe { self.size.write(u32::try_from(text.len()).unwrap_or(u32::MAX)) };
        }
        let fits = text.len() <= self.capacity;
        if fits && !text.is_empty() {
            // SAFETY: `new` promises `capacity` valid bytes, `text` is no longer than that, and a str of ours lies elsewhere.
            unsafe { ptr::copy_nonoverlapping(text.as_ptr(), self.text, text.len()) };
        }
        fits
    }
}

/// Where a handle goes.
pub(crate) struct Place(*mut u32);

impl Place {
    /// Sets the handle to 0, which is never one.
    ///
    /// # Safety
    ///
    /// `handle` is null or valid for one value for as long as this lives.
    pub(crate) unsafe fn new(handle: *mut u32) -> Result<Place, Failure> {
        if handle.is_null() || !handle.is_aligned() {
            return Err(Failure::invalid("the place for the handle must be an aligned pointer, not null"));
        }
        // SAFETY: not null and aligned as checked, valid as promised.
        unsafe { handle.write(0) };
        Ok(Place(handle))
    }

    pub(crate) fn set(&self, handle: u32) {
        // SAFETY: `new` has checked and written the same place.
        unsafe { self.0.write(handle) };
    }
}

/// A copy of the caller's JSON.
///
/// # Safety
///
/// `json` is valid for `length` bytes.
pub(crate) unsafe fn json(json: *const c_char, length: usize) -> Result<String, Failure> {
    if length > MAX_JSON {
        let reason = format!("a request may have {MAX_JSON} bytes of JSON, found {length}");
        return Err(Failure::Refused(Error::Option { reason, suggestion: None }));
    }
    // SAFETY: as promised by the caller.
    let bytes = unsafe { bytes(json.cast(), length, "the JSON") }?;
    String::from_utf8(bytes).map_err(|error| Failure::invalid(format!("the JSON must be UTF-8: {error}")))
}

/// Copies of the caller's images.
///
/// # Safety
///
/// `images` and `lengths` are valid for `count` values, and each image for its length.
pub(crate) unsafe fn images(
    images: *const *const u8,
    lengths: *const usize,
    count: usize,
) -> Result<Vec<Vec<u8>>, Failure> {
    if count == 0 {
        return Ok(Vec::new());
    }
    if count > MAX_PICTURES {
        let reason = format!("at most {MAX_PICTURES} images and frames per request, found {count}");
        return Err(Failure::Refused(Error::Option { reason, suggestion: None }));
    }
    if images.is_null() || lengths.is_null() || !images.is_aligned() || !lengths.is_aligned() {
        return Err(Failure::invalid("the arrays of images and lengths must be aligned pointers, not null"));
    }
    // SAFETY: not null and aligned as checked, `count` values as promised; the bound on `count` keeps the size within isize.
    let (images, lengths) = unsafe { (slice::from_raw_parts(images, count), slice::from_raw_parts(lengths, count)) };
    // SAFETY: each image is valid for its length as promised by the caller.
    let copy = |(&image, &length): (&*const u8, &usize)| unsafe { bytes(image, length, "an image") };
    images.iter().zip(lengths).map(copy).collect()
}

/// # Safety
///
/// `start` is valid for `length` bytes.
unsafe fn bytes(start: *const u8, length: usize, what: &str) -> Result<Vec<u8>, Failure> {
    if length == 0 {
        return Ok(Vec::new());
    }
    if start.is_null() || length > isize::MAX as usize {
        return Err(Failure::invalid(format!("{what} of {length} bytes cannot be at {start:p}")));
    }
    // SAFETY: not null and of a possible length as checked, readable as promised.
    Ok(unsafe { slice::from_raw_parts(start, length) }.to_vec())
}
