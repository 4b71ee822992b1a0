//! What is counted of pools, namespaces in them, and members. Whoever works for one holds its handles; nothing is looked up
//! on the way of a job.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics::{Counter, Gauge};
use parking_lot::Mutex;

use super::hot::{Buckets, Count, Histogram};
use super::scopes::{MemberScope, Scope};
use super::{LoginLabel, PoolMetrics, count, count_bytes, counter, gauge, list};
use crate::model::{Class, MemberState};

/// Causes that are told apart, of one metric of one member; the rest counts as `other`.
const CAUSES_MAX: usize = 64;
/// The cause of a member's first bring-up.
const START: &str = "start";

/// What a member's labels say.
#[derive(Clone, Copy, Debug)]
pub struct MemberLabels<'a> {
    /// The KMS library.
    pub library: &'a str,
    /// The token.
    pub token: &'a str,
    /// The worker process, from 1; 0 is the daemon itself.
    pub worker: u32,
}

/// One namespace in one pool, while there are both.
pub struct TenantMetrics {
    pool: Arc<PoolMetrics>,
    own: Arc<Scope>,
    namespace: String,
    queue_seconds: [OnceLock<Histogram>; Class::ALL.len()],
    device_seconds: Histogram,
    depth: [Gauge; Class::ALL.len()],
    bytes: Gauge,
    refused: Counter,
    retried: Counter,
    not_retried: Counter,
}

impl TenantMetrics {
    /// A job of this class was started, after it had waited so long.
    pub fn job_started(&self, waited: Duration, class: Class) {
        let cell = &self.queue_seconds[class as usize];
        let seconds = cell.get_or_init(|| {
            let labels = [("pool", self.pool.name()), ("namespace", &*self.namespace), ("class", class.label())];
            self.own.hot().histogram(list::JOB_QUEUE_SECONDS, Buckets::Fine, &labels)
        });
        seconds.record(waited);
    }

    /// The device took so long for a job.
    pub fn job_finished(&self, took: Duration) {
        self.device_seconds.record(took);
    }

    /// A job was refused because a bound of the lane is reached.
    pub fn refused(&self) {
        self.refused.increment(1);
    }

    /// A job that failed through no fault of its own is tried once more.
    pub fn retried(&self) {
        self.retried.increment(1);
    }

    /// One was not: its deadline, its tries or its namespace's budget are used up.
    pub fn not_retried(&self) {
        self.not_retried.increment(1);
    }

    /// The namespace is gone, and every series of it here. Whoever still works for it counts for nobody.
    pub fn end(&self) {
        self.pool.end_tenant(&self.own);
    }

    /// Jobs queued now, by class, and the bytes of their messages.
    pub fn depth(&self, queued: [usize; Class::ALL.len()], bytes: usize) {
        self.bytes.set(count_bytes(bytes));
        for (gauge, queued) in self.depth.iter().zip(queued) {
            gauge.set(count(queued));
        }
    }
}

/// Why a member waits for an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedLabel {
    /// Its PIN: it was refused, now or before a restart; is locked, expired, or missing.
    Pin,
    /// It made a signature that was not its key's.
    WrongSignature,
    /// Anything else; the log has it.
    Other,
}

impl RefusedLabel {
    /// All of them.
    pub const ALL: [RefusedLabel; 3] = [RefusedLabel::Pin, RefusedLabel::WrongSignature, RefusedLabel::Other];

    /// As metrics have it.
    pub const fn label(self) -> &'static str {
        match self {
            RefusedLabel::Pin => "pin",
            RefusedLabel::WrongSignature => "wrong_signature",
            RefusedLabel::Other => "other",
        }
    }
}

/// Sessions of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounts {
    /// That pull work.
    pub serving: usize,
    /// Being opened.
    pub opening: usize,
    /// Inside a call that does not return.
    pub stuck: usize,
}

/// One member.
pub struct MemberMetrics {
    pool: Arc<PoolMetrics>,
    own: Arc<MemberScope>,
    labels: [String; 4],
    states: [Gauge; MemberState::ALL.len()],
    refused: [Gauge; RefusedLabel::ALL.len()],
    sessions: [Gauge; 3],
    computes_here: Gauge,
    keys: Gauge,
    logins: ByCause,
    bring_ups: ByCause,
    stuck: Counter,
    throttled: Counter,
    wrong_signatures: Counter,
    key_mismatches: Counter,
    breaker: Counter,
    jobs: [Count; 2],
    device_seconds: [OnceLock<Histogram>; Class::ALL.len()],
    evictions: ByCause,
    failures: ByCause,
}

