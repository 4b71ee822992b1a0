//! The generations of a module: each lasts from one `C_Initialize` to the next `C_Finalize`.
//!
//! Numbers of sessions and objects mean something in their own generation only; in the next one the same number may be
//! another session's. So a generation is held by everything that came from it, and the next begins only when nobody holds
//! the last one any more: a thread stuck inside the module holds it too, and forbids it. This file must not know: PKCS#11.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Shortest times between two renewals: after the first, the second, and so on; the last of them from then on. One that is
/// lost twice in a moment is back at once, and one that is lost all the time is not initialised all the time. Only what was
/// of use to somebody is counted: where nothing works that a renewal could disturb, whoever tries to open a token paces it.
const PAUSES: [Duration; 4] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];
/// Without a renewal for so long, the next is a first one again. Longer than every pause: else they would never last.
const QUIET: Duration = Duration::from_secs(120);

/// A module's generations, one after another. `T` is what each has of its own.
pub(super) struct Generations<T> {
    /// The number of the present one; 0 before the first.
    present: Arc<AtomicU64>,
    state: Mutex<State<T>>,
}

struct State<T> {
    current: Option<Arc<Generation<T>>>,
    pace: Pace,
}

/// How fast one generation of use follows another.
#[derive(Default)]
struct Pace {
    /// When the last one was renewed.
    last: Option<Instant>,
    /// Renewals since the last quiet time.
    renewals: usize,
}

impl Pace {
    /// How long the next renewal is to wait.
    fn rest(&self, now: Instant) -> Duration {
        let pause = |renewals: usize| PAUSES[(renewals - 1).min(PAUSES.len() - 1)];
        match self.last {
            Some(last) if self.renewals > 0 => (last + pause(self.renewals)).saturating_duration_since(now),
            _ => Duration::ZERO,
        }
    }

    fn note(&mut self, now: Instant) {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) >= QUIET) {
            self.renewals = 0;
        }
        self.renewals += 1;
        self.last = Some(now);
    }
}

/// One generation.
pub(super) struct Generation<T> {
    pub(super) native: T,
    number: u64,
    present: Arc<AtomicU64>,
    outdated: AtomicBool,
    lost: AtomicBool,
    worked: AtomicBool,
    doubted: AtomicBool,
}

/// What became of the wish for a new generation.
pub(super) enum Renewal<T> {
    /// Here it is.
    Done(Arc<Generation<T>>),
    /// Others hold the present one: so many, the caller not counted.
    InUse(Arc<Generation<T>>, usize),
    /// The last renewal was too short a time ago.
    TooSoon(Arc<Generation<T>>, Duration),
}

impl<T> Generation<T> {
    /// Counts from 1, never backwards.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Whether numbers of this generation may still be given to the module.
    pub(super) fn is_present(&self) -> bool {
        !self.lost.load(Ordering::Relaxed) && self.present.load(Ordering::Relaxed) == self.number
    }

    /// Notes that the module ended it behind our back: all its sessions are gone.
    pub(super) fn lose(&self) {
        self.lost.store(true, Ordering::Relaxed);
    }

    /// Whether it was lost.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Notes that the module holds on to what is no longer so. Its sessions may be good all the same.
    pub(super) fn outdate(&self) {
        self.outdated.store(true, Ordering::Relaxed);
    }

    /// Notes a failure that the module may be to blame for, unless something works after it.
    pub(super) fn doubt(&self) {
        self.doubted.store(true, Ordering::Relaxed);
    }

    /// Whether another generation is wanted, for any of these reasons.
    pub(super) fn wants_renewal(&self) -> bool {
        self.outdated.load(Ordering::Relaxed) || self.doubted.load(Ordering::Relaxed) || self.is_lost()
    }

    /// Notes that it was of use. Many threads do so at a time: what is noted already is not written again.
    pub(super) fn note_work(&self) {
        if !self.worked.load(Ordering::Relaxed) {
            self.worked.store(true, Ordering::Relaxed);
        }
        if self.doubted.load(Ordering::Relaxed) {
            self.doubted.store(false, Ordering::Relaxed);
        }
    }
}

impl<T> Default for Generations<T> {
    fn default() -> Generations<T> {
        Generations { present: Arc::default(), state: Mutex::new(State { current: None, pace: Pace::default() }) }
    }
}

