//! Who is asking, and what they may do: tokens, kept as keyed hashes, and their policies, judged at every request.
//!
//! This room must not know what any path means.

mod judging;
pub mod policy;
mod tokens;

pub use judging::Rights;
pub use tokens::{Identity, Token};
