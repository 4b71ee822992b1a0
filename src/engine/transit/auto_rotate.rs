//! `auto_rotate_period`: keys whose next version the mount makes by the clock. When one is due follows from its record alone, so
//! that a restart changes nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use time::OffsetDateTime;

use super::Transit;
use super::key::KeyRecord;
use super::keys::Wish;
use super::making::Turn;
use super::own_type::OwnType;
use crate::engine::Call;
use crate::model::{Fault, Fields, Response};

/// The shortest period, in Vault.
const PERIOD_MIN: Duration = Duration::from_secs(3600);
/// Rotations by the clock that one mount has under way at once: where its token hangs, clients can still have others made.
const AT_ONCE: usize = 8;
/// First and longest pause after a rotation that failed: it may have left a key in the token.
const PAUSE_FIRST: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// What a request says of it: in seconds, 0 for never. Refused for a key that no mount makes the next version of.
pub(super) fn period(fields: &mut Fields<'_>, own: Option<&OwnType>) -> Result<Option<u64>, Fault> {
    match fields.duration("auto_rotate_period")? {
        Some(period) if !period.is_zero() && own.is_none() => {
            Err(Fault::invalid("Auto rotation can not be set for managed keys"))
        }
        Some(period) if !period.is_zero() && period < PERIOD_MIN => {
            Err(Fault::invalid("auto rotate period must be 0 to disable or at least an hour"))
        }
        period => Ok(period.map(|period| period.as_secs())),
    }
}

/// When the next version is to be made, in Unix seconds; `None` is never.
fn due(record: &KeyRecord) -> Option<i64> {
    let period = i64::try_from(record.auto_rotate_seconds).unwrap_or(i64::MAX);
    let newest = record.versions.last().filter(|_| period > 0 && record.own.is_some())?;
    Some(newest.created.saturating_add(period))
}

/// Rotations by the clock that are under way or failed, by the names of their keys.
#[derive(Default)]
pub(super) struct AutoRotations(Mutex<Attempts>);

#[derive(Default)]
struct Attempts {
    by_name: HashMap<String, Attempt>,
    running: usize,
}

struct Attempt {
    running: bool,
    /// The pause after the next failure.
    pause: Duration,
    next: Instant,
}

impl AutoRotations {
    /// Notes that one begins; false where it is under way, failed a short time ago, or others are to end first.
    fn begin(&self, name: &str, now: Instant) -> bool {
        let Attempts { by_name, running } = &mut *self.0.lock();
        if *running >= AT_ONCE {
            return false;
        }
        let new = Attempt { running: false, pause: PAUSE_FIRST, next: now };
        let attempt = by_name.entry(name.to_owned()).or_insert(new);
        let begins = !attempt.running && attempt.next <= now;
        attempt.running |= begins;
        *running += usize::from(begins);
        begins
    }

    fn ended(&self, name: &str, well: bool, now: Instant) {
        let Attempts { by_name, running } = &mut *self.0.lock();
        let Some(attempt) = by_name.get_mut(name).filter(|attempt| attempt.running) else { return };
        *running -= 1;
        if well {
            by_name.remove(name);
        } else {
            attempt.running = false;
            attempt.next = now + attempt.pause;
            attempt.pause = (attempt.pause * 2).min(PAUSE_MAX);
        }
    }

    /// Forgets the failures of keys that are not there, or not due, any more.
    fn keep(&self, is_due: impl Fn(&str) -> bool) {
        self.0.lock().by_name.retain(|name, attempt| attempt.running || is_due(name));
    }
}

impl Transit {
    /// Begins the rotations that are due, those first that are so for the longest time. They go on by themselves: a token that is
    /// slow, or away, is not waited for.
    pub(super) fn rotate_due(self: &Arc<Self>, call: &Call) {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let table = self.table.load_full();
        let is_due = |name: &str| table.get(name).and_then(|key| due(&key.record)).filter(|due| *due <= now);
        self.auto_rotations.keep(|name| is_due(name).is_some());
        let mut all: Vec<(i64, &String)> = table.keys().filter_map(|name| Some((is_due(name)?, name))).collect();
        all.sort_unstable();
        for (_, name) in all {
            if !self.auto_rotations.begin(name, Instant::now()) {
                continue;
            }
            let begin = || Arc::clone(self).rotate_by_clock(self.making_call(call), name.clone(), now);
            // What clients asked for meanwhile comes first, and may have been the same: the next look tells.
            if !matches!(self.making.turn(name, begin), Ok(Turn::Mine(_))) {
                self.auto_rotations.ended(name, true, Instant::now());
            }
        }
    }

    async fn rotate_by_clock(self: Arc<Self>, call: Call, name: String, now: i64) -> Result<Response, Fault> {
        let (namespace, mount) = (call.mount.namespace.clone(), call.mount.path.clone());
        let key = self.key(&name).filter(|key| due(&key.record).is_some_and(|due| due <= now));
        let rotated = match key.and_then(|key| key.record.own.clone()) {
            Some(own) => Arc::clone(&self).rotate(call, name.clone(), Wish::next_of(own)).await,
            None => Ok(Response::Empty),
        };
        self.auto_rotations.ended(&name, rotated.is_ok(), Instant::now());
        if let Err(fault) = &rotated {
            tracing::warn!(
                %namespace, mount, key = name, %fault,
                "a transit key is not rotated as its auto_rotate_period says; it is tried again"
            );
        }
        rotated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_that_failed_is_tried_again_after_ever_longer_pauses() {
        let rotations = AutoRotations::default();
        let mut now = Instant::now();
        assert!(rotations.begin("a", now) && !rotations.begin("a", now));
        for pause in [60, 120, 240, 480, 960, 1920, 3600, 3600] {
            rotations.ended("a", false, now);
            now += Duration::from_secs(pause);
            assert!(!rotations.begin("a", now - Duration::from_secs(1)) && rotations.begin("a", now), "{pause}");
        }
        rotations.ended("a", true, now);
        assert!(rotations.begin("a", now));
        rotations.ended("a", false, now);
        assert!(!rotations.begin("a", now));
        rotations.keep(|_| false);
        assert!(rotations.begin("a", now), "another key of that name has not failed");
    }

    #[test]
    fn only_so_many_are_under_way_at_once() {
        let (rotations, now) = (AutoRotations::default(), Instant::now());
        assert!((0..AT_ONCE).all(|number| rotations.begin(&number.to_string(), now)));
        assert!(!rotations.begin("more", now));
        rotations.keep(|_| false);
        assert!(!rotations.begin("more", now), "what is under way is not forgotten");
        rotations.ended("0", true, now);
        assert!(rotations.begin("more", now));
    }
}
