//! The managed keys a member is asked to hold: which it has proven to hold, and when the others are tried again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;

use super::control::{KEY_GONE, Proven};
use super::health::Event;
use super::pool::{BackOff, Member};
use super::route::{Holder, KeyRoute, KeySpec, PreparedKey};
use super::slot_actor::{Adopt, Reply, SlotActor, unavailable};
use crate::backend::{BackendError, Fate, LEFT_ALONE};
use crate::config::Pin;
use crate::model::{Fault, MemberState};

/// Longest pause between two tries to find a key that a serving token lacks.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Jobs wait for a key that nobody has seen held while its proofs fail no further apart than this: as long as for a member that
/// comes and goes, and no longer than most have time for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Proofs that wait for the control thread at a time, so that whoever else needs it comes between.
const PROOFS_MAX: usize = 64;

/// One managed key.
pub(super) struct Key {
    spec: KeySpec,
    route: Arc<KeyRoute>,
    held: bool,
    hope: Hope,
    /// The epoch in which it was found last.
    found_in: Option<u64>,
    proof: Proof,
    /// Whether a proof of it has ever come to anything.
    tried: bool,
    next_try: Instant,
    back_off: BackOff,
    /// Why it was not proven the last time, so that the same is not said again and again.
    told: Option<Fault>,
}

/// How long jobs wait for the proof of a key.
#[derive(Clone, Copy, PartialEq)]
enum Hope {
    /// Whatever becomes of it: the key was held, and nobody was told since that it is not.
    Returns,
    /// While it fails a few times.
    Open,
    /// Not for the next: the last ones failed.
    Gone,
}

/// Where the proof of a key is.
#[derive(Clone, Copy, PartialEq)]
enum Proof {
    /// Nowhere.
    None,
    /// In the queue.
    Queued,
    /// With the control thread.
    Running,
}

/// All of them, by UUID.
pub(super) struct SlotKeys {
    by_uuid: HashMap<String, Key>,
    /// Keys to be proven, in order.
    queue: VecDeque<String>,
    /// Counted here, since there may be very many keys.
    held: usize,
    running: usize,
    /// Keys whose first proof is under way.
    untried: usize,
    probe_min: Duration,
}

impl SlotKeys {
    pub(super) fn new(probe_min: Duration) -> SlotKeys {
        SlotKeys { by_uuid: HashMap::new(), queue: VecDeque::new(), held: 0, running: 0, untried: 0, probe_min }
    }

    /// How many it holds.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// How many are being proven for the first time, or wait for that. One that was looked for and is not there is looked
    /// for again and again, and nobody waits for it.
    pub(super) fn untried(&self) -> usize {
        self.untried
    }

    fn hold(&mut self, uuid: &str, held: bool) {
        if let Some(key) = self.by_uuid.get_mut(uuid) {
            self.held = self.held + usize::from(held) - usize::from(key.held);
            key.held = held;
        }
    }

    pub(super) fn insert(&mut self, key: Key) {
        let (uuid, held) = (key.spec.uuid.clone(), key.held);
        let old = self.by_uuid.insert(uuid, key);
        self.held += usize::from(held);
        old.iter().for_each(|old| self.uncount(old));
    }

    /// A key is no longer among them.
    fn uncount(&mut self, key: &Key) {
        self.held -= usize::from(key.held);
        self.untried -= usize::from(key.is_awaited());
    }

    pub(super) fn enqueue(&mut self, uuid: &str) {
        if let Some(key) = self.by_uuid.get_mut(uuid).filter(|key| key.proof == Proof::None) {
            key.proof = Proof::Queued;
            self.untried += usize::from(key.is_awaited());
            self.queue.push_back(uuid.to_owned());
        }
    }

    /// The next key to be proven, if there is room for one more.
    pub(super) fn next(&mut self) -> Option<KeySpec> {
        while self.running < PROOFS_MAX {
            let uuid = self.queue.pop_front()?;
            let Some(key) = self.by_uuid.get_mut(&uuid).filter(|key| key.proof == Proof::Queued) else { continue };
            key.proof = Proof::Running;
            self.running += 1;
            // Only a client's first use generates; never a probe.
            return Some(KeySpec { generate: None, ..key.spec.clone() });
        }
        None
    }

