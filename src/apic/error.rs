//! What can go wrong towards an APIC; each variant is another decision.

use std::fmt;

/// An error of a request or a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// No connection, no TLS, or no whole answer to a read: try again, here or at another controller.
    Unreachable(String),
    /// 503, 429 or another failure of the web server in front: wait and try again.
    Busy(String),
    /// The session is no good (401, 403 with a token's text, 405 without a websocket): log in again.
    Unauthorized(String),
    /// Any other 403: a privilege is missing there.
    Forbidden(String),
    /// 400: the content is refused.
    Rejected {
        /// The APIC's code; the class of the cause.
        code: u32,
        /// The APIC's sentence.
        text: String,
    },
    /// Not sent: the program is stopping, does not lead any more, or has no time left for it.
    Withdrawn,
    /// A write was sent, and what became of it is not known: read, never guess.
    AnswerLost(String),
    /// Not what an APIC says.
    Malformed(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unreachable(why) => write!(f, "the APIC cannot be reached: {why}"),
            Error::Busy(why) => write!(f, "the APIC is busy: {why}"),
            Error::Unauthorized(why) => write!(f, "the APIC session is not accepted: {why}"),
            Error::Forbidden(why) => write!(f, "a privilege is missing at the APIC: {why}"),
            Error::Rejected { code, text } => write!(f, "refused with code {code}: {text}"),
            Error::Withdrawn => f.write_str("a request was not sent, because its time was over"),
            Error::AnswerLost(why) => write!(f, "what became of a write is not known: {why}"),
            Error::Malformed(why) => write!(f, "the APIC's answer makes no sense: {why}"),
        }
    }
}

impl std::error::Error for Error {}
