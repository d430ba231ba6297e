//! TLS and HTTP agents for both sides: whom to trust, who we are, and how a blocked read is ended from outside.
//!
//! One [`Tls`] is made for each side and shared by its REST requests and its websocket.

mod connector;
mod sock;

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use native_tls::{Certificate, HandshakeError, Identity, TlsConnector, TlsConnectorBuilder, TlsStream};
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::x509::X509;
use ureq::unversioned::resolver::DefaultResolver;

use crate::secret::Secret;
use connector::TlsLayer;
pub use sock::Sock;

/// How long a connection may take to come about, TLS included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Whose signature on a certificate counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Roots {
    /// The system's bundle.
    #[default]
    System,
    /// The certificates of this PEM bundle and no others.
    Pem(Vec<u8>),
}

/// What of a certificate is checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Verify {
    /// Its chain and its name.
    #[default]
    Chain,
    /// That the SHA-256 of the leaf certificate's DER is one of these; chain and name do not matter.
    Fingerprints(Vec<[u8; 32]>),
    /// Nothing: anybody can be the peer.
    Nothing,
}

/// Who we are: a certificate chain and its key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The certificate, and the intermediate ones after it.
    pub chain: Vec<u8>,
    /// The key: PKCS#8, PKCS#1 or SEC1.
    pub key: Secret,
}

/// Everything that TLS towards one side depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// Whose signature counts.
    pub roots: Roots,
    /// What is checked.
    pub verify: Verify,
    /// Who we are, where the peer asks.
    pub identity: Option<ClientIdentity>,
    /// The name that is asked for and checked in place of the host's.
    pub server_name: Option<String>,
    /// What a person does to trust the peer: the end of the message of a failed verification (A2).
    pub mend: &'static str,
}

/// Why TLS cannot be had: one sentence that names the thing and the mend.
#[derive(Debug, Clone)]
pub struct TlsError(String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

/// TLS towards one side. Cheap to clone.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    builder: TlsConnectorBuilder,
    /// Made at the first handshake, or by [`Tls::prepare`]: it takes OpenSSL 25 ms to read the system's roots, and what
    /// one side asks first does not wait for the other side's.
    connector: OnceLock<Result<TlsConnector, TlsError>>,
    verify: Verify,
    server_name: Option<String>,
    mend: &'static str,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Inner {
    fn connector(&self) -> Result<&TlsConnector, TlsError> {
        let build = || self.builder.build().map_err(|error| TlsError(format!("TLS cannot be set up: {error}")));
        self.connector.get_or_init(build).as_ref().map_err(TlsError::clone)
    }
}

impl Tls {
    /// Reads certificates and key. They are looked at now, so that a bad file is told at the start.
    pub fn new(settings: &TlsSettings) -> Result<Tls, TlsError> {
        let mut builder = TlsConnector::builder();
        if let Roots::Pem(pem) = &settings.roots {
            builder.disable_built_in_roots(true);
            for certificate in certificates(pem, "CA bundle")? {
                builder.add_root_certificate(certificate);
            }
        }
        if !matches!(settings.verify, Verify::Chain) {
            builder.danger_accept_invalid_certs(true).danger_accept_invalid_hostnames(true);
        }
        if let Some(own) = &settings.identity {
            builder.identity(identity(own)?);
        }
        let (verify, server_name) = (settings.verify.clone(), settings.server_name.clone());
        let inner = Inner { builder, connector: OnceLock::new(), verify, server_name, mend: settings.mend };
        if settings.identity.is_some() {
            // Whether key and certificate belong together is known only then.
            inner.connector()?;
        }
        Ok(Tls(Arc::new(inner)))
    }

    /// Makes what else the first handshake would make. A daemon does that at its start and not when it takes over, days
    /// later: what is wrong then should be told now.
    pub fn prepare(&self) -> Result<(), TlsError> {
        self.0.connector().map(drop)
    }

