//! Who is asking, and what they may do: tokens, kept as keyed hashes and judged at every request.
//!
//! This room must not know what any path means.

pub mod policy;
mod tokens;

pub use tokens::{Identity, Token};
