//! The model, the reconciler and the decoders without sockets, and the repository's own promises: plain tables,
//! stories, and single reconciles against an in-memory APIC (`fixtures`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says what it expects")]

mod fixtures;

mod apic_decoding;
mod apic_writer;
mod binding;
mod causes;
mod concurrent_changes;
mod configuration;
mod contracts;
mod discovery;
mod event_notices;
mod explain;
mod hostile_tenants;
mod incremental;
mod inventory;
mod kubeconfig;
mod many_l3outs;
mod metrics;
mod missing_events;
mod names;
mod packaging;
mod plans;
mod purge;
mod reconcile;
mod recordings_decoding;
mod requests_in_flight;
mod structure;
mod traceability;
mod workloads;
