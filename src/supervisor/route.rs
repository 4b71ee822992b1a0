//! What a request follows: from a managed key to a lane and the members that have proven to hold the key.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;
use parking_lot::{Mutex, RwLock};

use super::job::{Job, Pending};
use super::lane::{Lane, nanoseconds};
use super::pool::Pool;
use super::seats::Place;
use super::together;
use crate::backend::{KeySelector, KeyTemplate};
use crate::config::Pin;
use crate::model::schedule::TenantId;
use crate::model::{Fault, KeyIdentity, KeyOperation, Namespace, Terms, TokenSelector};
use crate::telemetry::TenantMetrics;

/// Device time an operation is expected to take before any was seen: 1 ms.
const EXPECTED_FIRST_NS: u64 = 1_000_000;

/// Everything needed to find, prove and serve one managed key.
#[derive(Clone, Debug)]
pub struct KeySpec {
    /// The managed key's UUID.
    pub uuid: String,
    /// Its name, for messages.
    pub name: String,
    /// The namespace it is bound to.
    pub namespace: Namespace,
    /// The name of the KMS library, or of the pool.
    pub library: String,
    /// The token; `None` where `library` names a pool.
    pub token: Option<TokenSelector>,
    /// The key's own PIN, if it has one.
    pub pin: Option<Pin>,
    /// How to find it.
    pub selector: KeySelector,
    /// What to generate where it is absent; `None` forbids it.
    pub generate: Option<KeyTemplate>,
    /// Tokens, as others name them, where its label is theirs: it is not generated there.
    pub taken: Vec<TokenSelector>,
    /// What was recorded at first use; a key found must be this one.
    pub recorded: Option<KeyIdentity>,
    /// Most jobs of this key in flight at once; `None` is no cap.
    pub max_parallel: Option<usize>,
}

/// A key found and proven.
#[derive(Clone, Debug)]
pub struct PreparedKey {
    /// What it is known again by, to be recorded.
    pub identity: KeyIdentity,
    /// Whether it was generated just now.
    pub generated: bool,
    /// Where it was found: of a pool, on every member that answered in time.
    pub at: Vec<FoundAt>,
}

/// Where a key was found, and by what it can be named there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundAt {
    /// The `kms_library`, in lower case.
    pub library: String,
    /// The token, as it was named.
    pub token: TokenSelector,
    /// The token's serial number.
    pub serial: String,
    /// The token's label.
    pub token_label: String,
    /// The key's `CKA_LABEL`.
    pub label: String,
    /// The key's `CKA_ID`.
    pub id: Vec<u8>,
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
    /// Members that may hold it in a moment: those that are being asked whether they do, and those that did and are being
    /// brought up anew. Jobs wait for them.
    pub(super) expected: Vec<MemberId>,
    pub(super) absence: Option<Fault>,
}

/// Every route there is, by the managed key's UUID.
#[derive(Default)]
pub(super) struct Routes(RwLock<HashMap<String, Arc<KeyRoute>>>);

impl Routes {
    /// The route of `spec`'s key; made if there is none, or if the one there is leads elsewhere.
    pub(super) fn get_or_make(&self, spec: &KeySpec, identity: &KeyIdentity, pool: &Pool) -> Arc<KeyRoute> {
        let mut routes = self.0.write();
        if let Some(route) = routes.get(&spec.uuid)
            && Arc::ptr_eq(&route.lane, &pool.lane)
            && route.identity == *identity
        {
            return Arc::clone(route);
        }
        let route = Arc::new(KeyRoute::new(spec, identity, pool));
        routes.insert(spec.uuid.clone(), Arc::clone(&route));
        route
    }

    /// The route of `spec`'s key to `pool`: the one there `was`, or another that it leads to from now on. Jobs wait there for
    /// the members that are `proving`, if any of those before held the key.
    pub(super) fn lead_to(
        &self,
        spec: &KeySpec,
        was: &Arc<KeyRoute>,
        pool: &Pool,
        proving: impl Iterator<Item = MemberId>,
    ) -> Arc<KeyRoute> {
        if was.leads_to(&pool.lane) {
            return Arc::clone(was);
        }
        let route = self.get_or_make(spec, &was.identity, pool);
        if was.absence().is_none() {
            proving.for_each(|member| route.expect_holder(member));
        }
        // A route leads elsewhere once: whoever had it before is on the way already.
        let _ = was.moved.set(Arc::clone(&route));
        route
    }

