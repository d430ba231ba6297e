//! What limits a plan: mass deletions, the grace of EPGs, conflicts with other writers. What a guard remembers lives as
//! long as the process leads.

pub mod deletion;
pub mod drift;
pub mod grace;
