//! SimApic: a controller cluster that behaves as documented. In reading order: the class table and the tree, reads,
//! writes and what the fabric does by itself, sessions and subscriptions, the requests, the side door for tests.

pub mod classes;
pub mod conflicts;
pub mod dn;
pub mod error;
pub mod fabric;
pub mod filter;
pub mod json;
pub mod query;
pub mod quirks;
pub mod rules;
pub mod tree;
pub mod write;
