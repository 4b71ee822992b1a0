//! The end of a namespace: first one commit from which on it does not exist for requests, then the removal of what was in it,
//! in as many steps as it takes. A start takes up what was cut short.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::lock;
use super::made;
use super::mounts::{NAMESPACES_MAX, Namespaces};
use super::removal;
use super::tree::Tree;
use crate::model::{Fault, Mount, Namespace};
use crate::store::{RecordKey, Store, Versioned, Write};

/// The collection, in the root namespace, of those that were deleted and have something left; a record's name is the
/// namespace's path.
const COLLECTION: &str = "namespaces-removed";

/// Namespaces whose removal is not over, each with the mounts it had.
pub(super) type Removals = HashMap<Namespace, Vec<Arc<Mount>>>;

#[derive(Serialize, Deserialize)]
struct RemovedNamespace {
    id: String,
}

impl Versioned for RemovedNamespace {
    const VERSION: u16 = 1;
}

impl Namespaces {
    /// Deletes the namespace `name` directly below `parent`, durably: from then on it does not exist for requests, and none
    /// of its name is made before [`Namespaces::end_removal`]. Answers which; `None` if there was none.
    ///
    /// # Errors
    ///
    /// [`Fault::InvalidRequest`] while the configuration makes it, or others lie in it.
    pub async fn delete(&self, parent: &Namespace, name: &str) -> Result<Option<Namespace>, Fault> {
        self.require(parent)?;
        let namespace = made::child(parent, name)?;
        let this = self.clone();
        self.0.changes.run(parent, move || this.delete_now(namespace)).await
    }

    fn delete_now(&self, namespace: Namespace) -> Result<Option<Namespace>, Fault> {
        let tree = self.0.tree.load_full();
        let Some((_, space)) = tree.get(namespace.as_str()) else { return Ok(None) };
        if space.about.configured {
            return Err(Fault::invalid(format!(
                "namespace {:?} is made by the configuration: take its stanza out, and those of namespaces that lie in it",
                namespace.as_str()
            )));
        }
        if tree.keys().any(|known| known.is_below(&namespace)) {
            let path = namespace.as_str();
            return Err(Fault::invalid(format!("cannot delete namespace ({path:?}) containing child namespaces")));
        }
        let removed = RemovedNamespace { id: space.about.id.clone() };
        let note = Write::put_record(key(&namespace), &removed)?;
        self.0.store.commit_now(vec![Write::Delete { key: made::key(&namespace) }, lock::removal(&namespace), note])?;
        // Before it is gone from the tree, so that nobody makes it anew in between.
        self.0.removals.lock().insert(namespace.clone(), space.mounts.values().cloned().collect());
        self.publish(|tree| tree.remove(&namespace));
        self.0.ids.lock().remove(&removed.id);
        Ok(Some(namespace))
    }

    /// Those whose removal is not over, each with the mounts it had, as far as this process has seen any.
    pub fn removals(&self) -> Vec<(Namespace, Vec<Arc<Mount>>)> {
        self.0.removals.lock().iter().map(|(namespace, mounts)| (namespace.clone(), mounts.clone())).collect()
    }

    /// Removes every record of a namespace that was deleted. Nobody may write any more. Blocks for the disk.
    pub fn empty(&self, namespace: &Namespace) -> Result<(), Fault> {
        empty(&self.0.store, namespace)
    }

    /// It is empty: it can be made anew.
    pub async fn end_removal(&self, namespace: &Namespace) -> Result<(), Fault> {
        let (this, own) = (self.clone(), namespace.clone());
        let end = move || {
            this.0.store.commit_now(vec![Write::Delete { key: key(&own) }])?;
            this.0.removals.lock().remove(&own);
            this.0.unserved.lock().remove(&own);
            Ok(())
        };
        self.0.changes.run(namespace, end).await
    }

    /// Namespaces that were deleted and that the configuration makes anew at this start, before their removal was over. What is kept of
    /// them in other namespaces, such as their tokens, is to end before anybody is served, and then [`Namespaces::end_remade`].
    pub fn remade(&self) -> Vec<Namespace> {
        self.0.remade.lock().clone()
    }

    /// Nothing is left of what such a namespace was. Blocks for the disk.
    pub fn end_remade(&self, namespace: &Namespace) -> Result<(), Fault> {
        self.0.store.commit_now(vec![Write::Delete { key: key(namespace) }])?;
        self.0.remade.lock().retain(|known| known != namespace);
        Ok(())
    }

    /// Refuses to make a namespace that is still being removed.
    pub(super) fn check_removed(&self, namespace: &Namespace) -> Result<(), Fault> {
        if !self.0.removals.lock().contains_key(namespace) {
            return Ok(());
        }
        let path = namespace.as_str();
        Err(Fault::invalid(format!("namespace {path:?} is being deleted: try again when that is over, in a moment")))
    }
}

/// Those whose removal was cut short; and those of them that the configuration makes anew, whose records are removed here and now,
/// before they are read.
pub(super) fn load(store: &Store, tree: &Tree) -> Result<(Removals, Vec<Namespace>), Fault> {
    let (mut removals, mut remade) = (Removals::new(), Vec::new());
    let noted = store.read_all::<RemovedNamespace>(&Namespace::root(), COLLECTION, None, NAMESPACES_MAX)?;
    for (path, RemovedNamespace { id }) in noted {
        let namespace = Namespace::from_path(&path);
        if tree.about(&namespace).is_some() {
            tracing::info!(%namespace, id, "a stanza makes a namespace that was deleted: what was in it goes first");
            empty(store, &namespace)?;
            remade.push(namespace);
        } else {
            removals.insert(namespace, Vec::new());
        }
    }
    Ok((removals, remade))
}

fn empty(store: &Store, namespace: &Namespace) -> Result<(), Fault> {
    if namespace.is_root() {
        return Err(Fault::internal("the root namespace cannot be removed"));
    }
    let records = removal::remove_collections(store, namespace, "")?;
    tracing::info!(%namespace, records, "the records of a deleted namespace are gone");
    Ok(())
}

fn key(namespace: &Namespace) -> RecordKey {
    RecordKey::new(&Namespace::root(), COLLECTION, namespace.as_str())
}
