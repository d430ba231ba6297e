//! The head of an HTTP request, and what is refused. Parsing is httparse's.

use std::net::IpAddr;

/// The longest head, in bytes.
pub const MAX_HEAD: usize = 8192;

/// The longest path with its query, in bytes.
const MAX_PATH: usize = 256;

/// The most header fields.
const MAX_HEADERS: usize = 32;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The path, without the query.
    pub path: String,
    /// What follows the question mark.
    pub query: String,
    /// Only the head of the answer is wanted.
    pub head_only: bool,
}

impl Request {
    /// The value of a parameter of the query, percent-decoded.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let mut pairs = self.query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| decoded(value))
    }
}

/// What came so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Head {
    /// A whole head.
    Complete(Request),
    /// More is needed.
    Partial,
    /// It is refused with this HTTP status.
    Refused(u16),
}

/// Reads the head of a request. `checks_host`: the server is bound to loopback, and the request must name it by an address or
/// as `localhost`.
pub fn parse(bytes: &[u8], checks_host: bool) -> Head {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if bytes.len() >= MAX_HEAD => return Head::Refused(431),
        Ok(httparse::Status::Partial) => {
            let is_long = request.path.is_some_and(|path| path.len() > MAX_PATH);
            return if is_long { Head::Refused(414) } else { Head::Partial };
        }
        Err(httparse::Error::TooManyHeaders) => return Head::Refused(431),
        Err(httparse::Error::Version) => return Head::Refused(505),
        Err(_) => return Head::Refused(400),
    }
    let target = request.path.unwrap_or_default();
    if target.len() > MAX_PATH {
        return Head::Refused(414);
    }
    let head_only = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Head::Refused(405),
    };
    let (mut host, mut hosts) = ("", 0);
    for header in request.headers.iter() {
        let value = std::str::from_utf8(header.value).unwrap_or("?").trim();
        match header.name.to_ascii_lowercase().as_str() {
            "transfer-encoding" => return Head::Refused(400),
            "content-length" if value != "0" => return Head::Refused(400),
            "host" => (host, hosts) = (value, hosts + 1),
            _ => {}
        }
    }
    if hosts > 1 || (hosts == 0 && request.version == Some(1)) {
        return Head::Refused(400);
    }
    if checks_host && hosts == 1 && !is_own_name(host) {
        return Head::Refused(421);
    }
    if !target.starts_with('/') {
        return Head::Refused(400);
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Head::Complete(Request { path: path.to_owned(), query: query.to_owned(), head_only })
}

/// Whether a `Host` is an address or `localhost`, with or without a port.
fn is_own_name(host: &str) -> bool {
    if let Some((address, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address.parse::<IpAddr>().is_ok();
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// Percent-decoding, with `+` for a space. What is not UTF-8 is replaced.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let hex: Vec<u8> = rest.by_ref().take(2).collect();
                let value = std::str::from_utf8(&hex).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok());
                bytes.push(value.unwrap_or(b'?'));
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(head: &str) -> Option<u16> {
        match parse(head.as_bytes(), true) {
            Head::Complete(_) => Some(200),
            Head::Partial => None,
            Head::Refused(status) => Some(status),
        }
    }

    /// T2: which heads are served, and with what the others are refused.
    #[test]
    fn heads() {
        let long = "x".repeat(MAX_PATH);
        let many = "a: b\r\n".repeat(MAX_HEADERS + 1);
        for (head, expected) in [
            ("GET / HTTP/1.1\r\nHost: localhost:9847\r\n\r\n".to_owned(), Some(200)),
            ("HEAD /livez?verbose HTTP/1.1\r\nHost: [::1]\r\n\r\n".to_owned(), Some(200)),
            ("GET / HTTP/1.0\r\n\r\n".to_owned(), Some(200)),
            ("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n".to_owned(), Some(200)),
            ("GET / HTTP/1.1\r\nHost: localhost".to_owned(), None),
            ("".to_owned(), None),
            ("GET / HTTP/1.1\r\n\r\n".to_owned(), Some(400)),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), Some(400)),
            ("GET / HTTP/1.1\r\nHost: attacker.example\r\n\r\n".to_owned(), Some(421)),
            ("GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), Some(400)),
            ("POST / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), Some(405)),
            ("GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n".to_owned(), Some(400)),
            ("GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), Some(400)),
            (format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"), Some(414)),
            (format!("GET / HTTP/1.1\r\n{many}\r\n"), Some(431)),
            (format!("GET / HTTP/1.1\r\na: {}", "x".repeat(MAX_HEAD)), Some(431)),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), Some(505)),
            ("\u{1}\u{2}\r\n\r\n".to_owned(), Some(400)),
        ] {
            assert_eq!(status(&head), expected, "{head:?}");
        }
        let request =
            Request { path: "/".to_owned(), query: "q=a%20b%zz+c&refresh=10&verbose".to_owned(), head_only: false };
        assert_eq!(request.parameter("q").as_deref(), Some("a b? c"));
        assert_eq!(request.parameter("refresh").as_deref(), Some("10"));
        assert_eq!((request.parameter("verbose").as_deref(), request.parameter("x")), (Some(""), None));
    }
}
