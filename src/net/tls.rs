//! The TLS handshake, and the messages if it fails. The connector is made once for each side and shared by its REST
//! requests and its websocket.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};

use log::warn;
use openssl::error::ErrorStack;
use openssl::ssl::{HandshakeError, SslConnector, SslMethod, SslRef, SslVerifyMode, SslVersion};
use openssl::x509::X509;
use openssl::x509::verify::X509VerifyFlags;

use super::deadline_stream::{CONNECT_TIMEOUT, DeadlineStream};
use super::settings::{Peer, Roots, TlsError, TlsSettings, Verify};
use super::trust::{self, OwnCertificate, TlsRejection, bundle, identity};
use crate::metrics::{self, Credential};

/// A stream with TLS on it.
pub type TlsStream<S> = openssl::ssl::SslStream<S>;

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
        self.note_ends(stream.ssl());
        Ok(stream)
    }

    /// T10: the ends of the certificates that a trusted peer has just presented. Of those that are not verified nothing
    /// depends.
    fn note_ends(&self, ssl: &SslRef) {
        let Inner { settings, .. } = &*self.0;
        let is_verified = !matches!(settings.verify, Verify::Nothing);
        let leaf = ssl.peer_certificate().filter(|_| is_verified).and_then(|it| trust::end_of(&it));
        match settings.peer {
            Peer::Unnamed => {}
            Peer::Apic => metrics::credential_ends(Credential::ApicCertificate, leaf),
            Peer::Kubernetes => {
                let issuers = ssl.verified_chain().filter(|_| is_verified).into_iter().flatten().skip(1);
                metrics::credential_ends(Credential::KubernetesCa, issuers.filter_map(trust::end_of).min());
                metrics::credential_ends(Credential::KubernetesServerCertificate, leaf);
            }
        }
    }

    /// When our own certificate ends.
    pub fn own_end(&self) -> Option<u64> {
        self.0.identity.as_ref().and_then(OwnCertificate::end)
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
