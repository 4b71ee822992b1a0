//! The order in which a lane serves what is queued: weighted deficit round robin over namespaces, by expected device time;
//! within a namespace three classes; within a class its keys in turn; within a key first come, first served.
//!
//! - A round gives each namespace `weight` times a quantum of device time to spend, in turn. What it cannot spend on its next
//!   job it keeps for the next round; with nothing queued it keeps nothing. So over any span in which two namespaces have
//!   work queued, the device time each was given, divided by its weight, differs by less than a quantum and a job of each.
//!   Rounds in which nobody could afford a job are not gone through: they are counted.
//! - Control work (CRLs) of any namespace goes before everything, up to a tenth of the device time given out. Beyond that it
//!   is the first thing of its own namespace's turn.
//! - Interactive goes before bulk of the same namespace; of eight parts, bulk gets one for sure.
//!
//! This knows no clock, no thread and no device: whether a job can be taken is for the caller to say.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::RandomState;

use super::held::{Held, Measure};
use super::{Class, Namespace};

/// One part in so many of the device time is kept for control work.
const CONTROL_SHARE: u64 = 10;
/// Device time of interactive jobs, over so much, is what bulk gets beside it.
const BULK_SHARE: u64 = 7;
/// Device time of one turn, for weight 1, in nanoseconds. Less than most jobs take, so that a turn is rarely more than one.
const QUANTUM: u64 = 50_000;
/// Keys with nothing queued whose queues are kept for the next job.
const IDLE_FLOWS: usize = 64;

/// What can be scheduled.
pub(crate) trait Item {
    /// Which queue of its namespace it stands in: one a key.
    fn flow(&self) -> usize;
    /// Its class.
    fn class(&self) -> Class;
    /// Its expected device time in nanoseconds; not 0.
    fn cost(&self) -> u64;
    /// Bytes it carries beside itself; always the same.
    fn bytes(&self) -> usize;
    /// What was charged for it when it was taken.
    fn charge(&mut self) -> &mut Charge;
}

/// What was changed by the taking of a job, in nanoseconds: undone if it comes back. Nothing while it is queued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Charge {
    /// What its namespace's turn paid.
    turn: u64,
    /// What control work may use before its turn is more by so much.
    control: i64,
    /// What bulk of its namespace may use before interactive is more by so much.
    bulk: i64,
}

/// What the caller says of a job at the head of its queue.
pub(crate) enum Fit<F> {
    /// It can be taken now.
    Take,
    /// Not by this caller, or not now.
    Skip,
    /// It is over: out with it, for this reason.
    Finish(F),
}

/// A namespace's place in a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TenantId(u32);

/// Everything queued in one lane.
pub(crate) struct Schedule<J> {
    tenants: Vec<Tenant<J>>,
    by_namespace: HashMap<Namespace, TenantId>,
    /// Tenants with something queued, in the order of their turns.
    ring: VecDeque<TenantId>,
    held: Held,
    control_queued: usize,
    /// Device time control work may use before its turn; below 0 where it has used more.
    control_credit: i64,
    /// Kept from take to take, for its room.
    candidates: Vec<Candidate>,
}

struct Tenant<J> {
    namespace: Namespace,
    weight: u64,
    /// Device time it may still use.
    deficit: u64,
    held: Held,
    classes: [Flows<J>; Class::ALL.len()],
    /// Device time bulk may use before interactive, times [`BULK_SHARE`].
    bulk_credit: u64,
}

/// The queues of one class, one a key, taken in turn.
struct Flows<J> {
    by_id: HashMap<usize, VecDeque<J>, RandomState>,
    ring: VecDeque<usize>,
    queued: usize,
}

/// What a tenant would do in its turn.
struct Candidate {
    /// Its place in the ring.
    index: usize,
    class: Class,
    place: usize,
    cost: u64,
}

impl<J: Item> Schedule<J> {
    pub(crate) fn new() -> Schedule<J> {
        Schedule {
            tenants: Vec::new(),
            by_namespace: HashMap::new(),
            ring: VecDeque::new(),
            held: Held::default(),
            control_queued: 0,
            control_credit: 1,
            candidates: Vec::new(),
        }
    }

    /// The place of `namespace`; made if there is none.
    pub(crate) fn tenant(&mut self, namespace: &Namespace, weight: u32) -> TenantId {
        if let Some(id) = self.by_namespace.get(namespace) {
            return *id;
        }
        let id = TenantId(u32::try_from(self.tenants.len()).unwrap_or(u32::MAX));
        self.tenants.push(Tenant::new(namespace.clone(), u64::from(weight.max(1))));
        self.by_namespace.insert(namespace.clone(), id);
        id
    }

