//! Files as memory.

use std::fs::File;
use std::io;

use memmap2::Mmap;

/// A whole file as read-only memory, whose pages the system reads when they are looked at and may drop again.
///
/// Who writes to the file changes these bytes. Who cuts it ends this process with SIGBUS as soon as a page behind the new end is looked at.
#[derive(Debug)]
pub struct Map(Mmap);

impl Map {
    /// Maps a file, which may be closed afterwards.
    ///
    /// # Errors
    /// Those of the system: no memory for page tables, a file that cannot be mapped.
    pub fn open(file: &File) -> io::Result<Map> {
        // SAFETY: the bytes are only read, every pattern of them is a value, and nothing is decided twice by one byte, so a change by
        // another process changes numbers and nothing else. That a cut file ends the process is said above; callers offer to read instead.
        unsafe { Mmap::map(file) }.map(Map)
    }
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_file_outlives_its_handle() {
        let path = std::env::temp_dir().join(format!("prefixkv-map-{}", std::process::id()));
        std::fs::write(&path, b"weights").expect("written");
        let map = Map::open(&File::open(&path).expect("opened")).expect("mapped");
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(map.as_ref(), b"weights");
    }
}
