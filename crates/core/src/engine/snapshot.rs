//! Files of snapshots. docs/design/snapshots.md has their layout.
//!
//! A file says how long it is and has a checksum over all of it; both are looked at before anything in it is believed. A fault of one is an
//! [`Error::Snapshot`] whose `problem` names it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::cache::{Get, Put};
use crate::error::{Error, Result};
use crate::wire::{MAX_JSON, SessionId};

const MAGIC: [u8; 8] = *b"PREFIXKV";
/// The version that is written, and the newest that is read.
const VERSION: u32 = 1;
/// Magic, version, bytes of the header and of the body.
const FIXED: usize = 8 + 4 + 4 + 8;
/// With the checksum.
const START: usize = FIXED + 32;
/// Longest header: a method with its calibration, and a prompt with its tokens.
const MAX_HEADER: u64 = MAX_JSON as u64 + (32 << 20);

fn failed(path: &Path, problem: &'static str, reason: impl Into<String>) -> Error {
    Error::Snapshot { path: path.to_owned(), problem, reason: reason.into() }
}

fn io_failed(path: &Path, error: &io::Error) -> Error {
    failed(path, if error.kind() == io::ErrorKind::NotFound { "missing" } else { "io" }, error.to_string())
}

/// A snapshot of another model.
pub(super) fn other_model(path: &Path, reason: impl Into<String>) -> Error {
    failed(path, "other-model", reason)
}

/// A header that is whole and cannot be understood.
pub(super) fn corrupt(path: &Path, reason: impl Into<String>) -> Error {
    failed(path, "corrupt", reason)
}

/// A file that takes its name when all of it is there, and leaves nothing behind where it does not come to that.
struct Growing<'p> {
    to: &'p Path,
    part: PathBuf,
    file: BufWriter<File>,
    hash: Sha256,
    written: u64,
}

impl Drop for Growing<'_> {
    fn drop(&mut self) {
        // Gone already where it has got its name.
        let _ = fs::remove_file(&self.part);
    }
}

impl Put for Growing<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.written += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|error| io_failed(self.to, &error))
    }
}

impl<'p> Growing<'p> {
    fn new(to: &'p Path) -> Result<Growing<'p>> {
        let name = to.file_name().ok_or_else(|| failed(to, "io", "it names no file"))?;
        let mut part = std::ffi::OsString::from(".");
        part.push(name);
        part.push(format!(".{}.part", SessionId::random()?.digits()));
        let part = to.with_file_name(part);
        let file =
            OpenOptions::new().write(true).create_new(true).open(&part).map_err(|error| io_failed(to, &error))?;
        Ok(Growing { to, part, file: BufWriter::new(file), hash: Sha256::new(), written: 0 })
    }

    /// Puts the start before what was written, and gives the file its name.
    fn finish(mut self, header: u64) -> Result<u64> {
        let (body, to) = (self.written - header, self.to);
        let mut start = [0; START];
        start[..8].copy_from_slice(&MAGIC);
        start[8..12].copy_from_slice(&VERSION.to_le_bytes());
        start[12..16].copy_from_slice(&(header as u32).to_le_bytes());
        start[16..24].copy_from_slice(&body.to_le_bytes());
        self.hash.update(&start[8..FIXED]);
        start[FIXED..].copy_from_slice(&self.hash.clone().finalize());
        let done = (|| {
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(&start)?;
            self.file.flush()?;
            self.file.get_ref().sync_all()?;
            fs::rename(&self.part, to)
        })();
        done.map_err(|error| io_failed(to, &error))?;
        Ok(START as u64 + header + body)
    }
}

/// Writes a snapshot to `path`, in the place of what is there once all is written; gives its bytes.
pub(super) fn write(path: &Path, header: &[u8], body: impl FnOnce(&mut dyn Put) -> Result<()>) -> Result<u64> {
    let header_len = header.len() as u64;
    if header_len > MAX_HEADER {
        return Err(failed(path, "too-large", format!("its header would have {header_len} bytes")));
    }
    let mut file = Growing::new(path)?;
    file.file.write_all(&[0; START]).map_err(|error| io_failed(path, &error))?;
    file.put(header)?;
    body(&mut file)?;
    file.finish(header_len)
}

/// A file whose start, lengths and checksum are right.
pub(super) struct Snapshot<'p> {
    path: &'p Path,
    pub(super) header: Vec<u8>,
    file: BufReader<File>,
    left: u64,
}

