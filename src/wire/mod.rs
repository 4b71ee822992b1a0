//! What front and client share: the framed wire's messages and framing, and Vault's JSON envelope.
//!
//! This room must not know: sockets, or what any operation does.

mod auth;
pub mod envelope;
pub mod frame;
mod from_model;
mod to_model;

pub use from_model::{fault_message, reply};
pub use to_model::{CallBody, parse_call};

/// The messages of `keyway.proto`.
#[allow(missing_docs, clippy::all, reason = "generated")]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/keyway.v1.rs"));
}

/// The version of the framed protocol spoken here.
pub const PROTOCOL_VERSION: u32 = 1;