    /// A proof has ended; it was of use, unless it was made to a login that is gone.
    pub(super) fn ended(&mut self, uuid: &str, of_use: bool) {
        self.running -= 1;
        if let Some(key) = self.by_uuid.get_mut(uuid).filter(|key| key.proof == Proof::Running) {
            self.untried -= usize::from(key.is_awaited());
            key.proof = Proof::None;
            key.tried |= of_use;
        }
    }

    /// A proof of the key `uuid` is one of all that name the same object by the same credentials, as many namespaces may
    /// that share it.
    fn share_proof(&mut self, uuid: &str, holder: Holder) {
        let Some(spec) = self.by_uuid.get(uuid).map(|key| key.spec.clone()) else { return };
        for key in self.by_uuid.values_mut().filter(|key| !key.held && same_key(&key.spec, &spec)) {
            key.route.add_holder(holder);
            (key.held, key.found_in) = (true, Some(holder.epoch));
            key.has_served();
            self.held += 1;
            self.untried -= usize::from(key.is_awaited());
            key.tried = true;
            // One that is under way comes to its end by itself.
            if key.proof == Proof::Queued {
                key.proof = Proof::None;
            }
        }
    }

    /// The PINs of those that have one.
    pub(super) fn pins(&self) -> impl Iterator<Item = &Pin> {
        self.by_uuid.values().filter_map(|key| key.spec.pin.as_ref())
    }

    /// Takes the member out of every key set; only for a moment, if it `returns`.
    pub(super) fn let_go(&mut self, member: &Member, why: &Fault, returns: bool) {
        for key in self.by_uuid.values_mut() {
            if returns && (key.held || key.route.awaits(member.id)) {
                key.route.suspend_holder(member.id);
            } else {
                key.route.remove_holder(member.id, &unavailable(&key.spec, why));
                key.is_told();
            }
            key.held = false;
        }
        self.held = 0;
    }

    /// Has jobs wait for all that are to be proven now, but for those whose proofs failed of late.
    pub(super) fn expect(&self, member: &Member) {
        let promising = self.by_uuid.values().filter(|key| key.hope != Hope::Gone);
        promising.for_each(|key| key.route.expect_holder(member.id));
    }

    /// A proof hangs: nobody can say when those behind it are made.
    pub(super) fn give_up_proofs(&mut self, member: &Member, why: &Fault) {
        let waits = |key: &&mut Key| key.proof != Proof::None && key.route.awaits(member.id);
        for key in self.by_uuid.values_mut().filter(waits) {
            key.route.remove_holder(member.id, &unavailable(&key.spec, why));
            key.is_told();
        }
    }

    /// The member leaves for good: it holds none of them any more.
    pub(super) fn leave(&mut self, member: &Member, why: &Fault) {
        for key in self.by_uuid.values_mut() {
            key.route.leave_holder(member.id, &unavailable(&key.spec, why));
            key.held = false;
        }
        self.held = 0;
    }

    /// Has every key tried at the next look.
    pub(super) fn prove_soon(&mut self) {
        let now = Instant::now();
        self.by_uuid.values_mut().for_each(|key| key.next_try = now);
    }

    /// Holds a key no longer. False if it never did.
    pub(super) fn forget(&mut self, uuid: &str, member: &Member, why: &Fault) -> bool {
        let Some(key) = self.by_uuid.remove(uuid) else { return false };
        self.uncount(&key);
        key.route.remove_holder(member.id, why);
        true
    }

    pub(super) fn key(&self, spec: KeySpec, route: Arc<KeyRoute>) -> Key {
        let back_off = BackOff::new(self.probe_min, PAUSE_MAX);
        Key {
            spec,
            route,
            held: false,
            hope: Hope::Open,
            found_in: None,
            proof: Proof::None,
            tried: false,
            next_try: Instant::now(),
            back_off,
            told: None,
        }
    }
}