impl Get for Snapshot<'_> {
    fn get(&mut self, to: &mut [u8]) -> Result<()> {
        match self.left.checked_sub(to.len() as u64) {
            Some(left) => self.left = left,
            None => return Err(self.corrupt(format!("{} bytes are read and {} are left", to.len(), self.left))),
        }
        self.file.read_exact(to).map_err(|error| io_failed(self.path, &error))
    }

    fn left(&self) -> u64 {
        self.left
    }

    fn corrupt(&self, reason: String) -> Error {
        corrupt(self.path, reason)
    }
}

/// Opens a snapshot. Nothing is made for what it says it has before all of the file was read once, piece by piece, and is what was written.
pub(super) fn open<'p>(path: &'p Path, check: &dyn Fn() -> Result<()>) -> Result<Snapshot<'p>> {
    let io = |error: io::Error| io_failed(path, &error);
    let found = fs::metadata(path).map_err(io)?;
    // A pipe would be waited for.
    if !found.is_file() {
        return Err(failed(path, "io", "it is no plain file"));
    }
    let mut file = File::open(path).map_err(io)?;
    let size = found.len();
    let mut start = Vec::with_capacity(START);
    (&mut file).take(START as u64).read_to_end(&mut start).map_err(io)?;
    if !start.starts_with(&MAGIC[..start.len().min(8)]) || start.is_empty() {
        return Err(failed(path, "no-snapshot", "it does not begin as snapshots do"));
    }
    let number = |at: usize| start.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_le_bytes);
    let truncated = |whole: u64| failed(path, "truncated", format!("it has {size} bytes of {whole}; save it again"));
    let Some(version) = number(8) else { return Err(truncated(START as u64)) };
    if version == 0 || version > VERSION {
        return Err(failed(
            path,
            "version",
            format!(
                "it has version {version}, and this library reads {VERSION}: read it with a newer one, or save it again"
            ),
        ));
    }
    let (Some(header), Some(low), Some(high)) = (number(12).map(u64::from), number(16), number(20)) else {
        return Err(truncated(START as u64));
    };
    let body = u64::from(low) | u64::from(high) << 32;
    let whole = (START as u64 + header).checked_add(body);
    match whole {
        Some(whole) if size < whole => return Err(truncated(whole)),
        Some(whole) if size == whole && header <= MAX_HEADER && start.len() == START => {}
        _ => {
            return Err(corrupt(
                path,
                format!("it has {size} bytes, and says {header} of a header and {body} of entries"),
            ));
        }
    }
    let mut hash = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    let mut left = header + body;
    while left > 0 {
        check()?;
        let n = left.min(piece.len() as u64) as usize;
        file.read_exact(&mut piece[..n]).map_err(io)?;
        hash.update(&piece[..n]);
        left -= n as u64;
    }
    hash.update(&start[8..FIXED]);
    if hash.finalize()[..] != start[FIXED..] {
        return Err(corrupt(path, "its checksum is another one; save it again"));
    }
    file.seek(SeekFrom::Start(START as u64)).map_err(io)?;
    let mut snapshot = Snapshot { path, header: Vec::new(), file: BufReader::new(file), left: header + body };
    let mut bytes = vec![0; header as usize];
    snapshot.get(&mut bytes)?;
    snapshot.header = bytes;
    Ok(snapshot)
}
