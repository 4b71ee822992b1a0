//! Changes of a mount's issuers and keys: one at a time, each one whole, stored before anyone sees it.

use std::sync::Arc;

use super::Pki;
use super::authority::Authority;
use super::certificate::{Issued, Signed};
use super::key;
use super::registry::Registry;
use super::validity;
use crate::engine::Call;
use crate::managed_keys::Binding;
use crate::model::{Fault, Mount};
use crate::store::Write;

impl Pki {
    /// Runs `edit` on a copy of the registry, stores what it changed, and publishes it.
    pub(super) async fn edit<T: Send + 'static>(
        self: &Arc<Self>,
        call: &Call,
        edit: impl FnOnce(&mut Registry) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let mount = Arc::clone(&call.mount);
        let commit = |pki: &Pki, writes: Vec<Write>| match writes.is_empty() {
            true => Ok(()),
            false => pki.store.commit_now(writes),
        };
        let (edited, (), freed) = Arc::clone(self).change(move |pki| pki.edit_now(&mount, edit, commit)).await?;
        self.keys.end_unused(&call.mount.namespace, freed).await;
        Ok(edited)
    }

    /// The same, and stores a certificate in the same commit.
    pub(super) async fn edit_with<T: Send + 'static>(
        self: &Arc<Self>,
        call: &Call,
        signed: Signed,
        edit: impl FnOnce(&mut Registry) -> Result<T, Fault> + Send + 'static,
    ) -> Result<(T, Issued), Fault> {
        let mount = Arc::clone(&call.mount);
        let commit = |pki: &Pki, writes: Vec<Write>| signed.store_now(&pki.store, &pki.records, writes);
        let (edited, issued, freed) = Arc::clone(self).change(move |pki| pki.edit_now(&mount, edit, commit)).await?;
        self.keys.end_unused(&call.mount.namespace, freed).await;
        Ok((edited, issued))
    }

    /// Answers beside both results the managed keys that stopped being the mount's.
    fn edit_now<T, C>(
        &self,
        mount: &Arc<Mount>,
        edit: impl FnOnce(&mut Registry) -> Result<T, Fault>,
        commit: impl FnOnce(&Pki, Vec<Write>) -> Result<C, Fault>,
    ) -> Result<(T, C, Vec<String>), Fault> {
        let before = self.authority.load_full();
        let mut registry = before.registry.clone();
        let edited = edit(&mut registry)?;
        let mut writes = registry.writes_since(&before.registry, &self.records)?;
        let mut bound = Vec::new();
        for (id, key) in registry.keys.iter().filter(|(id, _)| !before.registry.keys.contains_key(*id)) {
            bound.extend(self.keys.bind(mount, &key.record.managed_key)?);
            writes.extend(self.keys.note_use(mount, &key.record.managed_key, &key::user(id)));
        }
        let mut freed = Vec::new();
        for (id, key) in before.registry.keys.iter().filter(|(id, _)| !registry.keys.contains_key(*id)) {
            writes.extend(self.keys.drop_use(mount, &key.record.managed_key, &key::user(id)));
            freed.push(key.record.managed_key.clone());
        }
        // Made before the commit: what cannot be made ready must not be stored.
        let after = before.with_registry(registry)?;
        let committed = commit(self, writes)?;
        bound.into_iter().for_each(Binding::keep);
        freed.iter().for_each(|uuid| self.keys.unbind(mount, uuid));
        self.publish_authority(after);
        Ok((edited, committed, freed))
    }

    /// Makes `authority` what requests see. Part of a change, or of the start.
    pub(super) fn publish_authority(&self, mut authority: Authority) {
        // Storing it took time.
        authority.changed = authority.changed.max(validity::now());
        self.authority.store(Arc::new(authority));
        self.responder.forget();
    }
}
