//! Quotas: how many requests are taken below a path in a time, and how many at once.
//!
//! A quota lies on a namespace, on a mount, or on any path below a mount, such as that of one Transit key. Of the quotas of
//! one kind whose paths a request's begins with, only the one with the longest is asked. Requests read a snapshot; none is
//! slowed where there are no quotas. This room must not know what is done below a path, nor which requests are exempt.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::mounts::Namespaces;
use crate::model::{Fault, Namespace};
use crate::store::{Changes, RecordKey, Store, Versioned, Write};

/// Quotas of one kind that one namespace may make.
const QUOTAS_MAX: usize = 1000;
/// When to come again where all places are taken: nobody knows when one gets free.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What a quota counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QuotaKind {
    /// Requests in a time.
    RateLimit,
    /// Requests at once.
    Concurrency,
}

impl QuotaKind {
    const ALL: [QuotaKind; 2] = [QuotaKind::RateLimit, QuotaKind::Concurrency];

    /// Its name in paths, answers and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            QuotaKind::RateLimit => "rate-limit",
            QuotaKind::Concurrency => "concurrency",
        }
    }

    const fn collection(self) -> &'static str {
        match self {
            QuotaKind::RateLimit => "quotas/rate-limit",
            QuotaKind::Concurrency => "quotas/concurrency",
        }
    }
}

/// How much a quota lets through.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Allowance {
    /// So many requests, in an even stream or in a burst of as many.
    Rate {
        /// Requests in each interval; above zero.
        requests: f64,
        /// The interval in milliseconds; above zero.
        interval_ms: u64,
        /// How long nothing is let through after one was refused, in milliseconds.
        block_ms: u64,
    },
    /// So many requests at once.
    AtOnce {
        /// Requests; above zero.
        requests: usize,
    },
}

/// A quota as it is made and kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quota {
    /// The path it lies on, in the namespace that made it: empty for that namespace itself; else it ends in `/`.
    pub path: String,
    /// Of one on a namespace: whether it counts what is asked of the namespaces below too.
    pub is_inheritable: bool,
    /// How much it lets through.
    pub allowance: Allowance,
}

impl Versioned for Quota {
    const VERSION: u16 = 1;
}

/// The quotas of every namespace. Cheap to clone.
#[derive(Clone)]
pub struct Quotas(Arc<Inner>);

struct Inner {
    store: Store,
    namespaces: Namespaces,
    changes: Changes,
    table: ArcSwap<Table>,
}

/// What is in force, for each kind by the whole path: the namespace's and that below it.
#[derive(Clone, Default)]
struct Table([HashMap<String, Arc<Enforced>, RandomState>; 2]);

struct Enforced {
    name: String,
    /// The namespace that made it.
    owner: Namespace,
    quota: Quota,
    /// The namespace it lies on, if it lies on one as a whole.
    on: Option<Namespace>,
    bucket: Mutex<Bucket>,
    /// Requests under way.
    running: AtomicUsize,
}

/// The requests that may come at once.
struct Bucket {
    /// None below one, and no more than the rate.
    left: f64,
    at: Instant,
    blocked_until: Option<Instant>,
}

