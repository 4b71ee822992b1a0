//! Rotating the keys of the store: `sys/rotate`, `sys/rotate/root` and `sys/key-status`.

use super::{Call, System, time_text};
use crate::model::{Data, Fault, Response};
use crate::store::{KeyStatus, Store};

impl System {
    /// Begins a term: what is written from now on is encrypted under a new key, and what there is follows behind requests.
    pub(super) async fn rotate(&self, call: &Call) -> Result<Response, Fault> {
        in_root(call)?;
        let term = self.on_store(|store| store.rotate()).await?;
        tracing::info!(term, uid = call.caller.peer.uid, "records are encrypted under a new key from now on");
        self.rotated.notify_one();
        Ok(Response::Empty)
    }

    /// Makes a new root key, wrapped by the seal. What it guards is a few keys, so that no record changes.
    pub(super) async fn rotate_root(&self, call: &Call) -> Result<Response, Fault> {
        in_root(call)?;
        self.on_store(|store| store.rotate_root()).await?;
        tracing::info!(uid = call.caller.peer.uid, "the root key was replaced, wrapped by the seal");
        Ok(Response::Empty)
    }

    pub(super) fn key_status(&self, call: &Call) -> Result<Response, Fault> {
        in_root(call)?;
        let KeyStatus { term, installed, encryptions, old_terms, reencrypted, damaged } = self.store.key_status()?;
        let mut data = Data::new();
        // Vault counts from 1.
        data.insert("term".into(), (u64::from(term) + 1).into());
        data.insert("install_time".into(), time_text(installed).into());
        data.insert("encryptions".into(), encryptions.into());
        let old_terms: Vec<u64> = old_terms.into_iter().map(|term| u64::from(term) + 1).collect();
        data.insert("old_terms".into(), old_terms.into());
        data.insert("records_encrypted_anew".into(), reencrypted.into());
        data.insert("records_damaged".into(), damaged.into());
        // Vault repeats it at the top level.
        Ok(Response::Data { data, warnings: Vec::new(), mirrored: true })
    }

    /// Does what waits for the disk.
    async fn on_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let store = self.store.clone();
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        done.unwrap_or_else(|_| Err(Fault::Unavailable { what: "the daemon is going down; try again".into() }))
    }
}

fn in_root(call: &Call) -> Result<(), Fault> {
    if call.namespace.is_root() { Ok(()) } else { Err(Fault::invalid("operation unavailable in namespaces")) }
}
