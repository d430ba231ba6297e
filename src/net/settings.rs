//! What TLS towards one side depends on: trust anchors, checks, our certificate.

use std::fmt;

use crate::secret::Secret;

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
pub struct TlsError(pub(super) String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}
