//! Numbers and texts of a GGUF header, in the order in which they lie. Little-endian, and none of them is trusted.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom, Take};

/// Longest header that is read: a vocabulary of a million tokens with its merges.
const MAX_HEADER: u64 = 64 << 20;

pub(super) struct Cursor {
    reader: Take<BufReader<File>>,
    at: u64,
    len: u64,
}

impl Cursor {
    /// At the beginning of a file of `len` bytes.
    pub(super) fn new(file: &File, len: u64) -> Result<Cursor, String> {
        let mut file = file.try_clone().map_err(|error| format!("cannot be read: {error}"))?;
        file.seek(SeekFrom::Start(0)).map_err(|error| format!("cannot be read: {error}"))?;
        Ok(Cursor { reader: BufReader::with_capacity(256 << 10, file).take(MAX_HEADER), at: 0, len })
    }

    /// Bytes from the beginning of the file.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    fn fill(&mut self, to: &mut [u8]) -> Result<(), String> {
        self.reader.read_exact(to).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof if self.len > MAX_HEADER => {
                format!("its header has more than {} MiB, the most that is read", MAX_HEADER >> 20)
            }
            ErrorKind::UnexpectedEof => {
                format!("truncated: its {} bytes end within the header; download it again", self.len)
            }
            _ => format!("cannot be read: {error}"),
        })?;
        self.at += to.len() as u64;
        Ok(())
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, String> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, String> {
        self.bytes().map(u64::from_le_bytes)
    }

    /// A text of at most `most` bytes.
    pub(super) fn text(&mut self, most: u64, what: &str) -> Result<String, String> {
        let len = self.u64()?;
        if len > most {
            return Err(format!("{what} has {len} bytes; at most {most} are read"));
        }
        // Grows with what is there, not with what is promised.
        let mut bytes = Vec::with_capacity(len.min(4096) as usize);
        let read = (&mut self.reader).take(len).read_to_end(&mut bytes);
        if read.map_err(|error| format!("cannot be read: {error}"))? as u64 != len {
            return self.fill(&mut [0]).and(Err(format!("truncated within {what}; download it again")));
        }
        self.at += len;
        String::from_utf8(bytes).map_err(|_| format!("{what} is not UTF-8"))
    }
}
