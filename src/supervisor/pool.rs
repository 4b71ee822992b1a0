//! Groups of members behind one lane. Every member is in exactly one pool: alone, with the other workers of its token, where
//! no configured pool has it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

use super::lane::{Lane, LaneLimits, Wake};
use super::route::MemberId;
use super::supervisor::Library;
use crate::config::{KmsPool, Limits, NamespaceSettings, PoolMember, or_cores};
use crate::model::{Fault, MemberState, MemberStatus, Namespace, Secret, TokenSelector};
use crate::telemetry::{MemberLabels, MemberMetrics, Telemetry, TenantMetrics};

/// Pools there may be, with those of one token.
const POOLS_MAX: usize = 4096;
/// The name of the pool that has no members.
pub(super) const NOWHERE: &str = "none";

/// A lane, and who counts what is queued in it.
pub(super) struct Pool {
    pub(super) name: String,
    pub(super) lane: Arc<Lane>,
    telemetry: Telemetry,
    tenants: RwLock<HashMap<Namespace, Arc<TenantMetrics>>>,
}

impl Pool {
    pub(super) fn new(name: &str, lane: Arc<Lane>, telemetry: Telemetry) -> Pool {
        Pool { name: name.to_owned(), lane, telemetry, tenants: RwLock::default() }
    }

    /// Where a namespace's jobs here are counted.
    pub(super) fn tenant_metrics(&self, namespace: &Namespace) -> Arc<TenantMetrics> {
        if let Some(metrics) = self.tenants.read().get(namespace) {
            return Arc::clone(metrics);
        }
        let made = || Arc::new(self.telemetry.tenant(&self.name, &namespace.to_string()));
        Arc::clone(self.tenants.write().entry(namespace.clone()).or_insert_with(made))
    }

    /// Shows how much is queued.
    pub(super) fn observe(&self) {
        for (namespace, queued) in self.lane.depths() {
            self.tenant_metrics(&namespace).depth(queued);
        }
    }
}

/// One slot of an HSM, in this process or in one worker process: its fixed facts, and what it last said of itself.
pub(super) struct Member {
    pub(super) id: MemberId,
    pub(super) pool: Arc<Pool>,
    /// In lower case.
    pub(super) library: String,
    pub(super) token: TokenSelector,
    /// Which worker process, from 1; 0 is this process.
    pub(super) worker: u32,
    /// The token's PIN, if a stanza gives it.
    pub(super) pin: Option<Secret>,
    /// Sessions wanted, if a stanza says.
    pub(super) sessions: Option<usize>,
    pub(super) metrics: Arc<MemberMetrics>,
    status: RwLock<MemberStatus>,
    /// Keys whose proof is under way.
    proving: AtomicUsize,
}

impl Member {
    /// Notes how many keys are being proven.
    pub(super) fn note_proving(&self, keys: usize) {
        self.proving.store(keys, Ordering::Relaxed);
    }

    /// Whether the outcome of its start, and of its keys' first proofs, is known.
    pub(super) fn is_settled(&self) -> bool {
        let status = self.status.read();
        match status.state {
            MemberState::Probing => false,
            MemberState::Warming if status.sessions == 0 => false,
            MemberState::Warming | MemberState::Serving | MemberState::Degraded => {
                self.proving.load(Ordering::Relaxed) == 0
            }
            _ => true,
        }
    }

    /// Changes what is seen of it from outside.
    pub(super) fn publish(&self, change: impl FnOnce(&mut MemberStatus)) {
        change(&mut self.status.write());
    }

    pub(super) fn status(&self) -> MemberStatus {
        self.status.read().clone()
    }
}

/// What of a library matters to its members.
struct LibraryFacts {
    pin: Option<Secret>,
    sessions: Option<usize>,
    workers: u32,
    isolated: bool,
    wake: Wake,
}

/// A pool, and those of its members that may hold a key.
pub(super) type Home = (Arc<Pool>, Vec<Arc<Member>>);

/// Every pool and member there is. Those of configured pools are made at start, others at the first managed key that names
/// their token; all are kept for the life of the daemon.
pub(super) struct Pools {
    limits: Limits,
    weights: Arc<HashMap<Namespace, u32>>,
    libraries: HashMap<String, LibraryFacts>,
    telemetry: Telemetry,
    table: RwLock<Table>,
}