    /// Serves a key no longer: what waits for it is told so.
    pub(super) fn remove(&self, uuid: &str) {
        let removed = self.0.write().remove(uuid);
        if let Some(route) = removed {
            route.nobody_holds(Fault::NotFound { what: format!("no managed key found with uuid {uuid}") });
            route.lane.sweep();
        }
    }

    /// Serves no key any more.
    pub(super) fn clear(&self) {
        let removed = std::mem::take(&mut *self.0.write());
        for route in removed.values() {
            route.nobody_holds(Fault::Sealed);
            route.lane.sweep();
        }
    }
}

/// Routes made so far, in all lanes.
static ROUTES: AtomicUsize = AtomicUsize::new(0);

/// The way of one managed key's jobs. Shared; follows the members' comings and goings by itself.
pub struct KeyRoute {
    /// Its own, and never another's: what is remembered of a route does not pass to one made later.
    number: usize,
    uuid: String,
    name: String,
    identity: KeyIdentity,
    lane: Arc<Lane>,
    tenant: TenantId,
    /// The namespace, and what its share weighs.
    namespace: Namespace,
    weight: u32,
    metrics: Arc<TenantMetrics>,
    set: ArcSwap<KeySet>,
    /// The key's route since its token was found to have another name, by which it is served.
    moved: OnceLock<Arc<KeyRoute>>,
    max_parallel: AtomicUsize,
    /// In cache lines of its own, as whoever queues a job reads the rest.
    served: CachePadded<Served>,
    /// When its service last did nothing for it, for want of quota.
    throttled: Mutex<Option<Instant>>,
}

/// What sessions change with each job of a key.
#[derive(Default)]
struct Served {
    running: AtomicUsize,
    /// Learnt device time of one operation of each kind; 0 until the first.
    expected_ns: [AtomicU64; KeyOperation::KINDS],
}

impl KeyRoute {
    pub(super) fn new(spec: &KeySpec, identity: &KeyIdentity, pool: &Pool) -> KeyRoute {
        let absence = Fault::KeyUnavailable { key: spec.name.clone(), reason: "its token is not ready yet".into() };
        KeyRoute {
            number: ROUTES.fetch_add(1, Ordering::Relaxed),
            uuid: spec.uuid.clone(),
            name: spec.name.clone(),
            identity: identity.clone(),
            lane: Arc::clone(&pool.lane),
            tenant: pool.lane.tenant(&spec.namespace),
            namespace: spec.namespace.clone(),
            weight: pool.lane.weight(&spec.namespace),
            metrics: pool.tenant_metrics(&spec.namespace),
            set: ArcSwap::from_pointee(KeySet { absence: Some(absence), ..KeySet::default() }),
            moved: OnceLock::new(),
            max_parallel: AtomicUsize::new(spec.max_parallel.unwrap_or(usize::MAX)),
            served: CachePadded::default(),
            throttled: Mutex::new(None),
        }
    }

    /// Its service did nothing for it, for want of quota.
    pub(super) fn note_throttled(&self) {
        *self.throttled.lock() = Some(Instant::now());
    }

    /// Its service failed it: that is what keeps it now.
    pub(super) fn note_failed(&self) {
        *self.throttled.lock() = None;
    }

    /// Whether want of quota kept it since then, and it has not failed it since.
    pub(super) fn was_throttled_since(&self, begun: Instant) -> bool {
        self.throttled.lock().is_some_and(|last| last >= begun)
    }

    /// Queues one operation. Refuses at once where the lane is full, the deadline has passed, or no member holds the
    /// key, nor may in a moment; never waits. Within [`together`](super::together()), a lane's refusal comes as the answer.
    pub fn submit(self: &Arc<Self>, operation: KeyOperation, terms: Terms) -> Result<Pending, Fault> {
        if let Some(now) = self.moved.get() {
            return now.submit(operation, terms);
        }
        if let Some(fault) = self.absence() {
            return Err(fault);
        }
        let (job, pending) = Job::new(operation, Arc::clone(self), terms);
        if let Some(job) = together::gather(job) {
            self.lane.push(job)?;
        }
        Ok(pending)
    }

