//! Credentials of one identity, kept fresh: they are fetched anew well before they end, so that no request waits for that; that
//! they cannot be is told then, long before requests fail; and those that the service refuses are fetched anew at once.
//!
//! Each service says how it gets credentials, as an [`Issuer`]. This room must not know: any one service, or who asks.

use std::error::Error;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Service;
use super::identities::{Owner, Watched};

/// Credentials are fetched anew so long before they end, and never more seldom than [`EVERY`]: so a failure is seen while those at
/// hand are good for long, and those that lie in a file are soon what the file has.
const AHEAD: Duration = Duration::from_secs(600);
const EVERY: Duration = Duration::from_secs(900);
/// Each failure is followed by another try after a pause.
const PAUSE_FIRST: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// The longest pause where the credentials are not the daemon's own.
const PAUSE_OTHERS: Duration = Duration::from_secs(900);
/// How long fetching may take.
const FETCH: Duration = Duration::from_secs(10);
/// Those that the service refuses are not fetched anew more often, so that no issuer is hammered.
const RENEWAL: Duration = Duration::from_secs(10);
/// So long whoever asks for credentials is told what the last failure was, and nobody is asked anew.
const FAILED: Duration = PAUSE_FIRST;
/// By how much the end of the same credentials may differ from one answer to the next: some issuers say how long they are good.
const UNSURE: Duration = Duration::from_secs(60);

/// Whoever gives out the credentials of one identity.
pub(crate) trait Issuer: Send + Sync + 'static {
    type Credentials: Clone + Send + Sync + 'static;
    type Error: Error + Send + Sync + 'static;

    /// Asks for credentials. Never answers from memory: what was answered before may be what the service refuses.
    fn issue(&self) -> impl Future<Output = Result<Issued<Self::Credentials>, Self::Error>> + Send;

    /// The error of an issuer that did not answer in time.
    fn late(limit: Duration) -> Self::Error;

    /// The same error, for one more who asks.
    fn again(error: &Self::Error) -> Self::Error;

    /// What an error says, fit for the log.
    fn why(error: &Self::Error) -> String;

    /// Whether both are the same: whoever was refused with one is refused with the other.
    fn is_same(one: &Self::Credentials, other: &Self::Credentials) -> bool;
}

/// Credentials, and when they end, as far as that is known.
#[derive(Clone)]
pub(crate) struct Issued<C> {
    pub(crate) credentials: C,
    pub(crate) end: Option<SystemTime>,
}

/// An identity, and the credentials it has now.
pub(crate) struct Keeper<I: Issuer> {
    issuer: I,
    owner: Owner,
    service: &'static str,
    held: ArcSwapOption<Issued<I::Credentials>>,
    /// How many different credentials there were.
    generation: AtomicU64,
    /// One fetches, the others wait. When the service refused credentials last.
    turn: tokio::sync::Mutex<Option<Instant>>,
    /// Since when credentials could last not be fetched, and why; `None` since they were.
    failed: Mutex<Option<(Instant, I::Error)>>,
    /// When that was told last; `None` since credentials were fetched.
    told: Mutex<Option<Instant>>,
    watched: Watched,
    /// Dropped with the keeper, it ends what runs beside.
    _alive: Option<oneshot::Sender<()>>,
}

/// What was fetched, and whether it is good for longer than what was at hand by more than the issuer's word.
struct Fetched<C> {
    credentials: C,
    renewed: bool,
}

impl<I: Issuer> std::fmt::Debug for Keeper<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl<I: Issuer> Keeper<I> {
    /// Keeps credentials fresh as long as anybody holds the keeper. Waits for nothing.
    pub(crate) fn start(issuer: I, owner: Owner, service: &Service) -> Arc<Keeper<I>> {
        let (alive, gone) = oneshot::channel();
        let keeper = Keeper { _alive: Some(alive), ..Keeper::new(issuer, owner, service) };
        let keeper = Arc::new(keeper);
        service.runtime.spawn(Keeper::run(Arc::downgrade(&keeper), gone));
        keeper
    }

    /// Fetches when somebody asks, and not ahead.
    pub(crate) fn new(issuer: I, owner: Owner, service: &Service) -> Keeper<I> {
        let watched = service.identities.watch(&owner);
        Keeper {
            issuer,
            owner,
            service: service.settings.service.name(),
            held: ArcSwapOption::empty(),
            generation: AtomicU64::new(0),
            turn: tokio::sync::Mutex::new(None),
            failed: Mutex::new(None),
            told: Mutex::new(None),
            watched,
            _alive: None,
        }
    }

    pub(crate) fn issuer(&self) -> &I {
        &self.issuer
    }

    async fn run(keeper: Weak<Keeper<I>>, mut gone: oneshot::Receiver<()>) {
        let mut failures = 0;
        loop {
            let Some(keeper) = keeper.upgrade() else { return };
            let next = if keeper.fetch_alone().await.unwrap_or(false) {
                failures = 0;
                due(keeper.watched.left())
            } else {
                failures += 1;
                keeper.pause(failures)
            };
            drop(keeper);
            tokio::select! {
                _ = &mut gone => return,
                () = tokio::time::sleep(next) => {}
            }
        }
    }

