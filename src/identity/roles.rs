//! Token roles: what tokens made by them may be.

use serde::{Deserialize, Serialize};

use super::rules::fits_any;
use super::tokens::Identity;
use crate::model::{Fault, Namespace};
use crate::store::{RecordKey, Versioned, Write};

/// The collection of a namespace's roles, by their names.
const COLLECTION: &str = "token-roles";
/// Roles of a namespace at most.
const ROLES_MAX: usize = 10_000;

/// A role. Zero stands for no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRole {
    /// The policies its tokens may have, whether their makers have them or not.
    pub allowed_policies: Vec<String>,
    /// The policies they must not have.
    pub disallowed_policies: Vec<String>,
    /// The same as `allowed_policies`, with `*` for anything.
    pub allowed_policies_glob: Vec<String>,
    /// The same as `disallowed_policies`, with `*` for anything.
    pub disallowed_policies_glob: Vec<String>,
    /// Whether its tokens are orphans.
    pub orphan: bool,
    /// Whether its tokens may be renewed.
    pub renewable: bool,
    /// Is added to the path its tokens are made at.
    pub path_suffix: String,
    /// Seconds its tokens are renewed for each time, without end.
    pub period_seconds: u64,
    /// Seconds its tokens may live all in all.
    pub explicit_max_ttl_seconds: u64,
    /// How often its tokens may be used.
    pub num_uses: u64,
    /// Leave the policy `default` out of its tokens.
    pub no_default_policy: bool,
}

impl Versioned for TokenRole {
    const VERSION: u16 = 1;
}

impl TokenRole {
    /// Whether it says anything of policies.
    pub(super) fn judges_policies(&self) -> bool {
        let lists = [
            &self.allowed_policies,
            &self.disallowed_policies,
            &self.allowed_policies_glob,
            &self.disallowed_policies_glob,
        ];
        lists.iter().any(|list| !list.is_empty())
    }

    /// Whether its tokens must not have this policy.
    pub(super) fn disallows(&self, policy: &str) -> bool {
        self.disallowed_policies.iter().any(|other| other == policy) || fits_any(&self.disallowed_policies_glob, policy)
    }
}

impl Identity {
    /// A role, if it is there.
    pub fn role(&self, namespace: &Namespace, name: &str) -> Result<Option<TokenRole>, Fault> {
        self.0.store.read(&key(namespace, name))
    }

    /// The roles of a namespace.
    pub fn roles(&self, namespace: &Namespace) -> Result<Vec<String>, Fault> {
        self.0.store.list(namespace, COLLECTION, None, ROLES_MAX)
    }

    /// Makes a role, or replaces it.
    pub async fn put_role(&self, namespace: &Namespace, name: &str, role: &TokenRole) -> Result<(), Fault> {
        let key = key(namespace, name);
        if self.0.store.get(&key)?.is_none() && self.roles(namespace)?.len() >= ROLES_MAX {
            return Err(Fault::invalid(format!("a namespace has at most {ROLES_MAX} token roles: delete one first")));
        }
        self.0.store.commit(vec![Write::put_record(key, role)?]).await
    }

    /// Deletes a role. Its tokens stay.
    pub async fn delete_role(&self, namespace: &Namespace, name: &str) -> Result<(), Fault> {
        self.0.store.commit(vec![Write::Delete { key: key(namespace, name) }]).await
    }
}

fn key(namespace: &Namespace, name: &str) -> RecordKey {
    RecordKey::new(namespace, COLLECTION, name)
}
