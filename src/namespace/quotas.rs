//! Quotas: how many requests are taken below a path in a time, and how many at once.
//!
//! A quota lies on a namespace, on a mount, on a method of logins, or on any path below one, such as that of one Transit key; or,
//! where its path ends in `*`, on every path that begins so. Of the quotas of one kind whose paths a request's begins with, only the
//! one with the longest is asked. They are made in the root namespace, for all below it: no tenant makes its own bounds. Requests read
//! a snapshot; none is slowed where there are no quotas. This room must not know what is done below a path, nor which requests are
//! exempt.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::mounts::Namespaces;
use crate::model::{Fault, Namespace, Shards};
use crate::store::{Changes, RecordKey, Store, Versioned, Write};

/// Quotas of one kind.
const QUOTAS_MAX: usize = 100_000;
/// When to come again where all places are taken: nobody knows when one gets free.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// What stands at the end of a path for anything.
const GLOB: char = '*';
/// Where tokens come from in every namespace: paths that are no mount's, and have quotas all the same.
const TOKEN_PATHS: [&str; 2] = ["auth/token/", LOGINS];
/// Where who has no token gets one.
const LOGINS: &str = "auth/unix/";

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
    /// The path it lies on, from the root namespace on: empty for everything; else it ends in `/`, or in `*`.
    pub path: String,
    /// Of one on a namespace: whether it counts what is asked of the namespaces below too.
    pub is_inheritable: bool,
    /// How much it lets through.
    pub allowance: Allowance,
}

impl Versioned for Quota {
    const VERSION: u16 = 1;
}

/// The quotas. Cheap to clone.
#[derive(Clone)]
pub struct Quotas(Arc<Inner>);

struct Inner {
    store: Store,
    namespaces: Namespaces,
    changes: Changes,
    table: ArcSwap<Table>,
}

/// What is in force, for each kind. Cheap to clone, and to change then.
#[derive(Clone, Default)]
struct Table([Kind; 2]);

/// The quotas of one kind.
#[derive(Clone, Default)]
struct Kind {
    by_path: Shards<String, Arc<Enforced>>,
    by_name: Shards<String, Arc<Enforced>>,
    /// Those on every path that begins with theirs, which stands here without its `*`.
    beginnings: BTreeMap<String, Arc<Enforced>>,
    count: usize,
}

struct Enforced {
    name: String,
    quota: Quota,
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

impl Permit {
    /// Whether it takes a place that others wait for.
    pub fn takes_a_place(&self) -> bool {
        self.0.is_some()
    }
}

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

    /// Reads the quotas from the store.
    pub fn load(&self) -> Result<(), Fault> {
        let mut table = Table::default();
        for kind in QuotaKind::ALL {
            let records = self.0.store.read_all::<Quota>(&Namespace::root(), kind.collection(), None, QUOTAS_MAX)?;
            for (name, quota) in records {
                table.insert(kind, Enforced::new(name, quota));
            }
        }
        self.0.table.store(Arc::new(table));
        Ok(())
    }

    /// Whether there is any: if not, [`Quotas::admit`] lets everything through.
    pub fn is_empty(&self) -> bool {
        self.0.table.load().0.iter().all(|kind| kind.count == 0)
    }

    /// Lets a request for `path` in `namespace` through, or refuses it by the quotas that it falls under.
    ///
    /// # Errors
    ///
    /// [`Fault::QuotaExceeded`], and the kind of the quota.
    pub fn admit(&self, namespace: &Namespace, path: &str, now: Instant) -> Result<Permit, (QuotaKind, Fault)> {
        self.admit_by(namespace, path, now, |_| true)
    }

    /// The same for a login, which anyone may try: by the quotas alone that lie on logins of its namespace.
    ///
    /// # Errors
    ///
    /// As of [`Quotas::admit`].
    pub fn admit_login(&self, namespace: &Namespace, path: &str, now: Instant) -> Result<Permit, (QuotaKind, Fault)> {
        let logins = format!("{}{LOGINS}", namespace.as_str());
        self.admit_by(namespace, path, now, |quota| quota.path.starts_with(&logins))
    }

    fn admit_by(
        &self,
        namespace: &Namespace,
        path: &str,
        now: Instant,
        counts: impl Fn(&Quota) -> bool,
    ) -> Result<Permit, (QuotaKind, Fault)> {
        let table = self.0.table.load();
        let whole = format!("{}{path}/", namespace.as_str());
        let refused = |kind: QuotaKind, retry_after| {
            let what = format!("request path {path:?}: {} quota exceeded", kind.label().replace('-', " "));
            (kind, Fault::QuotaExceeded { what, retry_after })
        };
        // First what gives its place back by itself.
        let mut permit = Permit::default();
        let find = |kind| table.find(kind, namespace, &whole).filter(|found| counts(&found.quota));
        if let Some(found) = find(QuotaKind::Concurrency) {
            if !found.enter() {
                return Err(refused(QuotaKind::Concurrency, RETRY_AFTER));
            }
            permit = Permit(Some(Arc::clone(found)));
        }
        if let Some(found) = find(QuotaKind::RateLimit) {
            found.take(now).map_err(|retry_after| refused(QuotaKind::RateLimit, retry_after))?;
        }
        Ok(permit)
    }

