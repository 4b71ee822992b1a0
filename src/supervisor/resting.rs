//! Jobs of a lane that failed and are to be tried again a little later: they hold up nobody meanwhile, neither a session nor
//! the jobs of their keys. As few as the retries that namespaces are granted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::model::Dice;

/// The longest pause before a second try. Before each further one it is twice as long.
const FIRST: Duration = Duration::from_millis(200);
/// The longest pause there is.
const LONGEST: Duration = Duration::from_secs(10);

/// How long a job rests that has failed so often, everywhere: by chance (full jitter), so that those which failed together do not come back
/// together; within what there is `room` for.
pub(super) fn pause(failures: usize, room: Duration, dice: &mut Dice) -> Duration {
    let most = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(8)).min(LONGEST);
    most.min(room).mul_f64(dice.part())
}

/// What rests, by when it is due.
pub(super) struct Resting<J> {
    jobs: BTreeMap<(Instant, u64), J>,
    /// How many were put here: tells apart what is due at once.
    put: u64,
}

impl<J> Resting<J> {
    pub(super) fn new() -> Resting<J> {
        Resting { jobs: BTreeMap::new(), put: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Puts a job here until then.
    pub(super) fn put(&mut self, until: Instant, job: J) {
        self.put += 1;
        self.jobs.insert((until, self.put), job);
    }

    /// Takes out the job that was due first, if one is.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<J> {
        let first = self.jobs.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// What rests.
    pub(super) fn iter(&self) -> impl Iterator<Item = &J> {
        self.jobs.values()
    }

    /// Takes out every job for which `over` gives a reason.
    pub(super) fn sweep<F>(&mut self, mut over: impl FnMut(&J) -> Option<F>) -> Vec<(J, F)> {
        let mut out = Vec::new();
        for (due, job) in std::mem::take(&mut self.jobs) {
            match over(&job) {
                Some(reason) => out.push((job, reason)),
                None => {
                    self.jobs.insert(due, job);
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_by_chance_longer_each_time_and_within_their_room() {
        let mut dice = Dice::seeded(1);
        let mut longest = |failures, room| {
            let pauses = (0..1_000).map(|_| pause(failures, room, &mut dice));
            let (least, most) =
                pauses.fold((LONGEST, Duration::ZERO), |(least, most), one| (least.min(one), most.max(one)));
            assert!(least < most / 20, "{least:?} to {most:?} is no full jitter");
            most
        };
        let hour = Duration::from_secs(3600);
        for (failures, most) in [(1, 200), (2, 400), (3, 800), (6, 6_400), (7, 10_000), (1_000, 10_000)] {
            let most = Duration::from_millis(most);
            let seen = longest(failures, hour);
            assert!(seen <= most && seen > most.mul_f64(0.9), "{failures}: {seen:?}");
        }
        assert!(longest(9, Duration::from_millis(5)) <= Duration::from_millis(5));
    }

    #[test]
    fn what_is_due_comes_in_its_order() {
        let (mut resting, now) = (Resting::new(), Instant::now());
        let later = now + Duration::from_secs(1);
        for (until, job) in [(later, "c"), (now, "a"), (now, "b")] {
            resting.put(until, job);
        }
        assert_eq!(resting.len(), 3);
        assert_eq!([(); 3].map(|()| resting.take_due(now)), [Some("a"), Some("b"), None]);
        assert_eq!(resting.sweep(|_| Some("over")), [("c", "over")]);
        assert!(resting.is_empty() && resting.take_due(later).is_none());
    }
}