    /// Jobs queued in all.
    pub(crate) fn len(&self) -> usize {
        self.held.jobs
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held.jobs == 0
    }

    /// What is queued in all.
    pub(crate) fn held(&self) -> Held {
        self.held
    }

    /// What is queued of one tenant.
    pub(crate) fn held_of(&self, id: TenantId) -> Held {
        self.get(id).map_or_else(Held::default, |tenant| tenant.held)
    }

    /// Whose turns come, in their order.
    #[cfg(test)]
    pub(crate) fn turns(&self) -> Vec<TenantId> {
        self.ring.iter().copied().collect()
    }

    /// The namespace of a place.
    pub(crate) fn namespace(&self, id: TenantId) -> Namespace {
        self.get(id).map_or_else(Namespace::root, |tenant| tenant.namespace.clone())
    }

    /// Jobs queued by namespace and class, and the bytes they carry, for those that ever had any.
    pub(crate) fn depths(&self) -> Vec<(Namespace, [usize; Class::ALL.len()], usize)> {
        let by_class = |tenant: &Tenant<J>| tenant.classes.each_ref().map(|flows| flows.queued);
        let depth = |tenant: &Tenant<J>| (tenant.namespace.clone(), by_class(tenant), tenant.held.bytes);
        self.tenants.iter().map(depth).collect()
    }

    fn get(&self, id: TenantId) -> Option<&Tenant<J>> {
        self.tenants.get(id.0 as usize)
    }

    /// Whether control work would be taken next, before anybody's turn.
    #[cfg(feature = "cloud")]
    pub(crate) fn favours_control(&self) -> bool {
        self.control_queued > 0 && self.control_credit > 0
    }

    /// Queues a job behind those of its key.
    pub(crate) fn push(&mut self, id: TenantId, job: J) {
        self.enter(id, job, false);
    }

    /// Puts a job that was taken back before those of its key. What was charged for it is given back where it was taken from.
    pub(crate) fn put_back(&mut self, id: TenantId, mut job: J) {
        let Charge { turn, control, bulk } = std::mem::take(job.charge());
        self.control_credit = self.control_credit.saturating_sub(control);
        if let Some(tenant) = self.tenants.get_mut(id.0 as usize) {
            tenant.deficit = tenant.deficit.saturating_add(turn);
            tenant.bulk_credit = tenant.bulk_credit.saturating_add_signed(bulk.saturating_neg());
        }
        self.enter(id, job, true);
    }

    fn enter(&mut self, id: TenantId, job: J, first: bool) {
        let Some(tenant) = self.tenants.get_mut(id.0 as usize) else { return };
        let class = job.class();
        if tenant.held.jobs == 0 {
            if first { self.ring.push_front(id) } else { self.ring.push_back(id) }
        }
        tenant.held.enter(job.bytes());
        self.held.enter(job.bytes());
        tenant.classes[class as usize].enter(job, first);
        self.control_queued += usize::from(class == Class::Control);
    }

    /// Takes the next job, if there is one that fits. What is over moves to `finished`.
    pub(crate) fn take<F>(&mut self, fit: &mut impl FnMut(&J) -> Fit<F>, finished: &mut Vec<(J, F)>) -> Option<J> {
        let (before, credit) = (finished.len(), self.control_credit);
        let mut job = match self.take_control(fit, finished) {
            Some(job) => Some(job),
            None => self.take_in_turn(fit, finished),
        };
        for (over, _) in &finished[before..] {
            self.held.leave(over.bytes());
            self.control_queued -= usize::from(over.class() == Class::Control);
        }
        if let Some(job) = &mut job {
            let cost = job.cost();
            self.held.leave(job.bytes());
            self.control_queued -= usize::from(job.class() == Class::Control);
            let earned = i64::try_from(cost / CONTROL_SHARE).unwrap_or(i64::MAX);
            // No more than the next job needs: control work never comes in a burst.
            self.control_credit = self.control_credit.saturating_add(earned).min(1.max(earned));
            job.charge().control = self.control_credit.saturating_sub(credit);
        }
        job
    }

