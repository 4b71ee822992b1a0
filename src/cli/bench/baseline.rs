//! The loop Keyway is compared with: sessions of this process, each on a thread of its own, two calls a signature.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::Failure;
use super::side::Ran;
use super::tally::{histogram, microseconds};
use super::target::{Key, Slot, failed};
use super::work;
use crate::backend::{KeySelector, Session};
use crate::model::{Fault, KeyKind, KeyOperation};

/// Sessions on the bare tokens.
pub(super) struct Baseline {
    /// One list a token; each session with the key's handle.
    tokens: Vec<Vec<(Box<dyn Session>, u64)>>,
    kind: KeyKind,
    operation: KeyOperation,
}

impl Baseline {
    /// Opens as many sessions as the daemon has, and finds the key in each.
    pub(super) fn open(slots: &[Slot], key: &Key) -> Result<Baseline, Failure> {
        let selector = KeySelector { label: Some(key.label.clone()), id: None, secret: false, cloud: None };
        let mut tokens = Vec::new();
        for slot in slots {
            let mut sessions = Vec::new();
            for _ in 0..slot.sessions {
                let mut session = slot.device.open_session().map_err(failed)?;
                let found = session.find(&selector).map_err(failed)?;
                let found = found.ok_or_else(|| Failure::new(format!("the key {:?} has gone", key.label)))?;
                sessions.push((session, found.handle));
            }
            tokens.push(sessions);
        }
        let operation = work::operation(key).ok_or_else(|| Failure::new("a digest is too long"))?;
        Ok(Baseline { tokens, kind: key.kind, operation })
    }

    /// Signs for `span` on as many sessions as there would be requests in flight, all of them at most. Of several tokens,
    /// each signs alone for `span`, and their rates are added.
    pub(super) fn run(&mut self, in_flight: usize, span: Duration) -> Result<Ran, Failure> {
        let mut whole = Ran { done: 0, per_second: 0.0, latency: histogram()? };
        for sessions in &mut self.tokens {
            let begun = Instant::now();
            let mut done = 0;
            for latency in together(sessions, in_flight, self.kind, &self.operation, span)? {
                done += latency.len();
                // Both have the same bounds.
                let _ = whole.latency.add(latency);
            }
            whole.done += done;
            #[expect(clippy::cast_precision_loss, reason = "a rate, for people")]
            let rate = done as f64 / begun.elapsed().as_secs_f64();
            whole.per_second += rate;
        }
        Ok(whole)
    }
}

fn together(
    sessions: &mut [(Box<dyn Session>, u64)],
    most: usize,
    kind: KeyKind,
    operation: &KeyOperation,
    span: Duration,
) -> Result<Vec<Histogram<u64>>, Failure> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = sessions
            .iter_mut()
            .take(most)
            .map(|(session, handle)| scope.spawn(move || sign(session.as_mut(), *handle, kind, operation, span)))
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|ended| ended.unwrap_or_else(|_| Err(Failure::new(Fault::internal("a thread died"))))).collect()
    })
}

fn sign(
    session: &mut dyn Session,
    handle: u64,
    kind: KeyKind,
    operation: &KeyOperation,
    span: Duration,
) -> Result<Histogram<u64>, Failure> {
    let mut latency = histogram()?;
    let begun = Instant::now();
    let mut asked = begun;
    while asked.duration_since(begun) < span {
        session.perform(handle, kind, operation).map_err(failed)?;
        let now = Instant::now();
        latency.saturating_record(microseconds(now - asked));
        asked = now;
    }
    Ok(latency)
}
