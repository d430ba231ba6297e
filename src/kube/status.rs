//! `Status` bodies, by which an API server rejects a request.

use serde::Deserialize;

/// The fields of a `Status` body that decide something.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The HTTP code.
    pub code: u16,
    /// The reason in one word.
    pub reason: String,
    /// The message for people; it names verb and resource if a permission is missing.
    pub message: String,
    /// Details.
    pub details: Option<Details>,
}

/// Details of a `Status`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Details {
    /// More precise reasons.
    pub causes: Option<Vec<Cause>>,
}

/// One cause of a `Status`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Cause {
    /// Its reason in one word.
    pub reason: String,
}

impl Status {
    /// Decodes a body; empty if it is no `Status`.
    pub fn parse(body: &[u8]) -> Status {
        serde_json::from_slice(body).unwrap_or_default()
    }

    /// Whether one of its causes has this reason.
    pub fn has_cause(&self, reason: &str) -> bool {
        let causes = self.details.as_ref().and_then(|it| it.causes.as_deref());
        causes.unwrap_or_default().iter().any(|it| it.reason == reason)
    }
}
