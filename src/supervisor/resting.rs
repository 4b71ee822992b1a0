//! Jobs of a lane that failed and are to be tried again a little later: they hold up nobody meanwhile, neither a session nor
//! the jobs of their keys. They were admitted once, and count against the lane's bounds for newcomers like what is queued.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::model::Dice;
use crate::model::held::Held;
use crate::model::schedule::TenantId;

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
    jobs: BTreeMap<(Instant, u64), Rested<J>>,
    held: Held,
    /// The same of each namespace of which something rests.
    held_of: HashMap<TenantId, Held>,
    /// How many were put here: tells apart what is due at once.
    put: u64,
}

/// A job, whose it is, and the bytes that it carries.
struct Rested<J> {
    job: J,
    tenant: TenantId,
    bytes: usize,
}

impl<J> Resting<J> {
    pub(super) fn new() -> Resting<J> {
        Resting { jobs: BTreeMap::new(), held: Held::default(), held_of: HashMap::new(), put: 0 }
    }

    /// What rests in all.
    pub(super) fn held(&self) -> Held {
        self.held
    }

    /// What rests of one namespace.
    pub(super) fn held_of(&self, tenant: TenantId) -> Held {
        self.held_of.get(&tenant).copied().unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Puts a job here until then, of this namespace, which carries so many bytes.
    pub(super) fn put(&mut self, until: Instant, tenant: TenantId, bytes: usize, job: J) {
        self.put += 1;
        self.held.enter(bytes);
        self.held_of.entry(tenant).or_default().enter(bytes);
        self.jobs.insert((until, self.put), Rested { job, tenant, bytes });
    }

    /// Takes out the job that was due first, if one is.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<J> {
        let first = self.jobs.first_entry().filter(|first| first.key().0 <= now)?.remove();
        Some(self.left(first))
    }

    fn left(&mut self, Rested { job, tenant, bytes }: Rested<J>) -> J {
        self.held.leave(bytes);
        if let Entry::Occupied(mut held) = self.held_of.entry(tenant) {
            held.get_mut().leave(bytes);
            if held.get().jobs == 0 {
                held.remove();
            }
        }
        job
    }

    /// What rests.
    pub(super) fn iter(&self) -> impl Iterator<Item = &J> {
        self.jobs.values().map(|rested| &rested.job)
    }

    /// Takes out every job for which `over` gives a reason.
    pub(super) fn sweep<F>(&mut self, mut over: impl FnMut(&J) -> Option<F>) -> Vec<(J, F)> {
        let mut out = Vec::new();
        for (due, rested) in std::mem::take(&mut self.jobs) {
            match over(&rested.job) {
                Some(reason) => out.push((self.left(rested), reason)),
                None => {
                    self.jobs.insert(due, rested);
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::super::job::Job;
    use super::*;
    use crate::model::Namespace;
    use crate::model::schedule::Schedule;

    const HELD: Held = Held { jobs: 3, bytes: 21 };

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
        let tenant = Schedule::<Job>::new().tenant(&Namespace::root(), 1);
        let later = now + Duration::from_secs(1);
        for (until, job) in [(later, "c"), (now, "a"), (now, "b")] {
            resting.put(until, tenant, 7, job);
        }
        assert_eq!((resting.len(), resting.held(), resting.held_of(tenant)), (3, HELD, HELD));
        assert_eq!([(); 3].map(|()| resting.take_due(now)), [Some("a"), Some("b"), None]);
        assert_eq!(resting.sweep(|_| Some("over")), [("c", "over")]);
        assert!(resting.is_empty() && resting.take_due(later).is_none());
        assert_eq!((resting.held(), resting.held_of(tenant)), (Held::default(), Held::default()));
    }
}