impl Key {
    /// A proof succeeded.
    pub(super) fn has_served(&mut self) {
        (self.hope, self.told) = (Hope::Returns, None);
        self.back_off.reset();
    }

    /// A proof failed, for the key's own reason or another. Whether nobody is to wait for the next.
    pub(super) fn has_failed(&mut self, own: bool) -> bool {
        let pause = self.back_off.pause();
        self.next_try = Instant::now() + pause;
        let gives_up = own || (self.hope != Hope::Returns && pause > PATIENCE);
        if gives_up {
            self.hope = Hope::Gone;
        }
        gives_up
    }

    /// Jobs were told that it is not held, for no reason of its own.
    fn is_told(&mut self) {
        if self.hope == Hope::Returns {
            self.hope = Hope::Open;
        }
    }

    /// Whether its first proof is under way.
    fn is_awaited(&self) -> bool {
        !self.tried && self.proof != Proof::None
    }
}

impl SlotActor {
    /// Has every key proven. Jobs wait for that.
    pub(super) fn prove_all(&mut self, ctx: &mut Context<Self>) {
        self.keys.expect(&self.member);
        let uuids: Vec<String> = self.keys.by_uuid.keys().cloned().collect();
        uuids.iter().for_each(|uuid| self.keys.enqueue(uuid));
        self.prove_next(ctx);
    }

    /// Has those proven whose next try is due.
    pub(super) fn prove_due(&mut self, ctx: &mut Context<Self>) {
        if !self.is_ready() {
            return;
        }
        let now = Instant::now();
        let due = |key: &&Key| !key.held && key.proof == Proof::None && key.next_try <= now;
        let uuids: Vec<String> = self.keys.by_uuid.values().filter(due).map(|key| key.spec.uuid.clone()).collect();
        uuids.iter().for_each(|uuid| self.keys.enqueue(uuid));
        self.prove_next(ctx);
    }

    /// Has one of the keys proven that it is to hold.
    pub(super) fn prove(&mut self, uuid: &str, ctx: &mut Context<Self>) {
        self.keys.enqueue(uuid);
        self.prove_next(ctx);
    }

    fn prove_next(&mut self, ctx: &mut Context<Self>) {
        while let Some(spec) = self.keys.next() {
            let (uuid, epoch) = (spec.uuid.clone(), self.epoch);
            let proven = self.control.run(self.settings.limits.call_open, move |control| control.prepare(&spec));
            ctx.spawn(proven.into_actor(self).map(move |result, actor, ctx| {
                let of_use = actor.is_ready() && actor.epoch == epoch;
                actor.keys.ended(&uuid, of_use);
                if of_use {
                    let result = actor.control_said(result);
                    actor.proven(&uuid, result, ctx);
                } else if actor.is_ready() {
                    // It was proven to a login that is gone.
                    actor.keys.enqueue(&uuid);
                }
                actor.prove_next(ctx);
            }));
        }
        self.member.note_untried(self.keys.untried());
    }

    fn proven(&mut self, uuid: &str, result: Result<Proven, BackendError>, ctx: &mut Context<Self>) {
        self.keys.hold(uuid, result.is_ok());
        let result = result.map_err(|error| self.doubted(uuid, error));
        let Some(key) = self.keys.by_uuid.get_mut(uuid) else { return };
        match result {
            Ok(proven) => {
                key.found_in = Some(self.epoch);
                key.has_served();
                let handle = proven.found.handle;
                let holder = Holder { member: self.member.id, epoch: self.epoch, handle };
                key.route.add_holder(holder);
                self.keys.share_proof(uuid, holder);
                self.exercised.store(Some(Arc::new(proven)));
                self.member.pool.lane.nudge();
                self.publish();
            }
            Err(error) => {
                // What takes the member down decides whether jobs wait for it; one that is busy is asked again.
                let own = is_keys_own(error.fate);
                if key.has_failed(own) && (own || key.route.awaits(self.member.id)) {
                    key.route.remove_holder(self.member.id, &unavailable(&key.spec, &error.fault));
                }
                if error.fate == Fate::Keep && matches!(error.fault, Fault::DeviceStuck { .. }) {
                    self.keys.give_up_proofs(&self.member, &error.fault);
                }
                self.member.pool.lane.sweep();
                self.say_unproven(uuid, &error);
                self.on(Event::ProofFailed(error.fate), Some(error), ctx);
            }
        }
    }