/// What lets a request through. It takes its places as long as it lives.
#[derive(Default)]
pub struct Permit(Option<Arc<Enforced>>);

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(enforced) = &self.0 {
            enforced.running.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Quotas {
    /// The quotas of this store, on the paths of these namespaces. Nothing is read before [`Quotas::load`].
    pub fn new(store: Store, namespaces: Namespaces) -> Quotas {
        Quotas(Arc::new(Inner { store, namespaces, changes: Changes::default(), table: ArcSwap::default() }))
    }

    /// Reads the quotas of every namespace from the store.
    pub fn load(&self) -> Result<(), Fault> {
        let mut table = Table::default();
        for namespace in self.0.namespaces.all() {
            for kind in QuotaKind::ALL {
                let records = self.0.store.read_all::<Quota>(&namespace, kind.collection(), None, QUOTAS_MAX)?;
                for (name, quota) in records {
                    table.insert(kind, self.0.enforced(&namespace, name, quota));
                }
            }
        }
        self.0.table.store(Arc::new(table));
        Ok(())
    }

    /// Whether there is any: if not, [`Quotas::admit`] lets everything through.
    pub fn is_empty(&self) -> bool {
        self.0.table.load().0.iter().all(HashMap::is_empty)
    }

    /// Lets a request for `path` in `namespace` through, or refuses it by the quotas that it falls under.
    ///
    /// # Errors
    ///
    /// [`Fault::QuotaExceeded`], and the kind of the quota.
    pub fn admit(&self, namespace: &Namespace, path: &str, now: Instant) -> Result<Permit, (QuotaKind, Fault)> {
        let table = self.0.table.load();
        let whole = format!("{}{path}/", namespace.as_str());
        let refused = |kind: QuotaKind, retry_after| {
            let what = format!("request path {path:?}: {} quota exceeded", kind.label().replace('-', " "));
            (kind, Fault::QuotaExceeded { what, retry_after })
        };
        // First what gives its place back by itself.
        let mut permit = Permit::default();
        if let Some(found) = table.find(QuotaKind::Concurrency, namespace, &whole) {
            if !found.enter() {
                return Err(refused(QuotaKind::Concurrency, RETRY_AFTER));
            }
            permit = Permit(Some(Arc::clone(found)));
        }
        if let Some(found) = table.find(QuotaKind::RateLimit, namespace, &whole) {
            found.take(now).map_err(|retry_after| refused(QuotaKind::RateLimit, retry_after))?;
        }
        Ok(permit)
    }

    /// The names of the quotas that a namespace made, sorted.
    pub fn names(&self, kind: QuotaKind, namespace: &Namespace) -> Vec<String> {
        self.0.table.load().of(kind, namespace).into_keys().collect()
    }

    /// One of them.
    pub fn get(&self, kind: QuotaKind, namespace: &Namespace, name: &str) -> Option<Quota> {
        self.0.table.load().of(kind, namespace).get(name).map(|found| found.quota.clone())
    }

    /// Makes a quota, or replaces the one of its name, which begins to count anew.
    pub async fn put(&self, kind: QuotaKind, namespace: &Namespace, name: String, quota: Quota) -> Result<(), Fault> {
        let (inner, owner) = (Arc::clone(&self.0), namespace.clone());
        self.0.changes.run(namespace, move || inner.put(kind, &owner, name, quota)).await
    }

    /// Removes a quota, if it is there.
    pub async fn delete(&self, kind: QuotaKind, namespace: &Namespace, name: String) -> Result<(), Fault> {
        let (inner, owner) = (Arc::clone(&self.0), namespace.clone());
        let change = move || {
            inner.store.commit_now(vec![Write::Delete { key: RecordKey::new(&owner, kind.collection(), &name) }])?;
            inner.publish(|table| table.remove(kind, &owner, &name));
            Ok(())
        };
        self.0.changes.run(namespace, change).await
    }

    /// Forgets those that a namespace made: it and its records are gone.
    pub fn forget(&self, namespace: &Namespace) {
        self.0.publish(|table| {
            for quotas in &mut table.0 {
                quotas.retain(|_, enforced| enforced.owner != *namespace);
            }
        });
    }
}

impl Inner {
    fn put(&self, kind: QuotaKind, owner: &Namespace, name: String, mut quota: Quota) -> Result<(), Fault> {
        quota.path = self.known_path(owner, &quota.path)?;
        let enforced = self.enforced(owner, name.clone(), quota);
        let table = self.table.load();
        let own = table.of(kind, owner);
        if own.len() >= QUOTAS_MAX && !own.contains_key(&name) {
            return Err(Fault::invalid(format!("there are {QUOTAS_MAX} {} quotas: delete one first", kind.label())));
        }
        if let Some(other) = table.map(kind).get(&enforced.whole())
            && (other.owner != *owner || other.name != name)
        {
            // Those above and below make theirs on one path: only one can hold there.
            let whose =
                if other.owner == *owner { format!("{:?}", other.name) } else { "one of another namespace".into() };
            let what = format!("a {} quota lies on this path already: {whose}", kind.label());
            return Err(Fault::invalid(what));
        }
        let key = RecordKey::new(owner, kind.collection(), &name);
        self.store.commit_now(vec![Write::put_record(key, &enforced.quota)?])?;
        self.publish(|table| {
            table.remove(kind, owner, &name);
            table.insert(kind, enforced);
        });
        Ok(())
    }

    /// The path in its one spelling; refused if it is neither a namespace nor on a mount.
    fn known_path(&self, owner: &Namespace, path: &str) -> Result<String, Fault> {
        let path = path.trim_matches('/');
        if path.is_empty() {
            return Ok(String::new());
        }
        let path = format!("{path}/");
        let (namespace, rest) = self.namespaces.locate(owner, &path);
        if !rest.is_empty() && self.namespaces.route(&namespace, rest).is_none() {
            return Err(Fault::invalid(format!("invalid quota path {path:?}: there is no namespace and no mount")));
        }
        Ok(path)
    }

    fn enforced(&self, owner: &Namespace, name: String, quota: Quota) -> Enforced {
        let (namespace, rest) = self.namespaces.locate(owner, &quota.path);
        let on = rest.is_empty().then_some(namespace);
        let left = match quota.allowance {
            Allowance::Rate { requests, .. } => requests.max(1.0),
            Allowance::AtOnce { .. } => 0.0,
        };
        let bucket = Mutex::new(Bucket { left, at: Instant::now(), blocked_until: None });
        Enforced { name, owner: owner.clone(), quota, on, bucket, running: AtomicUsize::new(0) }
    }

    fn publish(&self, change: impl FnOnce(&mut Table)) {
        let mut table = Table::clone(&self.table.load());
        change(&mut table);
        self.table.store(Arc::new(table));
    }
}

impl Table {
    fn map(&self, kind: QuotaKind) -> &HashMap<String, Arc<Enforced>, RandomState> {
        &self.0[kind as usize]
    }

    fn insert(&mut self, kind: QuotaKind, enforced: Enforced) {
        self.0[kind as usize].insert(enforced.whole(), Arc::new(enforced));
    }

    fn remove(&mut self, kind: QuotaKind, owner: &Namespace, name: &str) {
        self.0[kind as usize].retain(|_, enforced| enforced.owner != *owner || enforced.name != name);
    }

    fn of(&self, kind: QuotaKind, owner: &Namespace) -> BTreeMap<String, &Arc<Enforced>> {
        let own = self.map(kind).values().filter(|enforced| enforced.owner == *owner);
        own.map(|enforced| (enforced.name.clone(), enforced)).collect()
    }

    /// The one on the longest path that `whole`, a path of `namespace` that ends in `/`, begins with.
    fn find(&self, kind: QuotaKind, namespace: &Namespace, whole: &str) -> Option<&Arc<Enforced>> {
        let quotas = self.map(kind);
        if quotas.is_empty() {
            return None;
        }
        let ends = whole.rmatch_indices('/').map(|(slash, _)| slash + 1).chain(std::iter::once(0));
        let counts = |enforced: &&Arc<Enforced>| {
            enforced.quota.is_inheritable || enforced.on.as_ref().is_none_or(|on| on == namespace)
        };
        ends.filter_map(|end| quotas.get(whole.get(..end)?)).find(counts)
    }
}

impl Enforced {
    /// The namespace's path and that below it.
    fn whole(&self) -> String {
        format!("{}{}", self.owner.as_str(), self.quota.path)
    }

    /// Takes a place, if there is one.
    fn enter(&self) -> bool {
        let Allowance::AtOnce { requests } = self.quota.allowance else { return true };
        let one_more = |running: usize| (running < requests).then_some(running + 1);
        self.running.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_ok()
    }

    /// Takes a request off the rate; or tells when there is one to take.
    fn take(&self, now: Instant) -> Result<(), Duration> {
        let Allowance::Rate { requests, interval_ms, block_ms } = self.quota.allowance else { return Ok(()) };
        let mut bucket = self.bucket.lock();
        if let Some(until) = bucket.blocked_until.filter(|until| *until > now) {
            return Err(until.duration_since(now));
        }
        let per_ms = requests / interval_ms.max(1) as f64;
        let elapsed = now.saturating_duration_since(bucket.at).as_secs_f64() * 1000.0;
        bucket.left = (bucket.left + elapsed * per_ms).min(requests.max(1.0));
        bucket.at = bucket.at.max(now);
        if bucket.left >= 1.0 {
            bucket.left -= 1.0;
            return Ok(());
        }
        let wait = Duration::try_from_secs_f64((1.0 - bucket.left) / per_ms / 1000.0).unwrap_or(Duration::MAX);
        if block_ms == 0 {
            return Err(wait);
        }
        let block = Duration::from_millis(block_ms);
        bucket.blocked_until = now.checked_add(block);
        Err(block.max(wait))
    }
}

#[cfg(test)]
#[path = "quotas_tests.rs"]
mod tests;
