//! The daemon as a process of its own, and its clients, over real sockets and real TLS against SimKube and SimApic.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says what it expects")]

mod pod_watcher;
mod world;

mod api_server_faults;
mod apic_session;
mod apic_session_faults;
mod certificate_login;
mod check;
mod cli;
mod completions;
mod credentials;
mod default_l3out;
mod discovery;
mod drift_repair;
mod explain;
mod field_inputs;
mod guards;
mod host_faults;
mod hostile_peers;
mod kubernetes_events;
mod large_answers;
mod large_objects;
mod leader_election;
mod lifecycle;
mod limits;
mod other_writers;
mod parallel_requests;
mod plan_and_once;
mod plan_output;
mod prototype_defects;
mod purge;
mod purge_canary;
mod purge_refusals;
mod safety;
mod service_manager;
mod service_settings;
mod shutdown;
mod stale_watch;
mod status;
mod throttling;
mod tls;
mod watch;
mod workloads;
mod write_faults;
