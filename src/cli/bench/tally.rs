//! What became of a number of requests.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::Failure;
use crate::client::ClientError;

/// Longest latency told apart: ten minutes, in microseconds.
const LATENCY_MAX_US: u64 = 600_000_000;
/// How late a request may be sent, after it was due, before the generator is called late.
const LAG_MAX: Duration = Duration::from_millis(1);

/// Counts and latencies.
#[derive(Clone)]
pub(super) struct Tally {
    /// Requests sent.
    pub(super) asked: u64,
    /// Good answers.
    pub(super) done: u64,
    /// Answers that are not what was asked for.
    pub(super) wrong: u64,
    /// Refusals, by the fault's label.
    pub(super) failed: BTreeMap<String, u64>,
    /// What the first refusal said.
    pub(super) first_refusal: Option<String>,
    /// Of good answers, in microseconds: from when the request was due, where it was due at a time, else from its sending.
    pub(super) latency: Histogram<u64>,
    /// From when requests were due to their sending, in microseconds; empty where they were not due at a time.
    pub(super) lag: Histogram<u64>,
    /// Requests sent too long after they were due.
    pub(super) late: u64,
    /// From the first request to the last answer.
    pub(super) took: Duration,
}

impl Tally {
    pub(super) fn new() -> Result<Tally, Failure> {
        Ok(Tally {
            asked: 0,
            done: 0,
            wrong: 0,
            failed: BTreeMap::new(),
            first_refusal: None,
            latency: histogram()?,
            lag: histogram()?,
            late: 0,
            took: Duration::ZERO,
        })
    }

    /// Counts an answer that took so long.
    pub(super) fn answered(&mut self, answer: Result<bool, ClientError>, took: Duration) {
        match answer {
            Ok(true) => {
                self.done += 1;
                self.latency.saturating_record(microseconds(took));
            }
            Ok(false) => self.wrong += 1,
            Err(error) => {
                self.first_refusal.get_or_insert_with(|| error.to_string());
                *self.failed.entry(label(error)).or_default() += 1;
            }
        }
    }

    /// Counts a request that was sent so long after it was due.
    pub(super) fn sent(&mut self, lag: Duration) {
        self.asked += 1;
        self.late += u64::from(lag > LAG_MAX);
        self.lag.saturating_record(microseconds(lag));
    }

    /// Requests refused.
    pub(super) fn refused(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Requests that were never answered.
    pub(super) fn lost(&self) -> u64 {
        self.asked.saturating_sub(self.done + self.wrong + self.refused())
    }

    /// Good answers a second.
    pub(super) fn per_second(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a rate, for people")]
        let done = self.done as f64;
        done / self.took.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Whether the generator could not send on time: more than one request in a hundred was late.
    pub(super) fn generator_late(&self) -> bool {
        self.late * 100 > self.asked
    }
}

/// An empty histogram of microseconds.
pub(super) fn histogram() -> Result<Histogram<u64>, Failure> {
    Ok(Histogram::new_with_bounds(1, LATENCY_MAX_US, 3)?)
}

pub(super) fn microseconds(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

fn label(error: ClientError) -> String {
    match error {
        ClientError::Refused { label, .. } => label,
        ClientError::Broken { .. } => "broken".into(),
        ClientError::Connect { .. } | ClientError::Address { .. } => "unreachable".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_done_wrong_refused_or_lost() {
        let mut tally = Tally::new().unwrap();
        (0..6).for_each(|_| tally.sent(Duration::from_micros(10)));
        tally.answered(Ok(true), Duration::from_millis(5));
        tally.answered(Ok(false), Duration::from_millis(5));
        let refused = || ClientError::Refused { label: "overloaded".into(), message: String::new(), retryable: true };
        tally.answered(Err(refused()), Duration::ZERO);
        tally.answered(Err(refused()), Duration::ZERO);
        tally.answered(Err(ClientError::Broken { what: String::new() }), Duration::ZERO);
        assert_eq!((tally.done, tally.wrong, tally.refused(), tally.lost()), (1, 1, 3, 1));
        assert_eq!(tally.failed, BTreeMap::from([("broken".into(), 1), ("overloaded".into(), 2)]));
        assert_eq!(tally.latency.len(), 1);
        assert!(!tally.generator_late());
        tally.sent(Duration::from_millis(2));
        assert!(tally.generator_late());
    }
}
