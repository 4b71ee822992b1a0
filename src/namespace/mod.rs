//! The tree of namespaces and, in each, the table of mounts: which engine is enabled at which path.
//!
//! Requests read an immutable snapshot; changes are written to the store first. Only the root namespace exists so far,
//! but every record and call carries its namespace. This room must not know what an engine does.

mod mounts;
mod record;
mod removal;

pub use mounts::{Namespaces, NewMount, Tune};
