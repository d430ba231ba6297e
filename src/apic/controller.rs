//! A controller's address.

use std::fmt;
use std::net::Ipv6Addr;

/// An APIC controller's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controller {
    /// A name, an IPv4 or an IPv6 address, the latter without brackets.
    pub host: String,
    /// The port; 443 by default.
    pub port: u16,
}

impl Controller {
    /// The address as in a URL.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Reads an address, with or without `https://`.
    pub(crate) fn parse(text: &str) -> Result<Controller, String> {
        if text.contains('@') {
            // The text before it may hold a password, so none of it is shown (A4).
            return Err("must not contain a user; set ACI_USERNAME".to_owned());
        }
        // The scheme of a URL is not case-sensitive.
        let scheme = |it: &str| text.get(..it.len()).is_some_and(|start| start.eq_ignore_ascii_case(it));
        if scheme("http://") {
            return Err(format!("{text:?} begins with http://; the APIC is reached over https only"));
        }
        let address = if scheme("https://") { text.get(8..).unwrap_or_default() } else { text };
        let address = address.strip_suffix('/').unwrap_or(address);
        let invalid = || format!("{text:?} is not host, host:port, [v6] or [v6]:port");
        let (host, port) = if let Some(bracketed) = address.strip_prefix('[') {
            let (host, port) = bracketed.split_once(']').ok_or_else(invalid)?;
            host.parse::<Ipv6Addr>().map_err(|_| invalid())?;
            (host, port.strip_prefix(':').or_else(|| port.is_empty().then_some("443")))
        } else if address.parse::<Ipv6Addr>().is_ok() {
            (address, Some("443"))
        } else {
            let (host, port) = address.split_once(':').unwrap_or((address, "443"));
            let is_name =
                |it: &str| !it.is_empty() && it.bytes().all(|it| it.is_ascii_alphanumeric() || b".-_".contains(&it));
            (host, is_name(host).then_some(port))
        };
        let port = port.and_then(|it| it.parse().ok()).filter(|it| *it != 0).ok_or_else(invalid)?;
        Ok(Controller { host: host.to_owned(), port })
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority())
    }
}
