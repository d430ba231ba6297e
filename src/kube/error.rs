//! Errors of requests to the API server, each variant of which leads to another decision, and of configurations.

use std::fmt;
use std::time::Duration;

use super::status::Status;

/// An error of a request or a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// No connection, no TLS, no answer in time, or a broken connection: retry.
    Unreachable(String),
    /// No usable credentials, or they are rejected and there are no new ones: retry.
    Credentials(String),
    /// 401: the credentials are rejected.
    Unauthorized,
    /// 403: a permission is missing; the message names the verb and the resource.
    Forbidden {
        /// The message of the API server.
        message: String,
    },
    /// 403: the namespace is being terminated, and nothing can be created in it.
    Terminating,
    /// 404.
    NotFound,
    /// 409: another writer was faster.
    Conflict,
    /// 410, as a status or in a watch: the resource version is too old, relist.
    Expired,
    /// 429 or 5xx: retry later.
    Busy {
        /// The message of the API server.
        message: String,
        /// The pause that it asks for.
        after: Option<Duration>,
    },
    /// An answer above the limit.
    TooLarge(String),
    /// Not an answer of an API server, or one that cannot be decoded.
    Malformed(String),
}

impl Error {
    /// An answer that cannot be decoded. The body is not quoted.
    pub fn malformed(what: &str, error: &serde_json::Error) -> Error {
        let why = match error.classify() {
            serde_json::error::Category::Eof => "unexpected end",
            serde_json::error::Category::Syntax => "not JSON",
            _ => "missing field or field of the wrong type",
        };
        Error::Malformed(format!("{what}: {why}"))
    }

    /// The decision that a `Status` calls for.
    pub fn of_status(status: &Status, after: Option<Duration>) -> Error {
        let message = if status.message.is_empty() { "no message" } else { &status.message };
        // A line break in it must not become one in the log.
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
            Error::Unreachable(why) => write!(f, "failed to reach the API server: {why}"),
            Error::Credentials(why) => write!(f, "failed to get credentials for the API server: {why}"),
            Error::Unauthorized => f.write_str("the API server rejected the credentials (401)"),
            Error::Forbidden { message } => write!(f, "permission denied: {message}"),
            Error::Terminating => f.write_str("the namespace is being terminated"),
            Error::NotFound => f.write_str("not found (404)"),
            Error::Conflict => f.write_str("changed by another writer (409)"),
            Error::Expired => f.write_str("resource version expired (410)"),
            Error::Busy { message, .. } => write!(f, "the API server is busy: {message}"),
            Error::TooLarge(what) => write!(f, "answer of the API server too large: {what}"),
            Error::Malformed(why) => write!(f, "invalid answer from the API server: {why}"),
        }
    }
}

impl std::error::Error for Error {}

/// Why a configuration or a credential cannot be used, with the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(pub String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}
