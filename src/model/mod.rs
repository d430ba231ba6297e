//! Words and decisions: what is wanted, what the fabric holds, and the plan that leads from one to the other.
//!
//! Nothing here knows sockets, threads, clocks or randomness; time is an argument. Bad input is a finding, never
//! an error: the functions here cannot fail.

pub mod kube;
pub mod mo;
