//! What is counted of pools, namespaces in them, and members. Whoever works for one holds its handles; nothing is looked up
//! on the way of a job.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use metrics_exporter_prometheus::PrometheusRecorder;
use parking_lot::Mutex;

use super::{Telemetry, count, counter, gauge, histogram, list};
use crate::model::{Class, MemberState};

/// Causes of evictions that are told apart, of one member; the rest counts as `other`.
const CAUSES_MAX: usize = 64;

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

/// One namespace in one pool. Bounded by the pools and namespaces an operator configures.
pub struct TenantMetrics {
    telemetry: Telemetry,
    pool: String,
    namespace: String,
    queue_seconds: [OnceLock<Histogram>; Class::ALL.len()],
    depth: [Gauge; Class::ALL.len()],
    refused: Counter,
    retried: Counter,
    not_retried: Counter,
}

impl TenantMetrics {
    /// A job of this class was started, after it had waited so long.
    pub fn job_started(&self, waited: Duration, class: Class) {
        let cell = &self.queue_seconds[class as usize];
        let seconds = cell.get_or_init(|| {
            let labels = [("pool", &*self.pool), ("namespace", &*self.namespace), ("class", class.label())];
            histogram(self.telemetry.recorder(), list::JOB_QUEUE_SECONDS, &labels)
        });
        seconds.record(waited);
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

    /// Jobs queued now, by class.
    pub fn depth(&self, queued: [usize; Class::ALL.len()]) {
        for (gauge, queued) in self.depth.iter().zip(queued) {
            gauge.set(count(queued));
        }
    }
}

/// One member.
pub struct MemberMetrics {
    telemetry: Telemetry,
    labels: [String; 3],
    states: [Gauge; MemberState::ALL.len()],
    sessions: [Gauge; 2],
    keys: Gauge,
    logins: [Counter; 2],
    bring_ups: [Counter; 2],
    stuck: Counter,
    throttled: Counter,
    wrong_signatures: Counter,
    key_mismatches: Counter,
    breaker: Counter,
    jobs: [Counter; 2],
    device_seconds: [OnceLock<Histogram>; Class::ALL.len()],
    evictions: Mutex<HashMap<&'static str, Counter>>,
}

impl MemberMetrics {
    /// Where it stands: its state, sessions that serve, threads that are stuck, keys it holds.
    pub fn stands(&self, state: MemberState, serving: usize, stuck: usize, keys: usize) {
        for (gauge, each) in self.states.iter().zip(MemberState::ALL) {
            gauge.set(if each == state { 1.0 } else { 0.0 });
        }
        self.sessions[0].set(count(serving));
        self.sessions[1].set(count(stuck));
        self.keys.set(count(keys));
    }

    /// The device took so long for a job of this class.
    pub fn job_finished(&self, took: Duration, class: Class, ok: bool) {
        self.jobs[usize::from(!ok)].increment(1);
        let cell = &self.device_seconds[class as usize];
        let seconds = cell.get_or_init(|| {
            let [library, token, worker] = self.labels.each_ref().map(String::as_str);
            let labels = [("library", library), ("token", token), ("worker", worker), ("class", class.label())];
            histogram(self.telemetry.recorder(), list::JOB_DEVICE_SECONDS, &labels)
        });
        seconds.record(took);
    }

    /// It was brought up, or could not be.
    pub fn brought_up(&self, ok: bool) {
        self.bring_ups[usize::from(!ok)].increment(1);
    }

    /// Its token was asked to log us in; once for each `C_Login`.
    pub fn login(&self, ok: bool) {
        self.logins[usize::from(!ok)].increment(1);
    }

    /// A session was given up for this cause.
    pub fn evicted(&self, cause: &'static str) {
        let mut evictions = self.evictions.lock();
        let cause = if evictions.len() < CAUSES_MAX || evictions.contains_key(cause) { cause } else { "other" };
        let counted = evictions.entry(cause).or_insert_with(|| {
            let [library, token, worker] = self.labels.each_ref().map(String::as_str);
            let labels = [("library", library), ("token", token), ("worker", worker), ("cause", cause)];
            counter(self.telemetry.recorder(), list::EVICTIONS, &labels)
        });
        counted.increment(1);
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

    /// So many of its sessions failed that it was taken down.
    pub fn breaker_opened(&self) {
        self.breaker.increment(1);
    }
}

impl Telemetry {
    /// The handles of one namespace in a pool.
    pub fn tenant(&self, pool: &str, namespace: &str) -> TenantMetrics {
        let recorder = self.recorder();
        let labels = [("pool", pool), ("namespace", namespace)];
        let with = |name, value| [labels[0], labels[1], (name, value)];
        TenantMetrics {
            telemetry: self.clone(),
            pool: pool.to_owned(),
            namespace: namespace.to_owned(),
            queue_seconds: std::array::from_fn(|_| OnceLock::new()),
            depth: Class::ALL.map(|class| gauge(recorder, list::LANE_DEPTH, &with("class", class.label()))),
            refused: counter(recorder, list::LANE_REFUSED, &labels),
            retried: counter(recorder, list::RETRIES, &with("result", "tried")),
            not_retried: counter(recorder, list::RETRIES, &with("result", "refused")),
        }
    }

    /// The handles of one member.
    pub fn member(&self, of: MemberLabels<'_>) -> MemberMetrics {
        let recorder = self.recorder();
        let worker = of.worker.to_string();
        let labels = [("library", of.library), ("token", of.token), ("worker", worker.as_str())];
        let with = |name, value| [labels[0], labels[1], labels[2], (name, value)];
        let results = |name| ["ok", "failed"].map(|result| counter(recorder, name, &with("result", result)));
        MemberMetrics {
            telemetry: self.clone(),
            labels: [of.library.to_owned(), of.token.to_owned(), worker.clone()],
            states: MemberState::ALL.map(|state| gauge(recorder, list::MEMBER_STATE, &with("state", state.label()))),
            sessions: ["serving", "stuck"].map(|state| gauge(recorder, list::SESSIONS, &with("state", state))),
            keys: gauge(recorder, list::MEMBER_KEYS, &labels),
            logins: results(list::LOGINS),
            bring_ups: results(list::BRING_UPS),
            stuck: counter(recorder, list::SESSIONS_STUCK, &labels),
            throttled: counter(recorder, list::THROTTLES, &labels),
            wrong_signatures: counter(recorder, list::WRONG_SIGNATURES, &labels),
            key_mismatches: counter(recorder, list::KEY_MISMATCHES, &labels),
            breaker: counter(recorder, list::BREAKER, &labels),
            jobs: results(list::JOBS),
            device_seconds: std::array::from_fn(|_| OnceLock::new()),
            evictions: Mutex::default(),
        }
    }

    /// How many members hold a managed key. Called for keys of pools; an operator registers those.
    pub fn key_set(&self, pool: &str, namespace: &str, key: &str, holders: usize) {
        let labels = [("pool", pool), ("namespace", namespace), ("key", key)];
        gauge(self.recorder(), list::KEY_HOLDERS, &labels).set(count(holders));
    }

    fn recorder(&self) -> &PrometheusRecorder {
        &self.0.recorder
    }
}
