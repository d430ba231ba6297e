//! SimApic: a controller cluster that behaves as documented. In reading order: the class table and the tree, reads,
//! writes and what the fabric does by itself, sessions and subscriptions, the requests, the admin API for tests.
//!
//! Left out: XML, objects of classes that are only known by name, the topology
//! below `topology/` besides its faults, statistics and health. What a source says about an answer stands beside the
//! requests in `tests/apic_requests.txt` and `tests/apic_writes.txt`.

mod admin;
mod answers;
mod applications;
mod body;
mod classes;
mod cluster;
mod conflicts;
mod dn;
mod error;
mod fabric;
mod filter;
mod front;
mod in_memory;
mod interfaces;
mod json;
mod lab;
mod query;
mod requests;
mod rules;
mod session;
mod signed;
mod sim;
mod socket;
mod tree;
mod variants;
mod write;

pub use admin::{AdminApi, Held};
pub use cluster::Entry;
pub use conflicts::PrefixInUse;
pub use error::ApiError;
pub use in_memory::{ApicSession, InMemoryApic};
pub use sim::{Options, SimApic};
pub use variants::{HostBits, Order, PostAnswer, Throttle, TokenStyle, Variants, WriteAnswer};
