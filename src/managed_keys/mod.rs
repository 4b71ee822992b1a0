//! Managed keys: named entries, each bound to one namespace, that stand for exactly one key in one backend. Resolves
//! (mount, name or UUID) to a [`Handle`]: binding, `usages`, `allowed_managed_keys`, `any_mount`.
//!
//! This room must not know: what an engine does with a key, any wire, or any backend but through the supervisor.

mod abilities;
mod bindings;
mod claims;
mod cloud;
mod cloud_record;
mod ending;
mod fields;
mod first_use;
mod handle;
mod key_type;
mod loading;
pub mod measure;
mod mechanism;
mod own;
mod pkcs11;
mod ready;
mod record;
mod registry;
mod secret_record;
mod settings;
#[cfg(test)]
pub(crate) mod software_token;
mod table;
mod tokens;
mod trial;
mod uses;

pub use bindings::{Binding, Mounts};
pub use fields::FIELDS;
pub use handle::{Handle, KeyRef, Lent};
pub use mechanism::Mechanism;
pub use own::{OwnKey, Registration};
pub use registry::ManagedKeys;
pub use settings::Settings;

pub use crate::supervisor::{Pending, together};