    /// Control work before its namespace's turn, while its tenth lasts.
    fn take_control<F>(&mut self, fit: &mut impl FnMut(&J) -> Fit<F>, finished: &mut Vec<(J, F)>) -> Option<J> {
        if self.control_queued == 0 || self.control_credit <= 0 {
            return None;
        }
        for index in 0..self.ring.len() {
            let tenant = self.tenants.get_mut(self.ring[index].0 as usize)?;
            if let Some(place) = tenant.find(Class::Control, fit, finished) {
                let job = tenant.remove(Class::Control, place)?;
                let cost = job.cost();
                self.control_credit = self.control_credit.saturating_sub(i64::try_from(cost).unwrap_or(i64::MAX));
                self.leave_if_empty(index);
                return Some(job);
            }
        }
        None
    }

    fn take_in_turn<F>(&mut self, fit: &mut impl FnMut(&J) -> Fit<F>, finished: &mut Vec<(J, F)>) -> Option<J> {
        self.candidates.clear();
        let (mut index, mut rounds) = (0, u64::MAX);
        while index < self.ring.len() {
            let tenant = self.tenants.get_mut(self.ring[index].0 as usize)?;
            let Some((class, place, cost)) = tenant.next(fit, finished) else {
                if !self.leave_if_empty(index) {
                    index += 1;
                }
                continue;
            };
            let candidate = Candidate { index, class, place, cost };
            if tenant.deficit >= cost {
                return self.serve(&candidate);
            }
            rounds = rounds.min((cost - tenant.deficit).div_ceil(QUANTUM.saturating_mul(tenant.weight)));
            self.candidates.push(candidate);
            index += 1;
        }
        // Nobody can afford a job: as many rounds go by as it takes until one can.
        let candidates = std::mem::take(&mut self.candidates);
        let mut first = None;
        for candidate in &candidates {
            let tenant = self.tenants.get_mut(self.ring[candidate.index].0 as usize)?;
            let earned = rounds.saturating_mul(QUANTUM).saturating_mul(tenant.weight);
            tenant.deficit = tenant.deficit.saturating_add(earned);
            if first.is_none() && tenant.deficit >= candidate.cost {
                first = Some(candidate);
            }
        }
        let job = first.and_then(|candidate| self.serve(candidate));
        self.candidates = candidates;
        job
    }

    /// Takes a candidate's job. Its turn ends where it cannot afford another like it.
    fn serve(&mut self, Candidate { index, class, place, cost }: &Candidate) -> Option<J> {
        let id = *self.ring.get(*index)?;
        let tenant = self.tenants.get_mut(id.0 as usize)?;
        let mut job = tenant.remove(*class, *place)?;
        *job.charge() = tenant.charge(*class, *cost);
        let ends = tenant.deficit < *cost;
        if !self.leave_if_empty(*index) && ends {
            self.ring.remove(*index);
            self.ring.push_back(id);
        }
        Some(job)
    }

    /// Takes a tenant with nothing queued out of the ring.
    fn leave_if_empty(&mut self, index: usize) -> bool {
        let Some(id) = self.ring.get(index).copied() else { return false };
        let Some(tenant) = self.tenants.get_mut(id.0 as usize).filter(|tenant| tenant.held.jobs == 0) else {
            return false;
        };
        tenant.deficit = 0;
        tenant.bulk_credit = 0;
        self.ring.remove(index);
        true
    }

    /// Whether a job fits that a take would find. Finishes nothing.
    pub(crate) fn any<F>(&self, fit: &mut impl FnMut(&J) -> Fit<F>) -> bool {
        let tenants = self.ring.iter().filter_map(|id| self.get(*id));
        let mut heads = tenants.flat_map(|tenant| tenant.classes.iter().flat_map(Flows::heads));
        heads.any(|job| !matches!(fit(job), Fit::Skip))
    }

    /// Takes out every job for which `over` gives a reason.
    pub(crate) fn sweep<F>(&mut self, mut over: impl FnMut(&J) -> Option<F>) -> Vec<(J, F)> {
        let mut out = Vec::new();
        for tenant in &mut self.tenants {
            let before = out.len();
            tenant.classes.iter_mut().for_each(|flows| flows.sweep(&mut over, &mut out));
            out[before..].iter().for_each(|(job, _)| tenant.held.leave(job.bytes()));
        }
        out.iter().for_each(|(job, _)| self.held.leave(job.bytes()));
        self.control_queued -= out.iter().filter(|(job, _)| job.class() == Class::Control).count();
        for index in (0..self.ring.len()).rev() {
            self.leave_if_empty(index);
        }
        out
    }

