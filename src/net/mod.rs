//! TLS and HTTP agents for both sides: whom to trust, who we are, and how a blocked read is ended from outside.
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

/// How long a connection may take to come about, TLS included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Which side a certificate is from; the words of a message depend on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Peer {
    /// None in particular.
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
    /// Which certificates are trust anchors.
    pub roots: Roots,
    /// Where these come from, for messages.
    pub roots_from: String,
    /// What is checked.
    pub verify: Verify,
    /// Who we are, where the peer asks.
    pub identity: Option<ClientIdentity>,
    /// The name that is asked for and checked in place of the host's.
    pub server_name: Option<String>,
    /// Whose certificate it is that is verified.
    pub peer: Peer,
}

/// Why TLS cannot be had: one sentence that names the thing and the remedy.
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
    /// Trust anchors where they are not the system's.
    roots: Option<Vec<X509>>,
    identity: Option<OwnCertificate>,
    /// Made at the first handshake, or by [`Tls::prepare`]: it takes OpenSSL 25 ms to read the system's roots, and what
    /// one side asks first does not wait for the other side's.
    connector: OnceLock<Result<SslConnector, TlsError>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Inner {
    fn connector(&self) -> Result<&SslConnector, TlsError> {
        let build = || self.build().map_err(|error| TlsError(format!("TLS cannot be set up: {error}")));
        self.connector.get_or_init(build).as_ref().map_err(TlsError::clone)
    }

    fn build(&self) -> Result<SslConnector, ErrorStack> {
        let mut builder = SslConnector::builder(SslMethod::tls_client())?;
        builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
        match &self.roots {
            Some(roots) => trust::trust(roots, &mut builder)?,
            None => trust::trust_system(&mut builder),
        }
        // As curl and Go do: what somebody gave as trusted is an anchor, whether or not it signed itself.
        builder.verify_param_mut().set_flags(X509VerifyFlags::PARTIAL_CHAIN)?;
        if let Some(own) = &self.identity {
            own.put(&mut builder)?;
        }
        Ok(builder.build())
    }
}

impl Tls {
    /// Reads certificates and key. They are looked at now, so that a bad file is told at the start.
    pub fn new(settings: &TlsSettings) -> Result<Tls, TlsError> {
        let mut roots = None;
        if let Roots::Pem(pem) = &settings.roots {
            let found = bundle(pem, "CA bundle")?;
            let from = if settings.roots_from.is_empty() { "the CA bundle" } else { &settings.roots_from };
            found.complaints.iter().for_each(|it| warn!("{from}: {it}; the other certificates in it are used"));
            roots = Some(found.certificates);
        }
        let identity = settings.identity.as_ref().map(identity).transpose()?;
        let inner = Inner { settings: settings.clone(), roots, identity, connector: OnceLock::new() };
        if inner.identity.is_some() {
            // Whether OpenSSL takes key and certificate is known only then.
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

    /// The name that is asked for and verified for a host: without brackets, and without the final dot by which a name
    /// is looked up as it stands.
    fn name<'a>(&'a self, host: &'a str) -> &'a str {
        let name = self.0.settings.server_name.as_deref().unwrap_or(host);
        let name = name.trim_start_matches('[').trim_end_matches(']');
        name.strip_suffix('.').filter(|it| !it.is_empty()).unwrap_or(name)
    }

    /// Shakes hands over any stream. Fingerprints are checked before any byte is sent over the connection.
    pub fn connect<S: Read + Write>(&self, host: &str, stream: S) -> Result<TlsStream<S>, ConnectError> {
        let failed = |error: &dyn fmt::Display| ConnectError::Io(io::Error::other(error.to_string()));
        let connector = self.0.connector().map_err(|error| failed(&error))?;
        let mut configuration = connector.configure().map_err(|error| failed(&error))?;
        if !matches!(self.0.settings.verify, Verify::Chain) {
            configuration.set_verify(SslVerifyMode::NONE);
            configuration.set_verify_hostname(false);
        }
        // Without a check of the chain OpenSSL takes note of what it found all the same, and that ended nothing.
        let is_checked = matches!(self.0.settings.verify, Verify::Chain);
        let distrust = |ssl: &SslRef| TlsRejection::of(ssl).filter(|_| is_checked);
        let stream = configuration.connect(self.name(host), stream).map_err(|error| match error {
            HandshakeError::SetupFailure(error) => failed(&error),
            HandshakeError::WouldBlock(_) => ConnectError::Io(io::ErrorKind::TimedOut.into()),
            HandshakeError::Failure(handshake) => match (handshake.error().io_error(), distrust(handshake.ssl())) {
                (Some(io), _) => ConnectError::Io(io::Error::new(io.kind(), io.to_string())),
                (None, Some((kind, why))) => ConnectError::Untrusted(kind, why.to_owned()),
                (None, None) => ConnectError::Tls(handshake.error().to_string()),
            },
        })?;
        let leaf = stream.ssl().peer_certificate();
        if !trust::is_pinned(leaf.as_ref(), &self.0.settings.verify) {
            let presented = leaf.map_or_else(|| "no certificate".to_owned(), |it| trust::describe(&it));
            let why = format!("the peer's certificate has none of the trusted fingerprints; it presented {presented}");
            return Err(ConnectError::Untrusted(TlsRejection::Fingerprint, why));
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
        let stream = DeadlineStream::new(Arc::new(stream), CONNECT_TIMEOUT / 2);
        let server_name = self.0.settings.server_name.clone();
        let settings = TlsSettings { verify: Verify::Nothing, server_name, ..TlsSettings::default() };
        let stream = Tls::new(&settings).ok()?.connect(host, stream).ok()?;
        Some(trust::describe(&stream.ssl().peer_certificate()?))
    }

    /// Completes the message of a failed verification with what was asked for, what was presented and how to trust it
    /// (A2).
    pub fn explain(&self, error: ConnectError, host: &str, address: SocketAddr) -> ConnectError {
        let ConnectError::Untrusted(kind, mut why) = error else { return error };
        // A fingerprint is compared after the handshake, so there the message says it already, and no name counts.
        if matches!(self.0.settings.verify, Verify::Chain) {
            why += &format!("; asked for {:?}", self.name(host));
            if let Some(presented) = self.presented(host, address) {
                why += &format!("; it presented {presented}");
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
    /// The peer is not who it should be; trying again does not help.
    Untrusted(TlsRejection, String),
    /// TLS failed for another reason.
    Tls(String),
    /// The connection failed or was too slow.
    Io(io::Error),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Untrusted(_, why) => write!(f, "the certificate is not trusted: {why}"),
            ConnectError::Tls(why) => write!(f, "TLS: {why}"),
            ConnectError::Io(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for ConnectError {}

/// A request's error in words, without the request: no URL, so no token in one.
pub fn describe_error(error: &ureq::Error) -> String {
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
