//! The ways to log in, each in a file of its own: the requests that open, keep and close a session, and the proof of identity
//! that every request carries. What all have in common is here: who logs in. The token that comes back is in `token`.

mod certificate;
mod password;
mod token;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::error::Error;
use crate::metrics::Method;
use crate::secret::{Renewable, Secret};

pub use certificate::{end_of_certificate, is_certificate_dn, private_key};
pub use token::{Lifetimes, token_in};

/// Who logs in, and how (A1, A5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// A user with a password; with a login domain `apic:DOMAIN\\user`.
    User(String),
    /// The DN of a user's certificate.
    Certificate(String),
}

impl Identity {
    /// The credentials of this identity. The secret is the user's password, or the private key of the certificate as PEM.
    pub fn with(&self, secret: Renewable) -> Arc<dyn Credentials> {
        match self {
            Identity::User(user) => Arc::new(password::Password::new(user, secret)),
            Identity::Certificate(dn) => Arc::new(certificate::Certificate::new(dn, secret)),
        }
    }
}

/// The user, or the DN of its certificate.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Identity::User(text) | Identity::Certificate(text)) = self;
        f.write_str(text)
    }
}

/// A way to log in.
pub trait Credentials: fmt::Debug + Send + Sync {
    /// As whom.
    fn identity(&self) -> Identity;

    /// What proves it, and may be replaced.
    fn secret(&self) -> &Renewable;

    /// The request that opens a session. Its answer holds the token.
    fn open(&self) -> Request<'static>;

    /// The target of the request for a new token; `None` if no token has to be refreshed.
    fn refresh(&self) -> Option<&'static str>;

    /// The request that ends a session, if there is one.
    fn close(&self) -> Option<Request<'static>>;

    /// The `Cookie` header of a request. The token is empty before there is a session.
    fn cookie(&self, request: &Request<'_>, token: &Secret) -> Result<Option<Secret>, Error>;

    /// The forms of a target that an APIC may compare with the proof, the more likely one first.
    fn forms(&self, _target: &str) -> Vec<TargetForm> {
        vec![TargetForm::AsSent]
    }

    /// The APIC refused the first form, but not this one.
    fn prefer(&self, _form: TargetForm) {}

    /// Completes the APIC's text about a refused login. `ahead`: by how many seconds the APIC's clock is ahead of ours.
    fn explain(&self, refusal: String, _ahead: Option<i64>) -> String {
        refusal
    }

    /// What to correct after a refused login.
    fn remedy(&self) -> &'static str;
}

/// How the target of a request is written where it is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetForm {
    /// Percent-decoded.
    Decoded,
    /// As it is sent.
    AsSent,
}

/// A request, without its proof.
#[derive(Clone)]
pub struct Request<'a> {
    pub(super) method: Method,
    /// Path and query.
    pub(super) target: &'a str,
    /// Empty for everything but a POST.
    pub(super) body: Cow<'a, str>,
    pub(super) form: TargetForm,
}

impl<'a> Request<'a> {
    /// A GET.
    pub(super) fn get(target: &'a str) -> Request<'a> {
        Request { method: Method::Get, target, body: Cow::Borrowed(""), form: TargetForm::AsSent }
    }

    /// A POST.
    pub(super) fn post(target: &'a str, body: impl Into<Cow<'a, str>>) -> Request<'a> {
        Request { method: Method::Post, body: body.into(), ..Request::get(target) }
    }

    /// A DELETE.
    pub(super) fn delete(target: &'a str) -> Request<'a> {
        Request { method: Method::Delete, ..Request::get(target) }
    }
}