    /// Why no member holds the key now; `None` where one does, or will in a moment.
    pub(super) fn absence(&self) -> Option<Fault> {
        let set = self.set.load();
        if set.holders.is_empty() && set.expected.is_empty() {
            return Some(set.absence.clone().unwrap_or_else(|| self.no_holder()));
        }
        None
    }

    fn no_holder(&self) -> Fault {
        Fault::KeyUnavailable { key: self.name.clone(), reason: "no member has proven to hold it".into() }
    }

    /// The route of the key's jobs now.
    pub(super) fn latest(self: &Arc<Self>) -> Arc<KeyRoute> {
        let mut route = self;
        while let Some(now) = route.moved.get() {
            route = now;
        }
        Arc::clone(route)
    }

    /// Whether its jobs wait in this lane.
    pub(super) fn leads_to(&self, lane: &Arc<Lane>) -> bool {
        Arc::ptr_eq(&self.lane, lane)
    }

    /// Changes the key's cap.
    pub(super) fn cap(&self, max_parallel: Option<usize>) {
        self.max_parallel.store(max_parallel.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// Which of all routes it is.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// The lane its jobs go through.
    pub(super) fn lane(&self) -> &Arc<Lane> {
        &self.lane
    }

    /// The managed key's UUID.
    pub(super) fn uuid(&self) -> &str {
        &self.uuid
    }

    /// The managed key's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What every handle of it must be known by.
    pub(super) fn identity(&self) -> &KeyIdentity {
        &self.identity
    }

    /// Its namespace's place in the lane.
    pub(super) fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Whose it is, and what that weighs.
    pub(super) fn party(&self) -> (&Namespace, u32) {
        (&self.namespace, self.weight)
    }

    /// Where its namespace's jobs are counted.
    pub(super) fn metrics(&self) -> &TenantMetrics {
        &self.metrics
    }

    /// The handle a member knows the key by, in this epoch.
    pub(super) fn handle(&self, place: Place) -> Option<u64> {
        let set = self.set.load();
        let held = set.holders.iter().find(|holder| holder.member == place.member && holder.epoch == place.epoch);
        held.map(|holder| holder.handle)
    }

    /// Whether a member other than this one holds the key, and is `well`.
    pub(super) fn has_another(&self, member: MemberId, well: impl Fn(MemberId) -> bool) -> bool {
        self.set.load().holders.iter().any(|holder| holder.member != member && well(holder.member))
    }

    /// Which members hold it.
    pub(super) fn members(&self) -> Vec<MemberId> {
        self.set.load().holders.iter().map(|holder| holder.member).collect()
    }

    /// How many such there are.
    pub(super) fn others(&self, member: MemberId, well: impl Fn(MemberId) -> bool) -> usize {
        let is_other = |holder: &&Holder| holder.member != member && well(holder.member);
        self.set.load().holders.iter().filter(is_other).count()
    }

    /// Whether jobs wait for this member to hold it.
    pub(super) fn awaits(&self, member: MemberId) -> bool {
        self.set.load().expected.contains(&member)
    }

    /// The members that hold the key.
    pub(super) fn holding(self: &Arc<Self>) -> Vec<MemberId> {
        self.latest().set.load().holders.iter().map(|holder| holder.member).collect()
    }

    /// How many members hold the key.
    pub(super) fn holders(&self) -> usize {
        self.set.load().holders.len()
    }

    /// Records a proof. An older one of the same member is replaced.
    pub(super) fn add_holder(&self, holder: Holder) {
        self.set.rcu(|set| {
            let mut set = set.without(holder.member);
            set.holders.push(holder);
            KeySet { absence: None, ..set }
        });
    }

    /// Has jobs wait for the proof of `member`, which is under way.
    pub(super) fn expect_holder(&self, member: MemberId) {
        self.set.rcu(|set| {
            let mut set = KeySet::clone(set);
            if !set.expected.contains(&member) && set.holders.iter().all(|holder| holder.member != member) {
                set.expected.push(member);
            }
            set
        });
    }

    /// Has jobs wait for no others than these any more.
    pub(super) fn expect_only(&self, which: impl Fn(MemberId) -> bool) {
        if self.set.load().expected.iter().all(|member| which(*member)) {
            return;
        }
        self.set.rcu(|set| {
            let mut set = KeySet::clone(set);
            set.expected.retain(|member| which(*member));
            set
        });
    }

    /// Takes `member` out of the key set for a moment: it is being brought up anew, and jobs wait for it.
    pub(super) fn suspend_holder(&self, member: MemberId) {
        self.suspend(|holder| holder.member == member);
    }

    /// The same by a session that met its end, unless the key was proven anew in a later epoch meanwhile: that proof
    /// stands, and nobody would make another.
    pub(super) fn suspend_holder_at(&self, place: Place) {
        self.suspend(|holder| holder.member == place.member && holder.epoch == place.epoch);
    }

    fn suspend(&self, which: impl Fn(&Holder) -> bool) {
        self.set.rcu(|set| {
            let Some(Holder { member, .. }) = set.holders.iter().copied().find(&which) else {
                return KeySet::clone(set);
            };
            let mut set = set.without(member);
            set.expected.push(member);
            set
        });
    }

    /// Takes `member` out of the key set, saying why, for the askers that come while the set is empty.
    pub(super) fn remove_holder(&self, member: MemberId, why: &Fault) {
        self.set.rcu(|set| KeySet { absence: Some(why.clone()), ..set.without(member) });
    }

    /// Takes `member`, which has left for good, out of the key set. It is the reason for the askers only where there is none.
    pub(super) fn leave_holder(&self, member: MemberId, why: &Fault) {
        self.set.rcu(|set| {
            let absence = set.absence.clone().or_else(|| Some(why.clone()));
            KeySet { absence, ..set.without(member) }
        });
    }

    /// The same, and tells whoever waits.
    pub(super) fn nobody_holds_any_more(&self, why: Fault) {
        self.nobody_holds(why);
        self.lane.sweep();
    }

    /// Says why nobody holds it.
    pub(super) fn nobody_holds(&self, why: Fault) {
        self.set.store(Arc::new(KeySet { absence: Some(why), ..KeySet::default() }));
    }

    /// Whether the key's cap leaves room for one more job.
    pub(super) fn has_room(&self) -> bool {
        self.served.running.load(Ordering::Acquire) < self.max_parallel.load(Ordering::Relaxed)
    }

    /// Takes one of the key's parallel places. Only the lane does so, under its lock, where it found room.
    pub(super) fn begin(&self) {
        self.served.running.fetch_add(1, Ordering::AcqRel);
        self.lane.note_begun();
    }

    /// Gives the place back. True where the key has a cap, so that somebody may be waiting for the place.
    pub(super) fn end(&self) -> bool {
        self.served.running.fetch_sub(1, Ordering::AcqRel);
        self.lane.note_ended();
        self.max_parallel.load(Ordering::Relaxed) != usize::MAX
    }

    /// Device time that operations of this one's kind took, on average; zero before the first.
    pub(super) fn learnt(&self, operation: &KeyOperation) -> Duration {
        Duration::from_nanos(self.served.expected_ns[operation.index()].load(Ordering::Relaxed))
    }

    /// Device time this operation is expected to take, in nanoseconds.
    pub(super) fn expected_ns(&self, operation: &KeyOperation) -> u64 {
        match self.served.expected_ns[operation.index()].load(Ordering::Relaxed) {
            0 => EXPECTED_FIRST_NS,
            known => known,
        }
    }

    /// Learns from operations of this one's kind, so many, which took so long on average: an exponential average over about eight.
    pub(super) fn learn(&self, operation: &KeyOperation, took: Duration, operations: u32) {
        let expected = &self.served.expected_ns[operation.index()];
        let (took, old) = (nanoseconds(took), expected.load(Ordering::Relaxed));
        let share = u64::from(operations.min(8));
        let new = if old == 0 { took } else { old - old / 8 * share + took / 8 * share };
        expected.store(new.max(1), Ordering::Relaxed);
    }
}

impl KeySet {
    /// The set without one member.
    fn without(&self, member: MemberId) -> KeySet {
        let mut set = self.clone();
        set.holders.retain(|holder| holder.member != member);
        set.expected.retain(|expected| *expected != member);
        set
    }
}

impl std::fmt::Debug for KeyRoute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyRoute").field("key", &self.name).field("kind", &self.identity.kind()).finish_non_exhaustive()
    }
}
