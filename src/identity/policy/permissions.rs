//! What is granted at one path, and whether an attempt keeps within it.

use std::borrow::Cow;
use std::time::Duration;

use super::capability::Capabilities;
use super::parameters::Parameters;
use crate::model::{Capability, Data, Fault};

/// What the policies of a token grant where one rule decides.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Permissions {
    pub(super) capabilities: Capabilities,
    pub(super) allowed: Parameters,
    pub(super) denied: Parameters,
    /// Fields that a request must have, in lower case.
    pub(super) required: Vec<String>,
    /// Bounds of how long the wrapping of an answer lasts: without a wrapping there is no answer.
    pub(super) min_wrapping: Option<Duration>,
    pub(super) max_wrapping: Option<Duration>,
}

/// What is attempted, beside where.
pub struct Attempt<'a> {
    /// What is needed.
    pub capability: Capability,
    /// Whether the path asks for `sudo`, too.
    pub needs_sudo: &'a dyn Fn() -> bool,
    /// Whether what a write is about exists; `None` where that makes no difference.
    pub exists: &'a dyn Fn() -> Option<bool>,
    /// The request's fields.
    pub data: &'a dyn Fn() -> Cow<'a, Data>,
    /// How long the answer's wrapping is to last, if it is to be wrapped.
    pub wrapping: Option<Duration>,
}

impl Permissions {
    /// What is granted.
    pub fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// Adds what another policy says of the same path, as Vault does: capabilities are united, unless one denies.
    pub(super) fn merge(&mut self, other: &Permissions) {
        if self.capabilities.has(Capabilities::DENY) {
            return;
        }
        if other.capabilities.has(Capabilities::DENY) {
            *self = Permissions { capabilities: Capabilities::DENY, ..Permissions::default() };
            return;
        }
        self.capabilities = self.capabilities.and(other.capabilities);
        self.allowed.merge(&other.allowed);
        self.denied.merge(&other.denied);
        for name in &other.required {
            if !self.required.contains(name) {
                self.required.push(name.clone());
            }
        }
        let shorter = |one: Option<Duration>, other: Option<Duration>| one.into_iter().chain(other).min();
        self.min_wrapping = shorter(self.min_wrapping, other.min_wrapping);
        self.max_wrapping = shorter(self.max_wrapping, other.max_wrapping);
    }

    /// Lets an attempt pass, or refuses it. What costs more is asked for only where it matters.
    pub fn judge(&self, attempt: &Attempt<'_>) -> Result<(), Fault> {
        if self.capabilities.has(Capabilities::DENY)
            || !self.grants(attempt)
            || !self.wraps(attempt.wrapping)
            || (!self.capabilities.has(Capabilities::SUDO) && (attempt.needs_sudo)())
        {
            return Err(Fault::PermissionDenied);
        }
        // A list and a deletion have no fields to speak of.
        let has_fields = !matches!(attempt.capability, Capability::List | Capability::Delete);
        if !has_fields || self.is_free() || self.takes(&(attempt.data)()) {
            return Ok(());
        }
        Err(Fault::PermissionDenied)
    }

    fn grants(&self, attempt: &Attempt<'_>) -> bool {
        if attempt.capability != Capability::Update {
            return self.capabilities.grants(attempt.capability);
        }
        match (self.capabilities.grants(Capability::Create), self.capabilities.grants(Capability::Update)) {
            (create, update) if create == update => update,
            // What has no check of existence is always an update.
            (create, _) => create != (attempt.exists)().unwrap_or(true),
        }
    }

    fn wraps(&self, asked: Option<Duration>) -> bool {
        match (self.min_wrapping, self.max_wrapping, asked) {
            (None, None, _) => true,
            (_, _, None) => false,
            (min, max, Some(asked)) => min.is_none_or(|min| asked >= min) && max.is_none_or(|max| asked <= max),
        }
    }

    /// Whether it says nothing of fields.
    fn is_free(&self) -> bool {
        self.required.is_empty() && self.denied.is_empty() && self.allowed.is_empty()
    }

    fn takes(&self, data: &Data) -> bool {
        self.required.iter().all(|name| data.contains_key(name))
            && (self.denied.is_empty() || self.denied.let_pass(data))
            && (self.allowed.is_empty() || self.allowed.cover(data))
    }
}
