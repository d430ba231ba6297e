//! What can go wrong at an APIC.

use std::fmt;

/// An error of a request or a session. Each variant is another decision of the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// No connection, no TLS, or no complete answer to a read: try again, here or at another controller.
    Unreachable(String),
    /// 503, 429 or another failure of the web server in front: wait and try again.
    Busy(String),
    /// The login or the session is not accepted (401, 403 about a token or a signature, 405 without a websocket): log in again.
    Unauthorized(String),
    /// Any other 403: the user lacks a privilege there.
    Forbidden(String),
    /// 400: the content is rejected.
    Rejected {
        /// The APIC's code for the class of the cause.
        code: u32,
        /// The APIC's sentence.
        text: String,
    },
    /// Not sent: the program is stopping, leadership is lost, or there is no time left for it.
    NotSent,
    /// A write was sent and its outcome is unknown: read, never guess.
    AnswerLost(String),
    /// Not an APIC's answer.
    Malformed(String),
}

impl Error {
    /// Names the controller or the login that the error is about. An error about an object or a privilege is the same at
    /// each controller and stays as it is.
    pub(super) fn in_context(self, context: &str) -> Error {
        let with_context = |text: String| format!("{context}: {text}");
        match self {
            Error::Unreachable(text) => Error::Unreachable(with_context(text)),
            Error::Busy(text) => Error::Busy(with_context(text)),
            Error::Unauthorized(text) => Error::Unauthorized(with_context(text)),
            Error::AnswerLost(text) => Error::AnswerLost(with_context(text)),
            Error::Malformed(text) => Error::Malformed(with_context(text)),
            Error::Forbidden(_) | Error::Rejected { .. } | Error::NotSent => self,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unreachable(text) => write!(f, "failed to reach the APIC: {text}"),
            Error::Busy(text) => write!(f, "the APIC is busy: {text}"),
            Error::Unauthorized(text) => write!(f, "not authorized by the APIC: {text}"),
            Error::Forbidden(text) => write!(f, "missing APIC privilege: {text}"),
            Error::Rejected { code, text } => write!(f, "rejected by the APIC with code {code}: {text}"),
            Error::NotSent => f.write_str("request not sent: stopping, not leading or out of time"),
            Error::AnswerLost(text) => write!(f, "unknown outcome of a write: {text}"),
            Error::Malformed(text) => write!(f, "unexpected answer from the APIC: {text}"),
        }
    }
}

impl std::error::Error for Error {}
