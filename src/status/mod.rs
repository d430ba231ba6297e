//! What the daemon says of itself. Everything here reads the [`Snapshot`] that the event loop publishes; nothing asks the
//! reconciler, so answers come while a reconcile hangs.

pub mod service_manager;
mod snapshot;

pub use snapshot::{FabricView, L3outView, Publisher, Snapshot, State};
