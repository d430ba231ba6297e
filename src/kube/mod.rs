//! The Kubernetes side: where the API server is, lists, the three watchers, the Lease, and Events. No rules about the
//! fabric live here.

mod credentials;
pub mod kubeconfig;
pub mod plugin;
mod yaml;

pub mod decode;
mod error;
pub mod kinds;
pub mod objects;
mod pool;

pub mod client;
mod list;
pub mod watch_lines;
pub mod watcher;

pub mod election;
pub mod lease;

pub mod events;
pub mod recorder;

pub use client::Client;
pub use error::Error;
pub use events::events;
pub use kubeconfig::{ClusterConfig, ConfigError, load};
pub use lease::{LeaderElector, LeaseLock};
pub use pool::Pool;
pub use watcher::Watcher;

use crate::model::kubernetes::{Key, Kind, Object};

/// What a watcher tells the reconciler.
#[derive(Debug)]
pub enum Event {
    /// A complete list: it replaces the whole old view of that kind (W1).
    Listed {
        /// The kind.
        kind: Kind,
        /// The objects worth keeping.
        objects: Vec<Object>,
    },
    /// An object was added or changed, and is worth keeping.
    Upsert(Object),
    /// An object was deleted, or is no longer worth keeping.
    Gone {
        /// The kind.
        kind: Kind,
        /// Which one.
        key: Key,
    },
    /// The server took a watch. Whether it delivers anything is not known yet (W1).
    Opened {
        /// The kind.
        kind: Kind,
    },
    /// The open watch delivered an event or a bookmark: the view is complete and live.
    Live {
        /// The kind.
        kind: Kind,
    },
    /// The watch ended, and is being resumed where it ended.
    Interrupted {
        /// The kind.
        kind: Kind,
    },
    /// A list is due or under way: the view is incomplete.
    Relisting {
        /// The kind.
        kind: Kind,
        /// The reason, for the log.
        why: String,
    },
}
