//! Token roles: what tokens made by them may be.

use serde::{Deserialize, Serialize};

use super::rules::fits_any;
use super::tokens::Identity;
use crate::model::{Fault, Namespace, Tally};
use crate::store::{RecordKey, Versioned, Write};

/// The collection of a namespace's roles, by their names.
const COLLECTION: &str = "token-roles";
/// Roles of a namespace, whatever the limit was when they were made.
const ROLES_MAX: usize = 100_000;
/// Namespaces in the store.
const NAMESPACES_MAX: usize = 200_000;
/// The largest stored record of a role, in bytes.
const RECORD_BYTES: usize = 64 << 10;

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

    /// Makes a role of what is there, if anything, and answers what `edit` tells beside. One edit sees what the one before it
    /// has made.
    ///
    /// # Errors
    ///
    /// [`Fault::InvalidRequest`] also where the namespace has as many as it may, and [`Fault::TooLarge`] for too long a one.
    pub async fn edit_role<T, E>(&self, namespace: &Namespace, name: &str, edit: E) -> Result<T, Fault>
    where
        T: Send + 'static,
        E: FnOnce(Option<TokenRole>) -> Result<(TokenRole, T), Fault> + Send + 'static,
    {
        let (this, own, name) = (self.clone(), namespace.clone(), name.to_owned());
        let change = move || {
            let key = key(&own, &name);
            let known = this.0.store.read::<TokenRole>(&key)?;
            let is_new = known.is_none();
            let (role, told) = edit(known)?;
            let write = Write::put_record(key, &role)?;
            if let Write::Put { value, .. } = &write
                && value.len() > RECORD_BYTES
            {
                return Err(Fault::TooLarge {
                    what: format!("token role {name:?}: at most {RECORD_BYTES} bytes are stored"),
                });
            }
            let most = this.0.roles_max;
            if is_new && this.0.roles.lock().of_tenant(&own) >= most {
                return Err(Fault::invalid(format!(
                    "namespace {} and those below it have {most} token roles together, as limits {{ token_roles_per_namespace }} \
                     allows: delete one, or have the operator raise it",
                    own.tenant()
                )));
            }
            this.0.store.commit_now(vec![write])?;
            this.0.roles.lock().add(&own, usize::from(is_new));
            Ok(told)
        };
        self.0.role_changes.run(namespace, change).await
    }

    /// Puts a role in the place of what is there.
    #[cfg(test)]
    pub(super) async fn put_role(&self, namespace: &Namespace, name: &str, role: &TokenRole) -> Result<(), Fault> {
        let role = role.clone();
        self.edit_role(namespace, name, move |_| Ok((role, ()))).await
    }

    /// Deletes a role. Its tokens stay.
    pub async fn delete_role(&self, namespace: &Namespace, name: &str) -> Result<(), Fault> {
        let key = key(namespace, name);
        let (this, own) = (self.clone(), namespace.clone());
        let delete = move || {
            if this.0.store.get(&key)?.is_some() {
                this.0.store.commit_now(vec![Write::Delete { key }])?;
                this.0.roles.lock().take(&own, 1);
            }
            Ok(())
        };
        self.0.role_changes.run(namespace, delete).await
    }

    /// Forgets the roles of a namespace that was deleted, once the changes of them that were under way are over.
    pub(super) async fn forget_roles(&self, namespace: &Namespace) -> Result<(), Fault> {
        let (this, own) = (self.clone(), namespace.clone());
        let forget = move || {
            this.0.roles.lock().set(&own, 0);
            Ok(())
        };
        self.0.role_changes.run(namespace, forget).await
    }

    /// At a start: counts the roles of every namespace.
    pub(super) fn load_roles(&self) -> Result<(), Fault> {
        let mut counted = Tally::default();
        for namespace in self.0.store.namespaces(NAMESPACES_MAX)? {
            counted.set(&namespace, self.roles(&namespace)?.len());
        }
        *self.0.roles.lock() = counted;
        Ok(())
    }
}

fn key(namespace: &Namespace, name: &str) -> RecordKey {
    RecordKey::new(namespace, COLLECTION, name)
}