    /// Whether both are the same: connections of another one have another identity or trust.
    pub fn is(&self, other: &Tls) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Shakes hands over any stream. Fingerprints are checked before any byte is sent over the connection.
    pub fn connect<S: Read + Write>(&self, host: &str, stream: S) -> Result<TlsStream<S>, ConnectError> {
        let name = self.0.server_name.as_deref().unwrap_or(host);
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let connector = self.0.connector().map_err(|error| ConnectError::Io(io::Error::other(error)))?;
        let stream = connector.connect(name, stream).map_err(|error| match error {
            HandshakeError::Failure(error) => ConnectError::from(error),
            HandshakeError::WouldBlock(_) => ConnectError::Io(io::ErrorKind::TimedOut.into()),
        })?;
        if let Verify::Fingerprints(trusted) = &self.0.verify {
            let leaf = stream.peer_certificate().ok().flatten().and_then(|it| it.to_der().ok());
            let leaf = leaf.and_then(|der| X509::from_der(&der).ok());
            let known = leaf.as_ref().and_then(fingerprint).is_some_and(|it| trusted.contains(&it));
            if !known {
                let presented = leaf.map_or_else(|| "no certificate".to_owned(), |it| describe(&it));
                return Err(ConnectError::Untrusted(format!(
                    "the peer's certificate has none of the trusted fingerprints; it presented {presented}"
                )));
            }
        }
        Ok(stream)
    }

    /// An HTTP agent of its own: https only, no proxy, no redirects, and no error made of a status.
    /// `Agent::shutdown` ends its blocked reads, for good.
    pub fn agent(&self) -> ureq::Agent {
        let config = ureq::config::Config::builder()
            .https_only(true)
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("aci-sync/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .max_response_header_size(64 * 1024)
            // Each connection has two of both, for all its life: a little more than the longest header, and a TLS record.
            .input_buffer_size(72 * 1024)
            .output_buffer_size(16 * 1024)
            .build();
        ureq::Agent::with_parts(config, TlsLayer::chain(self.clone()), DefaultResolver::default())
    }

    /// What the peer at an address presents, for the person who has to decide about trust (A2). Nothing but the
    /// handshake is sent, and no client certificate.
    fn presented(&self, host: &str, address: SocketAddr) -> Option<String> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT / 2).ok()?;
        let stream = Sock::new(Arc::new(stream), CONNECT_TIMEOUT / 2);
        let settings =
            TlsSettings { verify: Verify::Nothing, server_name: self.0.server_name.clone(), ..TlsSettings::default() };
        let stream = Tls::new(&settings).ok()?.connect(host, stream).ok()?;
        let der = stream.peer_certificate().ok()??.to_der().ok()?;
        Some(describe(&X509::from_der(&der).ok()?))
    }

    /// Completes the message of a failed verification with what was presented and how to trust it (A2).
    pub fn explain(&self, error: ConnectError, host: &str, address: SocketAddr) -> ConnectError {
        let ConnectError::Untrusted(mut why) = error else { return error };
        // A fingerprint is compared after the handshake, so there the message says it already.
        if matches!(self.0.verify, Verify::Chain)
            && let Some(presented) = self.presented(host, address)
        {
            why += &format!("; it presented {presented}");
        }
        if !self.0.mend.is_empty() {
            why += &format!("; {}", self.0.mend);
        }
        ConnectError::Untrusted(why)
    }
}

