//! Why the program ends, and the exit code that says so (X4).

use std::fmt;

/// The exit code of a wrong command line.
pub const EXIT_USAGE: u8 = 64;

/// The exit code of a missing or invalid value elsewhere.
pub const EXIT_CONFIG: u8 = 78;

/// The program ends with this code, and says this sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitError {
    /// The exit code.
    pub code: u8,
    /// One sentence: what failed, why, and what to do.
    pub message: String,
}

impl ExitError {
    /// Something failed at run time: 1.
    pub fn failed(message: impl Into<String>) -> Self {
        ExitError { code: 1, message: message.into() }
    }

    /// The command line is wrong: 64.
    pub fn usage(message: impl Into<String>) -> Self {
        ExitError { code: EXIT_USAGE, message: message.into() }
    }

    /// A value is missing or invalid elsewhere: 78.
    pub fn config(message: impl Into<String>) -> Self {
        ExitError { code: EXIT_CONFIG, message: message.into() }
    }
}

impl fmt::Display for ExitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