impl<T> Generations<T> {
    /// The present generation; `begin` begins one if there is none.
    pub(super) fn current<E>(&self, begin: impl FnOnce() -> Result<T, E>) -> Result<Arc<Generation<T>>, E> {
        let mut state = self.state.lock();
        match &state.current {
            Some(current) => Ok(Arc::clone(current)),
            None => self.begin(&mut state, begin),
        }
    }

    /// Ends the present generation and begins another, if nothing but the caller holds it and the last renewal is long
    /// enough ago. `mine` is the caller's hold. Where another caller renewed it meanwhile, that is the answer. Where
    /// `begin` fails there is no generation, and the next caller of [`Generations::current`] tries again.
    pub(super) fn renew<E>(
        &self,
        mine: Arc<Generation<T>>,
        now: Instant,
        end: impl FnOnce(T),
        begin: impl FnOnce() -> Result<T, E>,
    ) -> Result<Renewal<T>, E> {
        let mut state = self.state.lock();
        let current = match state.current.take() {
            Some(current) if Arc::ptr_eq(&current, &mine) => current,
            Some(newer) => {
                state.current = Some(Arc::clone(&newer));
                return Ok(Renewal::Done(newer));
            }
            None => return self.begin(&mut state, begin).map(Renewal::Done),
        };
        drop(mine);
        let (worked, rest) = (current.worked.load(Ordering::Relaxed), state.pace.rest(now));
        if worked && !rest.is_zero() {
            state.current = Some(Arc::clone(&current));
            return Ok(Renewal::TooSoon(current, rest));
        }
        match Arc::try_unwrap(current) {
            Ok(generation) => {
                end(generation.native);
                if worked {
                    state.pace.note(now);
                }
                self.begin(&mut state, begin).map(Renewal::Done)
            }
            Err(in_use) => {
                state.current = Some(Arc::clone(&in_use));
                // The caller's and our own do not count.
                let others = Arc::strong_count(&in_use).saturating_sub(2);
                Ok(Renewal::InUse(in_use, others))
            }
        }
    }

