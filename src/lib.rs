//! Keyway: private keys that live in HSMs, for programs on this host. See the README for what is built.
pub mod backend;
pub mod client;
pub mod config;
pub mod crypto;
pub mod dispatch;
pub mod engine;
pub mod front;
pub mod identity;
pub mod managed_keys;
pub mod model;
pub mod namespace;
pub mod store;
pub mod supervisor;
pub mod system;
pub mod telemetry;
pub mod wire;
