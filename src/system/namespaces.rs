//! `sys/namespaces`: the namespaces right below the one addressed.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt;
use serde_json::{Value, json};

use super::{Call, System};
use crate::apart;
use crate::model::{Data, Fault, Fields, Mount, Namespace, Response, Secret};
use crate::namespace::{MetadataChange, NamespaceInfo};

/// Deleted namespaces whose records are removed at once: each waits for the disk.
const DELETIONS_AT_ONCE: usize = 4;

impl System {
    /// Those directly below, by their names there.
    pub(super) async fn list_namespaces(&self, call: &Call) -> Result<Response, Fault> {
        let (namespaces, above) = (self.namespaces.clone(), call.namespace.clone());
        let children = apart::run(&call.namespace, move || namespaces.children(&above)).await?;
        if children.is_empty() {
            return Err(Fault::absent());
        }
        let (mut names, mut infos) = (Vec::new(), Data::new());
        for child in children {
            let path = child.path.as_str();
            let name = path.strip_prefix(call.namespace.as_str()).unwrap_or(path).to_owned();
            names.push(Value::from(name.as_str()));
            infos.insert(name, Value::Object(show(&child)));
        }
        let mut data = Data::new();
        data.insert("keys".into(), names.into());
        data.insert("key_info".into(), infos.into());
        Ok(Response::data(data))
    }

    pub(super) fn read_namespace(&self, call: &Call, name: &str) -> Result<Response, Fault> {
        let found = self.namespaces.look_up(&call.namespace, name)?;
        found.map(|found| Response::data(show(&found))).ok_or_else(Fault::absent)
    }

    /// Makes one, or changes its notes where there is one.
    pub(super) async fn write_namespace(&self, call: &Call, name: &str, data: &Data) -> Result<Response, Fault> {
        let mut fields = Fields::below(data, &["path"]);
        let change = match metadata(&mut fields)? {
            None => MetadataChange::Keep,
            Some(notes) => {
                let whole = notes.into_iter().map(|(name, value)| value.map(|value| (name, value)));
                MetadataChange::Replace(whole.collect::<Option<_>>().ok_or_else(not_text)?)
            }
        };
        let made = self.namespaces.make(&call.namespace, name, change).await?;
        tracing::info!(namespace = %made.path, id = made.id, uid = call.caller.peer.uid, "namespace written");
        Ok(Response::with_warnings(show(&made), fields.warnings()))
    }

    /// Changes some of its notes, by a merge patch (RFC 7396).
    pub(super) async fn patch_namespace(&self, call: &Call, name: &str, data: &Data) -> Result<Response, Fault> {
        let mut fields = Fields::below(data, &["path"]);
        let change = match metadata(&mut fields)? {
            Some(notes) => MetadataChange::Merge(notes),
            None if data.get("custom_metadata").is_some_and(Value::is_null) => {
                MetadataChange::Replace(Default::default())
            }
            None => MetadataChange::Keep,
        };
        let patched = self.namespaces.patch(&call.namespace, name, change).await?;
        tracing::info!(namespace = %patched.path, id = patched.id, uid = call.caller.peer.uid, "namespace patched");
        Ok(Response::with_warnings(show(&patched), fields.warnings()))
    }

    /// Deletes one, with all that is in it. Answered once it does not exist any more; its records go after that.
    pub(super) async fn delete_namespace(&self, call: &Call, name: &str) -> Result<Response, Fault> {
        if let Some(namespace) = self.namespaces.delete(&call.namespace, name).await? {
            tracing::info!(%namespace, uid = call.caller.peer.uid, "namespace deleted: what is in it is being removed");
            self.deletions.notify_one();
        }
        Ok(Response::Empty)
    }

    /// Locks the namespace addressed, or one below it.
    pub(super) async fn lock_namespace(&self, call: &Call, below: &str) -> Result<Response, Fault> {
        let namespace = call.namespace.child(below);
        let unlock_key = self.namespaces.lock(&namespace).await?;
        tracing::warn!(%namespace, uid = call.caller.peer.uid, "namespace locked");
        let mut data = Data::new();
        data.insert("unlock_key".into(), unlock_key.expose_str().unwrap_or_default().into());
        Ok(Response::data(data))
    }

