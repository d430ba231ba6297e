//! The token in the answer to a login or a refresh, and how long it lives. Both are checked.

use std::time::Duration;

use crate::apic::decode::Answer;
use crate::apic::error::Error;
use crate::secret::Secret;

/// The longest life of a token or a session that is believed, in seconds; an APIC grants a day.
const MAX_LIFE: u64 = 30 * 86_400;

/// The lives if the APIC does not say, in seconds.
const DEFAULT_TOKEN_LIFE: u64 = 300;
const DEFAULT_SESSION_LIFE: u64 = 86_400;

/// The longest token that is believed, in bytes; it goes into every request's head. An APIC's has about a hundred.
const MAX_TOKEN: usize = 8192;

/// Longer than any process lives.
const TEN_YEARS: Duration = Duration::from_secs(3650 * 86_400);

/// How long a token and its session live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// `refreshTimeoutSeconds`: the token has to be refreshed within this time.
    pub token: Duration,
    /// `maximumLifetimeSeconds`: after this time no refresh helps.
    pub session: Duration,
}

impl Lifetimes {
    /// Those of a session that needs no refresh.
    pub(in crate::apic) const ENDLESS: Lifetimes = Lifetimes { token: TEN_YEARS, session: TEN_YEARS };
}

/// The token of a login or a refresh, with its life.
pub fn token_in(answer: &Answer) -> Result<(Secret, Lifetimes), Error> {
    let no_token = || Error::Malformed("no valid token in the answer to a login".to_owned());
    let login = answer.login.as_ref().ok_or_else(no_token)?;
    if !is_token(login.token.expose()) {
        return Err(no_token());
    }
    let bounded = |seconds: u64| Duration::from_secs(seconds.clamp(2, MAX_LIFE));
    let lifetimes = Lifetimes {
        token: bounded(login.refresh_timeout.unwrap_or(DEFAULT_TOKEN_LIFE)),
        session: bounded(login.maximum_lifetime.unwrap_or(DEFAULT_SESSION_LIFE)),
    };
    Ok((login.token.clone(), lifetimes))
}

/// A token goes into a header and a path as it is, so it must not break out of either.
fn is_token(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_graphic() && !b"\";,?#".contains(&byte);
    (1..=MAX_TOKEN).contains(&text.len()) && text.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::apic::decode;

    /// A3, X3: lifetimes as the APIC grants them, and those that no clock can count to or that would mean no pause.
    #[test]
    fn lifetimes_are_bounded() {
        let seconds = Duration::from_secs;
        for (token, session, expected) in [
            ("600", "86400", (seconds(600), seconds(86_400))),
            ("18446744073709551615", "18446744073709551615", (seconds(MAX_LIFE), seconds(MAX_LIFE))),
            ("0", "0", (seconds(2), seconds(2))),
            ("-1", "soon", (seconds(300), seconds(86_400))),
        ] {
            let body = format!(
                r#"{{"imdata":[{{"aaaLogin":{{"attributes":{{"token":"t","refreshTimeoutSeconds":"{token}","maximumLifetimeSeconds":"{session}"}}}}}}]}}"#
            );
            let (_, lifetimes) = token_in(&decode::answer(body.as_bytes()).unwrap()).unwrap();
            assert_eq!((lifetimes.token, lifetimes.session), expected, "{token} {session}");
        }
    }

    /// A4: a token goes into a header and a path as it is, so one that would break out of either is no token.
    #[test]
    fn tokens_are_checked() {
        let token = |text: &str| {
            let attributes = json!({"token": text});
            let body = json!({"imdata": [{"aaaLogin": {"attributes": attributes}}]}).to_string();
            token_in(&decode::answer(body.as_bytes()).unwrap()).map(|(token, _)| token)
        };
        for good in ["eyJhbGciOi.J9-_x", "aB+/c==", &"x".repeat(MAX_TOKEN)] {
            assert_eq!(token(good), Ok(Secret::new(good)));
        }
        for bad in
            [&*"x".repeat(MAX_TOKEN + 1), "", "a b", "a\r\nX: y", "a;b", "a,b", "a?b", "a#b", "a\"b", "\u{e9}", "a\0b"]
        {
            assert_eq!(
                token(bad),
                Err(Error::Malformed("no valid token in the answer to a login".to_owned())),
                "{bad:?}"
            );
        }
    }
}
