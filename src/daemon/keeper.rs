//! Keeps the rooms that are built upon the store's keys: has them assembled and taken down while the daemon goes on, when it is
//! unsealed and sealed.
//!
//! Sealing leaves nothing of them: what is loaded from the store goes with the rooms, whatever it is, and unsealing is what a
//! start does. What stays is the front, the supervisor without keys and tokens, and the place of the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::gate::Gate;
use super::pins::StoredPins;
use super::rooms::Rooms;
use super::{Start, rooms};
use crate::config::Config;
use crate::model::{ConfigurationStatus, Fault};
use crate::store::{Place, Unopened};
use crate::supervisor::Supervisor;
use crate::system::{Replace, Replacement, Seal, Sealing};
use crate::telemetry::Telemetry;

/// Errands that may wait.
const ERRANDS_MAX: usize = 64;
/// How often it is looked whether a request is still under way.
const LOOK: Duration = Duration::from_millis(2);

enum Errand {
    Seal,
    Unseal,
    /// For the rooms of this number alone.
    Replace(u64, Replacement),
}

type Reply = oneshot::Sender<Result<(), Fault>>;

/// Where the keeper is asked. Cheap to clone.
#[derive(Clone)]
pub(super) struct Errands {
    keeper: mpsc::Sender<(Errand, Reply)>,
    /// Requests that wait for an errand which ends the rooms they came through: they are not waited for there.
    bringers: Arc<AtomicUsize>,
}

/// One of [`Errands::bringers`], as long as it waits.
struct Bringer(Arc<AtomicUsize>);

impl Drop for Bringer {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Errands {
    /// Unseals; nothing is done where that is so already. Its fault says why the daemon stays sealed.
    pub(super) async fn unseal(&self) -> Result<(), Fault> {
        self.ask(Errand::Unseal).await
    }

    /// What has a replacement change the file of the store while the daemon is sealed for it, and unseals, also if that failed:
    /// then with the store from before. Asked by nobody who comes through the rooms which end thereby, and for those of this
    /// number alone: whoever seals meanwhile has ended what was begun in them.
    pub(super) fn replacing(&self, rooms: u64) -> Replace {
        let errands = self.clone();
        Arc::new(move |replacement: Replacement| {
            let errands = errands.clone();
            Box::pin(async move { errands.ask(Errand::Replace(rooms, replacement)).await }) as Sealing
        })
    }

    /// What the rooms ask to be sealed by.
    pub(super) fn sealing(&self) -> Seal {
        let errands = self.clone();
        Arc::new(move || {
            let errands = errands.clone();
            Box::pin(async move {
                let _bringer = errands.bring();
                errands.ask(Errand::Seal).await
            }) as Sealing
        })
    }

    fn bring(&self) -> Bringer {
        self.bringers.fetch_add(1, Ordering::AcqRel);
        Bringer(Arc::clone(&self.bringers))
    }

    async fn ask(&self, errand: Errand) -> Result<(), Fault> {
        let going = || Fault::Unavailable { what: "the daemon is going down".into() };
        let (reply, answer) = oneshot::channel();
        self.keeper.send((errand, reply)).await.map_err(|_| going())?;
        answer.await.unwrap_or_else(|_| Err(going()))
    }
}

/// Errands, and where the keeper takes them.
pub(super) fn errands() -> (Errands, Inbox) {
    let (keeper, inbox) = mpsc::channel(ERRANDS_MAX);
    (Errands { keeper, bringers: Arc::default() }, Inbox(inbox))
}

/// What the keeper is asked.
pub(super) struct Inbox(mpsc::Receiver<(Errand, Reply)>);

/// What rooms are built from, and stays when they go.
pub(super) struct Site {
    pub(super) place: Arc<Place>,
    pub(super) config: Config,
    pub(super) start: Start,
    pub(super) supervisor: Supervisor,
    pub(super) pins: Arc<StoredPins>,
    pub(super) telemetry: Telemetry,
    pub(super) configuration: Arc<arc_swap::ArcSwap<ConfigurationStatus>>,
    pub(super) started: std::time::SystemTime,
    pub(super) errands: Errands,
    /// One snapshot at a time.
    pub(super) snapshots: Arc<Semaphore>,
    /// How often rooms were assembled.
    pub(super) assembled: AtomicU64,
}

pub(super) struct Keeper {
    site: Site,
    gate: Arc<Gate>,
    rooms: Option<Rooms>,
    /// When to ask a seal again that did not give the root key, and how long to wait after that.
    again: Option<(Instant, Duration)>,
}

impl Keeper {
    /// Assembles the rooms. If the seal does not give the root key now and may do so later, the daemon starts sealed.
    pub(super) async fn open(site: Site, gate: Arc<Gate>) -> Result<Keeper, Fault> {
        let mut keeper = Keeper { site, gate, rooms: None, again: None };
        match keeper.recover_and_assemble().await {
            Ok(rooms) => keeper.rooms = Some(rooms),
            Err(Unopened::Seal(fault)) if keeper.site.place.may_open_later() => keeper.ask_later(&fault),
            Err(unopened) => return Err(unopened.into_fault()),
        }
        Ok(keeper)
    }

