//! Groups of members behind one lane. Every member is in exactly one pool: alone, with the other workers of its token, where
//! no configured pool has it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use super::computing::Computing;
use super::job::Job;
use super::lane::{Lane, LaneLimits};
use super::presence::{self, Absence, Before, Presence};
use super::route::MemberId;
use crate::config::or_cores;
use crate::model::{Class, MemberState, MemberStatus, Namespace, Secret, TokenSelector};
use crate::telemetry::{MemberLabels, MemberMetrics, PoolMetrics, Telemetry, TenantMetrics};

/// Namespaces that have series of their own in one pool: each takes memory, and a place in every exposition.
const NAMESPACES_SHOWN: usize = 1_000;
/// What those beyond are called together. No namespace is.
const OTHERS: &str = "(others)";

/// A lane, and who counts what is queued in it.
pub(super) struct Pool {
    pub(super) name: String,
    pub(super) lane: Arc<Lane>,
    telemetry: Telemetry,
    metrics: Arc<PoolMetrics>,
    tenants: RwLock<HashMap<Namespace, Arc<TenantMetrics>>>,
    /// Of the namespaces that came when very many had series already.
    others: OnceLock<Arc<TenantMetrics>>,
}

impl Pool {
    pub(super) fn new(name: &str, lane: Arc<Lane>, telemetry: Telemetry) -> Pool {
        let metrics = telemetry.pool(name);
        Pool { name: name.to_owned(), lane, telemetry, metrics, tenants: RwLock::default(), others: OnceLock::new() }
    }

    /// Where a namespace's jobs here are counted.
    pub(super) fn tenant_metrics(&self, namespace: &Namespace) -> Arc<TenantMetrics> {
        if let Some(metrics) = self.tenants.read().get(namespace) {
            return Arc::clone(metrics);
        }
        let mut tenants = self.tenants.write();
        if tenants.len() >= NAMESPACES_SHOWN && !tenants.contains_key(namespace) {
            return Arc::clone(self.others.get_or_init(|| Arc::new(self.metrics.tenant(OTHERS))));
        }
        let made = || Arc::new(self.metrics.tenant(&namespace.to_string()));
        Arc::clone(tenants.entry(namespace.clone()).or_insert_with(made))
    }

    /// Hands the jobs that wait in its lane on to the lanes where their keys are served now. Those of keys that are served
    /// nowhere else stay.
    pub(super) fn hand_on(&self) {
        let mut jobs = self.lane.hand_over();
        jobs.iter_mut().for_each(Job::follow);
        while let Some(first) = jobs.first() {
            let lane = Arc::clone(first.key.lane());
            let of_it: Vec<Job> = jobs.extract_if(.., |job| job.key.leads_to(&lane)).collect();
            lane.put_back(of_it.into_iter());
        }
    }

    /// Nobody serves it any more: what still waits is answered so.
    pub(super) fn close(&self) {
        self.lane.close();
        self.hand_on();
        self.lane.abandon();
    }

    /// Shows how much is queued.
    pub(super) fn observe(&self) {
        let tenants = self.tenants.read();
        let mut others = ([0; Class::ALL.len()], 0);
        for (namespace, queued, bytes) in self.lane.depths() {
            // One that is forgotten meanwhile is not to come back.
            match tenants.get(&namespace) {
                Some(metrics) => metrics.depth(queued, bytes),
                None => {
                    others.0.iter_mut().zip(queued).for_each(|(sum, queued)| *sum += queued);
                    others.1 += bytes;
                }
            }
        }
        if let Some(metrics) = self.others.get() {
            metrics.depth(others.0, others.1);
        }
    }

    /// The namespace is gone: its series end. Its place in the lane stays, for the next of its name.
    pub(super) fn forget(&self, namespace: &Namespace) {
        if let Some(metrics) = self.tenants.write().remove(namespace) {
            metrics.end();
        }
    }

    /// Shows the bounds of its lane.
    pub(super) fn show_limits(&self) {
        let LaneLimits { all, per_namespace, .. } = self.lane.limits();
        self.metrics.lane_limits(all.jobs, per_namespace.jobs);
        self.metrics.lane_bytes_limits(all.bytes, per_namespace.bytes);
    }

