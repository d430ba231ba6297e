//! Lines of a watch stream, each bounded in length (X3).

use std::io::{self, BufRead, Read};

use super::client::MAX_PAGE;
use super::decode::MAX_LINE;
use crate::net::describe_io_error;

/// Why a line is not complete.
#[derive(Debug)]
pub enum ReadError {
    /// The connection ended or failed; a part of a line is not used.
    Cut(String),
    /// The line is longer than [`MAX_LINE`].
    TooLong,
}

/// Reads one line; false at the end of the stream.
pub fn read_line(stream: &mut impl BufRead, line: &mut Vec<u8>) -> Result<bool, ReadError> {
    line.clear();
    let limit = MAX_LINE as u64 + 1;
    match stream.by_ref().take(limit).read_until(b'\n', line) {
        Ok(0) => Ok(false),
        Ok(_) if line.ends_with(b"\n") => Ok(true),
        Ok(_) if line.len() > MAX_LINE => Err(ReadError::TooLong),
        Ok(_) => Err(ReadError::Cut("connection closed within an event".to_owned())),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(ReadError::Cut("connection closed".to_owned()))
        }
        Err(error) => Err(ReadError::Cut(describe_io_error(&error))),
    }
}

/// Skips the rest of a line; the error says why its end was not reached.
pub(super) fn skip_line(stream: &mut impl BufRead) -> Result<(), String> {
    let mut skipped = 0;
    loop {
        let (length, is_end) = match stream.fill_buf() {
            Ok([]) => return Err("connection closed within a too large watch event".to_owned()),
            Ok(piece) => match piece.iter().position(|it| *it == b'\n') {
                Some(at) => (at + 1, true),
                None => (piece.len(), false),
            },
            Err(error) => {
                return Err(format!("failed to read a too large watch event: {}", describe_io_error(&error)));
            }
        };
        stream.consume(length);
        skipped += length as u64;
        if is_end {
            return Ok(());
        }
        if skipped > MAX_PAGE {
            return Err(format!("watch event larger than {} MiB", MAX_PAGE >> 20));
        }
    }
}
