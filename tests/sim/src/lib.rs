//! The servers that aci-sync talks to, as programs: SimApic and SimKube over real TLS on real loopback sockets.
//!
//! This crate knows nothing of the daemon's crate: code shared between the two would be wrong in both at once.

pub mod apic;
pub mod client;
pub mod folder;
pub mod kube;
pub mod lab;
pub mod net;
pub mod pki;
pub mod wire;
