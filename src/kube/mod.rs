//! The Kubernetes side: credentials, lists, watchers, the Lease, and Events. Rules about the fabric are not here.

mod credentials;
pub mod kubeconfig;
mod kubeconfig_entry;
pub mod plugin;
mod token;
mod yaml;

pub mod decode;
mod error;
pub mod kinds;
pub mod objects;
mod pool;
mod status;

pub mod client;
mod list;
pub mod node_addresses;
mod preflight;
mod watch_event;
pub mod watch_lines;
pub mod watcher;

pub mod election;
pub mod lease;

pub mod events;
pub mod recorder;

pub use client::Client;
pub use error::{ConfigError, Error};
pub use events::events;
pub use kubeconfig::{ClusterConfig, load};
pub use lease::{LeaderElector, LeaseLock};
pub use pool::Pool;
pub use preflight::{Right, ServerVersion};
pub use status::Status;
pub use token::Token;
pub use watch_event::Event;
pub use watcher::Watcher;
