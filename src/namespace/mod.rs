//! The tree of namespaces and, in each, the table of mounts: which engine is enabled at which path. And the quotas on them.
//!
//! Requests read an immutable snapshot; changes are written to the store first. The root namespace always exists, the
//! others are those of the configuration and those that the API made. This room must not know what an engine does.

mod deletion;
mod lock;
mod made;
pub mod measure;
mod mounts;
mod quotas;
mod record;
mod removal;
mod tree;

pub use made::{MetadataChange, NamespaceInfo};
pub use mounts::{Namespaces, NewMount, Tune};
pub use quotas::{Allowance, Permit, Quota, QuotaKind, Quotas};
