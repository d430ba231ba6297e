//! The settings of the APIC side.

use std::sync::Arc;

use super::auth::Credentials;
use super::controller::Controller;
use super::pacer::RequestPacer;
use crate::net::Tls;

/// Where the APIC is and how to log in.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The controllers, tried in turn (A1).
    pub controllers: Vec<Controller>,
    /// How their certificates are verified.
    pub tls: Tls,
    /// Who logs in, and how. A new secret is used from the next login on, a new key from the next request on.
    pub credentials: Arc<dyn Credentials>,
    /// How fast requests follow one another (W8).
    pub pacer: RequestPacer,
}
