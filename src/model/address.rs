//! Addresses as Kubernetes reads them (P2, S1).
//!
//! Facts: `k8s.io/utils/net` `ParseIPSloppy`, which API servers use for addresses in all objects: leading zeros are
//! decimal, and an IPv4-mapped IPv6 address is the IPv4 address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The most addresses that cannot be read of one object that are quoted, and how much of each, in characters.
const MAX_QUOTED: usize = 4;
const MAX_QUOTE: usize = 64;

/// Reads one address. Nothing for a text that Kubernetes would not read either.
pub fn parse(text: &str) -> Option<IpAddr> {
    if !text.contains(':') {
        return ipv4(text).map(IpAddr::V4);
    }
    let address: Ipv6Addr = match text.rsplit_once(':') {
        Some((head, tail)) if tail.contains('.') => format!("{head}:{}", ipv4(tail)?).parse().ok()?,
        _ => text.parse().ok()?,
    };
    Some(IpAddr::V6(address).to_canonical())
}

/// Four decimal numbers; leading zeros mean nothing.
fn ipv4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        // What Rust would also take: a sign.
        if part.is_empty() || !part.bytes().all(|it| it.is_ascii_digit()) {
            return None;
        }
        let digits = part.trim_start_matches('0');
        *octet = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    }
    parts.next().is_none().then(|| octets.into())
}

/// What an object's addresses come to: each once, in their order, and a quote of those that cannot be read.
pub fn read<'a>(texts: impl IntoIterator<Item = &'a str>) -> (Vec<IpAddr>, Option<Box<str>>) {
    let mut addresses: Vec<IpAddr> = Vec::new();
    let mut unreadable: Vec<&str> = Vec::new();
    for text in texts.into_iter().filter(|it| !it.is_empty()) {
        match parse(text) {
            Some(address) if addresses.contains(&address) => {}
            Some(address) => addresses.push(address),
            None if unreadable.contains(&text) => {}
            None => unreadable.push(text),
        }
    }
    let mut quotes: Vec<String> = unreadable.iter().take(MAX_QUOTED).map(|it| quote(it)).collect();
    if unreadable.len() > MAX_QUOTED {
        quotes.push(format!("{} more", unreadable.len() - MAX_QUOTED));
    }
    (addresses, (!quotes.is_empty()).then(|| quotes.join(", ").into()))
}

/// A text from outside, escaped and cut, as a part of a message.
fn quote(text: &str) -> String {
    let cut: String = text.chars().take(MAX_QUOTE).collect();
    let end = if cut.len() < text.len() { "..." } else { "" };
    format!("{cut:?}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P2, S1: all spellings that Kubernetes takes are the address that Kubernetes takes them for; nothing else is one.
    #[test]
    fn spellings() {
        for (text, address) in [
            ("10.4.0.10", Some("10.4.0.10")),
            ("010.004.000.010", Some("10.4.0.10")),
            ("0000000010.1.2.3", Some("10.1.2.3")),
            ("0.0.0.0", Some("0.0.0.0")),
            ("::ffff:10.4.0.11", Some("10.4.0.11")),
            ("::ffff:010.4.0.011", Some("10.4.0.11")),
            ("::FFFF:0a04:000b", Some("10.4.0.11")),
            ("::10.4.0.11", Some("::a04:b")),
            ("FD00:0:0::0001", Some("fd00::1")),
            ("", None),
            ("10.1.2", None),
            ("10.1.2.3.4", None),
            ("10.1.2.", None),
            ("300.1.1.1", None),
            ("+10.1.2.3", None),
            ("0x0a.1.2.3", None),
            (" 10.1.2.4", None),
            ("10.1.2.3/32", None),
            ("fe80::1%eth0", None),
            ("::ffff:10.4.0.300", None),
            ("[fd00::1]", None),
            ("lb.example.org", None),
        ] {
            assert_eq!(parse(text).map(|it| it.to_string()).as_deref(), address, "{text:?}");
        }
    }

    /// P2, X3: an object's addresses are there once each; what cannot be read is quoted, escaped and bounded.
    #[test]
    fn quotes() {
        let (addresses, quote) = read(["10.0.0.1", "", "::ffff:10.0.0.1", "010.0.0.1", "fd00::1"]);
        assert_eq!((addresses.len(), quote), (2, None));
        let long = "é".repeat(500);
        let (addresses, quote) = read(["a\n\"b", "a\n\"b", long.as_str(), "c", "d", "e", "f"]);
        let expected = format!(r#""a\n\"b", "{}"..., "c", "d", 2 more"#, "é".repeat(MAX_QUOTE));
        assert_eq!((addresses.len(), quote.as_deref()), (0, Some(&*expected)));
    }
}
