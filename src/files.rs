//! Files with credentials and certificates: whatever stands at their path, reading them ends.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// `O_NONBLOCK` of Linux, but for a few old architectures. To open a FIFO without a writer would wait for one.
const NONBLOCK: i32 = 0o4000;

/// What a regular file holds, up to a limit in bytes; or what is wrong with it, as the rest of a sentence about it. The
/// limit is on what is read, because not every file system knows a file's length.
pub fn read(file: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let failed = |error| format!("cannot be read: {error}");
    let opened = OpenOptions::new().read(true).custom_flags(NONBLOCK).open(file).map_err(failed)?;
    let metadata = opened.metadata().map_err(failed)?;
    // To read a folder says so itself.
    if !metadata.is_file() && !metadata.is_dir() {
        return Err("is not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    opened.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit { Err(format!("is larger than {limit} bytes")) } else { Ok(bytes) }
}
