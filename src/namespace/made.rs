//! Namespaces that the API makes, and the notes that operators keep of them.

use std::collections::{BTreeMap, HashSet};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use super::mounts::{NAMESPACES_MAX, Namespaces};
use super::tree::{About, Tree};
use crate::model::{Fault, Namespace};
use crate::store::{RecordKey, Store, Versioned, Write};

/// The collection, in the root namespace, of those that the API made; a record's name is the namespace's path. All lie in
/// one place, so that a start reads them in one go.
const COLLECTION: &str = "namespaces";
/// The notes of one namespace: how many, and how long each may be in bytes. As Vault has them elsewhere.
const METADATA_MAX: usize = 64;
const METADATA_NAME_BYTES: usize = 128;
const METADATA_VALUE_BYTES: usize = 512;
/// Characters of an id: about 36 bits, of which none is given twice.
const ID_CHARS: usize = 6;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// What `sys/namespaces` tells of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceInfo {
    /// Where it is.
    pub path: Namespace,
    /// Short and unique.
    pub id: String,
    /// The operator's notes.
    pub custom_metadata: BTreeMap<String, String>,
}

/// A change of the notes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataChange {
    /// None.
    Keep,
    /// These are all there are.
    Replace(BTreeMap<String, String>),
    /// These are added or replaced, and those without a value go (RFC 7396).
    Merge(BTreeMap<String, Option<String>>),
}

#[derive(Serialize, Deserialize)]
struct NamespaceRecord {
    id: String,
    custom_metadata: BTreeMap<String, String>,
}

impl Versioned for NamespaceRecord {
    const VERSION: u16 = 1;
}

impl Namespaces {
    /// Makes the namespace `name` directly below `parent`, or changes the notes of the one there. One that a stanza makes is
    /// from then on the API's as well, and stays without its stanza.
    ///
    /// # Errors
    ///
    /// [`Fault::InvalidRequest`] also for a name that cannot be, a mount that lies there, and a limit reached.
    pub async fn make(&self, parent: &Namespace, name: &str, change: MetadataChange) -> Result<NamespaceInfo, Fault> {
        self.require(parent)?;
        let namespace = child(parent, name)?;
        let (this, above) = (self.clone(), parent.clone());
        self.0.changes.run(parent, move || this.make_now(&above, &namespace, change)).await
    }

    fn make_now(
        &self,
        parent: &Namespace,
        namespace: &Namespace,
        change: MetadataChange,
    ) -> Result<NamespaceInfo, Fault> {
        self.require(parent)?;
        let tree = self.0.tree.load_full();
        let about = match tree.about(namespace) {
            Some(about) => About::clone(about),
            None => {
                namespace.check().map_err(|wrong| Fault::invalid(format!("namespace {namespace}: {wrong}")))?;
                self.check_removed(namespace)?;
                self.check_room(&tree, parent, namespace)?;
                About { id: self.new_id()?, ..About::default() }
            }
        };
        self.keep(namespace, about, change)
    }

    /// Changes the notes of the namespace `name` directly below `parent`.
    ///
    /// # Errors
    ///
    /// [`Fault::NotFound`] if there is none.
    pub async fn patch(&self, parent: &Namespace, name: &str, change: MetadataChange) -> Result<NamespaceInfo, Fault> {
        self.require(parent)?;
        let namespace = child(parent, name)?;
        let this = self.clone();
        let patch = move || {
            let about = this.0.tree.load().about(&namespace).map(|about| About::clone(about));
            this.keep(&namespace, about.ok_or_else(Fault::absent)?, change)
        };
        self.0.changes.run(parent, patch).await
    }

    /// The id of a namespace; empty if there is no such namespace.
    pub fn id(&self, namespace: &Namespace) -> String {
        if namespace.is_root() {
            return "root".to_owned();
        }
        self.0.tree.load().about(namespace).map(|about| about.id.clone()).unwrap_or_default()
    }

    /// What is known of the namespace `name` directly below `parent`; `None` if there is none.
    pub fn look_up(&self, parent: &Namespace, name: &str) -> Result<Option<NamespaceInfo>, Fault> {
        let namespace = child(parent, name)?;
        Ok(self.0.tree.load().about(&namespace).map(|about| info(&namespace, about)))
    }

    /// The namespaces directly below one, sorted. Looks at every namespace there is: not for a thread that others wait for.
    pub fn children(&self, namespace: &Namespace) -> Vec<NamespaceInfo> {
        let tree = self.0.tree.load();
        let mut children: Vec<&Namespace> = tree.keys().filter(|known| known.is_right_below(namespace)).collect();
        children.sort_unstable();
        children.into_iter().filter_map(|child| Some(info(child, tree.about(child)?))).collect()
    }

    /// Stores and shows what is known of a namespace. Part of a change.
    fn keep(&self, namespace: &Namespace, about: About, change: MetadataChange) -> Result<NamespaceInfo, Fault> {
        let custom_metadata = change.apply(about.custom_metadata)?;
        let record = NamespaceRecord { id: about.id.clone(), custom_metadata: custom_metadata.clone() };
        self.0.store.commit_now(vec![Write::put_record(key(namespace), &record)?])?;
        let about = About { custom_metadata, ..about };
        self.0.ids.lock().insert(about.id.clone());
        let told = info(namespace, &about);
        self.publish(|tree| tree.describe(namespace, about));
        Ok(told)
    }

