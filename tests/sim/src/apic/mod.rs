//! SimApic: a controller cluster that behaves as documented. In reading order: the class table and the tree, reads,
//! writes and what the fabric does by itself, sessions and subscriptions, the requests, the side door for tests.

mod answers;
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
