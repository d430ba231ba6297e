//! A plain HTTPS client for people and scripts that play with a lab: one request a connection, nothing by itself.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use native_tls::{Certificate, Identity, TlsConnector};

/// How long a request may take.
const LIMIT: Duration = Duration::from_secs(30);

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The status line and the header.
    pub head: String,
    /// The body.
    pub body: String,
}

/// A client of one server.
pub struct Client {
    address: String,
    tls: TlsConnector,
}

impl Client {
    /// For the server at `host:port`, whose certificate for `localhost` is signed by this CA. With a certificate
    /// and key of its own (PEM, PKCS#8) if there are any.
    pub fn new(address: &str, ca: &[u8], own: Option<(&[u8], &[u8])>) -> io::Result<Client> {
        let mut builder = TlsConnector::builder();
        builder.disable_built_in_roots(true);
        builder.add_root_certificate(Certificate::from_pem(ca).map_err(io::Error::other)?);
        if let Some((certificate, key)) = own {
            builder.identity(Identity::from_pkcs8(certificate, key).map_err(io::Error::other)?);
        }
        Ok(Client { address: address.to_owned(), tls: builder.build().map_err(io::Error::other)? })
    }

    /// Sends a request and reads the whole answer.
    pub fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> io::Result<Answer> {
        let tcp = TcpStream::connect(&self.address)?;
        tcp.set_read_timeout(Some(LIMIT))?;
        tcp.set_write_timeout(Some(LIMIT))?;
        let mut stream = self.tls.connect("localhost", tcp).map_err(io::Error::other)?;
        let mut request = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        let no_answer = || io::Error::new(io::ErrorKind::InvalidData, "the server gave no answer");
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(no_answer)?;
        let status = head.split(' ').nth(1).and_then(|it| it.parse().ok()).ok_or_else(no_answer)?;
        let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        let body = if is_chunked { joined(body).ok_or_else(no_answer)? } else { body.to_owned() };
        Ok(Answer { status, head: head.to_owned(), body })
    }
}

/// The body out of its chunks.
fn joined(mut chunks: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, rest) = chunks.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body += rest.get(..size)?;
        chunks = rest.get(size + 2..)?;
    }
}
