//! What a request follows: from a managed key to a lane and the members that have proven to hold the key.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::RwLock;

use super::job::{Job, Pending};
use super::lane::Lane;
use crate::backend::{KeySelector, KeyTemplate};
use crate::model::{Fault, KeyKind, KeyOperation, Namespace, PublicKey, Secret, Terms, TokenSelector};

/// Everything needed to find, prove and serve one managed key.
#[derive(Clone, Debug)]
pub struct KeySpec {
    /// The managed key's UUID.
    pub uuid: String,
    /// Its name, for messages.
    pub name: String,
    /// The namespace it is bound to.
    pub namespace: Namespace,
    /// The KMS library's name.
    pub library: String,
    /// The token.
    pub token: TokenSelector,
    /// The key's own PIN, if it has one.
    pub pin: Option<Secret>,
    /// How to find it.
    pub selector: KeySelector,
    /// What to generate where it is absent; `None` forbids it.
    pub generate: Option<KeyTemplate>,
    /// The public key recorded at first use; a key found must be this one.
    pub recorded: Option<PublicKey>,
    /// Most jobs of this key in flight at once; `None` is no cap.
    pub max_parallel: Option<usize>,
}

/// A key found and proven.
#[derive(Clone, Debug)]
pub struct PreparedKey {
    /// Its public half, to be recorded.
    pub public: PublicKey,
    /// Whether it was generated just now.
    pub generated: bool,
}

/// One member, for the life of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct MemberId(pub(super) u32);

/// One proof: this member holds the key under this handle, as long as its epoch lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) member: MemberId,
    /// Counts the member's logins; handles of an older epoch mean nothing.
    pub(super) epoch: u64,
    pub(super) handle: u64,
}

/// The members that have proven to hold a key; where there is none, why.
#[derive(Clone, Debug, Default)]
pub(super) struct KeySet {
    pub(super) holders: Vec<Holder>,
    pub(super) absence: Option<Fault>,
}

/// Every route there is, by the managed key's UUID.
#[derive(Default)]
pub(super) struct Routes(RwLock<HashMap<String, Arc<KeyRoute>>>);

impl Routes {
    /// The route of `spec`'s key; made if there is none, or if the one there is leads elsewhere.
    pub(super) fn get_or_make(&self, spec: &KeySpec, public: &PublicKey, lane: &Arc<Lane>) -> Arc<KeyRoute> {
        let mut routes = self.0.write();
        if let Some(route) = routes.get(&spec.uuid)
            && Arc::ptr_eq(&route.lane, lane)
            && route.kind == public.kind
        {
            return Arc::clone(route);
        }
        let route = Arc::new(KeyRoute::new(spec, public, Arc::clone(lane)));
        routes.insert(spec.uuid.clone(), Arc::clone(&route));
        route
    }

    pub(super) fn remove(&self, uuid: &str) {
        self.0.write().remove(uuid);
    }
}

/// The way of one managed key's jobs. Shared; follows the members' comings and goings by itself.
pub struct KeyRoute {
    name: String,
    kind: KeyKind,
    lane: Arc<Lane>,
    set: ArcSwap<KeySet>,
    max_parallel: AtomicUsize,
    running: AtomicUsize,
    /// Learnt device time of one operation; 0 until the first.
    expected_ns: AtomicU64,
}

impl KeyRoute {
    pub(super) fn new(spec: &KeySpec, public: &PublicKey, lane: Arc<Lane>) -> KeyRoute {
        let absence = Fault::KeyUnavailable { key: spec.name.clone(), reason: "its token is not ready yet".into() };
        KeyRoute {
            name: spec.name.clone(),
            kind: public.kind,
            lane,
            set: ArcSwap::from_pointee(KeySet { holders: Vec::new(), absence: Some(absence) }),
            max_parallel: AtomicUsize::new(spec.max_parallel.unwrap_or(usize::MAX)),
            running: AtomicUsize::new(0),
            expected_ns: AtomicU64::new(0),
        }
    }

    /// Queues one operation. Refuses at once where the lane is full, the deadline has passed, or no member holds the
    /// key; never waits.
    pub fn submit(self: &Arc<Self>, operation: KeyOperation, terms: &Terms) -> Result<Pending, Fault> {
        if let Some(fault) = self.absence() {
            return Err(fault);
        }
        let (job, pending) = Job::new(operation, Arc::clone(self), terms.clone());
        self.lane.push(job)?;
        Ok(pending)
    }

    /// Why no member holds the key now; `None` where one does.
    pub(super) fn absence(&self) -> Option<Fault> {
        let set = self.set.load();
        if set.holders.is_empty() { Some(set.absence.clone().unwrap_or_else(|| self.no_holder())) } else { None }
    }

    fn no_holder(&self) -> Fault {
        Fault::KeyUnavailable { key: self.name.clone(), reason: "no member has proven to hold it".into() }
    }

    /// Changes the key's cap.
    pub(super) fn cap(&self, max_parallel: Option<usize>) {
        self.max_parallel.store(max_parallel.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    pub(super) fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The handle `member` knows the key by, in this epoch.
    pub(super) fn handle(&self, member: MemberId, epoch: u64) -> Option<u64> {
        let set = self.set.load();
        set.holders.iter().find(|holder| holder.member == member && holder.epoch == epoch).map(|holder| holder.handle)
    }

    /// Records a proof. An older one of the same member is replaced.
    pub(super) fn add_holder(&self, holder: Holder) {
        self.set.rcu(|set| {
            let mut holders: Vec<Holder> = set.holders.iter().copied().filter(|h| h.member != holder.member).collect();
            holders.push(holder);
            KeySet { holders, absence: None }
        });
    }

    /// Takes `member` out of the key set, saying why, for the askers that come while the set is empty.
    pub(super) fn remove_holder(&self, member: MemberId, why: &Fault) {
        self.set.rcu(|set| {
            let holders: Vec<Holder> = set.holders.iter().copied().filter(|h| h.member != member).collect();
            KeySet { holders, absence: Some(why.clone()) }
        });
    }

    /// Takes one of the key's parallel places; false where `max_parallel` are taken.
    pub(super) fn begin(&self) -> bool {
        if self.running.fetch_add(1, Ordering::AcqRel) < self.max_parallel.load(Ordering::Relaxed) {
            return true;
        }
        self.running.fetch_sub(1, Ordering::AcqRel);
        false
    }

    /// Gives the place back. True where the key has a cap, so that somebody may be waiting for the place.
    pub(super) fn end(&self) -> bool {
        self.running.fetch_sub(1, Ordering::AcqRel);
        self.max_parallel.load(Ordering::Relaxed) != usize::MAX
    }

    /// Device time one operation is expected to take; `None` before the first.
    pub(super) fn expected(&self) -> Option<Duration> {
        match self.expected_ns.load(Ordering::Relaxed) {
            0 => None,
            ns => Some(Duration::from_nanos(ns)),
        }
    }

    /// Learns from one operation's device time: an exponential average over about eight.
    pub(super) fn learn(&self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
        let old = self.expected_ns.load(Ordering::Relaxed);
        let new = if old == 0 { took } else { old - old / 8 + took / 8 };
        self.expected_ns.store(new.max(1), Ordering::Relaxed);
    }
}

impl std::fmt::Debug for KeyRoute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyRoute").field("key", &self.name).field("kind", &self.kind).finish_non_exhaustive()
    }
}
