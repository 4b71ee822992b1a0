//! The mount table.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use super::record::{COLLECTION, MountRecord};
use crate::model::{Fault, Mount, MountConfig, Namespace};
use crate::store::{RecordKey, Store, Write};

/// Mounts of one namespace.
const MOUNTS_MAX: usize = 10_000;
/// Longest mount path in bytes.
const PATH_BYTES: usize = 256;
/// First parts of paths that are not an engine's.
const RESERVED: [&str; 6] = ["sys", "auth", "audit", "identity", "cubbyhole", "root"];

/// The mounts of a namespace by path, each ending in `/`.
pub(crate) type MountTable = BTreeMap<String, Arc<Mount>>;

/// The namespaces and their mounts. Cheap to clone.
#[derive(Clone)]
pub struct Namespaces(Arc<Inner>);

struct Inner {
    store: Store,
    mounts: ArcSwap<MountTable>,
    /// Held while the table changes: one change at a time.
    changing: Mutex<()>,
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
}

impl Namespaces {
    /// The namespaces of this store. Nothing is read before [`Namespaces::load`].
    pub fn new(store: Store) -> Namespaces {
        Namespaces(Arc::new(Inner { store, mounts: ArcSwap::default(), changing: Mutex::default() }))
    }

    /// Reads the mount tables from the store. Called when it is open: at start, or after initialisation.
    pub fn load(&self) -> Result<(), Fault> {
        let root = Namespace::root();
        let records = self.0.store.read_all::<MountRecord>(&root, COLLECTION, None, MOUNTS_MAX)?;
        let mounts = records.into_iter().map(|(path, record)| (path.clone(), Arc::new(record.into_mount(&root, path))));
        self.0.mounts.store(Arc::new(mounts.collect()));
        Ok(())
    }

    /// Refuses a namespace that does not exist.
    pub fn require(&self, namespace: &Namespace) -> Result<(), Fault> {
        if namespace.is_root() {
            return Ok(());
        }
        Err(Fault::NotFound {
            what: format!("namespace {:?} does not exist: only the root namespace does", namespace.as_str()),
        })
    }

    /// Splits a request path into the namespace it addresses, below the header's, and the rest.
    pub fn locate<'p>(&self, header: Option<&str>, path: &'p str) -> (Namespace, &'p str) {
        (header.map_or_else(Namespace::root, Namespace::from_path), path)
    }

    /// The mount `path` lies in, and the rest of the path below it.
    pub fn route<'p>(&self, namespace: &Namespace, path: &'p str) -> Option<(Arc<Mount>, &'p str)> {
        if !namespace.is_root() {
            return None;
        }
        let mounts = self.0.mounts.load();
        // Mounts do not nest, so at most one of the path's prefixes is a mount.
        path.match_indices('/')
            .map(|(slash, _)| path.split_at(slash + 1))
            .chain(std::iter::once((path, "")))
            .find_map(|(prefix, rest)| mounts.get(prefix).map(|mount| (Arc::clone(mount), rest)))
    }

    /// The mount at exactly this path, with or without its final slash.
    pub fn mount(&self, namespace: &Namespace, path: &str) -> Option<Arc<Mount>> {
        let path = format!("{}/", path.trim_end_matches('/'));
        if namespace.is_root() { self.0.mounts.load().get(&path).cloned() } else { None }
    }

    /// Every mount of a namespace.
    pub fn mounts(&self, namespace: &Namespace) -> Vec<Arc<Mount>> {
        if namespace.is_root() { self.0.mounts.load().values().cloned().collect() } else { Vec::new() }
    }

    /// Enables an engine.
    pub async fn enable(&self, namespace: &Namespace, new: NewMount) -> Result<Arc<Mount>, Fault> {
        self.require(namespace)?;
        let path = valid_path(&new.path)?;
        check_ttls(&new.config)?;
        let _changing = self.0.changing.lock().await;
        let mounts = self.0.mounts.load_full();
        if let Some(taken) = mounts.keys().find(|taken| taken.starts_with(&path) || path.starts_with(taken.as_str())) {
            return Err(Fault::invalid(format!("path is already in use at {taken}")));
        }
        if mounts.len() >= MOUNTS_MAX {
            return Err(Fault::invalid(format!("the namespace has {MOUNTS_MAX} mounts, which is the most allowed")));
        }
        let uuid = uuid::Uuid::new_v4().to_string();
        let accessor = format!("{}_{}", new.engine, uuid.get(..8).unwrap_or(&uuid));
        let mount = Mount {
            namespace: namespace.clone(),
            path,
            engine: new.engine,
            uuid,
            accessor,
            description: new.description,
            options: new.options,
            config: new.config,
        };
        self.put(mount, Vec::new()).await
    }

    /// Changes settings of a mount.
    pub async fn tune(&self, namespace: &Namespace, path: &str, tune: Tune) -> Result<Arc<Mount>, Fault> {
        let _changing = self.0.changing.lock().await;
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
        check_ttls(&mount.config)?;
        self.put(mount, Vec::new()).await
    }

    /// Disables an engine; `removal` is what removes its records, in the same commit. Absent is fine.
    pub async fn disable(&self, mount: &Mount, removal: Vec<Write>) -> Result<(), Fault> {
        let _changing = self.0.changing.lock().await;
        let mut writes = removal;
        writes.push(Write::Delete { key: RecordKey::new(&mount.namespace, COLLECTION, &mount.path) });
        self.0.store.commit(writes).await?;
        let mut mounts = MountTable::clone(&self.0.mounts.load());
        mounts.retain(|_, other| other.uuid != mount.uuid);
        self.0.mounts.store(Arc::new(mounts));
        Ok(())
    }

    fn existing(&self, namespace: &Namespace, path: &str) -> Result<Mount, Fault> {
        let found = self.mount(namespace, path).map(|mount| Mount::clone(&mount));
        found.ok_or_else(|| Fault::invalid(format!("no mount at {}/: enable one first", path.trim_matches('/'))))
    }

    async fn put(&self, mount: Mount, mut writes: Vec<Write>) -> Result<Arc<Mount>, Fault> {
        let key = RecordKey::new(&mount.namespace, COLLECTION, &mount.path);
        writes.push(Write::put_record(key, &MountRecord::of(&mount))?);
        self.0.store.commit(writes).await?;
        let mount = Arc::new(mount);
        let mut mounts = MountTable::clone(&self.0.mounts.load());
        mounts.insert(mount.path.clone(), Arc::clone(&mount));
        self.0.mounts.store(Arc::new(mounts));
        Ok(mount)
    }
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
mod tests {
    use super::*;
    use crate::config::Storage;
    use crate::store::Ephemeral;
    use futures_util::FutureExt;

