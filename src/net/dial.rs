//! TCP connections by name, and a look at what a TLS server presents.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;

use super::deadline_stream::{CONNECT_TIMEOUT, DeadlineStream};
use super::tls::Tls;
use super::trust::end_of;

/// The most addresses of a host that are tried, each with its own timeout.
const MAX_ADDRESSES: usize = 8;

/// The longest head of an answer that [`look`] reads, in bytes.
const MAX_HEAD: u64 = 64 * 1024;

/// Connects to the first address of a host that answers.
pub fn dial(host: &str, port: u16) -> Result<(TcpStream, SocketAddr), String> {
    let addresses = (host, port).to_socket_addrs().map_err(|_| "host name not found".to_owned())?;
    let mut last_error = "the host name has no address".to_owned();
    for address in addresses.take(MAX_ADDRESSES) {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok((stream, address)),
            Err(error) => last_error = error.to_string(),
        }
    }
    Err(last_error)
}

/// What a TLS server shows of itself without a login.
#[derive(Debug, Clone)]
pub struct Look {
    /// When its certificate ends, in seconds since 1970.
    pub end: Option<u64>,
    /// The header `Date` of its answer, if there is one.
    pub date: Option<String>,
}

/// Makes the TLS handshake over a connection, and sends one GET without credentials.
pub fn look(tls: &Tls, host: &str, stream: TcpStream, address: SocketAddr, path: &str) -> Result<Look, String> {
    let stream = DeadlineStream::new(Arc::new(stream), CONNECT_TIMEOUT);
    let mut stream = tls.connect(host, stream).map_err(|error| tls.explain(error, host, address).to_string())?;
    let end = stream.ssl().peer_certificate().and_then(|it| end_of(&it));
    let authority = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    // The certificate is what matters; without a readable answer there is no date.
    if stream.write_all(request.as_bytes()).is_ok() {
        let _ = stream.take(MAX_HEAD).read_to_end(&mut answer);
    }
    let answer = String::from_utf8_lossy(&answer);
    let head = answer.split("\r\n\r\n").next().unwrap_or_default();
    let date = head.lines().filter_map(|it| it.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("date"));
    let date = date.map(|(_, value)| value.trim().to_owned());
    Ok(Look { end, date })
}
