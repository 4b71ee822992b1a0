//! The namespaces, and the mounts of each.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::deletion::{self, Removals};
use super::lock;
use super::made;
use super::record::{COLLECTION, MountRecord};
use super::removal;
use super::tree::{MountTable, Tree};
use crate::config::Limits;
use crate::model::{Fault, Listing, Mount, MountConfig, Namespace};
use crate::store::{Changes, RecordKey, Store, Write};

/// Namespaces of one store: more than there may ever be.
pub(super) const NAMESPACES_MAX: usize = 200_000;
/// Mounts of one namespace, whatever the limit was when they were made.
const MOUNTS_MAX: usize = 100_000;
/// Longest mount path in bytes.
const PATH_BYTES: usize = 256;
/// Largest stored record of a mount, in bytes: every mount is kept in memory.
const RECORD_BYTES: usize = 256 * 1024;
/// First parts of paths that are not an engine's.
const RESERVED: [&str; 6] = ["sys", "auth", "audit", "identity", "cubbyhole", "root"];

/// The namespaces and their mounts. Cheap to clone.
#[derive(Clone)]
pub struct Namespaces(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) store: Store,
    /// Those of the configuration.
    configured: Vec<Namespace>,
    pub(super) limits: Bounds,
    pub(super) tree: ArcSwap<Tree>,
    pub(super) changes: Changes,
    /// The ids that are taken.
    pub(super) ids: Mutex<HashSet<String>>,
    /// Those that were deleted and are not gone yet.
    pub(super) removals: Mutex<Removals>,
    /// The mounts of namespaces that neither the configuration names nor the API made.
    pub(super) unserved: Mutex<HashMap<Namespace, Vec<Arc<Mount>>>>,
    /// Those of them that the configuration made anew at this start.
    pub(super) remade: Mutex<Vec<Namespace>>,
}

/// How many there may be.
pub(super) struct Bounds {
    pub(super) namespaces: usize,
    pub(super) below_one: usize,
    mounts: usize,
}

/// An engine to be enabled.
#[derive(Clone, Debug, Default)]
pub struct NewMount {
    /// Where, with or without slashes at its ends.
    pub path: String,
    /// The engine's type.
    pub engine: String,
    /// Free text.
    pub description: String,
    /// Free settings of the engine.
    pub options: BTreeMap<String, String>,
    /// Tunable settings.
    pub config: MountConfig,
}

/// Changes to a mount; `None` leaves a setting as it is.
#[derive(Clone, Debug, Default)]
pub struct Tune {
    /// Free text.
    pub description: Option<String>,
    /// Free settings of the engine; replaces them all.
    pub options: Option<BTreeMap<String, String>>,
    /// Default lifetime; zero means the system's.
    pub default_lease_ttl: Option<Duration>,
    /// Longest lifetime; zero means the system's.
    pub max_lease_ttl: Option<Duration>,
    /// The managed keys the mount may use; replaces the list.
    pub allowed_managed_keys: Option<Vec<String>>,
    /// The request headers that reach the engine; replaces the list.
    pub passthrough_request_headers: Option<Vec<String>>,
    /// The headers that its answers may carry; replaces the list.
    pub allowed_response_headers: Option<Vec<String>>,
    /// Members of requests whose values are recorded as they are; replaces the list.
    pub audit_non_hmac_request_keys: Option<Vec<String>>,
    /// Members of answers, likewise.
    pub audit_non_hmac_response_keys: Option<Vec<String>>,
    /// Who is shown it in the list of mounts.
    pub listing: Option<Listing>,
}

impl Namespaces {
    /// The root namespace, those `configured`, and those they lie in, with the mounts that this store has of them. Nothing
    /// is read before [`Namespaces::load`].
    pub fn new(store: Store, configured: &[Namespace], limits: &Limits) -> Namespaces {
        Namespaces(Arc::new(Inner {
            store,
            configured: configured.to_vec(),
            limits: Bounds {
                namespaces: limits.namespaces_max,
                below_one: limits.namespaces_per_namespace,
                mounts: limits.mounts_per_namespace,
            },
            tree: ArcSwap::from_pointee(Tree::of(configured)),
            changes: Changes::default(),
            ids: Mutex::default(),
            removals: Mutex::default(),
            unserved: Mutex::default(),
            remade: Mutex::default(),
        }))
    }