    fn begin<E>(&self, state: &mut State<T>, begin: impl FnOnce() -> Result<T, E>) -> Result<Arc<Generation<T>>, E> {
        let native = begin()?;
        let number = self.present.load(Ordering::Relaxed) + 1;
        self.present.store(number, Ordering::Relaxed);
        let generation = Arc::new(Generation {
            native,
            number,
            present: Arc::clone(&self.present),
            outdated: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            worked: AtomicBool::new(false),
            doubted: AtomicBool::new(false),
        });
        state.current = Some(Arc::clone(&generation));
        Ok(generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happened to the module, in order.
    type Log = Mutex<Vec<&'static str>>;

    fn begin(log: &Log) -> Result<(), ()> {
        log.lock().push("begin");
        Ok(())
    }

    fn current(generations: &Generations<()>, log: &Log) -> Arc<Generation<()>> {
        generations.current(|| begin(log)).unwrap()
    }

    fn renew(generations: &Generations<()>, mine: Arc<Generation<()>>, now: Instant, log: &Log) -> Renewal<()> {
        generations.renew(mine, now, |()| log.lock().push("end"), || begin(log)).unwrap()
    }

    fn done(renewal: Renewal<()>) -> Arc<Generation<()>> {
        let Renewal::Done(generation) = renewal else { panic!("not renewed") };
        generation
    }

    #[test]
    fn everyone_shares_the_present_generation() {
        let (generations, log) = (Generations::default(), Log::default());
        let (one, two) = (current(&generations, &log), current(&generations, &log));
        assert!(Arc::ptr_eq(&one, &two) && one.is_present());
        assert_eq!((one.number(), log.into_inner()), (1, vec!["begin"]));
    }

    #[test]
    fn the_next_one_begins_when_nobody_holds_the_last_and_ends_it_first() {
        let (generations, log, now) = (Generations::default(), Log::default(), Instant::now());
        let (mine, session) = (current(&generations, &log), current(&generations, &log));
        // A thread that never comes back from the module would be such a one.
        let Renewal::InUse(still, others) = renew(&generations, mine, now, &log) else { panic!("renewed in use") };
        assert_eq!((still.number(), others, log.lock().clone()), (1, 1, vec!["begin"]));
        drop(session);
        let next = done(renew(&generations, still, now, &log));
        assert!(next.is_present());
        assert_eq!((next.number(), log.into_inner()), (2, vec!["begin", "end", "begin"]));
    }

    #[test]
    fn two_who_want_it_at_once_get_it_once() {
        let (generations, log, now) = (Generations::default(), Log::default(), Instant::now());
        let (one, two) = (current(&generations, &log), current(&generations, &log));
        let Renewal::InUse(one, 1) = renew(&generations, one, now, &log) else { panic!("renewed in use") };
        drop(one);
        assert_eq!(done(renew(&generations, two, now, &log)).number(), 2);
        assert_eq!(current(&generations, &log).number(), 2);
    }

    /// Has every generation be of use, and renews each as soon as it may be; answers the pauses that took.
    fn pauses(generations: &Generations<()>, log: &Log, now: &mut Instant, renewals: usize) -> Vec<u64> {
        let pause = |_| {
            let mine = current(generations, log);
            mine.note_work();
            match renew(generations, mine, *now, log) {
                Renewal::TooSoon(mine, rest) => {
                    *now += rest;
                    done(renew(generations, mine, *now, log));
                    rest.as_secs()
                }
                Renewal::Done(_) => 0,
                Renewal::InUse(..) => panic!("in use"),
            }
        };
        (0..renewals).map(pause).collect()
    }

    #[test]
    fn those_of_use_are_renewed_quickly_at_first_and_then_ever_more_slowly() {
        let (generations, log, mut now) = (Generations::default(), Log::default(), Instant::now());
        assert_eq!(pauses(&generations, &log, &mut now, 6), [0, 0, 1, 5, 30, 30]);
        now += QUIET - Duration::from_secs(1);
        assert_eq!(pauses(&generations, &log, &mut now, 2), [0, 30]);
        // A time without any is forgiven.
        now += QUIET;
        assert_eq!(pauses(&generations, &log, &mut now, 4), [0, 0, 1, 5]);
    }

    #[test]
    fn one_of_no_use_to_anyone_is_renewed_at_any_time_and_counts_for_nothing() {
        let (generations, log, mut now) = (Generations::default(), Log::default(), Instant::now());
        assert_eq!(pauses(&generations, &log, &mut now, 4), [0, 0, 1, 5]);
        let mut useless = current(&generations, &log);
        for _ in 0..3 {
            useless = done(renew(&generations, useless, now, &log));
        }
        drop(useless);
        assert_eq!(pauses(&generations, &log, &mut now, 1), [30]);
    }

    #[test]
    fn a_lost_generation_is_not_present_and_wants_to_be_renewed() {
        let (generations, log) = (Generations::default(), Log::default());
        let (mine, session) = (current(&generations, &log), current(&generations, &log));
        assert!(!mine.wants_renewal());
        mine.outdate();
        assert!(mine.wants_renewal() && session.is_present() && !session.is_lost());
        mine.lose();
        assert!(session.wants_renewal() && session.is_lost() && !session.is_present());
        drop(session);
        let next = done(renew(&generations, mine, Instant::now(), &log));
        assert!(next.is_present() && !next.wants_renewal());
    }

    #[test]
    fn a_doubted_generation_wants_to_be_renewed_until_it_is_of_use() {
        let (generations, log) = (Generations::default(), Log::default());
        let mine = current(&generations, &log);
        mine.doubt();
        assert!(mine.wants_renewal() && mine.is_present());
        mine.note_work();
        assert!(!mine.wants_renewal());
        // What holds on to what is no longer so does that at work as well.
        mine.outdate();
        mine.note_work();
        assert!(mine.wants_renewal());
    }

    #[test]
    fn after_a_failed_beginning_the_next_caller_tries_again() {
        let (generations, log, now) = (Generations::<()>::default(), Log::default(), Instant::now());
        assert!(generations.current(|| Err("not there")).is_err());
        let mine = current(&generations, &log);
        assert_eq!(mine.number(), 1);
        assert!(generations.renew(mine, now, |()| log.lock().push("end"), || Err("gone")).is_err());
        let next = current(&generations, &log);
        assert_eq!((next.number(), log.into_inner()), (2, vec!["begin", "end", "begin"]));
    }

    #[test]
    fn numbers_of_an_older_generation_are_known_as_such() {
        let (generations, log) = (Generations::default(), Log::default());
        let old = current(&generations, &log);
        // As if something had begun the next one all the same.
        generations.state.lock().current = None;
        let new = current(&generations, &log);
        assert!(!old.is_present() && new.is_present());
        // Whoever wants a new one with an old one in hand gets the one that is.
        assert_eq!(done(renew(&generations, old, Instant::now(), &log)).number(), 2);
    }
}