    /// The rooms there are.
    pub(super) fn rooms(&self) -> Option<&Rooms> {
        self.rooms.as_ref()
    }

    /// Lets requests in to the rooms there are.
    pub(super) fn let_in(&self) {
        if let Some(rooms) = &self.rooms {
            self.gate.open(&rooms.dispatch);
        }
    }

    /// Does errands until the daemon stops; then hands itself back.
    pub(super) async fn keep(mut self, Inbox(mut inbox): Inbox, mut stop: watch::Receiver<bool>) -> Keeper {
        loop {
            let due = self.again.map(|(when, _)| when);
            let asked = tokio::select! {
                // Whoever stops may be gone: the same.
                _ = stop.wait_for(|stop| *stop) => return self,
                Some(asked) = inbox.recv() => Some(asked),
                () = until(due) => None,
            };
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return self,
                () = self.attend(asked) => {}
            }
        }
    }

    /// Does an errand; without one, asks the seal again.
    async fn attend(&mut self, asked: Option<(Errand, Reply)>) {
        let Some((errand, reply)) = asked else {
            // What failed is logged, and tried again.
            let _ = self.unseal().await;
            return;
        };
        // Who left needs no answer.
        let _ = reply.send(self.run(errand).await);
    }

    async fn run(&mut self, errand: Errand) -> Result<(), Fault> {
        match errand {
            Errand::Seal => {
                self.seal().await;
                Ok(())
            }
            Errand::Unseal => self.unseal().await,
            // Sealed meanwhile, it stays so.
            Errand::Replace(number, _) if self.rooms.as_ref().is_none_or(|rooms| rooms.number != number) => {
                Err(Fault::Sealed)
            }
            Errand::Replace(_, replacement) => {
                self.gate.replacing(true);
                let replaced = self.replace(replacement).await;
                self.gate.replacing(false);
                replaced
            }
        }
    }

    /// Puts another store in the place of this one, and this one back if the other does not come up.
    async fn replace(&mut self, replacement: Replacement) -> Result<(), Fault> {
        self.seal().await;
        let replaced = tokio::task::spawn_blocking(replacement).await;
        let replaced = match replaced.unwrap_or_else(|_| Err(Fault::internal("replacing the store ended by a panic"))) {
            Ok(replaced) => replaced,
            Err(fault) => {
                // Why that fails, if it does, is logged.
                let _ = self.unseal().await;
                return Err(fault);
            }
        };
        let why = match rooms::assemble(&self.site).await {
            Ok(rooms) => {
                self.rooms = Some(rooms);
                // Blocks this thread, so that nothing is begun by the clock or asked before it is certain which store that is in.
                match replaced.keep() {
                    Ok(()) => {
                        self.let_in();
                        tracing::info!("unsealed: serving what the snapshot had");
                        return Ok(());
                    }
                    Err(fault) => fault,
                }
            }
            Err(unopened) => unopened.into_fault(),
        };
        self.seal().await;
        let undone = tokio::task::spawn_blocking(move || replaced.undo()).await;
        undone.unwrap_or_else(|_| Err(Fault::internal("putting the store back ended by a panic")))?;
        match self.unseal().await {
            Ok(()) => Err(Fault::invalid(format!(
                "the snapshot is refused, and the store is as it was before: it is whole, but what is in it does not come up \
                 here: {why}"
            ))),
            Err(fault) => Err(Fault::Unavailable {
                what: format!(
                    "the snapshot is refused, for what is in it does not come up here: {why}; the store from before is in its \
                     place again, but does not open: {fault}; the daemon is sealed: mend this, then `keyway operator unseal`"
                ),
            }),
        }
    }

