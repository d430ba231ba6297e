//! The status page in a real browser. It needs Chromium and axe-core: `scripts/test-page`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says what it expects")]

mod chromium;
mod status_page;
#[allow(dead_code, reason = "it is for the end-to-end tests, too")]
#[path = "../e2e/world.rs"]
mod world;
