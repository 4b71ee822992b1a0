//! `roles`: kept in the store, read from a snapshot.

use std::sync::Arc;

use super::Pki;
use super::compiled_role::CompiledRole;
use super::registry::DEFAULT;
use super::role::Role;
use crate::engine::name::{NAME_MAX, is_name};
use crate::model::{Data, Fault, Response};
use crate::store::Write;

/// The most roles of one mount.
const ROLES_MAX: usize = 100_000;

impl Pki {
    /// `LIST roles`.
    pub(super) fn list_roles(&self) -> Result<Response, Fault> {
        let mut names: Vec<String> = self.roles.load().keys().cloned().collect();
        names.sort_unstable();
        if names.is_empty() { Err(Fault::absent()) } else { Ok(Response::keys(names)) }
    }

    /// `GET roles/:name`.
    pub(super) fn read_role(&self, name: &str) -> Result<Response, Fault> {
        let roles = self.roles.load();
        let compiled = roles.get(name).ok_or_else(Fault::absent)?;
        compiled.role.show().map(Response::data)
    }

    /// `POST roles/:name`: replaces the whole role.
    pub(super) async fn write_role(self: Arc<Self>, name: String, data: Data) -> Result<Response, Fault> {
        if !is_name(&name) {
            return Err(Fault::invalid(format!(
                "role name {name:?}: expected letters, digits, _, - and ., at most {NAME_MAX}, with a letter or digit at \
                 both ends"
            )));
        }
        let (role, warnings) = Role::parse(&data)?;
        self.change(move |pki| pki.store_role(name, role, warnings)).await
    }

    /// `PATCH roles/:name`: a merge patch.
    pub(super) async fn patch_role(self: Arc<Self>, name: String, data: Data) -> Result<Response, Fault> {
        self.change(move |pki| {
            let known = pki.roles.load().get(&name).cloned();
            let known = known
                .ok_or_else(|| Fault::NotFound { what: format!("unable to fetch role entry to patch: {name}") })?;
            let (role, warnings) = known.role.patched(&data)?;
            pki.store_role(name, role, warnings)
        })
        .await
    }

    /// Part of a change.
    fn store_role(&self, name: String, role: Role, mut warnings: Vec<String>) -> Result<Response, Fault> {
        warnings.extend(self.unknown_issuer(&role.issuer_ref));
        let shown = role.show()?;
        let mut roles = self.roles.load().as_ref().clone();
        let write = Write::put_record(self.records.role(&name), &role)?;
        roles.insert(name, Arc::new(CompiledRole::new(role)?));
        if roles.len() > ROLES_MAX {
            return Err(Fault::invalid(format!("this mount has {ROLES_MAX} roles, as many as there may be")));
        }
        self.store.commit_now(vec![write])?;
        self.roles.store(Arc::new(roles));
        Ok(Response::with_warnings(shown, warnings))
    }

    /// Vault's warning where there is no such issuer yet: who it is, is asked when a certificate is.
    fn unknown_issuer(&self, reference: &str) -> Option<String> {
        if self.authority.load().issuer(reference).is_ok() {
            return None;
        }
        Some(match reference {
            DEFAULT => "Issuing Certificate was set to default, but no default issuing certificate (configurable at \
                        /config/issuers) is currently set"
                .into(),
            other => {
                format!("Issuing Certificate was set to {other} but no issuing certificate currently has that name")
            }
        })
    }

    /// `DELETE roles/:name`.
    pub(super) async fn delete_role(self: Arc<Self>, name: String) -> Result<Response, Fault> {
        self.change(move |pki| {
            let mut roles = pki.roles.load().as_ref().clone();
            if roles.remove(&name).is_some() {
                pki.store.commit_now(vec![Write::Delete { key: pki.records.role(&name) }])?;
                pki.roles.store(Arc::new(roles));
            }
            Ok(Response::Empty)
        })
        .await
    }
}
