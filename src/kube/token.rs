//! The bearer token: its sources, and the file of a token.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::ConfigError;
use super::plugin::{Plugin, is_header_value};
use crate::secret::Secret;
use crate::{files, time};

/// The largest kubeconfig, certificate or token file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// The source of the bearer token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// The token in the kubeconfig.
    Fixed(Secret),
    /// A file, which may be renewed.
    File(PathBuf),
    /// A program that prints a token, a client certificate or both.
    Plugin(Box<Plugin>),
}

/// Reads a token file.
pub fn read_token(file: &Path) -> Result<Secret, ConfigError> {
    let bytes = read_file(file, "the token file")?;
    let text = String::from_utf8(bytes).ok().map(|it| it.trim().to_owned()).filter(|it| is_header_value(it));
    text.map(Secret::new).ok_or_else(|| ConfigError(format!("token file {}: no valid token in it", file.display())))
}

/// A token file whose tokens live less long is renewed by a program, such as the kubelet.
const LONG_LIFE: u64 = 30 * 86_400;

/// The end of a token, if its end matters and it says so: a JWT's `exp`, which is not verified (T10).
pub(super) fn end_of(token: &Secret, source: &Token) -> Option<u64> {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
        iat: Option<f64>,
    }
    let mut parts = token.expose().split('.').skip(1);
    let mut payload = parts.next().filter(|_| parts.count() == 1)?.replace('-', "+").replace('_', "/");
    payload.extend(std::iter::repeat_n('=', payload.len().wrapping_neg() % 4));
    let claims: Claims = serde_json::from_slice(&openssl::base64::decode_block(&payload).ok()?).ok()?;
    let is_renewed = match source {
        Token::Fixed(_) => false,
        Token::File(_) => claims.iat.is_some_and(|it| claims.exp - it < LONG_LIFE as f64),
        Token::Plugin(_) => true,
    };
    // The conversion saturates.
    time::valid_end(claims.exp as u64).filter(|_| !is_renewed)
}

/// Reads a file that a kubeconfig names, or the kubeconfig itself.
pub(super) fn read_file(file: &Path, what: &str) -> Result<Vec<u8>, ConfigError> {
    files::read(file, MAX_FILE).map_err(|why| ConfigError(format!("failed to read {what} {}: {why}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(claims: &str) -> String {
        let payload = openssl::base64::encode_block(claims.as_bytes()).replace('+', "-").replace('/', "_");
        format!("eyJhbGciOiJSUzI1NiJ9.{}.c2lnbmF0dXJl", payload.trim_end_matches('='))
    }

    /// T10: the end of a JWT; other tokens and broken ones have none, and neither has what a program renews.
    #[test]
    fn ends_of_tokens() {
        let fixed = Token::Fixed(Secret::default());
        let file = Token::File("token".into());
        for (token, source, expected) in [
            (jwt(r#"{"exp":1795412631,"sub":"ÿþ??>>"}"#), &fixed, Some(1_795_412_631)),
            (jwt(r#"{"exp":1795412631.7,"iat":1795412000}"#), &fixed, Some(1_795_412_631)),
            (jwt(r#"{"exp":1795412631,"iat":1795409031}"#), &file, None),
            (jwt(r#"{"exp":1795412631,"iat":1763876631}"#), &file, Some(1_795_412_631)),
            (jwt(r#"{"exp":1795412631}"#), &file, Some(1_795_412_631)),
            (jwt(r#"{"exp":-5}"#), &fixed, Some(1)),
            (jwt(r#"{"exp":1e300}"#), &fixed, None),
            (jwt(r#"{"exp":"soon"}"#), &fixed, None),
            (jwt(r#"{"sub":"x"}"#), &fixed, None),
            (jwt("{"), &fixed, None),
            ("a.b".to_owned(), &fixed, None),
            ("a.!!!.c".to_owned(), &fixed, None),
            ("..".to_owned(), &fixed, None),
            ("a.b.c.d".to_owned(), &fixed, None),
            ("31ada4fd-adec-460c-809a-9e56ceb75269".to_owned(), &fixed, None),
        ] {
            assert_eq!(end_of(&Secret::new(token.as_str()), source), expected, "{token}");
        }
    }
}
