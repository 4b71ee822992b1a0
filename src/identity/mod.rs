//! Who is asking, and what they may do: tokens, kept as keyed hashes and judged at every request; and roles that go by the
//! kernel's word on a process.
//!
//! This room must not know what any path means.

mod clock;
mod ending;
mod judging;
mod making;
pub mod policy;
mod roles;
mod rules;
mod shares;
#[cfg(test)]
mod tests;
mod token;
mod tokens;
mod tree;
mod ttl;
mod unix;
mod using;
mod wrapping;

pub use judging::Rights;
pub use making::Login;
pub use roles::TokenRole;
pub use rules::Wish;
pub use shares::Place;
pub use token::{ROOT_POLICY, Token};
pub use tokens::Identity;
pub use unix::{NamedId, UnixFit, UnixRole, UnixRoles};
pub use using::{Counted, Use};
