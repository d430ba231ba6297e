//! aci-sync keeps a Cisco ACI fabric in sync with the workloads of a Kubernetes cluster.
//!
//! The modules in reading order; `ARCHITECTURE.md` shows how data flows between them.

pub mod model;

pub mod backoff;
pub mod exit;
pub mod files;
pub mod leadership;
pub mod metrics;
pub mod net;
pub mod secret;
pub mod service_settings;
pub mod time;

pub mod apic;
pub mod kube;

pub mod reconcile;

pub mod daemon;
pub mod status;

pub mod commands;

pub mod cli;
pub mod config;
pub mod logging;