    /// How much can be pushed out for `more` of `id`: what others have beyond what it would have then, for their weights.
    pub(crate) fn excess(&self, id: TenantId, more: usize, by: Measure) -> usize {
        let Some(mine) = self.get(id) else { return 0 };
        let (wanted, weight) = ((mine.held.of(by) + more) as u128, u128::from(mine.weight));
        // Whole jobs and bytes: who has more than a share with a fraction has more than the share without it.
        let share = |tenant: &Tenant<J>| usize::try_from(wanted * u128::from(tenant.weight) / weight);
        let excess = |tenant: &Tenant<J>| tenant.held.of(by).saturating_sub(share(tenant).unwrap_or(usize::MAX));
        self.ring.iter().filter(|other| **other != id).filter_map(|other| self.get(*other)).map(excess).sum()
    }

    /// Takes the newest and least urgent job of the tenant that has most queued for its weight, if that is more than `id`
    /// would have with `more`: room for one who has less than its share of a full lane. Where bytes are wanted, one that
    /// carries some.
    pub(crate) fn push_out(&mut self, id: TenantId, more: usize, by: Measure) -> Option<(TenantId, J)> {
        let mine = self.get(id)?;
        let (wanted, weight) = ((mine.held.of(by) + more) as u128, u128::from(mine.weight));
        // One's load, as often as the other weighs.
        let weighed = |one: TenantId, other: TenantId| {
            Some(self.get(one)?.held.of(by) as u128 * u128::from(self.get(other)?.weight))
        };
        let most = self.ring.iter().copied().max_by(|one, other| weighed(*one, *other).cmp(&weighed(*other, *one)))?;
        let tenant = self.tenants.get_mut(most.0 as usize)?;
        if most == id || tenant.held.of(by) as u128 * weight <= wanted * u128::from(tenant.weight) {
            return None;
        }
        // One that carries nothing goes only where all that carry something stand before such.
        let carries = |job: &J| by == Measure::Jobs || job.bytes() > 0;
        let carrying = tenant.classes.iter_mut().rev().find_map(|flows| flows.last(carries));
        let job = carrying.or_else(|| tenant.classes.iter_mut().rev().find_map(|flows| flows.last(|_| true)))?;
        tenant.held.leave(job.bytes());
        self.held.leave(job.bytes());
        self.control_queued -= usize::from(job.class() == Class::Control);
        if let Some(index) = self.ring.iter().position(|id| *id == most) {
            self.leave_if_empty(index);
        }
        Some((most, job))
    }
}

impl<J: Item> Tenant<J> {
    fn new(namespace: Namespace, weight: u64) -> Tenant<J> {
        let classes = std::array::from_fn(|_| Flows::new());
        Tenant { namespace, weight, deficit: 0, held: Held::default(), classes, bulk_credit: 0 }
    }

    /// The place of a job of this class that fits.
    fn find<F>(
        &mut self,
        class: Class,
        fit: &mut impl FnMut(&J) -> Fit<F>,
        finished: &mut Vec<(J, F)>,
    ) -> Option<usize> {
        let before = finished.len();
        let place = self.classes[class as usize].find(fit, finished);
        finished[before..].iter().for_each(|(job, _)| self.held.leave(job.bytes()));
        place
    }

    /// The next job that fits: its class, place and cost.
    fn next<F>(
        &mut self,
        fit: &mut impl FnMut(&J) -> Fit<F>,
        finished: &mut Vec<(J, F)>,
    ) -> Option<(Class, usize, u64)> {
        let bulk = self.classes[Class::Bulk as usize].head_cost();
        let bulk_first = bulk.is_some_and(|cost| self.bulk_credit >= cost.saturating_mul(BULK_SHARE));
        let order = if bulk_first {
            [Class::Control, Class::Bulk, Class::Interactive]
        } else {
            [Class::Control, Class::Interactive, Class::Bulk]
        };
        for class in order {
            if let Some(place) = self.find(class, fit, finished) {
                let cost = self.classes[class as usize].cost_at(place)?;
                return Some((class, place, cost));
            }
        }
        None
    }

    fn remove(&mut self, class: Class, place: usize) -> Option<J> {
        let job = self.classes[class as usize].remove(place)?;
        self.held.leave(job.bytes());
        Some(job)
    }

