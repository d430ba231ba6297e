//! TLS and HTTP agents for the APIC and the API server: trust, client certificates, and shutdown of blocked reads.

mod connector;
mod deadline_stream;
mod describe;
mod dial;
mod settings;
mod tls;
mod trust;
pub mod wrong_peer;

pub use deadline_stream::{CONNECT_TIMEOUT, DeadlineStream, Socket};
pub use describe::{describe_error, describe_io_error};
pub use dial::{Look, dial, look};
pub use settings::{ClientIdentity, Peer, Roots, TlsError, TlsSettings, Verify};
pub use tls::{ConnectError, Tls, TlsStream};
pub use trust::{Bundle, OwnCertificate, TlsRejection, bundle, end_of, identity};