    pub(super) async fn unlock_namespace(&self, call: &Call, below: &str, data: &Data) -> Result<Response, Fault> {
        let mut fields = Fields::new(data);
        let given = fields.filled("unlock_key")?.map(|text| Secret::new(text.into_bytes()));
        if given.is_none() && !self.identity.token(&call.caller, &call.namespace)?.is_root() {
            return Err(Fault::invalid("unlock_key is missing: only a root token unlocks a namespace without it"));
        }
        let namespace = call.namespace.child(below);
        self.namespaces.unlock(&namespace, given).await?;
        tracing::warn!(%namespace, uid = call.caller.peer.uid, "namespace unlocked");
        Ok(Response::Empty)
    }

    /// Removes what deleted namespaces leave behind, some at once. What fails is logged, and is tried again at the next call.
    pub async fn end_deletions(&self) {
        let pending = futures_util::stream::iter(self.namespaces.removals());
        pending
            .for_each_concurrent(DELETIONS_AT_ONCE, |(namespace, mounts)| async move {
                if let Err(fault) = self.end_deletion(&namespace, mounts).await {
                    tracing::warn!(%namespace, %fault, "the removal of a deleted namespace was cut short: it is tried again");
                }
            })
            .await;
    }

    /// In this order: what is under way in it ends, its tokens end, its keys are let go of, its records go.
    async fn end_deletion(&self, namespace: &Namespace, mounts: Vec<Arc<Mount>>) -> Result<(), Fault> {
        (self.retire)(namespace.clone(), mounts).await?;
        self.quotas.end(namespace.as_str()).await?;
        self.identity.revoke_namespace(namespace).await?;
        self.identity.policies().settle(namespace).await?;
        self.identity.unix_roles().settle(namespace).await?;
        self.keys.end_namespace(namespace).await?;
        let (namespaces, own) = (self.namespaces.clone(), namespace.clone());
        let emptied = tokio::task::spawn_blocking(move || namespaces.empty(&own)).await;
        emptied.map_err(|_| Fault::Unavailable { what: "the daemon is going down".into() })??;
        // Again, for what was asked for before it was deleted and came late.
        self.identity.revoke_namespace(namespace).await?;
        self.identity.policies().forget(namespace);
        self.identity.unix_roles().forget(namespace);
        self.keys.reopen_namespace(namespace).await?;
        self.namespaces.end_removal(namespace).await
    }
}

fn show(namespace: &NamespaceInfo) -> Data {
    let mut data = Data::new();
    data.insert("id".into(), namespace.id.as_str().into());
    data.insert("path".into(), namespace.path.as_str().into());
    data.insert("custom_metadata".into(), json!(namespace.custom_metadata));
    data
}

/// What a request notes of a namespace.
type Notes = BTreeMap<String, Option<String>>;

/// The notes a request brings; those without a value are null.
fn metadata(fields: &mut Fields<'_>) -> Result<Option<Notes>, Fault> {
    if let Some(pairs) = pairs(fields.value("custom_metadata"))? {
        return Ok(Some(pairs));
    }
    let Some(given) = fields.object("custom_metadata")? else { return Ok(None) };
    let note = |(name, value): (&String, &Value)| match value {
        Value::String(text) => Ok((name.clone(), Some(text.clone()))),
        Value::Null => Ok((name.clone(), None)),
        _ => Err(not_text()),
    };
    given.iter().map(note).collect::<Result<_, _>>().map(Some)
}

/// Notes as command lines write them: `name=value`, or a list of such; `None` where they are written otherwise.
fn pairs(given: Option<&Value>) -> Result<Option<Notes>, Fault> {
    let pair = |pair: &Value| {
        let pair = pair.as_str().and_then(|pair| pair.split_once('='));
        let (name, value) = pair.ok_or_else(|| {
            Fault::invalid("custom_metadata: expected an object of texts, name=value, or a list of such pairs")
        })?;
        Ok((name.to_owned(), Some(value.to_owned())))
    };
    match given {
        Some(Value::Array(items)) => items.iter().map(pair).collect::<Result<_, _>>().map(Some),
        Some(text @ Value::String(_)) => pair(text).map(|pair| Some(Notes::from([pair]))),
        _ => Ok(None),
    }
}

fn not_text() -> Fault {
    Fault::invalid("custom_metadata values must be strings")
}
