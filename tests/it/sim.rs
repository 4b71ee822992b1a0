//! Steering the simulated HSM.

#[path = "../hsm-sim/src/client.rs"]
pub(crate) mod client;