    /// Reads the namespaces that the API made, and the mount tables, from the store. Called when it is open: at start, or after initialisation. What is left of
    /// disabled mounts is removed; blocks for the disk meanwhile.
    ///
    /// # Errors
    ///
    /// Also if a mount lies where the configuration makes a namespace: the requests for it would go astray.
    pub fn load(&self) -> Result<(), Fault> {
        let mut tree = Tree::of(&self.0.configured);
        let (removals, remade) = deletion::load(&self.0.store, &tree)?;
        let ids = made::load(&self.0.store, &mut tree)?;
        lock::load(&self.0.store)?.iter().for_each(|namespace| tree.lock(namespace));
        // Most of many may be empty.
        let stored = self.0.store.namespaces(NAMESPACES_MAX)?;
        for namespace in stored.iter().filter(|known| tree.about(known).is_some()).cloned().collect::<Vec<_>>() {
            removal::sweep(&self.0.store, &namespace)?;
            let mounts = stored_mounts(&self.0.store, &namespace)?;
            for path in mounts.keys() {
                if let Some(taken) = tree.namespace_at(&namespace, path) {
                    return Err(Fault::invalid(format!(
                        "the configuration makes namespace {:?} where mount {path:?} of namespace {namespace} is: take its \
                         stanza out and disable the mount, or call the namespace otherwise",
                        taken.as_str()
                    )));
                }
            }
            tree.replace(&namespace, mounts);
        }
        let unserved = |known: &&Namespace| tree.about(known).is_none() && !removals.contains_key(*known);
        let mut away = HashMap::new();
        for namespace in stored.iter().filter(unserved) {
            away.insert(namespace.clone(), stored_mounts(&self.0.store, namespace)?.into_values().collect());
            tracing::warn!(
                %namespace,
                "the store has records of a namespace that neither the configuration names nor the API made: it is not \
                 served; its records stay, and are there again with its stanza"
            );
        }
        *self.0.ids.lock() = ids;
        *self.0.removals.lock() = removals;
        *self.0.unserved.lock() = away;
        *self.0.remade.lock() = remade;
        self.0.tree.store(Arc::new(tree));
        Ok(())
    }

    /// Every namespace that is served, the root first; those above come before those below.
    pub fn all(&self) -> Vec<Namespace> {
        self.0.tree.load().all()
    }

    /// Refuses a namespace that does not exist.
    pub fn require(&self, namespace: &Namespace) -> Result<(), Fault> {
        exists(&self.0.tree.load(), namespace)
    }

