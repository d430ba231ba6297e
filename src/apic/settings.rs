//! The settings of the APIC side.

use super::controller::Controller;
use super::pacer::RequestPacer;
use crate::net::Tls;
use crate::secret::Renewable;

/// Where the APIC is and how to log in.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The controllers, tried in turn (A1).
    pub controllers: Vec<Controller>,
    /// How their certificates are verified.
    pub tls: Tls,
    /// The user, with its login domain if it has one (`apic:DOMAIN\\user`).
    pub username: String,
    /// The password. A new one is used from the next login on.
    pub password: Renewable,
    /// How fast requests follow one another (W8).
    pub pacer: RequestPacer,
}
