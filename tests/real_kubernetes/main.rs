//! The daemon, as it is shipped, on a real kube-apiserver with its real controllers; the fabric is SimApic.
//! `scripts/real-kubernetes test` starts all that and runs this; a plain `cargo test` does not.
//!
//! One test at a time. A new topic is a file with a `mod` line here; the setup is in `world.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says what it expects")]
#![allow(clippy::print_stdout, reason = "a seed and a summary are for developers")]

mod cluster;
mod container;
#[allow(dead_code, reason = "these stories use a part of it")]
#[path = "../e2e/world.rs"]
mod e2e_world;
mod kubelet;
mod node;
mod site;
mod world;

mod api_server_faults;
mod bindings;
mod churn;
mod credentials;
mod hostile_tenant;
mod in_cluster_document;
mod kubernetes_events;
mod leader_election;
mod lifecycle;
mod manifests;
mod pods;
mod rights;
mod services;
mod simulator_comparison;
mod workloads;
