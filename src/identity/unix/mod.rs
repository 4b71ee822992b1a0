//! `auth/unix`: roles that say by what the kernel tells of a process which policies it is due, in the role's namespace and
//! below. They count by a login, which makes a token, or without any token where both the role and the listener say so.
//!
//! This room must not know: how the kernel is asked.

mod implicit;
mod login;
mod role;
mod roles;
#[cfg(test)]
mod tests;

pub use login::UnixFit;
pub use role::{NamedId, UnixRole};
pub use roles::UnixRoles;

pub(super) use login::login_of;