    /// Splits a request's path, asked below the namespace `below` (that of the header, or of the connection), into the
    /// namespace it addresses and the rest: the deepest namespace that it begins with.
    pub fn locate<'p>(&self, below: &Namespace, path: &'p str) -> (Namespace, &'p str) {
        self.0.tree.load().locate(below, path)
    }

    /// The mount `path` lies in, and the rest of the path below it.
    pub fn route<'p>(&self, namespace: &Namespace, path: &'p str) -> Option<(Arc<Mount>, &'p str)> {
        let tree = self.0.tree.load();
        let mounts = tree.mounts(namespace)?;
        // Mounts do not nest, so at most one of the path's prefixes is a mount.
        path.match_indices('/')
            .map(|(slash, _)| path.split_at(slash + 1))
            .chain(std::iter::once((path, "")))
            .find_map(|(prefix, rest)| mounts.get(prefix).map(|mount| (Arc::clone(mount), rest)))
    }

    /// The mount at exactly this path, with or without its final slash.
    pub fn mount(&self, namespace: &Namespace, path: &str) -> Option<Arc<Mount>> {
        self.lend_mount(namespace, path, Arc::clone)
    }

    /// What `ask` makes of that mount, which is lent to it.
    pub fn lend_mount<R>(&self, namespace: &Namespace, path: &str, ask: impl FnOnce(&Arc<Mount>) -> R) -> Option<R> {
        let path = match path.ends_with('/') && !path.ends_with("//") {
            true => Cow::Borrowed(path),
            false => Cow::Owned([path.trim_end_matches('/'), "/"].concat()),
        };
        self.0.tree.load().mounts(namespace)?.get(&*path).map(ask)
    }

    /// Every mount of a namespace.
    pub fn mounts(&self, namespace: &Namespace) -> Vec<Arc<Mount>> {
        let tree = self.0.tree.load();
        tree.mounts(namespace).map(|mounts| mounts.values().cloned().collect()).unwrap_or_default()
    }

    /// Every mount of a namespace, and those that one which is not served would have with its stanza.
    pub fn known_mounts(&self, namespace: &Namespace) -> Vec<Arc<Mount>> {
        let mut known = self.mounts(namespace);
        known.extend(self.0.unserved.lock().get(namespace).into_iter().flatten().cloned());
        known
    }

    /// Enables an engine.
    pub async fn enable(&self, namespace: &Namespace, new: NewMount) -> Result<Arc<Mount>, Fault> {
        self.require(namespace)?;
        let path = valid_path(&new.path)?;
        check_ttls(&new.config)?;
        let (this, own) = (self.clone(), namespace.clone());
        self.0.changes.run(namespace, move || this.enable_now(own, path, new)).await
    }

    fn enable_now(&self, namespace: Namespace, path: String, new: NewMount) -> Result<Arc<Mount>, Fault> {
        // It may be gone since.
        self.require(&namespace)?;
        let tree = self.0.tree.load();
        if let Some(taken) = tree.namespace_at(&namespace, &path) {
            let taken = taken.as_str();
            return Err(Fault::invalid(format!("path {path:?} begins as namespace {taken:?} does: choose another")));
        }
        let mounts = tree.mounts(&namespace).cloned().unwrap_or_default();
        if let Some(taken) = mounts.keys().find(|taken| taken.starts_with(&path) || path.starts_with(taken.as_str())) {
            return Err(Fault::invalid(format!("path is already in use at {taken}")));
        }
        let most = self.0.limits.mounts;
        if tree.mounts_of_tenant(&namespace) >= most {
            return Err(Fault::invalid(format!(
                "namespace {} and those below it have {most} mounts together, as limits {{ mounts_per_namespace }} allows: \
                 disable one, or have the operator raise it",
                namespace.tenant()
            )));
        }
        let uuid = uuid::Uuid::new_v4().to_string();
        let accessor = format!("{}_{}", new.engine, uuid.get(..8).unwrap_or(&uuid));
        self.put(Mount {
            namespace,
            path,
            engine: new.engine,
            uuid,
            accessor,
            description: new.description,
            options: new.options,
            config: new.config,
        })
    }

    /// Changes settings of a mount.
    pub async fn tune(&self, namespace: &Namespace, path: &str, tune: Tune) -> Result<Arc<Mount>, Fault> {
        self.require(namespace)?;
        let (this, own, path) = (self.clone(), namespace.clone(), path.to_owned());
        self.0.changes.run(namespace, move || this.tune_now(&own, &path, tune)).await
    }

    fn tune_now(&self, namespace: &Namespace, path: &str, tune: Tune) -> Result<Arc<Mount>, Fault> {
        let mut mount = self.existing(namespace, path)?;
        if let Some(description) = tune.description {
            mount.description = description;
        }
        if let Some(options) = tune.options {
            mount.options = options;
        }
        let config = &mut mount.config;
        config.default_lease_ttl = tune.default_lease_ttl.unwrap_or(config.default_lease_ttl);
        config.max_lease_ttl = tune.max_lease_ttl.unwrap_or(config.max_lease_ttl);
        if let Some(keys) = tune.allowed_managed_keys {
            config.allowed_managed_keys = keys;
        }
        if let Some(headers) = tune.passthrough_request_headers {
            config.passthrough_request_headers = headers;
        }
        if let Some(headers) = tune.allowed_response_headers {
            config.allowed_response_headers = headers;
        }
        if let Some(keys) = tune.audit_non_hmac_request_keys {
            config.audit_non_hmac_request_keys = keys;
        }
        if let Some(keys) = tune.audit_non_hmac_response_keys {
            config.audit_non_hmac_response_keys = keys;
        }
        config.listing = tune.listing.unwrap_or(config.listing);
        check_ttls(&mount.config)?;
        self.put(mount)
    }

    /// Disables an engine and answers the mount it was; `None` if there was none.
    ///
    /// First the mount goes, durably and at once. Then `removal` is asked for the changes that remove its records, which
    /// may be more than one commit takes. What a crash or a request still under way leaves behind is removed at the next
    /// start.
    pub async fn disable<R>(&self, namespace: &Namespace, path: &str, removal: R) -> Result<Option<Arc<Mount>>, Fault>
    where
        R: FnOnce(&Mount) -> Result<Vec<Write>, Fault> + Send + 'static,
    {
        self.require(namespace)?;
        let (this, own, path) = (self.clone(), namespace.clone(), path.to_owned());
        self.0.changes.run(namespace, move || this.disable_now(&own, &path, removal)).await
    }

    fn disable_now(
        &self,
        namespace: &Namespace,
        path: &str,
        removal: impl FnOnce(&Mount) -> Result<Vec<Write>, Fault>,
    ) -> Result<Option<Arc<Mount>>, Fault> {
        let Some(mount) = self.mount(namespace, path) else { return Ok(None) };
        let gone = Write::Delete { key: RecordKey::new(namespace, COLLECTION, &mount.path) };
        self.0.store.commit_now(vec![gone, removal::note(&mount)?])?;
        self.publish_mounts(namespace, |mounts| drop(mounts.remove(&mount.path)));
        if let Err(fault) = removal(&mount).and_then(|writes| removal::commit(&self.0.store, writes)) {
            tracing::warn!(
                %namespace, path = mount.path, %fault,
                "engine disabled, but some of its records are left: the next start removes them"
            );
        }
        Ok(Some(mount))
    }

    fn existing(&self, namespace: &Namespace, path: &str) -> Result<Mount, Fault> {
        let found = self.mount(namespace, path).map(|mount| Mount::clone(&mount));
        found.ok_or_else(|| Fault::invalid(format!("no mount at {}/: enable one first", path.trim_matches('/'))))
    }

    fn put(&self, mount: Mount) -> Result<Arc<Mount>, Fault> {
        let key = RecordKey::new(&mount.namespace, COLLECTION, &mount.path);
        let write = Write::put_record(key, &MountRecord::of(&mount))?;
        if let Write::Put { value, .. } = &write
            && value.len() > RECORD_BYTES
        {
            let what = format!("the settings of mount {:?}: at most {RECORD_BYTES} bytes are stored", mount.path);
            return Err(Fault::TooLarge { what });
        }
        self.0.store.commit_now(vec![write])?;
        let mount = Arc::new(mount);
        self.publish_mounts(&mount.namespace, |mounts| drop(mounts.insert(mount.path.clone(), Arc::clone(&mount))));
        Ok(mount)
    }

    /// Shows a change of one table to the requests to come. Part of a change that is stored already.
    fn publish_mounts(&self, namespace: &Namespace, change: impl FnOnce(&mut MountTable)) {
        self.publish(|tree| {
            if let Some(mounts) = tree.mounts(namespace) {
                let mut mounts = MountTable::clone(mounts);
                change(&mut mounts);
                tree.replace(namespace, mounts);
            }
        });
    }

    /// Shows a change to the requests to come. Part of a change that is stored already.
    pub(super) fn publish(&self, change: impl FnOnce(&mut Tree)) {
        let mut tree = Tree::clone(&self.0.tree.load());
        change(&mut tree);
        self.0.tree.store(Arc::new(tree));
    }
}

