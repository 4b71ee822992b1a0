//! A configured group of members behind one lane. Every member is in exactly one pool: alone, for now.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

use super::lane::{Lane, LaneLimits};
use super::route::MemberId;
use crate::config::Limits;
use crate::model::{MemberState, MemberStatus, TokenSelector};

/// Which member: a KMS library and one of its tokens.
pub(super) type MemberKey = (String, TokenSelector);

/// One member's fixed facts, and what it last said of itself.
pub(super) struct Member {
    pub(super) id: MemberId,
    pub(super) library: String,
    pub(super) token: TokenSelector,
    pub(super) lane: Arc<Lane>,
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
        let state = self.status.read().state;
        match state {
            MemberState::Probing | MemberState::Warming => false,
            MemberState::Serving | MemberState::Degraded => self.proving.load(Ordering::Relaxed) == 0,
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

/// Every member there is. Made at the first managed key that names one; kept for the life of the daemon.
pub(super) struct Members {
    limits: LaneLimits,
    table: RwLock<Table>,
}

#[derive(Default)]
struct Table {
    by_key: HashMap<MemberKey, Arc<Member>>,
    in_order: Vec<Arc<Member>>,
}

impl Members {
    pub(super) fn new(limits: &Limits) -> Members {
        let limits = LaneLimits {
            jobs: limits.lane_jobs,
            jobs_per_namespace: limits.lane_jobs_per_namespace,
            batch_max: limits.batch_max,
            batch_time: limits.batch_time,
        };
        Members { limits, table: RwLock::default() }
    }

    /// The member for this token; made if there is none.
    pub(super) fn get_or_make(&self, key: &MemberKey) -> Arc<Member> {
        if let Some(member) = self.table.read().by_key.get(key) {
            return Arc::clone(member);
        }
        let mut table = self.table.write();
        if let Some(member) = table.by_key.get(key) {
            return Arc::clone(member);
        }
        let status = MemberStatus {
            library: key.0.clone(),
            token: key.1.to_string(),
            serial: None,
            state: MemberState::Probing,
            reason: None,
            sessions: 0,
            keys: 0,
        };
        let member = Arc::new(Member {
            id: MemberId(u32::try_from(table.in_order.len()).unwrap_or(u32::MAX)),
            library: key.0.clone(),
            token: key.1.clone(),
            lane: Lane::new(self.limits),
            status: RwLock::new(status),
            proving: AtomicUsize::new(0),
        });
        table.by_key.insert(key.clone(), Arc::clone(&member));
        table.in_order.push(Arc::clone(&member));
        member
    }

    /// All of them, in the order they were made.
    pub(super) fn all(&self) -> Vec<Arc<Member>> {
        self.table.read().in_order.clone()
    }
}

/// The pause before the next try: doubles from `min` to `max`.
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
