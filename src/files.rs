//! Bounded reading of files with credentials and certificates.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// `O_NONBLOCK` on Linux, except on a few old architectures. Without it, opening a FIFO waits for a writer.
const NONBLOCK: i32 = 0o4000;

/// Reads a regular file of at most `limit` bytes. The limit applies to what is read, because not every file system knows
/// the length of a file.
pub fn read(file: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let opened = OpenOptions::new().read(true).custom_flags(NONBLOCK).open(file)?;
    let metadata = opened.metadata()?;
    // Reading a folder fails with an error of its own.
    if !metadata.is_file() && !metadata.is_dir() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    opened.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(io::Error::other(format!("larger than {limit} bytes"))) } else { Ok(bytes) }
}