fn stored_mounts(store: &Store, namespace: &Namespace) -> Result<MountTable, Fault> {
    let records = store.read_all::<MountRecord>(namespace, COLLECTION, None, MOUNTS_MAX)?;
    let mount = |(path, record): (String, MountRecord)| (path.clone(), Arc::new(record.into_mount(namespace, path)));
    Ok(records.into_iter().map(mount).collect())
}

/// Refuses a namespace that this tree does not have.
pub(super) fn exists(tree: &Tree, namespace: &Namespace) -> Result<(), Fault> {
    if tree.mounts(namespace).is_some() {
        return Ok(());
    }
    let what = format!(
        "namespace {:?} does not exist: make it at sys/namespaces, or by a stanza of the configuration",
        namespace.as_str()
    );
    Err(Fault::NotFound { what })
}

fn check_ttls(config: &MountConfig) -> Result<(), Fault> {
    if config.default_lease_ttl > config.effective_max_ttl() {
        return Err(Fault::invalid("default_lease_ttl is longer than max_lease_ttl"));
    }
    Ok(())
}

/// A mount path in its one spelling: parts of letters, digits, `-`, `_` and `.`, ending in `/`.
fn valid_path(path: &str) -> Result<String, Fault> {
    let path = path.trim_matches('/');
    let well_formed = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && !part.ends_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    if path.is_empty() || path.len() > PATH_BYTES || !path.split('/').all(well_formed) {
        return Err(Fault::invalid(format!(
            "mount path {path:?} must be parts of letters, digits, '-', '_' and '.', not beginning or ending in '.', at most {PATH_BYTES} bytes"
        )));
    }
    if path.split('/').next().is_some_and(|first| RESERVED.contains(&first)) {
        return Err(Fault::invalid(format!("path {path:?} is reserved")));
    }
    Ok(format!("{path}/"))
}

#[cfg(test)]
#[path = "mounts_tests.rs"]
mod tests;