/// One counter for each cause, and each result where there are several; made when first counted.
struct ByCause {
    name: &'static str,
    counters: Mutex<HashMap<&'static str, HashMap<&'static str, Counter>>>,
}

impl ByCause {
    fn new(name: &'static str) -> ByCause {
        ByCause { name, counters: Mutex::default() }
    }

    fn count(&self, of: &MemberMetrics, cause: &'static str, result: Option<&'static str>, more: u64) {
        let mut counters = self.counters.lock();
        let cause = if counters.len() < CAUSES_MAX || counters.contains_key(cause) { cause } else { "other" };
        let counted = counters.entry(cause).or_default().entry(result.unwrap_or_default()).or_insert_with(|| {
            let mut labels = of.labels().to_vec();
            labels.push(("cause", cause));
            labels.extend(result.map(|result| ("result", result)));
            counter(of.own.scope.recorder(), self.name, &labels)
        });
        counted.increment(more);
    }
}

impl MemberMetrics {
    /// Where it stands: its state, and why it is refused if it is; its sessions, and how many keys it holds.
    pub fn stands(&self, state: MemberState, refused: Option<RefusedLabel>, sessions: SessionCounts, keys: usize) {
        for (gauge, each) in self.refused.iter().zip(RefusedLabel::ALL) {
            gauge.set(if refused == Some(each) { 1.0 } else { 0.0 });
        }
        for (gauge, each) in self.states.iter().zip(MemberState::ALL) {
            gauge.set(if each == state { 1.0 } else { 0.0 });
        }
        for (gauge, sessions) in self.sessions.iter().zip([sessions.serving, sessions.opening, sessions.stuck]) {
            gauge.set(count(sessions));
        }
        self.keys.set(count(keys));
    }

    /// Whether its calls are computed on this host's own cores.
    pub fn computes_here(&self, here: bool) {
        self.computes_here.set(if here { 1.0 } else { 0.0 });
    }

    /// The device took so long for a job of this class.
    pub fn job_finished(&self, took: Duration, class: Class, ok: bool) {
        self.jobs[usize::from(!ok)].increment();
        let cell = &self.device_seconds[class as usize];
        let seconds = cell.get_or_init(|| {
            let [pool, library, token, worker] = self.labels();
            let labels = [pool, library, token, worker, ("class", class.label())];
            self.own.scope.hot().histogram(list::JOB_DEVICE_SECONDS, Buckets::Fine, &labels)
        });
        seconds.record(took);
    }

    /// It was brought up, or could not be. `cause` is what had taken it down; `None` for its start.
    pub fn brought_up(&self, cause: Option<&'static str>, ok: bool) {
        self.bring_ups.count(self, cause.unwrap_or(START), Some(if ok { "ok" } else { "failed" }), 1);
    }

    /// Its token was asked to log us in; once for each `C_Login`. `cause` as for [`MemberMetrics::brought_up`].
    pub fn login(&self, cause: Option<&'static str>, result: LoginLabel) {
        self.logins.count(self, cause.unwrap_or(START), Some(result.label()), 1);
    }

    /// A session was given up for this cause.
    pub fn evicted(&self, cause: &'static str) {
        self.evictions.count(self, cause, None, 1);
    }

    /// A call of a key in a cloud failed on the way or in the service, for this cause.
    pub fn call_failed(&self, cause: &'static str) {
        self.failures.count(self, cause, None, 1);
    }

