//! Read-only memory mapping of weight files.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

/// A read-only mapping of a whole file.
pub struct Mapping(memmap2::Mmap);

impl Mapping {
    /// Maps `path`. The file must not be truncated by anyone while it is mapped: reading pages past the new end would end the
    /// process with SIGBUS. Model files are written once, and every mapper of weights lives with this.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the mapping is private and read-only; concurrent truncation is excluded by the documented requirement.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(Mapping(map))
    }
}

impl Deref for Mapping {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}
