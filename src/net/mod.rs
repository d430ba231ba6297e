//! TLS and HTTP agents for the APIC and the API server: trust, client certificates, and shutdown of blocked reads.
//!
//! One [`Tls`] is made for each side and shared by its REST requests and its websocket.

mod connector;
mod deadline_stream;
mod trust;
pub mod wrong_peer;

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use log::warn;
use openssl::error::ErrorStack;
use openssl::ssl::{HandshakeError, SslConnector, SslMethod, SslRef, SslVerifyMode, SslVersion};
use openssl::x509::X509;
use openssl::x509::verify::X509VerifyFlags;
use ureq::unversioned::resolver::DefaultResolver;

use crate::secret::Secret;
use connector::TlsLayer;
pub use deadline_stream::DeadlineStream;
pub use trust::{Bundle, OwnCertificate, TlsRejection, bundle, identity};

/// A stream with TLS on it.
pub type TlsStream<S> = openssl::ssl::SslStream<S>;

/// The time limit for a connection, TLS included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The side whose certificate is verified; the remedy in a message depends on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Peer {
    /// Neither of the two; messages name no remedy.
    #[default]
    Unnamed,
    /// An APIC.
    Apic,
    /// A Kubernetes API server.
    Kubernetes,
}

/// Which certificates are trust anchors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Roots {
    /// The system's bundle.
    #[default]
    System,
    /// The certificates of this PEM bundle and no others. Each is a trust anchor, also an intermediate CA's or the
    /// server's own.
    Pem(Vec<u8>),
}

/// What is checked of a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Verify {
    /// Its chain and its name.
    #[default]
    Chain,
    /// That the SHA-256 of the leaf certificate's DER is one of these; chain and name do not matter.
    Fingerprints(Vec<[u8; 32]>),
    /// Nothing.
    Nothing,
}

/// Our certificate chain and its key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The certificate, and the intermediate ones after it.
    pub chain: Vec<u8>,
    /// The key: PKCS#8, PKCS#1 or SEC1.
    pub key: Secret,
}

/// The TLS settings for one side.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// Which certificates are trust anchors.
    pub roots: Roots,
    /// Where these come from, for messages.
    pub roots_from: String,
    /// What is checked.
    pub verify: Verify,
    /// Our certificate, if the peer asks for one.
    pub identity: Option<ClientIdentity>,
    /// The name that is requested and checked instead of the host.
    pub server_name: Option<String>,
    /// The side of the verified certificate.
    pub peer: Peer,
}

/// Why certificates or keys cannot be used, with the remedy.
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
    settings: TlsSettings,
    /// Trust anchors instead of the system's.
    roots: Option<Vec<X509>>,
    identity: Option<OwnCertificate>,
    /// Made at the first handshake, or by [`Tls::prepare`]: OpenSSL takes 25 ms to read the system's roots, and the first
    /// request to one side does not wait for the other side's.
    connector: OnceLock<Result<SslConnector, TlsError>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Inner {
    fn connector(&self) -> Result<&SslConnector, TlsError> {
        let build = || self.build().map_err(|error| TlsError(format!("failed to set up TLS: {error}")));
        self.connector.get_or_init(build).as_ref().map_err(TlsError::clone)
    }

    fn build(&self) -> Result<SslConnector, ErrorStack> {
        let mut builder = SslConnector::builder(SslMethod::tls_client())?;
        builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
        match &self.roots {
            Some(roots) => trust::trust(roots, &mut builder)?,
            None => trust::trust_system(&mut builder),
        }
        // As curl and Go do: each given certificate is an anchor, self-signed or not.
        builder.verify_param_mut().set_flags(X509VerifyFlags::PARTIAL_CHAIN)?;
        if let Some(own) = &self.identity {
            own.put(&mut builder)?;
        }
        Ok(builder.build())
    }
}

impl Tls {
    /// Decodes certificates and key, so that a bad file is an error at the start.
    pub fn new(settings: &TlsSettings) -> Result<Tls, TlsError> {
        let mut roots = None;
        if let Roots::Pem(pem) = &settings.roots {
            let found = bundle(pem, "CA bundle")?;
            let name = if settings.roots_from.is_empty() { "CA bundle" } else { &settings.roots_from };
            for error in &found.errors {
                warn!(name, error; "skipping a certificate of a bundle");
            }
            roots = Some(found.certificates);
        }
        let identity = settings.identity.as_ref().map(identity).transpose()?;
        let inner = Inner { settings: settings.clone(), roots, identity, connector: OnceLock::new() };
        if inner.identity.is_some() {
            // OpenSSL checks key and certificate only then.
            inner.connector()?;
        }
        Ok(Tls(Arc::new(inner)))
    }

    /// Makes what the first handshake would make. A daemon calls it at its start, so that errors do not show only when a
    /// standby takes over, days later.
    pub fn prepare(&self) -> Result<(), TlsError> {
        self.0.connector().map(drop)
    }

    /// Whether both are the same, so that connections made with one may serve the other.
    pub fn is(&self, other: &Tls) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The name that is requested and verified for a host: without brackets, and without the final dot of an absolute name.
    fn name<'a>(&'a self, host: &'a str) -> &'a str {
        let name = self.0.settings.server_name.as_deref().unwrap_or(host);
        let name = name.trim_start_matches('[').trim_end_matches(']');
        name.strip_suffix('.').filter(|it| !it.is_empty()).unwrap_or(name)
    }