#[derive(Default)]
struct Table {
    /// By name, in lower case.
    configured: HashMap<String, Home>,
    /// By library, in lower case, and token.
    by_token: HashMap<(String, TokenSelector), Home>,
    in_order: Vec<Arc<Member>>,
    lanes: Vec<Arc<Pool>>,
}

impl Pools {
    pub(super) fn new(
        libraries: &[Library],
        pools: &[KmsPool],
        namespaces: &[NamespaceSettings],
        limits: &Limits,
        telemetry: &Telemetry,
    ) -> Pools {
        let facts = |library: &Library| LibraryFacts {
            pin: library.pin.clone(),
            sessions: library.sessions,
            workers: u32::try_from(library.workers.max(1)).unwrap_or(1),
            isolated: library.isolated,
            wake: if library.computes_here { Wake::Chain } else { Wake::Each },
        };
        let this = Pools {
            limits: limits.clone(),
            weights: Arc::new(namespaces.iter().map(|known| (known.path.clone(), known.weight)).collect()),
            libraries: libraries.iter().map(|library| (library.name.to_lowercase(), facts(library))).collect(),
            telemetry: telemetry.clone(),
            table: RwLock::default(),
        };
        pools.iter().for_each(|pool| this.configure(pool));
        this
    }

    fn configure(&self, configured: &KmsPool) {
        let chain = configured.members.iter().all(|member| self.wake(&member.library) == Wake::Chain);
        let pool = self.pool(&configured.name, if chain { Wake::Chain } else { Wake::Each });
        let mut table = self.table.write();
        let members: Vec<_> =
            configured.members.iter().flat_map(|member| self.add(&mut table, &pool, member)).collect();
        table.configured.insert(configured.name.to_lowercase(), (pool, members));
    }

    fn wake(&self, library: &str) -> Wake {
        self.libraries.get(&library.to_lowercase()).map_or(Wake::Each, |library| library.wake)
    }

    fn pool(&self, name: &str, wake: Wake) -> Arc<Pool> {
        let limits = LaneLimits {
            jobs: self.limits.lane_jobs,
            jobs_per_namespace: self.limits.lane_jobs_per_namespace,
            batch_max: self.limits.batch_max,
            batch_time: self.limits.batch_time,
            attempts: self.limits.attempts,
            retry_percent: self.limits.retry_percent,
            retry_burst: self.limits.retry_burst,
            wake,
        };
        Arc::new(Pool::new(name, Lane::new(limits, Arc::clone(&self.weights)), self.telemetry.clone()))
    }

    /// Makes the members of a token: one a worker process, or one.
    fn add(&self, table: &mut Table, pool: &Arc<Pool>, of: &PoolMember) -> Vec<Arc<Member>> {
        let library = of.library.to_lowercase();
        let Some(facts) = self.libraries.get(&library) else { return Vec::new() };
        let numbers = if facts.isolated { 1..=facts.workers } else { 0..=0 };
        let members: Vec<Arc<Member>> = numbers
            .map(|worker| {
                let token = of.token.to_string();
                let labels = MemberLabels { pool: &pool.name, library: &library, token: &token, worker };
                let metrics = Arc::new(self.telemetry.member(labels));
                let status = MemberStatus {
                    pool: pool.name.clone(),
                    library: library.clone(),
                    token,
                    worker,
                    serial: None,
                    state: MemberState::Probing,
                    reason: None,
                    sessions: 0,
                    keys: 0,
                };
                let member = Arc::new(Member {
                    id: MemberId(u32::try_from(table.in_order.len()).unwrap_or(u32::MAX)),
                    pool: Arc::clone(pool),
                    library: library.clone(),
                    token: of.token.clone(),
                    worker,
                    pin: of.pin.clone().or_else(|| facts.pin.clone()),
                    sessions: of.max_sessions.or(facts.sessions).map(|all| share(all, facts, worker)),
                    metrics,
                    status: RwLock::new(status),
                    proving: AtomicUsize::new(0),
                });
                table.in_order.push(Arc::clone(&member));
                member
            })
            .collect();
        if table.lanes.iter().all(|known| !Arc::ptr_eq(known, pool)) {
            table.lanes.push(Arc::clone(pool));
            self.telemetry.lane_limits(&pool.name, self.limits.lane_jobs, self.limits.lane_jobs_per_namespace);
        }
        table.by_token.insert((library, of.token.clone()), (Arc::clone(pool), members.clone()));
        members
    }