    /// It is seen no more: its series end.
    pub(super) fn end(&self) {
        self.telemetry.end_pool(&self.metrics);
    }
}

/// One slot of an HSM, in this process or in one worker process: its fixed facts, and what it last said of itself.
pub(super) struct Member {
    pub(super) id: MemberId,
    /// The first of the members of its token, one a worker process; it may be itself.
    pub(super) kin: MemberId,
    /// Whether the configuration names its token.
    pub(super) configured: bool,
    pub(super) pool: Arc<Pool>,
    /// In lower case.
    pub(super) library: String,
    pub(super) token: TokenSelector,
    /// What it is known by among those in use: another name than its own where one name is several copies of a cloud key.
    pub(super) named: TokenSelector,
    /// Which worker process, from 1; 0 is this process.
    pub(super) worker: u32,
    /// In which process, and which code of it, it logs in: members share a login only within one.
    pub(super) process: u32,
    /// The token's PIN, if a stanza gives it.
    pub(super) pin: Option<Secret>,
    /// Sessions wanted, if a stanza says.
    pub(super) sessions: Option<usize>,
    pub(super) metrics: Arc<MemberMetrics>,
    /// Whether it computes on this host's own cores.
    pub(super) computing: Arc<Computing>,
    status: RwLock<MemberStatus>,
    /// Keys whose first proof is under way.
    untried: AtomicUsize,
    /// For every thread that works for it.
    pub(super) presence: Presence,
    /// Over when none does any more, nor anybody holds the member itself.
    pub(super) absence: Absence,
    /// The same of the members before it, where its token was let go of and is named again, or its library was configured
    /// anew.
    pub(super) before: Vec<Before>,
    /// To be held while one of the members of its token comes up.
    pub(super) coming_up: Arc<Mutex<()>>,
}

impl Member {
    /// A member nobody has tried to bring up.
    pub(super) fn new(id: MemberId, pool: &Arc<Pool>, library: &str, token: &TokenSelector, worker: u32) -> Member {
        let name = token.to_string();
        let (presence, absence) = presence::pair();
        Member {
            id,
            kin: id,
            configured: false,
            pool: Arc::clone(pool),
            library: library.to_owned(),
            token: token.clone(),
            named: token.clone(),
            worker,
            process: 0,
            pin: None,
            sessions: None,
            metrics: Arc::new(pool.metrics.member(MemberLabels { library, token: &name, worker })),
            computing: Arc::new(Computing::new(false)),
            status: RwLock::new(MemberStatus {
                pool: pool.name.clone(),
                library: library.to_owned(),
                token: name,
                worker,
                serial: None,
                state: MemberState::Probing,
                reason: None,
                sessions: 0,
                keys: 0,
            }),
            untried: AtomicUsize::new(0),
            presence,
            absence,
            before: Vec::new(),
            coming_up: Arc::default(),
        }
    }

    /// Notes how many keys are being proven for the first time.
    pub(super) fn note_untried(&self, keys: usize) {
        self.untried.store(keys, Ordering::Relaxed);
    }

    /// Whether keys can be proven on it, or it is being tried whether they can, by its last word.
    pub(super) fn may_prove(&self) -> bool {
        let state = self.status.read().state;
        matches!(state, MemberState::Probing | MemberState::Warming | MemberState::Serving | MemberState::Degraded)
    }

    /// Whether the outcome of its start, and of its keys' first proofs, is known.
    pub(super) fn is_settled(&self) -> bool {
        let status = self.status.read();
        match status.state {
            MemberState::Probing => false,
            MemberState::Warming if status.sessions == 0 => false,
            MemberState::Warming | MemberState::Serving | MemberState::Degraded => {
                self.untried.load(Ordering::Relaxed) == 0
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

/// Sessions of a member at rest, where flow control says how many calls there are at once; more are opened by need.
pub(super) const SESSIONS_AT_REST: usize = 1;

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