    fn labels(&self) -> [(&'static str, &str); 4] {
        let [pool, library, token, worker] = self.labels.each_ref().map(String::as_str);
        [("pool", pool), ("library", library), ("token", token), ("worker", worker)]
    }

    /// Shows those of the start as zeros, so that the first to rise is seen to rise.
    fn show_start(&self) {
        LoginLabel::ALL.iter().for_each(|result| self.logins.count(self, START, Some(result.label()), 0));
        ["ok", "failed"].iter().for_each(|result| self.bring_ups.count(self, START, Some(result), 0));
    }

    /// A call did not return within its limit.
    pub fn session_stuck(&self) {
        self.stuck.increment(1);
    }

    /// The device said that it is asked too much.
    pub fn throttled(&self) {
        self.throttled.increment(1);
    }

    /// A signature did not verify after it was made.
    pub fn wrong_signature(&self) {
        self.wrong_signatures.increment(1);
    }

    /// A key's private half is not that of the public key recorded.
    pub fn key_mismatch(&self) {
        self.key_mismatches.increment(1);
    }

    /// The member is gone, and every series of it. Whoever still works for it counts for nobody.
    pub fn end(&self) {
        self.pool.end_scope(&self.own);
    }

    /// So many of its sessions failed that it was taken down.
    pub fn breaker_opened(&self) {
        self.breaker.increment(1);
    }
}

impl PoolMetrics {
    /// The handles of one namespace in the pool.
    pub fn tenant(self: &Arc<Self>, namespace: &str) -> TenantMetrics {
        let own = self.tenant_scope();
        let recorder = own.recorder();
        let labels = [("pool", self.name()), ("namespace", namespace)];
        let with = |name, value| [labels[0], labels[1], (name, value)];
        TenantMetrics {
            pool: Arc::clone(self),
            namespace: namespace.to_owned(),
            queue_seconds: std::array::from_fn(|_| OnceLock::new()),
            device_seconds: own.hot().histogram(list::TENANT_DEVICE_SECONDS, Buckets::Coarse, &labels),
            depth: Class::ALL.map(|class| gauge(recorder, list::LANE_DEPTH, &with("class", class.label()))),
            bytes: gauge(recorder, list::LANE_BYTES, &labels),
            refused: counter(recorder, list::LANE_REFUSED, &labels),
            retried: counter(recorder, list::RETRIES, &with("result", "tried")),
            not_retried: counter(recorder, list::RETRIES, &with("result", "refused")),
            own: Arc::clone(&own),
        }
    }

    /// The handles of one member.
    pub fn member(self: &Arc<Self>, of: MemberLabels<'_>) -> MemberMetrics {
        let own = self.member_scope(of.library, of.token);
        let recorder = own.scope.recorder();
        let worker = of.worker.to_string();
        let labels = [("pool", self.name()), ("library", of.library), ("token", of.token), ("worker", &*worker)];
        let with = |name, value| [labels[0], labels[1], labels[2], labels[3], (name, value)];
        let results = |name| ["ok", "failed"].map(|result| own.scope.hot().count(name, &with("result", result)));
        let metrics = MemberMetrics {
            pool: Arc::clone(self),
            own: Arc::clone(&own),
            labels: [self.name(), of.library, of.token, &worker].map(str::to_owned),
            states: MemberState::ALL.map(|state| gauge(recorder, list::MEMBER_STATE, &with("state", state.label()))),
            refused: RefusedLabel::ALL
                .map(|reason| gauge(recorder, list::MEMBER_REFUSED, &with("reason", reason.label()))),
            sessions: ["serving", "opening", "stuck"]
                .map(|state| gauge(recorder, list::SESSIONS, &with("state", state))),
            computes_here: gauge(recorder, list::MEMBER_COMPUTES_HERE, &labels),
            keys: gauge(recorder, list::MEMBER_KEYS, &labels),
            logins: ByCause::new(list::LOGINS),
            bring_ups: ByCause::new(list::BRING_UPS),
            stuck: counter(recorder, list::SESSIONS_STUCK, &labels),
            throttled: counter(recorder, list::THROTTLES, &labels),
            wrong_signatures: counter(recorder, list::WRONG_SIGNATURES, &labels),
            key_mismatches: counter(recorder, list::KEY_MISMATCHES, &labels),
            breaker: counter(recorder, list::BREAKER, &labels),
            jobs: results(list::JOBS),
            device_seconds: std::array::from_fn(|_| OnceLock::new()),
            evictions: ByCause::new(list::EVICTIONS),
            failures: ByCause::new(list::SERVICE_FAILURES),
        };
        metrics.show_start();
        metrics
    }

    /// The bounds of the pool's lane: of all its jobs, and of one namespace's.
    pub fn lane_limits(&self, jobs: usize, jobs_per_namespace: usize) {
        for (of, limit) in [("pool", jobs), ("namespace", jobs_per_namespace)] {
            gauge(self.recorder(), list::LANE_LIMIT, &[("pool", self.name()), ("of", of)]).set(count(limit));
        }
    }

    /// Those of the bytes that jobs queued in it carry.
    pub fn lane_bytes_limits(&self, bytes: usize, bytes_per_namespace: usize) {
        for (of, limit) in [("pool", bytes), ("namespace", bytes_per_namespace)] {
            let labels = [("pool", self.name()), ("of", of)];
            gauge(self.recorder(), list::LANE_BYTES_LIMIT, &labels).set(count_bytes(limit));
        }
    }
}