    /// Their names, sorted.
    pub fn names(&self, kind: QuotaKind) -> Vec<String> {
        let mut names: Vec<String> = self.0.table.load().all(kind).map(|found| found.name.clone()).collect();
        names.sort_unstable();
        names
    }

    /// One of them.
    pub fn get(&self, kind: QuotaKind, name: &str) -> Option<Quota> {
        self.0.table.load().kind(kind).by_name.get(name).map(|found| found.quota.clone())
    }

    /// Makes a quota of what `change` makes of the one of its name, which begins to count anew.
    pub async fn put<F>(&self, kind: QuotaKind, name: String, change: F) -> Result<(), Fault>
    where
        F: FnOnce(Option<Quota>) -> Result<Quota, Fault> + Send + 'static,
    {
        let quotas = self.clone();
        let change = move || {
            let quota = change(quotas.get(kind, &name))?;
            quotas.0.put(kind, name, quota)
        };
        self.0.changes.run(&Namespace::root(), change).await
    }

    /// Removes a quota, if it is there.
    pub async fn delete(&self, kind: QuotaKind, name: String) -> Result<(), Fault> {
        let inner = Arc::clone(&self.0);
        let change = move || inner.remove(kind, vec![name]);
        self.0.changes.run(&Namespace::root(), change).await
    }

    /// Removes those on a path and below it: the namespace or the mount there is gone.
    pub async fn end(&self, path: &str) -> Result<(), Fault> {
        if self.is_empty() {
            return Ok(());
        }
        let (this, path) = (self.clone(), path.to_owned());
        self.0.changes.run(&Namespace::root(), move || this.end_now(&path)).await
    }

    /// The same at a start, when nobody changes any. Blocks for the disk.
    pub fn end_now(&self, path: &str) -> Result<(), Fault> {
        for kind in QuotaKind::ALL {
            let table = self.0.table.load();
            let on_it = table.all(kind).filter(|found| found.quota.path.starts_with(path));
            self.0.remove(kind, on_it.map(|found| found.name.clone()).collect())?;
        }
        Ok(())
    }
}

impl Inner {
    fn put(&self, kind: QuotaKind, name: String, mut quota: Quota) -> Result<(), Fault> {
        quota.path = self.known_path(&quota.path)?;
        let table = self.table.load();
        let known = table.kind(kind);
        if known.by_name.get(&name).is_none() && known.count >= QUOTAS_MAX {
            return Err(Fault::invalid(format!("there are {QUOTAS_MAX} {} quotas: delete one first", kind.label())));
        }
        if let Some(other) = known.by_path.get(&quota.path)
            && other.name != name
        {
            let what = format!("{} quota {:?} lies on this path already", kind.label(), other.name);
            return Err(Fault::invalid(what));
        }
        self.store.commit_now(vec![Write::put_record(key(kind, &name), &quota)?])?;
        self.publish(|table| {
            table.remove(kind, &name);
            table.insert(kind, Enforced::new(name, quota));
        });
        Ok(())
    }

    /// Part of a change.
    fn remove(&self, kind: QuotaKind, names: Vec<String>) -> Result<(), Fault> {
        for name in names {
            self.store.commit_now(vec![Write::Delete { key: key(kind, &name) }])?;
            self.publish(|table| table.remove(kind, &name));
        }
        Ok(())
    }

    /// The path in its one spelling; refused if no request that it would hold for can come.
    fn known_path(&self, path: &str) -> Result<String, Fault> {
        let refuse = |why: &str| Err(Fault::invalid(format!("invalid quota path {path:?}: {why}")));
        let plain = path.strip_prefix('/').unwrap_or(path);
        let plain = plain.strip_suffix('/').unwrap_or(plain);
        if plain.is_empty() {
            return Ok(String::new());
        }
        let (beginning, is_glob) = plain.strip_suffix(GLOB).map_or((plain, false), |beginning| (beginning, true));
        if beginning.contains(GLOB) {
            return refuse("`*` stands for anything at its end alone");
        }
        if beginning.contains('%') || beginning.chars().any(char::is_control) {
            return refuse(
                "write it as it is, without percent signs: a request's path is decoded before it is looked at",
            );
        }
        let parts = beginning.strip_suffix('/').filter(|_| is_glob).unwrap_or(beginning);
        if parts.split('/').any(|part| matches!(part, "" | "." | ".." | "+")) {
            return refuse("no request's path has an empty part, `.` or `..`, and `+` stands for no part here");
        }
        let whole = if is_glob { beginning.to_owned() } else { format!("{beginning}/") };
        let (namespace, rest) = self.namespaces.locate(&Namespace::root(), &whole);
        let is_there = self.namespaces.require(&namespace).is_ok();
        let is_of_tokens = is_there && TOKEN_PATHS.iter().any(|path| rest.starts_with(path));
        let is_namespace = rest.is_empty() && !is_glob;
        // Only what ends in `/` is a mount's, or below one's.
        let is_of_mount = || rest.contains('/') && self.namespaces.route(&namespace, rest).is_some();
        if !is_namespace && !is_of_tokens && !is_of_mount() {
            return refuse("there is no namespace and no mount");
        }
        Ok(if is_glob { format!("{beginning}{GLOB}") } else { whole })
    }

