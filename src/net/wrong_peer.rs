//! Answers of another server than the expected one: proxies, login pages and redirects. Only the host of a redirect is
//! quoted.

use ureq::http::{HeaderMap, Uri};

/// The longest host that is shown, in characters.
const MAX_HOST: usize = 253;

/// Whether a body looks like HTML or XML.
pub fn is_html(body: &[u8]) -> bool {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start().starts_with(b"<")
}

/// The message about a redirect; `None` for another status.
pub fn redirect(status: u16, headers: &HeaderMap) -> Option<String> {
    if !(300..400).contains(&status) {
        return None;
    }
    let location: Option<Uri> = headers.get("location").and_then(|it| it.to_str().ok()?.parse().ok());
    // The authority alone could hold a password.
    let host = location.as_ref().and_then(Uri::host).map(|it| it.chars().take(MAX_HOST).collect::<String>());
    Some(match host {
        Some(host) => {
            format!("HTTP {status}: redirect to {host:?} not followed; if that is the right host, use its address")
        }
        None => format!("HTTP {status}: redirect not followed; check for a proxy in front of the server"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// F31, A4: only the host of a redirect is shown, escaped.
    #[test]
    fn redirects_show_a_host() {
        let words = |status, location: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("location", location.parse().unwrap());
            redirect(status, &headers)
        };
        let why = words(302, "https://user:p4ssw0rd@sso.example.com:8443/login?token=S3CRET").unwrap();
        assert!(why.contains("\"sso.example.com\"") && !why.contains("p4ssw0rd") && !why.contains("S3CRET"), "{why}");
        assert!(words(301, "/login").unwrap().contains("not followed"));
        assert!(words(307, "http://[").unwrap().contains("not followed"));
        assert_eq!(words(200, "https://x/"), None);
    }

    /// F5: an HTML page is one with white space or a byte order mark in front, too.
    #[test]
    fn pages_are_recognized() {
        for (body, expected) in
            [("<html>", true), (" \n<!DOCTYPE html>", true), ("\u{feff}<?xml", true), ("{}", false), ("", false)]
        {
            assert_eq!(is_html(body.as_bytes()), expected, "{body}");
        }
    }
}
