//! What the daemon says of itself. Everything here reads the [`Snapshot`] that the event loop publishes; nothing asks the
//! reconciler, so answers come while a reconcile hangs.

mod credentials;
mod exposition;
mod json;
pub mod listen;
pub mod metrics;
mod page;
mod process;
pub mod request;
pub mod routes;
pub mod server;
pub mod service_manager;
mod snapshot;

pub use credentials::{CredentialEnds, EndWarnings, NEAR};
pub use snapshot::{
    Activity, Deferred, EpgView, FabricView, Identity, L3outView, Publisher, ReconcileEntry, Snapshot, State, Totals,
    Why,
};
