//! What was asked and when, so that a test can say how many requests were sent in any five seconds.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

use crate::server::Subject;

/// The width of the slots of time that requests are counted in.
pub(crate) const SLOT: Duration = Duration::from_millis(100);
/// Older slots are forgotten: an hour's worth is kept.
const SLOTS: usize = 36_000;
/// Operations, buckets and statuses that are counted apart; the rest is counted together.
const NAMES: usize = 1000;

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// With this status, by the service.
    Answered(u16),
    /// Over a quota, real or made up.
    Throttled(u16),
    /// By a fault that was ordered.
    Faulted(u16),
    /// By a reset.
    Reset,
}

#[derive(Default)]
pub(crate) struct Counts {
    operations: BTreeMap<String, Count>,
    buckets: BTreeMap<String, Series>,
    all: Series,
    connections: u64,
    handshakes_failed: u64,
    heads: u64,
}

#[derive(Default, Serialize)]
struct Count {
    asked: u64,
    throttled: u64,
    faulted: u64,
    reset: u64,
    statuses: BTreeMap<u16, u64>,
}

/// Slots in which something was asked: the slot's number, what was asked in it, and what of that was throttled.
#[derive(Default)]
struct Series {
    slots: std::collections::VecDeque<(u64, u64, u64)>,
}

impl Counts {
    /// Notes a request that came `since` the start.
    pub(crate) fn note(&mut self, subject: &Subject, since: Duration, end: End) {
        let throttled = matches!(end, End::Throttled(_));
        let slot = slot(since);
        self.all.note(slot, throttled);
        if let Some(bucket) = &subject.bucket {
            entry(&mut self.buckets, bucket).note(slot, throttled);
        }
        let count = entry(&mut self.operations, &subject.operation);
        count.asked += 1;
        count.throttled += u64::from(throttled);
        count.faulted += u64::from(matches!(end, End::Faulted(_)));
        match end {
            End::Answered(status) | End::Throttled(status) | End::Faulted(status) => {
                *count.statuses.entry(status).or_default() += 1;
            }
            End::Reset => count.reset += 1,
        }
    }

    pub(crate) fn note_connection(&mut self) {
        self.connections += 1;
    }

    pub(crate) fn note_failed_handshake(&mut self) {
        self.handshakes_failed += 1;
    }

    pub(crate) fn note_head(&mut self) {
        self.heads += 1;
    }

    /// All of it. `slots` are `[number, asked, throttled]`; slot `n` begins `n * slot_ms` after the start.
    pub(crate) fn report(&self) -> Value {
        let buckets: BTreeMap<&String, Value> =
            self.buckets.iter().map(|(name, series)| (name, series.report())).collect();
        json!({
            "operations": self.operations,
            "slot_ms": slot_ms(),
            "all": self.all.report(),
            "buckets": buckets,
            "connections": self.connections,
            "handshakes_failed": self.handshakes_failed,
            "heads": self.heads,
        })
    }
}

/// The entry of a name; of `other` when there are too many names.
fn entry<'a, T: Default>(map: &'a mut BTreeMap<String, T>, name: &str) -> &'a mut T {
    let name = if map.len() < NAMES || map.contains_key(name) { name } else { "other" };
    map.entry(name.to_owned()).or_default()
}

fn slot_ms() -> u64 {
    u64::try_from(SLOT.as_millis()).unwrap_or(u64::MAX)
}

fn slot(since: Duration) -> u64 {
    u64::try_from(since.as_millis() / SLOT.as_millis()).unwrap_or(u64::MAX)
}

impl Series {
    fn note(&mut self, slot: u64, throttled: bool) {
        // A slow request is noted after quicker ones that came later.
        let at = self.slots.partition_point(|(number, ..)| *number < slot);
        if self.slots.get(at).is_none_or(|(number, ..)| *number != slot) {
            self.slots.insert(at, (slot, 0, 0));
        }
        if let Some((_, asked, refused)) = self.slots.get_mut(at) {
            *asked += 1;
            *refused += u64::from(throttled);
        }
        if self.slots.len() > SLOTS {
            self.slots.pop_front();
        }
    }

    fn report(&self) -> Value {
        let asked: u64 = self.slots.iter().map(|(_, asked, _)| asked).sum();
        let throttled: u64 = self.slots.iter().map(|(.., throttled)| throttled).sum();
        json!({"asked": asked, "throttled": throttled, "slots": self.slots})
    }
}

/// The clock of the counts.
pub(crate) struct Since(Instant);

impl Since {
    pub(crate) fn now() -> Since {
        Since(Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    pub(crate) fn ms(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_slot_whatever_their_order() {
        let mut counts = Counts::default();
        let subject = Subject { operation: "sign".into(), bucket: Some("v".into()), key: None };
        counts.note(&subject, Duration::from_millis(250), End::Answered(200));
        counts.note(&subject, Duration::from_millis(50), End::Throttled(429));
        counts.note(&subject, Duration::from_millis(299), End::Reset);
        let report = counts.report();
        assert_eq!(report["buckets"]["v"]["slots"], json!([[0, 1, 1], [2, 2, 0]]));
        assert_eq!(report["operations"]["sign"]["asked"], 3);
        assert_eq!(report["operations"]["sign"]["throttled"], 1);
        assert_eq!(report["operations"]["sign"]["statuses"], json!({"200": 1, "429": 1}));
    }
}
