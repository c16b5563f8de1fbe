//! One safetensors file: its header, and numbers read from where they lie.
//!
//! Files are read, not mapped: a mapped file that somebody truncates ends the process with SIGBUS, and one that somebody rewrites changes
//! the numbers that are in use.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rayon::prelude::*;
use safetensors::tensor::Metadata;

use super::numbers::Element;
use crate::error::{Error, Result};
use crate::folder::{self, unusable};

/// Longest header that is read, in bytes: some hundred thousand tensors.
const MAX_HEADER: u64 = 32 << 20;
/// Numbers read and looked at together: small enough that the second look finds them in the CPU's cache.
const TOGETHER: usize = 256 << 10;

pub(super) struct File {
    pub(super) path: PathBuf,
    file: std::fs::File,
    stamp: Stamp,
    /// Where the data begin.
    start: u64,
}

/// Length and time by which a file is told from a later version of itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) len: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    pub(super) fn of(file: &std::fs::File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Stamp { len: metadata.len(), modified: metadata.modified().ok() })
    }

    /// Errors when the file was written to since this was its stamp: what was read may be of two models.
    pub(super) fn require(&self, file: &std::fs::File, path: &Path) -> Result<()> {
        match Stamp::of(file) {
            Ok(stamp) if stamp == *self => Ok(()),
            Ok(_) => Err(unusable(path, "was changed while it was read; load it again once it is written")),
            Err(error) => Err(unusable(path, format!("cannot be read: {error}"))),
        }
    }
}

impl File {
    /// Opens the file and reads its header; None when there is no such file.
    pub(super) fn open(path: &Path) -> Result<Option<(File, Metadata)>> {
        let Some(file) = folder::open(path)? else { return Ok(None) };
        let cannot = |error: io::Error| unusable(path, format!("cannot be read: {error}"));
        let stamp = Stamp::of(&file).map_err(cannot)?;
        let mut opened = File { path: path.to_owned(), file, stamp, start: 0 };
        let metadata = opened.header().map_err(|reason| match opened.foreign() {
            Some(error) => error,
            None => unusable(path, reason),
        })?;
        Ok(Some((opened, metadata)))
    }

    fn header(&mut self) -> Result<Metadata, String> {
        let len = self.stamp.len;
        let damaged = |what: String| {
            format!("not a safetensors file, or its header is damaged ({what}; {len} bytes): download it again")
        };
        let mut size = [0; 8];
        self.file.read_exact_at(&mut size, 0).map_err(|error| damaged(error.to_string()))?;
        let size = u64::from_le_bytes(size);
        if size > MAX_HEADER {
            return Err(damaged(format!("a header of {size} bytes")));
        }
        let mut header = vec![0; size as usize];
        self.file.read_exact_at(&mut header, 8).map_err(|error| damaged(error.to_string()))?;
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| damaged(error.to_string()))?;
        self.start = 8 + size;
        let needed = self.start + metadata.data_len() as u64;
        match len {
            _ if len < needed => {
                Err(format!("truncated: {len} bytes where the header promises {needed}; download it again"))
            }
            _ if len > needed => Err(damaged(format!("the header promises {needed}"))),
            _ => Ok(metadata),
        }
    }

    /// The error that names the file's actual format, where it is known.
    fn foreign(&self) -> Option<Error> {
        let mut head = [0; 64];
        let read = self.file.read_at(&mut head, 0).ok()?;
        match &head[..read] {
            [b'G', b'G', b'U', b'F', ..] => Some(super::foreign::gguf(&self.path)),
            head if head.starts_with(b"version https://git-lfs") => {
                let reason = "is the pointer of a Git LFS file, not the file: fetch it with `git lfs pull`";
                Some(unusable(&self.path, reason))
            }
            [b'P', b'K', 3, 4, ..] | [0x80, 2..=5, ..] => {
                Some(unusable(&self.path, "is a pickled checkpoint, which is not read: convert it to safetensors"))
            }
            _ => None,
        }
    }

    /// `count` numbers from byte `offset` of the data on, and the bits of their greatest magnitude.
    pub(super) fn read<T: Element>(&self, offset: usize, count: usize) -> Result<(Vec<T>, u32)> {
        let mut values = vec![T::zeroed(); count];
        let most = values.par_chunks_mut(TOGETHER).enumerate().map(|(index, chunk)| {
            let at = self.start + (offset + index * TOGETHER * size_of::<T>()) as u64;
            self.file.read_exact_at(bytemuck::cast_slice_mut(chunk), at)?;
            Ok(T::most(chunk))
        });
        let most = most.try_reduce(|| 0, |a, b| Ok(a.max(b))).map_err(|error| self.shrunk(&error))?;
        Ok((values, most))
    }

    /// Up to `count` bytes from byte `offset` of the data on.
    pub(super) fn sample(&self, offset: usize, count: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.file.read_exact_at(&mut bytes, self.start + offset as u64).map_err(|error| self.shrunk(&error))?;
        Ok(bytes)
    }

    fn shrunk(&self, error: &io::Error) -> Error {
        unusable(&self.path, format!("cannot be read to its end ({error}): it was cut or changed while it was read"))
    }

    /// Errors when the file was written to since it was opened: what was read may be of two models.
    pub(super) fn require_unchanged(&self) -> Result<()> {
        self.stamp.require(&self.file, &self.path)
    }
}