    /// Makes the TLS handshake over any stream. Fingerprints are checked before any byte is sent over the connection.
    pub fn connect<S: Read + Write>(&self, host: &str, stream: S) -> Result<TlsStream<S>, ConnectError> {
        let failed = |error: &dyn fmt::Display| ConnectError::Io(io::Error::other(error.to_string()));
        let connector = self.0.connector().map_err(|error| failed(&error))?;
        let mut configuration = connector.configure().map_err(|error| failed(&error))?;
        if !matches!(self.0.settings.verify, Verify::Chain) {
            configuration.set_verify(SslVerifyMode::NONE);
            configuration.set_verify_hostname(false);
        }
        // Without a check of the chain OpenSSL still records a result, which did not end the handshake.
        let is_checked = matches!(self.0.settings.verify, Verify::Chain);
        let rejection = |ssl: &SslRef| TlsRejection::of(ssl).filter(|_| is_checked);
        let stream = configuration.connect(self.name(host), stream).map_err(|error| match error {
            HandshakeError::SetupFailure(error) => failed(&error),
            HandshakeError::WouldBlock(_) => ConnectError::Io(io::ErrorKind::TimedOut.into()),
            HandshakeError::Failure(handshake) => match (handshake.error().io_error(), rejection(handshake.ssl())) {
                (Some(io), _) => ConnectError::Io(io::Error::new(io.kind(), io.to_string())),
                (None, Some((kind, why))) => ConnectError::Untrusted(kind, why.to_owned()),
                (None, None) => ConnectError::Tls(handshake.error().to_string()),
            },
        })?;
        let leaf = stream.ssl().peer_certificate();
        if !trust::is_pinned(leaf.as_ref(), &self.0.settings.verify) {
            let presented = leaf.map_or_else(|| "no certificate".to_owned(), |it| trust::describe(&it));
            let why = format!("none of the trusted fingerprints; the server presented {presented}");
            return Err(ConnectError::Untrusted(TlsRejection::Fingerprint, why));
        }
        Ok(stream)
    }

    /// A new HTTP agent: https only, no proxy, no redirects, and no error for an HTTP status.
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
            // Each connection keeps two of both: a little more than the longest header, and a TLS record.
            .input_buffer_size(72 * 1024)
            .output_buffer_size(16 * 1024)
            .build();
        ureq::Agent::with_parts(config, TlsLayer::chain(self.clone()), DefaultResolver::default())
    }

    /// The certificate that an address presents, for the decision whether to trust it (A2). Only a handshake is sent, without
    /// a client certificate.
    fn presented(&self, host: &str, address: SocketAddr) -> Option<String> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT / 2).ok()?;
        let stream = DeadlineStream::new(Arc::new(stream), CONNECT_TIMEOUT / 2);
        let server_name = self.0.settings.server_name.clone();
        let settings = TlsSettings { verify: Verify::Nothing, server_name, ..TlsSettings::default() };
        let stream = Tls::new(&settings).ok()?.connect(host, stream).ok()?;
        Some(trust::describe(&stream.ssl().peer_certificate()?))
    }

    /// Completes the message of a failed verification with the requested name, the presented certificate and the remedy
    /// (A2).
    pub fn explain(&self, error: ConnectError, host: &str, address: SocketAddr) -> ConnectError {
        let ConnectError::Untrusted(kind, mut why) = error else { return error };
        // A fingerprint is compared after the handshake, so that message has the certificate already, and no name counts.
        if matches!(self.0.settings.verify, Verify::Chain) {
            why += &format!("; requested name: {:?}", self.name(host));
            if let Some(presented) = self.presented(host, address) {
                why += &format!("; the server presented {presented}");
            }
        }
        let remedy = kind.remedy(&self.0.settings);
        if !remedy.is_empty() {
            why += &format!("; {remedy}");
        }
        ConnectError::Untrusted(kind, why)
    }
}

/// Why a handshake failed.
#[derive(Debug)]
pub enum ConnectError {
    /// The peer's certificate is not trusted; retrying does not help.
    Untrusted(TlsRejection, String),
    /// TLS failed for another reason.
    Tls(String),
    /// The connection failed or was too slow.
    Io(io::Error),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Untrusted(_, why) => write!(f, "certificate not trusted: {why}"),
            ConnectError::Tls(why) => write!(f, "TLS handshake failed: {why}"),
            ConnectError::Io(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for ConnectError {}

/// The text of a request's error. It has no URL, which could hold a token.
pub fn describe_error(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(phase) => format!("no answer in time ({phase})"),
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::Other(error) => error.to_string(),
        ureq::Error::HostNotFound => "host name not found".to_owned(),
        ureq::Error::ConnectionFailed => "connection failed".to_owned(),
        ureq::Error::BodyExceedsLimit(limit) => format!("the answer is larger than {limit} bytes"),
        ureq::Error::LargeResponseHeader(_, limit) => format!("the answer's head is larger than {limit} bytes"),
        ureq::Error::Protocol(error) => format!("invalid HTTP: {error}"),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => "invalid HTTP request".to_owned(),
        other => other.to_string(),
    }
}