    /// The pool and the members that may hold a key: all of the pool `library` names, or those of one token.
    pub(super) fn find(&self, library: &str, token: Option<&TokenSelector>) -> Result<Home, Fault> {
        let name = library.to_lowercase();
        let Some(token) = token else {
            let found = self.table.read().configured.get(&name).cloned();
            return found.ok_or_else(|| {
                let what = format!("there is no kms_pool {library:?} in the configuration; add it and restart");
                Fault::Unavailable { what }
            });
        };
        if !self.libraries.contains_key(&name) {
            let what = format!("there is no kms_library {library:?} in the configuration; add it and restart");
            return Err(Fault::Unavailable { what });
        }
        let key = (name, token.clone());
        if let Some(found) = self.table.read().by_token.get(&key) {
            return Ok(found.clone());
        }
        let mut table = self.table.write();
        if let Some(found) = table.by_token.get(&key) {
            return Ok(found.clone());
        }
        if table.lanes.len() >= POOLS_MAX {
            let what = format!(
                "{POOLS_MAX} tokens are in use, which is the most allowed; restart to let go of those without managed keys"
            );
            return Err(Fault::Unavailable { what });
        }
        let pool = self.pool(&format!("{library}/{token}"), self.wake(library));
        let of = PoolMember { library: key.0, token: key.1, pin: None, max_sessions: None };
        let members = self.add(&mut table, &pool, &of);
        Ok((pool, members))
    }

    /// The members that may hold a key, of those there are: none is made.
    pub(super) fn known(&self, library: &str, token: Option<&TokenSelector>) -> Vec<Arc<Member>> {
        let (table, name) = (self.table.read(), library.to_lowercase());
        let home = match token {
            None => table.configured.get(&name),
            Some(token) => table.by_token.get(&(name, token.clone())),
        };
        home.map(|(_, members)| members.clone()).unwrap_or_default()
    }

    /// A pool without members, for keys whose library is configured no longer.
    pub(super) fn nowhere(&self) -> Arc<Pool> {
        self.pool(NOWHERE, Wake::Chain)
    }

    /// Every member, in the order they were made.
    pub(super) fn members(&self) -> Vec<Arc<Member>> {
        self.table.read().in_order.clone()
    }

    /// Every pool.
    pub(super) fn all(&self) -> Vec<Arc<Pool>> {
        self.table.read().lanes.clone()
    }
}

/// A worker's part of the sessions of its token.
fn share(all: usize, facts: &LibraryFacts, worker: u32) -> usize {
    if !facts.isolated {
        return all;
    }
    let workers = facts.workers as usize;
    let extra = usize::from((worker as usize).saturating_sub(1) < all % workers);
    (all / workers + extra).max(1)
}

/// Sessions a member takes where no stanza says: the profile's number, shared by the workers of the token.
pub(super) fn sessions_of_profile(sessions: usize, workers: usize) -> usize {
    or_cores(sessions).div_ceil(workers.max(1))
}

/// The pause before the next try: doubles from `min` to `max`.
#[derive(Debug)]
pub(super) struct BackOff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl BackOff {
    pub(super) fn new(min: Duration, max: Duration) -> BackOff {
        BackOff { min, max, next: min }
    }

    /// The pause to make now; the one after it is twice as long.
    pub(super) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.max);
        pause
    }

    /// Something worked: begin from the shortest again.
    pub(super) fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_bound_and_begin_anew() {
        let mut back_off = BackOff::new(Duration::from_secs(1), Duration::from_secs(5));
        let pauses: Vec<u64> = (0..4).map(|_| back_off.pause().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 5]);
        back_off.reset();
        assert_eq!(back_off.pause().as_secs(), 1);
    }
}