    /// Whoever found a key before does not find it now: if its module may be wrong in that, another initialisation tells, once.
    fn doubted(&self, uuid: &str, error: BackendError) -> BackendError {
        let is_news = self.keys.by_uuid.get(uuid).is_some_and(|key| key.found_in == Some(self.epoch));
        match &self.device {
            Some(device) if is_news && error.cause == KEY_GONE && self.traits.forgets_keys => {
                device.outdate();
                BackendError { fate: Fate::Reinitialize, ..error }
            }
            _ => error,
        }
    }

    /// What a search or proof came to. One that hangs ends with the process it is in; in this process it can only be waited
    /// for.
    fn control_said<T>(&self, result: Result<Result<T, BackendError>, Fault>) -> Result<T, BackendError> {
        let result = result.unwrap_or_else(|fault| {
            let hangs = matches!(fault, Fault::DeviceStuck { .. });
            if hangs && self.device.as_ref().is_some_and(|device| device.abort()) {
                return Err(BackendError { fault, fate: Fate::Reinitialize, cause: "stuck" });
            }
            Err(BackendError::new(Fate::Keep, fault))
        });
        // Look-ups in a cloud are calls like any other.
        if let Err(BackendError { fate: Fate::BackOff, cause, .. }) = &result
            && self.traits.flow_control
            && *cause != LEFT_ALONE
        {
            self.member.metrics.call_failed(cause);
        }
        result
    }

    fn say_unproven(&mut self, uuid: &str, error: &BackendError) {
        let Some(key) = self.keys.by_uuid.get_mut(uuid) else { return };
        let told_before = key.told.replace(error.fault.clone()).as_ref() == Some(&error.fault);
        let (name, namespace, others) = (&key.spec.name, &key.spec.namespace, key.route.holders());
        let (token, worker) = (&self.member.token, self.member.worker);
        let mismatch = matches!(error.fault, Fault::KeyMismatch { .. });
        if mismatch {
            self.member.metrics.key_mismatch();
        }
        if told_before {
            return;
        }
        if mismatch {
            tracing::error!(
                key = name, %namespace, %token, worker, reason = %error.fault, others,
                "ANOTHER KEY was found where a managed key was recorded: this member does not serve it"
            );
        } else {
            tracing::warn!(key = name, %namespace, %token, worker, reason = %error.fault, others, "managed key is not served by this member");
        }
    }

    /// Finds or generates a key for its first use, and serves it from then on.
    pub(super) fn prepare(&mut self, spec: KeySpec, reply: Reply, ctx: &mut Context<Self>) {
        let limits = &self.settings.limits;
        let limit = if spec.generate.is_some() { limits.call_generate } else { limits.call_open };
        let epoch = self.epoch;
        let asked = spec.clone();
        let prepared = self.control.run(limit, move |control| control.prepare(&asked));
        ctx.spawn(prepared.into_actor(self).map(move |result, actor, ctx| match actor.control_said(result) {
            Ok(proven) if actor.epoch == epoch => {
                let _ = reply.send(Ok(actor.first_use(spec, proven)));
            }
            Ok(_) => {
                let fault = Fault::Unavailable { what: "the token went down in the middle of it; try again".into() };
                let fault = unavailable(&spec, &fault);
                actor.prepare_again(spec, reply, fault, ctx);
            }
            Err(error) => actor.not_prepared(spec, reply, error, epoch, ctx),
        }));
    }

