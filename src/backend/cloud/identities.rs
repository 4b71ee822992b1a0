//! What is seen of the identities that keys at a service are used by: how often their credentials were fetched, or could not be,
//! and how long those at hand are good. Of identities alike by what is shown of them, together.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::telemetry::CredentialFigures;

/// Identities of one service that are told apart; those beyond are one.
const IDENTITIES_MAX: usize = 256;
const OTHERS: &str = "others";
/// Most letters of an identity that are shown.
const LETTERS: usize = 128;

/// Whose credentials they are, in words fit for metrics and logs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    daemon: bool,
    identity: String,
}

impl Owner {
    /// The daemon's own, or on its host: which, where there are several.
    pub(crate) fn daemon(identity: &str) -> Owner {
        Owner { daemon: true, identity: shown(if identity.is_empty() { "own" } else { identity }) }
    }

    /// A managed key's, by a name that is no secret.
    pub(crate) fn key(identity: &str) -> Owner {
        Owner { daemon: false, identity: shown(identity) }
    }

    pub(super) fn is_daemon(&self) -> bool {
        self.daemon
    }

    /// For metrics.
    pub(super) fn kind(&self) -> &'static str {
        if self.daemon { "daemon" } else { "managed_key" }
    }

    pub(super) fn identity(&self) -> &str {
        &self.identity
    }
}

fn shown(identity: &str) -> String {
    identity.chars().filter(|letter| !letter.is_control()).take(LETTERS).collect()
}

/// The identities of one service.
#[derive(Default)]
pub(crate) struct Identities(Mutex<BTreeMap<Owner, Arc<Totals>>>);

/// What is counted of identities that are called the same.
#[derive(Default)]
struct Totals {
    fetched: AtomicU64,
    failed: AtomicU64,
    /// Of each that there is, when its credentials end: in milliseconds since 1970, 0 where they do not or there are none.
    ends: Mutex<Vec<Weak<AtomicU64>>>,
}

/// One identity, seen as long as this is kept.
pub(super) struct Watched {
    totals: Arc<Totals>,
    end: Arc<AtomicU64>,
}

impl Identities {
    pub(super) fn watch(&self, owner: &Owner) -> Watched {
        let mut known = self.0.lock();
        if !known.contains_key(owner) && known.len() >= IDENTITIES_MAX {
            known.retain(|_, totals| totals.is_there());
        }
        let is_apart = known.contains_key(owner) || known.len() < IDENTITIES_MAX;
        let owner = if is_apart { owner.clone() } else { Owner { identity: OTHERS.to_owned(), ..owner.clone() } };
        let totals = Arc::clone(known.entry(owner).or_default());
        let end = Arc::new(AtomicU64::new(0));
        totals.add(&end);
        Watched { totals, end }
    }

    /// Those that there are.
    pub(super) fn figures(&self) -> Vec<CredentialFigures> {
        let known = self.0.lock();
        let there = known.iter().filter(|(_, totals)| totals.is_there());
        let figures = there.map(|(owner, totals)| CredentialFigures {
            owner: owner.kind(),
            identity: owner.identity.clone(),
            fetched: totals.fetched.load(Ordering::Relaxed),
            failed: totals.failed.load(Ordering::Relaxed),
            left: totals.ends.lock().iter().filter_map(|end| left(&*end.upgrade()?)).min(),
        });
        figures.collect()
    }
}

impl Totals {
    /// One more. Those that are gone make room, so that there are never more than twice as many as were there at once.
    fn add(&self, end: &Arc<AtomicU64>) {
        let mut ends = self.ends.lock();
        if ends.len() == ends.capacity() {
            ends.retain(|end| end.strong_count() > 0);
            let there = ends.len();
            ends.reserve(there);
        }
        ends.push(Arc::downgrade(end));
    }

    fn is_there(&self) -> bool {
        let mut ends = self.ends.lock();
        ends.retain(|end| end.strong_count() > 0);
        !ends.is_empty()
    }
}

impl Watched {
    /// Credentials were fetched that are good until `end`.
    pub(super) fn fetched(&self, end: Option<SystemTime>) {
        self.totals.fetched.fetch_add(1, Ordering::Relaxed);
        let since = end.and_then(|end| end.duration_since(UNIX_EPOCH).ok());
        let millis = since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        self.end.store(millis, Ordering::Relaxed);
    }

    /// They could not be.
    pub(super) fn failed(&self) {
        self.totals.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// When those that were last fetched end; `None` where there are none, or nobody knows. A failure does not move it.
    pub(super) fn end(&self) -> Option<SystemTime> {
        end(&self.end)
    }

    /// How long those at hand are good; `None` where there are none, or nobody knows.
    pub(super) fn left(&self) -> Option<Duration> {
        left(&self.end)
    }
}

fn end(millis: &AtomicU64) -> Option<SystemTime> {
    let millis = millis.load(Ordering::Relaxed);
    (millis > 0).then(|| UNIX_EPOCH.checked_add(Duration::from_millis(millis)))?
}

fn left(millis: &AtomicU64) -> Option<Duration> {
    Some(end(millis)?.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_alike_are_one_and_the_first_end_counts() {
        let identities = Identities::default();
        let seconds = Duration::from_secs;
        let [one, other] = [1000, 100].map(|left| {
            let watched = identities.watch(&Owner::key("app"));
            watched.fetched(Some(SystemTime::now() + seconds(left)));
            watched
        });
        let figures = identities.figures();
        assert_eq!((figures.len(), figures[0].fetched), (1, 2));
        assert!(figures[0].left.unwrap() <= seconds(100));
        drop(other);
        assert!(identities.figures()[0].left.unwrap() > seconds(100));
        drop(one);
        assert!(identities.figures().is_empty());
    }

    #[test]
    fn those_that_come_and_go_leave_nothing() {
        let identities = Identities::default();
        let stays = identities.watch(&Owner::key("app"));
        (0..1000).for_each(|_| drop(identities.watch(&Owner::key("app"))));
        let left = stays.totals.ends.lock().len();
        assert!(left <= 8, "{left}");
    }

    #[test]
    fn there_are_never_more_series_than_may_be() {
        let identities = Identities::default();
        let of = |number: usize| identities.watch(&Owner::key(&number.to_string()));
        let held: Vec<Watched> = (0..2 * IDENTITIES_MAX).map(of).collect();
        let figures = identities.figures();
        assert_eq!(figures.len(), IDENTITIES_MAX + 1);
        assert!(figures.iter().any(|one| one.identity == OTHERS));
        drop((held, of(7)));
        // Those that are gone make room.
        let _new = identities.watch(&Owner::key("new"));
        assert!(identities.figures().iter().any(|one| one.identity == "new"));
    }
}
