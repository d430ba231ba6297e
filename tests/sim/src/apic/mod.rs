//! SimApic: a controller cluster that behaves as documented. In reading order: the class table and the tree, reads,
//! writes and what the fabric does by itself, sessions and subscriptions, the requests, the side door for tests.
//!
//! Left out: XML, requests signed with a certificate, objects of classes that are only known by name, the topology
//! below `topology/` besides its faults, statistics and health. What a source says about an answer stands beside the
//! requests in `tests/apic_requests.txt` and `tests/apic_writes.txt`.

mod answers;
mod applications;
mod body;
mod classes;
mod cluster;
mod conflicts;
mod desk;
mod dn;
mod door;
mod error;
mod fabric;
mod filter;
mod front;
mod json;
mod lab;
mod query;
mod quirks;
mod requests;
mod rules;
mod session;
mod sim;
mod socket;
mod tree;
mod write;

pub use cluster::Entry;
pub use conflicts::PrefixInUse;
pub use desk::{Desk, Seat};
pub use door::{Door, Held};
pub use error::ApiError;
pub use quirks::{HostBits, Order, PostAnswer, Quirks, Throttle, TokenStyle, WriteAnswer};
pub use sim::{Options, SimApic};