    fn not_prepared(&mut self, spec: KeySpec, reply: Reply, error: BackendError, epoch: u64, ctx: &mut Context<Self>) {
        let (fault, fate) = (error.fault.clone(), error.fate);
        if matches!(fault, Fault::KeyMismatch { .. }) {
            self.member.metrics.key_mismatch();
            let (token, worker) = (&self.member.token, self.member.worker);
            tracing::error!(
                key = spec.name, namespace = %spec.namespace, %token, worker, reason = %fault,
                "ANOTHER KEY was found at a managed key's first use: this member does not serve it"
            );
        }
        if self.epoch == epoch {
            self.on(Event::ProofFailed(fate), Some(error), ctx);
        }
        // Whoever looks for a key on a member that is brought up anew waits for that, as jobs do.
        if self.epoch != epoch && spec.generate.is_none() && !is_keys_own(fate) {
            self.prepare_again(spec, reply, fault, ctx);
        } else {
            let _ = reply.send(Err(fault));
        }
    }

    fn first_use(&mut self, mut spec: KeySpec, proven: Proven) -> PreparedKey {
        // Recorded meanwhile by what another member sealed, it is proven by that, and not by what this one did.
        let known = self.keys.by_uuid.get(&spec.uuid).and_then(|key| key.spec.recorded.as_ref());
        if spec.recorded.is_none() && known.is_some_and(|known| *known != proven.key.identity) {
            return proven.key;
        }
        let route = self.routes.get_or_make(&spec, &proven.key.identity, &self.member.pool);
        let handle = proven.found.handle;
        route.add_holder(Holder { member: self.member.id, epoch: self.epoch, handle });
        let prepared = proven.key.clone();
        self.exercised.store(Some(Arc::new(proven)));
        spec.recorded = Some(prepared.identity.clone());
        let mut key = self.keys.key(spec, route);
        (key.held, key.found_in) = (true, Some(self.epoch));
        key.has_served();
        self.keys.insert(key);
        self.publish();
        prepared
    }

    /// Serves a key whose identity is known, or takes note of its new settings.
    pub(super) fn adopt(&mut self, Adopt { spec, route }: Adopt, ctx: &mut Context<Self>) {
        route.cap(spec.max_parallel);
        let (uuid, pin) = (spec.uuid.clone(), spec.pin.clone());
        let known = self.keys.by_uuid.get_mut(&uuid).filter(|key| Arc::ptr_eq(&key.route, &route));
        match known {
            Some(key) => {
                let same = same_key(&key.spec, &spec);
                let held = key.held && same;
                if !same {
                    key.hope = Hope::Open;
                }
                key.spec = spec;
                self.keys.hold(&uuid, held);
            }
            None => {
                let key = self.keys.key(spec, route);
                self.keys.insert(key);
            }
        }
        if self.keys.by_uuid.get(&uuid).is_some_and(|key| key.held) {
            return;
        }
        self.note_pin(pin.as_ref(), ctx);
        if self.is_ready() {
            self.prove(&uuid, ctx);
        } else if self.health.state() == MemberState::Probing {
            self.expect(&uuid);
            self.bring_up(ctx);
        } else if self.returns {
            self.expect(&uuid);
        } else if let (Some(key), Some(why)) = (self.keys.by_uuid.get(&uuid), &self.down) {
            key.route.remove_holder(self.member.id, &unavailable(&key.spec, why));
            // Its first job may wait already.
            self.member.pool.lane.sweep();
        }
    }

    /// Has jobs of a key wait for the member, which is coming up.
    fn expect(&self, uuid: &str) {
        self.keys.by_uuid.get(uuid).iter().for_each(|key| key.route.expect_holder(self.member.id));
    }
}

/// Whether it is the key's own reason, so that the member goes on.
fn is_keys_own(fate: Fate) -> bool {
    matches!(fate, Fate::Keep | Fate::FindAgain)
}

/// Whether two specs name the same key by the same credentials, so that the proof still stands.
fn same_key(a: &KeySpec, b: &KeySpec) -> bool {
    a.selector == b.selector && a.recorded == b.recorded && a.pin == b.pin
}
