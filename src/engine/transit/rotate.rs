//! `keys/:name/rotate` names the managed key of the next version, or has the mount make it; `keys/:name/trim` lets go of the oldest ones.

use std::collections::HashMap;
use std::sync::Arc;

use super::Transit;
use super::key::{KeyRecord, TransitKey, VersionRecord};
use super::keys::{NewVersion, Wish, user};
use super::making::Turn;
use crate::engine::Call;
use crate::model::{Data, Fault, Fields, Response};
use crate::store::Write;

/// The most versions of one key.
const VERSIONS_MAX: usize = 10_000;

impl Transit {
    /// `POST keys/:name/rotate`. The managed key is found, or generated where that is allowed, before the answer.
    pub(super) async fn rotate_key(self: Arc<Self>, call: Call, name: String, data: Data) -> Result<Response, Fault> {
        let own = self.key(&name).ok_or_else(|| Fault::invalid("key not found"))?.record.own.clone();
        let wish = Wish::of_version(own, Fields::below(&data, &["name"]))?;
        if wish.is_managed() {
            return self.rotate(call, name, wish).await;
        }
        loop {
            let begin = || Arc::clone(&self).rotate(self.making_call(&call), name.clone(), wish.clone());
            match self.making.turn(&name, begin)? {
                Turn::Mine(attempt) => return attempt.await,
                // Each rotation that is asked for is one; how the one before ended is its asker's to know.
                Turn::Others(attempt) => drop(attempt.await),
            }
        }
    }

    /// The rotation itself, of a key that is of the wish's type still.
    pub(super) async fn rotate(self: Arc<Self>, call: Call, name: String, wish: Wish) -> Result<Response, Fault> {
        let absent = || Fault::invalid("key not found");
        check_versions(&self.key(&name).ok_or_else(absent)?.record)?;
        let own = wish.own.clone();
        let new = self.new_version(&call, &wish).await?;
        let warnings = new.warnings(wish.warnings);
        let mount = Arc::clone(&call.mount);
        let this = Arc::clone(&self);
        self.change(move |transit| {
            let mut table = HashMap::clone(&transit.table.load());
            let mut record = table.get(&name).ok_or_else(absent)?.record.clone();
            if record.own != own {
                let what = format!("key {name} is another one than when its rotation began; try again");
                return Err(Fault::Unavailable { what });
            }
            let NewVersion { handle, identity, binding, _registration } = new;
            if record.versions.last().is_some_and(|latest| latest.managed_key == handle.uuid()) {
                let managed = handle.name();
                return Err(Fault::invalid(format!(
                    "managed key {managed:?} is the latest version of the key already"
                )));
            }
            check_versions(&record)?;
            record.versions.push(VersionRecord::new(&handle, &identity));
            let version = record.latest();
            let uses = this.keys.note_use(&mount, handle.uuid(), &user(&name, version));
            transit.store.commit_now(vec![Write::put_record(transit.records.key(&name), &record)?, uses])?;
            binding.keep();
            tracing::info!(
                namespace = %mount.namespace, mount = mount.path, key = name, version, managed_key = handle.name(),
                uid = call.caller.peer.uid, "transit key rotated"
            );
            let key = TransitKey::open(record)?;
            let shown = key.show(&name)?;
            table.insert(name, Arc::new(key));
            transit.table.store(Arc::new(table));
            Ok(Response::with_warnings(shown, warnings))
        })
        .await
    }

    /// `POST keys/:name/trim`. What only the versions trimmed can decrypt or verify is lost; the managed keys stay
    /// registered, but for those that the mount made.
    pub(super) async fn trim_key(self: Arc<Self>, call: Call, name: String, data: Data) -> Result<Response, Fault> {
        let mut fields = Fields::below(&data, &["name"]);
        let asked = fields.integer("min_available_version")?;
        let warnings = fields.warnings();
        let (this, namespace) = (Arc::clone(&self), call.mount.namespace.clone());
        let trim = self.change(move |transit| {
            let mut table = HashMap::clone(&transit.table.load());
            let key = table.get(&name).ok_or_else(|| Fault::invalid("invalid key name"))?;
            let least = least_to_keep(key, asked.ok_or_else(|| Fault::invalid("missing min_available_version"))?)?;
            let mut record = key.record.clone();
            let gone = usize::try_from(least - record.oldest()).unwrap_or(0).min(record.versions.len());
            let mut writes = Vec::new();
            for (number, version) in record.numbered().take(gone) {
                writes.push(transit.keys.drop_use(&call.mount, &version.managed_key, &user(&name, number)));
            }
            let freed: Vec<String> = record.versions.drain(..gone).map(|version| version.managed_key).collect();
            record.min_available_version = least;
            writes.push(Write::put_record(transit.records.key(&name), &record)?);
            transit.store.commit_now(writes)?;
            freed.iter().for_each(|uuid| transit.keys.unbind(&call.mount, uuid));
            tracing::info!(
                namespace = %call.mount.namespace, mount = call.mount.path, key = name, min_available_version = least,
                uid = call.caller.peer.uid, "transit key trimmed"
            );
            let key = TransitKey::open(record)?;
            let shown = key.show(&name)?;
            table.insert(name, Arc::new(key));
            transit.table.store(Arc::new(table));
            Ok((Response::with_warnings(shown, warnings), freed))
        });
        let (response, freed) = trim.await?;
        this.keys.end_unused(&namespace, freed).await;
        Ok(response)
    }
}

fn check_versions(record: &KeyRecord) -> Result<(), Fault> {
    if record.versions.len() < VERSIONS_MAX {
        return Ok(());
    }
    Err(Fault::invalid(format!("the key has {VERSIONS_MAX} versions, the most there may be: trim it")))
}

/// The oldest version to be kept; refused where one in use would go.
fn least_to_keep(key: &TransitKey, asked: i64) -> Result<u32, Fault> {
    let record = &key.record;
    let refused = |why: &str| Err(Fault::invalid(format!("minimum available version {why}")));
    match asked {
        asked if asked < i64::from(record.min_available_version) => refused("cannot be decremented"),
        _ if record.min_encryption_version == 0 => refused("cannot be set when minimum encryption version is not set"),
        asked if asked > i64::from(record.min_encryption_version) => {
            refused("cannot be greater than minmum encryption version")
        }
        asked if asked > i64::from(record.min_decryption_version) => {
            refused("cannot be greater than minimum decryption version")
        }
        0 => refused("should be positive"),
        asked => u32::try_from(asked).or_else(|_| refused("cannot be negative")),
    }
}