    /// Refuses one namespace more where a bound is reached, or where a mount lies.
    fn check_room(&self, tree: &Tree, parent: &Namespace, namespace: &Namespace) -> Result<(), Fault> {
        let name = namespace.as_str().strip_prefix(parent.as_str()).unwrap_or_default();
        let mut mounts = tree.mounts(parent).into_iter().flat_map(|mounts| mounts.keys());
        if let Some(taken) = mounts.find(|mount| mount.starts_with(name)) {
            return Err(Fault::invalid(format!("path is already in use at {taken}")));
        }
        let refused = |what: String| Err(Fault::invalid(format!("{what}: delete one, or have the operator raise it")));
        let most = self.0.limits.namespaces;
        if tree.len() > most {
            return refused(format!("there are {most} namespaces, as limits {{ namespaces_max }} allows"));
        }
        let most = self.0.limits.below_one;
        let Some(tenant) = namespace.ancestors().into_iter().nth(1) else { return Ok(()) };
        if tree.keys().filter(|known| known.is_below(&tenant)).count() >= most {
            return refused(format!(
                "namespace {tenant} has {most} below it, as limits {{ namespaces_per_namespace }} allows"
            ));
        }
        Ok(())
    }

    fn new_id(&self) -> Result<String, Fault> {
        let ids = self.0.ids.lock();
        let random = SystemRandom::new();
        let mut bytes = [0; 4 * ID_CHARS];
        loop {
            random.fill(&mut bytes).map_err(|_| Fault::internal("the system's random generator fails"))?;
            if let Some(id) = id_of(&bytes)
                && !ids.contains(&id)
            {
                return Ok(id);
            }
        }
    }
}

impl MetadataChange {
    fn apply(self, mut notes: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Fault> {
        match self {
            MetadataChange::Keep => return Ok(notes),
            MetadataChange::Replace(others) => notes = others,
            MetadataChange::Merge(changes) => {
                for (name, value) in changes {
                    match value {
                        Some(value) => drop(notes.insert(name, value)),
                        None => drop(notes.remove(&name)),
                    }
                }
            }
        }
        let fits = |(name, value): (&String, &String)| {
            (1..=METADATA_NAME_BYTES).contains(&name.len()) && value.len() <= METADATA_VALUE_BYTES
        };
        if notes.len() > METADATA_MAX || !notes.iter().all(fits) {
            return Err(Fault::invalid(format!(
                "custom_metadata has at most {METADATA_MAX} pairs, each of a name of 1 to {METADATA_NAME_BYTES} bytes and a \
                 value of at most {METADATA_VALUE_BYTES}"
            )));
        }
        Ok(notes)
    }
}

/// The change that makes a namespace whose id is its number, for [`measure`](super::measure).
pub(super) fn numbered(namespace: &Namespace, number: usize) -> Result<Write, Fault> {
    let id = format!("{number:0width$}", width = ID_CHARS);
    Write::put_record(key(namespace), &NamespaceRecord { id, custom_metadata: BTreeMap::new() })
}

/// Adds those of the store to the `tree`, and those they lie in; gives every one its id. Answers the ids.
pub(super) fn load(store: &Store, tree: &mut Tree) -> Result<HashSet<String>, Fault> {
    for (path, record) in store.read_all::<NamespaceRecord>(&Namespace::root(), COLLECTION, None, NAMESPACES_MAX)? {
        let namespace = Namespace::from_path(&path);
        for above in namespace.ancestors() {
            if tree.about(&above).is_none() {
                tree.describe(&above, About::default());
            }
        }
        let configured = tree.about(&namespace).is_some_and(|known| known.configured);
        tree.describe(&namespace, About { id: record.id, custom_metadata: record.custom_metadata, configured });
    }
    let mut ids = HashSet::new();
    for namespace in tree.all() {
        let Some(about) = tree.about(&namespace).map(|about| About::clone(about)) else { continue };
        let id = if about.id.is_empty() { fixed_id(store, &namespace)? } else { about.id.clone() };
        ids.insert(id.clone());
        tree.describe(&namespace, About { id, ..about });
    }
    Ok(ids)
}

/// The id of a namespace that has no record: of the same path always the same.
fn fixed_id(store: &Store, namespace: &Namespace) -> Result<String, Fault> {
    if namespace.is_root() {
        return Ok("root".to_owned());
    }
    let hash = store.keyed_hash("namespace-id", namespace.as_str().as_bytes())?;
    id_of(&hash).ok_or_else(|| Fault::internal("a hash gives no id"))
}

/// Six of its bytes, each as a letter or digit; `None` if too few are fit for it.
fn id_of(bytes: &[u8]) -> Option<String> {
    // Bytes from 248 on would make some characters likelier than others.
    let fit = bytes.iter().filter(|byte| **byte < 248).take(ID_CHARS);
    let id: String = fit.map(|byte| char::from(BASE62[usize::from(*byte) % BASE62.len()])).collect();
    (id.len() == ID_CHARS).then_some(id)
}

fn info(namespace: &Namespace, about: &About) -> NamespaceInfo {
    NamespaceInfo { path: namespace.clone(), id: about.id.clone(), custom_metadata: about.custom_metadata.clone() }
}

pub(super) fn key(namespace: &Namespace) -> RecordKey {
    RecordKey::new(&Namespace::root(), COLLECTION, namespace.as_str())
}

/// The namespace called `name` right below `parent`.
pub(super) fn child(parent: &Namespace, name: &str) -> Result<Namespace, Fault> {
    let name = name.trim_end_matches('/');
    if name.is_empty() || name.contains('/') {
        return Err(Fault::invalid(format!(
            "name must not contain /: ask for {name:?} in the namespace that it lies in (X-Vault-Namespace)"
        )));
    }
    Ok(parent.child(name))
}

#[cfg(test)]
#[path = "made_tests.rs"]
mod tests;