    /// The daemon's own credentials are the operator's business as long as they fail; another's are told of once.
    fn tell(&self, why: &str) {
        {
            let mut told = self.told.lock();
            if told.is_some_and(|last| !self.owner.is_daemon() || last.elapsed() < PAUSE_MAX) {
                return;
            }
            *told = Some(Instant::now());
        }
        let end = match self.at_hand() {
            Some(_) => "requests fail when those at hand have expired, or are refused",
            None => "requests fail until they can",
        };
        tracing::error!(
            service = self.service,
            owner = self.owner.kind(),
            identity = self.owner.identity(),
            reason = why,
            seconds_left = self.watched.left().map(|left| left.as_secs()),
            "credentials could not be fetched anew; {end}"
        );
    }

    fn pause(&self, failures: u32) -> Duration {
        let most = if self.owner.is_daemon() { PAUSE_MAX } else { PAUSE_OTHERS };
        PAUSE_FIRST.saturating_mul(1 << failures.min(10)).min(most)
    }

    /// Whether there are others now than before, or as good ones.
    async fn fetch_alone(&self) -> Result<bool, I::Error> {
        let _turn = self.turn.lock().await;
        self.fetch().await.map(|fetched| fetched.renewed)
    }

    /// Credentials that are good now, without a wait, if there are any.
    pub(crate) fn at_hand(&self) -> Option<I::Credentials> {
        let held = self.held.load();
        let good = held.as_ref().filter(|held| held.end.is_none_or(|end| end > SystemTime::now()));
        good.map(|held| held.credentials.clone())
    }

    /// Credentials that are good now: those at hand, or new ones. They are asked for to the end, also where whoever asks has no
    /// time left. Where they just could not be had, or another asks again, whoever asks is told why at once: neither is the
    /// issuer asked as often as requests come, nor does anybody wait behind one that hangs.
    pub(crate) async fn current(self: &Arc<Self>) -> Result<I::Credentials, I::Error> {
        if let Some(good) = self.at_hand() {
            return Ok(good);
        }
        if let Some(error) = self.failure(self.turn.try_lock().is_err()) {
            return Err(error);
        }
        let keeper = Arc::clone(self);
        tokio::spawn(async move { keeper.current_alone().await }).await.unwrap_or_else(|_| Err(I::late(FETCH)))
    }

    async fn current_alone(&self) -> Result<I::Credentials, I::Error> {
        let _turn = self.turn.lock().await;
        match (self.at_hand(), self.failure(false)) {
            (Some(good), _) => Ok(good),
            (None, Some(error)) => Err(error),
            (None, None) => self.fetch().await.map(|fetched| fetched.credentials),
        }
    }

    /// Why credentials could not be had a moment ago, or, where another `asks` again, the last time.
    fn failure(&self, asks: bool) -> Option<I::Error> {
        let failed = self.failed.lock();
        let failed = failed.as_ref().filter(|(since, _)| asks || since.elapsed() < FAILED);
        failed.map(|(_, error)| I::again(error))
    }

    /// Which credentials are at hand. To be asked before a call, for [`Keeper::renew`].
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// After the service refused those of `generation`: whether there are others now. They are asked for, unless they were just
    /// now; to the end, also where whoever asks has no time left, since others wait for them.
    pub(crate) async fn renew(self: &Arc<Self>, generation: u64) -> bool {
        let keeper = Arc::clone(self);
        tokio::spawn(async move { keeper.renew_now(generation).await }).await.unwrap_or(false)
    }

    async fn renew_now(&self, generation: u64) -> bool {
        let mut refused = self.turn.lock().await;
        if self.generation() != generation {
            return true;
        }
        if refused.is_some_and(|last| last.elapsed() < RENEWAL) {
            return false;
        }
        *refused = Some(Instant::now());
        self.fetch().await.is_ok() && self.generation() != generation
    }

    async fn fetch(&self) -> Result<Fetched<I::Credentials>, I::Error> {
        let issued = tokio::time::timeout(FETCH, self.issuer.issue()).await.unwrap_or_else(|_| Err(I::late(FETCH)));
        let issued = match issued {
            Ok(issued) => issued,
            Err(error) => {
                self.watched.failed();
                self.tell(&I::why(&error));
                let told = I::again(&error);
                *self.failed.lock() = Some((Instant::now(), error));
                return Err(told);
            }
        };
        *self.failed.lock() = None;
        let known = self.held.swap(Some(Arc::new(issued.clone())));
        let same = known.filter(|known| I::is_same(&known.credentials, &issued.credentials));
        if same.is_none() {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        // An instance's credentials that could not be renewed come as if they were good for some minutes more, each time anew: so
        // what counts is the end that was last believed.
        let before = same.and_then(|_| self.watched.end());
        let renewed = before.zip(issued.end).is_none_or(|(before, now)| now <= before + UNSURE);
        if renewed {
            self.watched.fetched(issued.end);
            *self.told.lock() = None;
        } else {
            self.watched.failed();
            self.tell("the same came again, said to be good for longer than before");
        }
        Ok(Fetched { credentials: issued.credentials, renewed })
    }
}

/// When credentials are to be fetched anew that are good for so long: ahead of their end, or half-way to it where that is near.
fn due(left: Option<Duration>) -> Duration {
    let Some(left) = left else { return EVERY };
    let due = if left > AHEAD * 2 { left - AHEAD } else { (left / 2).max(PAUSE_FIRST) };
    due.min(EVERY)
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