    fn publish(&self, change: impl FnOnce(&mut Table)) {
        let mut table = Table::clone(&self.table.load());
        change(&mut table);
        self.table.store(Arc::new(table));
    }
}

impl Table {
    fn kind(&self, kind: QuotaKind) -> &Kind {
        &self.0[kind as usize]
    }

    /// Puts one in, whose name and path no other has.
    fn insert(&mut self, kind: QuotaKind, enforced: Enforced) {
        let (kind, enforced) = (&mut self.0[kind as usize], Arc::new(enforced));
        if let Some(beginning) = enforced.quota.path.strip_suffix(GLOB) {
            kind.beginnings.insert(beginning.to_owned(), Arc::clone(&enforced));
        }
        kind.by_path.insert(enforced.quota.path.clone(), Arc::clone(&enforced));
        kind.by_name.insert(enforced.name.clone(), enforced);
        kind.count += 1;
    }

    fn remove(&mut self, kind: QuotaKind, name: &str) {
        let kind = &mut self.0[kind as usize];
        if let Some(enforced) = kind.by_name.remove(name) {
            if let Some(beginning) = enforced.quota.path.strip_suffix(GLOB) {
                kind.beginnings.remove(beginning);
            }
            kind.by_path.remove(&enforced.quota.path);
            kind.count = kind.count.saturating_sub(1);
        }
    }

    fn all(&self, kind: QuotaKind) -> impl Iterator<Item = &Arc<Enforced>> {
        self.kind(kind).by_name.values()
    }

    /// The one on the longest path that `whole`, a path of `namespace` that ends in `/`, begins with.
    fn find(&self, kind: QuotaKind, namespace: &Namespace, whole: &str) -> Option<&Arc<Enforced>> {
        let kind = self.kind(kind);
        let on_path = kind.on_path(namespace, whole);
        match kind.on_beginning(whole.strip_suffix('/').unwrap_or(whole)) {
            // As long without its `*`, it says more of the path.
            Some((length, found)) if on_path.is_none_or(|other| length >= other.quota.path.len()) => Some(found),
            _ => on_path,
        }
    }
}

impl Kind {
    fn on_path(&self, namespace: &Namespace, whole: &str) -> Option<&Arc<Enforced>> {
        if self.count == 0 {
            return None;
        }
        let ends = whole.rmatch_indices('/').map(|(slash, _)| slash + 1).chain(std::iter::once(0));
        // Those above the namespace lie on namespaces it is in.
        let counts =
            |found: &&Arc<Enforced>| found.quota.is_inheritable || found.quota.path.len() >= namespace.as_str().len();
        ends.filter_map(|end| self.by_path.get(whole.get(..end)?)).find(counts)
    }

    /// The one on the longest beginning of a path, and how long that is. In their order, it is the last one not above the path;
    /// or, where that is none of its beginnings, the last one not above what the two have in common, and so on.
    fn on_beginning(&self, path: &str) -> Option<(usize, &Arc<Enforced>)> {
        let mut common = path;
        loop {
            let (beginning, found) =
                self.beginnings.range::<str, _>((Bound::Unbounded, Bound::Included(common))).next_back()?;
            if path.starts_with(beginning.as_str()) {
                return Some((beginning.len(), found));
            }
            let shared = common.char_indices().zip(beginning.chars()).find(|((_, one), other)| one != other);
            common = shared.and_then(|((at, _), _)| common.get(..at))?;
        }
    }
}

impl Enforced {
    fn new(name: String, quota: Quota) -> Enforced {
        let left = match quota.allowance {
            Allowance::Rate { requests, .. } => requests.max(1.0),
            Allowance::AtOnce { .. } => 0.0,
        };
        let bucket = Mutex::new(Bucket { left, at: Instant::now(), blocked_until: None });
        Enforced { name, quota, bucket, running: AtomicUsize::new(0) }
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

fn key(kind: QuotaKind, name: &str) -> RecordKey {
    RecordKey::new(&Namespace::root(), kind.collection(), name)
}

#[cfg(test)]
#[path = "quotas_tests.rs"]
mod tests;