    async fn namespaces() -> Namespaces {
        let store = Store::open(&Storage::Memory, Box::new(Ephemeral::new().unwrap())).unwrap();
        store.initialize().unwrap();
        let namespaces = Namespaces::new(store);
        namespaces.load().unwrap();
        namespaces
    }

    fn pki(path: &str) -> NewMount {
        NewMount { path: path.into(), engine: "pki".into(), ..NewMount::default() }
    }

    #[tokio::test]
    async fn paths_lead_to_their_mount_and_mounts_do_not_nest() {
        let namespaces = namespaces().await;
        let root = Namespace::root();
        namespaces.enable(&root, pki("teams/ca/")).await.unwrap();
        let (mount, rest) = namespaces.route(&root, "teams/ca/sign/web").unwrap();
        assert_eq!((mount.path.as_str(), rest), ("teams/ca/", "sign/web"));
        assert!(namespaces.route(&root, "teams/other").is_none());
        for taken in ["teams/ca", "teams", "teams/ca/deeper"] {
            let refused = namespaces.enable(&root, pki(taken)).await.unwrap_err();
            assert_eq!(refused, Fault::invalid("path is already in use at teams/ca/"), "{taken}");
        }
        for bad in ["sys/x", "", "a//b", "../x", "a b", "x."] {
            assert!(namespaces.enable(&root, pki(bad)).await.is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn settings_survive_a_reload_and_a_disabled_mount_is_gone() {
        let namespaces = namespaces().await;
        let root = Namespace::root();
        namespaces.enable(&root, pki("pki")).await.unwrap();
        let tune = Tune {
            max_lease_ttl: Some(Duration::from_secs(3600)),
            allowed_managed_keys: Some(vec!["ca".into()]),
            ..Tune::default()
        };
        namespaces.tune(&root, "pki", tune).await.unwrap();
        let again = Namespaces::new(namespaces.0.store.clone());
        again.load().unwrap();
        let mount = again.mount(&root, "pki/").unwrap();
        assert_eq!(mount.config.allowed_managed_keys, ["ca"]);
        assert_eq!(mount.config.effective_default_ttl(), Duration::from_secs(3600));
        again.disable(&mount, Vec::new()).now_or_never();
        again.disable(&mount, Vec::new()).await.unwrap();
        assert!(again.mount(&root, "pki").is_none());
    }
}
