//! Login with user and password: a token that every request carries, that is refreshed, and that is given back (A1, A3).

use serde_json::json;

use super::{Credentials, Identity, Request};
use crate::apic::error::Error;
use crate::secret::{Renewable, Secret};

/// A user with a password.
#[derive(Debug)]
pub(super) struct Password {
    user: String,
    password: Renewable,
}

impl Password {
    pub(super) fn new(user: &str, password: Renewable) -> Self {
        Password { user: user.to_owned(), password }
    }
}

impl Credentials for Password {
    fn identity(&self) -> Identity {
        Identity::User(self.user.clone())
    }

    fn secret(&self) -> &Renewable {
        &self.password
    }

    fn open(&self) -> Request<'static> {
        let attributes = json!({"name": self.user, "pwd": self.password.get().expose()});
        Request::post("/api/aaaLogin.json", json!({"aaaUser": {"attributes": attributes}}).to_string())
    }

    fn refresh(&self) -> Option<&'static str> {
        Some("/api/aaaRefresh.json")
    }

    fn close(&self) -> Option<Request<'static>> {
        let body = json!({"aaaUser": {"attributes": {"name": self.user}}});
        Some(Request::post("/api/aaaLogout.json", body.to_string()))
    }

    /// Exactly one cookie: a second one makes every subscription of the session silent.
    fn cookie(&self, _: &Request<'_>, token: &Secret) -> Result<Option<Secret>, Error> {
        let token = token.expose();
        Ok((!token.is_empty()).then(|| Secret::new(format!("APIC-cookie={token}"))))
    }

    fn remedy(&self) -> &'static str {
        "correct ACI_USERNAME or the password; run check again only after that, or the APIC may lock the account"
    }
}