    fn charge(&mut self, class: Class, cost: u64) -> Charge {
        let before = self.bulk_credit;
        self.deficit = self.deficit.saturating_sub(cost);
        match class {
            Class::Bulk => self.bulk_credit = self.bulk_credit.saturating_sub(cost.saturating_mul(BULK_SHARE)),
            // Credit for bulk that waits; one job's worth at the most, so that it never comes in a burst.
            _ => {
                let most = self.classes[Class::Bulk as usize].head_cost().unwrap_or(0).saturating_mul(BULK_SHARE);
                self.bulk_credit = self.bulk_credit.saturating_add(cost).min(most);
            }
        }
        let bulk = i64::try_from(i128::from(self.bulk_credit) - i128::from(before)).unwrap_or_default();
        Charge { turn: cost, control: 0, bulk }
    }
}

impl<J: Item> Flows<J> {
    fn new() -> Flows<J> {
        Flows { by_id: HashMap::default(), ring: VecDeque::new(), queued: 0 }
    }

    fn enter(&mut self, job: J, first: bool) {
        let id = job.flow();
        let flow = self.by_id.entry(id).or_default();
        if flow.is_empty() {
            if first { self.ring.push_front(id) } else { self.ring.push_back(id) }
        }
        if first {
            flow.push_front(job)
        } else {
            flow.push_back(job)
        }
        self.queued += 1;
    }

    fn heads(&self) -> impl Iterator<Item = &J> {
        self.ring.iter().filter_map(|id| self.by_id.get(id)?.front())
    }

    /// Cost of what would be taken if everything fitted.
    fn head_cost(&self) -> Option<u64> {
        self.heads().next().map(Item::cost)
    }

    fn cost_at(&self, place: usize) -> Option<u64> {
        self.by_id.get(self.ring.get(place)?)?.front().map(Item::cost)
    }

    fn find<F>(&mut self, fit: &mut impl FnMut(&J) -> Fit<F>, finished: &mut Vec<(J, F)>) -> Option<usize> {
        let mut place = 0;
        while place < self.ring.len() {
            let id = self.ring[place];
            let flow = self.by_id.get_mut(&id)?;
            loop {
                match flow.front().map(&mut *fit) {
                    Some(Fit::Take) => return Some(place),
                    Some(Fit::Skip) => {
                        place += 1;
                        break;
                    }
                    Some(Fit::Finish(reason)) => {
                        finished.extend(flow.pop_front().map(|job| (job, reason)));
                        self.queued -= 1;
                    }
                    None => {
                        self.ring.remove(place);
                        self.forget_if_many(id);
                        break;
                    }
                }
            }
        }
        None
    }

    /// Takes the head at this place; its key goes behind the others.
    fn remove(&mut self, place: usize) -> Option<J> {
        let id = self.ring.remove(place)?;
        let flow = self.by_id.get_mut(&id)?;
        let job = flow.pop_front()?;
        self.queued -= 1;
        if flow.is_empty() {
            self.forget_if_many(id)
        } else {
            self.ring.push_back(id)
        }
        Some(job)
    }

    /// Takes the newest job of the key that is served last, of those whose newest is `wanted`.
    fn last(&mut self, wanted: impl Fn(&J) -> bool) -> Option<J> {
        let newest = |id: &usize| self.by_id.get(id).and_then(VecDeque::back);
        let place = self.ring.iter().rposition(|id| newest(id).is_some_and(&wanted))?;
        let id = self.ring[place];
        let flow = self.by_id.get_mut(&id)?;
        let job = flow.pop_back()?;
        self.queued -= 1;
        if flow.is_empty() {
            self.ring.remove(place);
            self.forget_if_many(id);
        }
        Some(job)
    }

    fn sweep<F>(&mut self, over: &mut impl FnMut(&J) -> Option<F>, out: &mut Vec<(J, F)>) {
        let before = out.len();
        for flow in self.by_id.values_mut() {
            for job in std::mem::take(flow) {
                match over(&job) {
                    Some(reason) => out.push((job, reason)),
                    None => flow.push_back(job),
                }
            }
        }
        self.queued -= out.len() - before;
        let by_id = &self.by_id;
        self.ring.retain(|id| by_id.get(id).is_some_and(|flow| !flow.is_empty()));
    }

    /// An empty queue is kept for the next job of its key, unless there are many.
    fn forget_if_many(&mut self, id: usize) {
        if self.by_id.len() > IDLE_FLOWS {
            self.by_id.remove(&id);
        }
    }
}
