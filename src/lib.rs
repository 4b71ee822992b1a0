//! Keyway
pub mod backend;
pub mod config;
pub mod model;
pub mod store;