/// Why a handshake failed.
#[derive(Debug)]
pub enum ConnectError {
    /// The peer is not who it should be; trying again does not help.
    Untrusted(String),
    /// TLS failed for another reason.
    Tls(String),
    /// The connection failed or was too slow.
    Io(io::Error),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Untrusted(why) => write!(f, "the certificate is not trusted: {why}"),
            ConnectError::Tls(why) => write!(f, "TLS: {why}"),
            ConnectError::Io(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for ConnectError {}

impl From<native_tls::Error> for ConnectError {
    fn from(error: native_tls::Error) -> Self {
        let mut cause: Option<&dyn std::error::Error> = Some(&error);
        while let Some(it) = cause {
            if let Some(io) = it.downcast_ref::<io::Error>() {
                return ConnectError::Io(io::Error::new(io.kind(), io.to_string()));
            }
            cause = it.source();
        }
        let text = error.to_string();
        if text.contains("certificate verify failed") {
            // OpenSSL's reason stands in parentheses at the end: "(self-signed certificate)".
            let reason = text.rsplit_once('(').map_or(text.as_str(), |(_, it)| it.trim_end_matches(')'));
            ConnectError::Untrusted(reason.to_owned())
        } else {
            ConnectError::Tls(text)
        }
    }
}

/// A request's error in words, without the request: no URL, so no token in one.
pub fn words(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(phase) => format!("no answer in time ({phase})"),
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::Other(error) => error.to_string(),
        ureq::Error::HostNotFound => "the host name cannot be resolved".to_owned(),
        ureq::Error::ConnectionFailed => "the connection failed".to_owned(),
        ureq::Error::BodyExceedsLimit(limit) => format!("the answer is larger than {limit} bytes"),
        ureq::Error::LargeResponseHeader(_, limit) => format!("the answer's head is larger than {limit} bytes"),
        ureq::Error::Protocol(error) => format!("this is not HTTP as it should be: {error}"),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => "the request cannot be written as HTTP".to_owned(),
        other => other.to_string(),
    }
}

/// All certificates in a PEM text. One that cannot be read, or none at all, is an error.
pub fn certificates(pem: &[u8], what: &str) -> Result<Vec<Certificate>, TlsError> {
    let stack = X509::stack_from_pem(pem).map_err(|_| TlsError(format!("the {what} is not PEM")))?;
    if stack.is_empty() {
        return Err(TlsError(format!("the {what} holds no certificate")));
    }
    let der = stack.iter().map(|it| it.to_der().ok().and_then(|der| Certificate::from_der(&der).ok()));
    der.collect::<Option<Vec<_>>>()
        .ok_or_else(|| TlsError(format!("the {what} holds a certificate that cannot be read")))
}

/// Who we are, as TLS takes it. native-tls takes keys in PKCS#8 only, so OpenSSL turns the other forms into it. An
/// encrypted key is refused; the callback keeps OpenSSL from asking for its password on the terminal.
pub fn identity(identity: &ClientIdentity) -> Result<Identity, TlsError> {
    certificates(&identity.chain, "client certificate")?;
    let unreadable =
        |_| TlsError("the client key cannot be read; it must be a PEM private key without a password".to_owned());
    let key = PKey::private_key_from_pem_callback(identity.key.expose().as_bytes(), |_| Ok(0)).map_err(unreadable)?;
    let leaf = X509::from_pem(&identity.chain).and_then(|it| it.public_key());
    if !leaf.is_ok_and(|it| it.public_eq(&key)) {
        return Err(TlsError("the client certificate and its key do not go together".to_owned()));
    }
    let key = key.private_key_to_pem_pkcs8().map_err(unreadable)?;
    let unusable = |error| TlsError(format!("the client certificate cannot be used ({error})"));
    Identity::from_pkcs8(&identity.chain, &key).map_err(unusable)
}

fn fingerprint(certificate: &X509) -> Option<[u8; 32]> {
    certificate.digest(MessageDigest::sha256()).ok()?.as_ref().try_into().ok()
}

/// A certificate in words.
fn describe(certificate: &X509) -> String {
    let name = |name: &openssl::x509::X509NameRef| {
        let parts = name.entries().filter_map(|it| it.data().to_string().ok());
        format!("{:?}", parts.collect::<Vec<_>>().join(", "))
    };
    let hex = fingerprint(certificate).unwrap_or_default().map(|byte| format!("{byte:02X}")).join(":");
    format!(
        "subject {}, issuer {}, valid from {} to {}, SHA-256 fingerprint {hex}",
        name(certificate.subject_name()),
        name(certificate.issuer_name()),
        certificate.not_before(),
        certificate.not_after(),
    )
}
