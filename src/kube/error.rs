//! What can go wrong towards the API server; each variant is another decision.

use std::fmt;
use std::time::Duration;

use super::decode::Status;

/// An error of a request or a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// No connection, no TLS, no answer in time, a cut: try again.
    Unreachable(String),
    /// There are no credentials to ask with, or they are refused and there are no new ones: try again.
    Credentials(String),
    /// 401: the credentials are not accepted.
    Unauthorized,
    /// 403: a right is missing; the message names the verb and the resource.
    Forbidden {
        /// The server's own sentence.
        message: String,
    },
    /// 403: the namespace is on its way out, and nothing can be made in it any more.
    Terminating,
    /// 404.
    NotFound,
    /// 409: somebody else was faster.
    Conflict,
    /// 410, as a status or in the stream: what was asked for is too old, list again.
    Expired,
    /// 429, or 5xx with a time to wait.
    Busy {
        /// What the server said.
        message: String,
        /// When it wants to be asked again.
        after: Option<Duration>,
    },
    /// An answer that is larger than what is read of one.
    TooLarge(String),
    /// Not what an API server says.
    Malformed(String),
}

impl Error {
    /// An answer that cannot be decoded. Nothing of the body is quoted.
    pub fn malformed(what: &str, error: &serde_json::Error) -> Error {
        let why = match error.classify() {
            serde_json::error::Category::Eof => "it ends too early",
            serde_json::error::Category::Syntax => "it is not JSON",
            _ => "a field has the wrong type",
        };
        Error::Malformed(format!("{what} cannot be read: {why}"))
    }

    /// The decision that a `Status` calls for.
    pub fn of_status(status: &Status, after: Option<Duration>) -> Error {
        let message = if status.message.is_empty() { "no message" } else { &status.message };
        // The message is the server's; a line break in it must not become one in the log.
        let message = message.chars().take(300).map(|it| if it.is_control() { ' ' } else { it }).collect();
        match (status.code, status.reason.as_str()) {
            (401, _) => Error::Unauthorized,
            (403, _) if status.has_cause("NamespaceTerminating") => Error::Terminating,
            (403, _) => Error::Forbidden { message },
            (404, _) => Error::NotFound,
            (409, _) => Error::Conflict,
            (410, _) | (_, "Expired" | "Gone") => Error::Expired,
            (429 | 500..=599, _) => Error::Busy { message, after },
            (code, _) => Error::Malformed(format!("HTTP {code}: {message}")),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unreachable(why) => write!(f, "the API server cannot be reached: {why}"),
            Error::Credentials(why) => write!(f, "there are no credentials for the API server: {why}"),
            Error::Unauthorized => f.write_str("the API server does not accept our credentials (401)"),
            Error::Forbidden { message } => write!(f, "a right is missing: {message}"),
            Error::Terminating => f.write_str("the namespace is being terminated"),
            Error::NotFound => f.write_str("the API server does not know what was asked for (404)"),
            Error::Conflict => f.write_str("somebody else has just written it (409)"),
            Error::Expired => f.write_str("the resource version is too old (410)"),
            Error::Busy { message, .. } => write!(f, "the API server is busy: {message}"),
            Error::TooLarge(what) => write!(f, "the API server's answer is too large: {what}"),
            Error::Malformed(why) => write!(f, "the API server's answer makes no sense: {why}"),
        }
    }
}

impl std::error::Error for Error {}
