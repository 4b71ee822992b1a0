//! Vault's ACL policies: texts that grant capabilities on paths. A text is read once, when it is written or loaded; the
//! policies of a token are compiled once into an [`Acl`], which judges paths.
//!
//! Paths are those below the namespace of the policy: what a policy says of `child/transit/*` counts in the namespace
//! `child`. This room must not know what any path means.

mod acl;
mod capability;
mod document;
mod parameters;
mod parse;
mod pattern;
mod permissions;
mod policies;

#[cfg(test)]
mod acl_tests;
#[cfg(test)]
mod parse_tests;
#[cfg(test)]
mod policies_tests;

pub use acl::Acl;
pub use capability::Capabilities;
pub use parse::Policy;
pub use permissions::{Attempt, Permissions};
pub use policies::Policies;
