//! `roles`: kept in the store, read from a snapshot.

use std::sync::Arc;

use super::Pki;
use super::issue::CompiledRole;
use super::role::{Role, is_name};
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
    pub(super) async fn write_role(&self, name: &str, data: &Data) -> Result<Response, Fault> {
        if !is_name(name) {
            return Err(Fault::invalid(format!(
                "role name {name:?}: expected letters, digits, _, - and ., at most 128, with a letter or digit at both ends"
            )));
        }
        if self.roles.load().len() >= ROLES_MAX && !self.roles.load().contains_key(name) {
            return Err(Fault::invalid(format!("this mount has {ROLES_MAX} roles, as many as there may be")));
        }
        let (role, warnings) = Role::parse(data)?;
        let shown = role.show()?;
        self.store.commit(vec![Write::put_record(self.records.role(name), &role)?]).await?;
        self.reload_role(name)?;
        Ok(Response::with_warnings(shown, warnings))
    }

    /// `DELETE roles/:name`.
    pub(super) async fn delete_role(&self, name: &str) -> Result<Response, Fault> {
        if self.roles.load().contains_key(name) {
            self.store.commit(vec![Write::Delete { key: self.records.role(name) }]).await?;
            self.reload_role(name)?;
        }
        Ok(Response::Empty)
    }

    /// Brings one role of the snapshot up to what is stored.
    fn reload_role(&self, name: &str) -> Result<(), Fault> {
        let _one_at_a_time = self.reloading.lock();
        let stored = self.store.read::<Role>(&self.records.role(name))?;
        let mut roles = self.roles.load().as_ref().clone();
        match stored {
            Some(role) => roles.insert(name.to_owned(), Arc::new(CompiledRole::new(role)?)),
            None => roles.remove(name),
        };
        self.roles.store(Arc::new(roles));
        Ok(())
    }
}
