//! The quota domains there are.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::domain::Domain;
use super::quota::Quota;

/// Quota domains by name. One ends with the last key in it.
#[derive(Default)]
pub(crate) struct Domains {
    by_name: Mutex<HashMap<String, Weak<Domain>>>,
}

impl Domains {
    /// The domain of this name, made if there is none. The quota given last counts.
    pub(crate) fn domain(&self, name: &str, quota: Quota) -> Arc<Domain> {
        let mut by_name = self.by_name.lock();
        if let Some(domain) = by_name.get(name).and_then(Weak::upgrade) {
            domain.set_quota(quota);
            return domain;
        }
        by_name.retain(|_, domain| domain.strong_count() > 0);
        let domain = Domain::new(quota);
        by_name.insert(name.to_owned(), Arc::downgrade(&domain));
        domain
    }

    /// The name of one of them.
    pub(crate) fn name_of(&self, domain: &Arc<Domain>) -> String {
        let by_name = self.by_name.lock();
        let found = by_name.iter().find(|(_, known)| std::ptr::eq(known.as_ptr(), Arc::as_ptr(domain)));
        found.map(|(name, _)| name.clone()).unwrap_or_default()
    }

    /// All that live, by name.
    pub(crate) fn all(&self) -> Vec<(String, Arc<Domain>)> {
        let by_name = self.by_name.lock();
        let mut all: Vec<_> =
            by_name.iter().filter_map(|(name, domain)| Some((name.clone(), domain.upgrade()?))).collect();
        all.sort_by(|one, other| one.0.cmp(&other.0));
        all
    }
}