    /// Ends the rooms: what runs may finish within the drain's bound.
    async fn seal(&mut self) {
        self.again = None;
        self.gate.close();
        let Some(mut rooms) = self.rooms.take() else { return };
        let begun = Instant::now();
        let limit = self.site.config.limits.drain;
        let bringers = Arc::clone(&self.site.errands.bringers);
        let requests_cut = rooms.end(begun + limit, || bringers.load(Ordering::Acquire)).await;
        // What still runs has no keys any more, and no token.
        let members_left = rooms.take_down(&self.site, limit).await;
        if members_left > 0 {
            tracing::error!(
                members = members_left,
                "calls into tokens have not returned: those tokens are logged in until they do, or until a restart"
            );
        }
        let took_ms = begun.elapsed().as_millis();
        tracing::warn!(
            took_ms,
            requests_cut,
            "sealed: the keys are wiped from memory, and nothing is served until `keyway operator unseal` or a restart"
        );
    }

    /// Assembles the rooms, of the store from before a restore that was cut short.
    async fn recover_and_assemble(&self) -> Result<Rooms, Unopened> {
        let place = Arc::clone(&self.site.place);
        let recovered = tokio::task::spawn_blocking(move || place.recover()).await;
        let recovered =
            recovered.unwrap_or_else(|_| Err(Fault::internal("looking after the store's file ended by a panic")));
        recovered.map_err(Unopened::Storage)?;
        rooms::assemble(&self.site).await
    }

    /// Assembles the rooms, if there are none, and lets requests in.
    async fn unseal(&mut self) -> Result<(), Fault> {
        if self.rooms.is_some() {
            return Ok(());
        }
        match self.recover_and_assemble().await {
            Ok(rooms) => {
                self.again = None;
                self.rooms = Some(rooms);
                self.let_in();
                tracing::info!("unsealed: serving");
                Ok(())
            }
            Err(Unopened::Seal(fault)) if self.site.place.may_open_later() => {
                self.ask_later(&fault);
                Err(fault)
            }
            Err(unopened) => {
                self.again = None;
                let fault = unopened.into_fault();
                tracing::error!(%fault, "STAYS SEALED: nothing is served; mend this, then `keyway operator unseal`");
                Err(fault)
            }
        }
    }

    /// Asks the seal again after a pause, which grows.
    fn ask_later(&mut self, fault: &Fault) {
        let limits = &self.site.config.limits;
        let pause = self.again.map_or(limits.probe_min, |(_, before)| (before * 2).min(limits.probe_max));
        self.again = Some((Instant::now() + pause, pause));
        tracing::error!(
            %fault, again_in_s = pause.as_secs_f32(),
            "SEALED: the seal does not give the root key, so nothing is served; it is asked again until it does"
        );
    }

    /// What the daemon ends with.
    pub(super) fn into_rooms(self) -> Option<Rooms> {
        self.rooms
    }
}

/// Waits until then; for ever, if it is never.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Waits until nobody but its owner and so many `others` hold this, at the longest until the `end`. Answers how many do.
pub(super) async fn until_left<T>(held_by_many: &Arc<T>, end: Instant, others: impl Fn() -> usize) -> usize {
    loop {
        let left = Arc::strong_count(held_by_many).saturating_sub(1).saturating_sub(others());
        if left == 0 || Instant::now() >= end {
            return left;
        }
        tokio::time::sleep(LOOK).await;
    }
}
