//! Words and decisions: what is desired, what the fabric holds, and the plan that leads from one to the other.
//!
//! Nothing here knows sockets, threads, clocks or randomness; time is an argument. Bad input is a finding, never
//! an error: the functions here cannot fail.

pub mod address;
pub mod binding;
pub mod dn;
pub mod finding;
pub mod kubernetes;
pub mod mo;
pub mod owner;
pub mod quota;
pub mod rules;
pub mod scope;

mod annotations;
mod claims;
pub mod desired;
pub mod inventory;
mod selection;
pub mod source;

pub mod cache;
pub mod cause;
mod deletion_causes;
pub mod external_deletions;
pub mod observed;
pub mod plan;
mod plan_findings;
pub mod plan_input;
pub mod pods;
pub mod staleness;

pub mod guards;
pub mod missing_pods;
mod placement;
pub mod planner;
pub mod purge;
mod retained;

pub mod discovery;
pub mod explain;
pub mod notices;
