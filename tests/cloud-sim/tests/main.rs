//! The simulated clouds as their users meet them: a process, its addresses, and what is ordered from it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on must say so")]

mod aws;
mod azure;
mod client;
mod emulated_kms;
mod google;
mod troubles;

use std::path::Path;

/// The binary under test.
fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_cloud-sim"))
}
