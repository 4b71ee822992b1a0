//! Who sits at a lane, who of them sleeps, and whom to wake. Who sleeps is woken by name: one session for one job, and one
//! that can do it.
//!
//! This knows no job: whether a session could do one is for the lane to say.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::route::MemberId;
use super::sync::Condvar;

/// For whom a session works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) member: MemberId,
    /// The member's epoch when the session was opened; once the lane knows a later one, the place is void.
    pub(super) epoch: u64,
}

/// What wakes a session.
pub(super) type Bell = Arc<Condvar>;

/// A session's place at the lane, and what wakes it there.
pub(super) struct Seat {
    pub(super) place: Place,
    pub(super) bell: Bell,
    /// Jobs that it took last, until it has stepped aside. Only its own session looks there.
    pub(super) taken: AtomicUsize,
}

impl Seat {
    pub(super) fn new(member: MemberId, epoch: u64) -> Seat {
        Seat { place: Place { member, epoch }, bell: Arc::default(), taken: AtomicUsize::new(0) }
    }
}

/// The sessions at a lane.
#[derive(Default)]
pub(super) struct Seats {
    /// Few: found by looking through them.
    members: Vec<(MemberId, Membership)>,
    /// Sessions with a seat.
    serving: usize,
    /// Sessions woken that have not come yet.
    coming: usize,
}

/// The present epoch of a member, the bells of its sessions that sit here, and of those that sleep.
#[derive(Default)]
struct Membership {
    epoch: u64,
    seated: Vec<Bell>,
    asleep: Vec<Bell>,
    /// It was said that its sessions are too few, and none has come since.
    heard: bool,
}

impl Seats {
    /// A member's part; made if there is none.
    fn member(&mut self, id: MemberId) -> &mut Membership {
        let place = self.members.iter().position(|(known, _)| *known == id).unwrap_or_else(|| {
            self.members.push((id, Membership::default()));
            self.members.len() - 1
        });
        &mut self.members[place].1
    }

    /// Sessions with a seat.
    pub(super) fn serving(&self) -> usize {
        self.serving
    }

    /// Sessions woken that have not come yet.
    pub(super) fn coming(&self) -> usize {
        self.coming
    }

    /// Whether the seat is of its member's present epoch.
    pub(super) fn is_present(&mut self, seat: &Seat) -> bool {
        self.member(seat.place.member).epoch == seat.place.epoch
    }

    /// Whether somebody sits there.
    pub(super) fn is_seated(&mut self, seat: &Seat) -> bool {
        position(&self.member(seat.place.member).seated, seat).is_some()
    }

    /// Seats a session, unless its place is void.
    pub(super) fn sit(&mut self, seat: &Seat) {
        if self.is_present(seat) {
            let member = self.member(seat.place.member);
            member.seated.push(Arc::clone(&seat.bell));
            member.heard = false;
            self.serving += 1;
        }
    }

    /// Frees a seat. The bell is that of a session that slept in it all the same: it is to learn of this.
    pub(super) fn leave(&mut self, seat: &Seat) -> Option<Bell> {
        let member = self.member(seat.place.member);
        let place = position(&member.seated, seat)?;
        member.seated.swap_remove(place);
        let asleep = position(&member.asleep, seat).map(|place| member.asleep.remove(place));
        self.serving -= 1;
        self.coming += usize::from(asleep.is_some());
        asleep
    }

    /// Begins a new epoch of `member`: its seats are void. The bells are those of the sessions that sleep in one.
    pub(super) fn begin_epoch(&mut self, member: MemberId, epoch: u64) -> Vec<Bell> {
        let membership = self.member(member);
        let gone = std::mem::take(&mut membership.seated).len();
        let asleep = std::mem::take(&mut membership.asleep);
        membership.epoch = epoch;
        self.serving -= gone;
        self.coming += asleep.len();
        asleep
    }

    /// Forgets a member whose sessions have all gone: many come and go while a lane stays.
    pub(super) fn forget(&mut self, id: MemberId) {
        self.members.retain(|(known, of)| *known != id || !of.seated.is_empty() || !of.asleep.is_empty());
    }

    /// Whether somebody sleeps.
    pub(super) fn has_sleepers(&self) -> bool {
        self.members.iter().any(|(_, member)| !member.asleep.is_empty())
    }

    /// Sessions of this member that have a seat.
    pub(super) fn seated(&mut self, id: MemberId) -> usize {
        self.member(id).seated.len()
    }

    /// Whether it was said that the sessions of this member are too few.
    pub(super) fn is_heard(&mut self, id: MemberId) -> bool {
        self.member(id).heard
    }

    /// Notes whether it was.
    pub(super) fn hear(&mut self, id: MemberId, is_heard: bool) {
        self.member(id).heard = is_heard;
    }

    /// Whether a session of this member sleeps.
    pub(super) fn sleeps(&self, id: MemberId) -> bool {
        self.members.iter().any(|(known, member)| *known == id && !member.asleep.is_empty())
    }

    /// The bell of a sleeping session that can do something, by what `can` says of its place. It is taken off the list, and
    /// counts as coming.
    pub(super) fn next(&mut self, can: impl Fn(Place) -> bool) -> Option<Bell> {
        let idle = self.members.iter_mut().filter(|(_, member)| !member.asleep.is_empty());
        let can = |(member, membership): &&mut (MemberId, Membership)| {
            can(Place { member: *member, epoch: membership.epoch })
        };
        // The member with fewest busy sessions first, and of those the one with most idle ones: so a lane with little to do
        // spreads it, however many sessions each has.
        let load = |member: &Membership| {
            (member.seated.len().saturating_sub(member.asleep.len()), Reverse(member.asleep.len()))
        };
        let (_, best) = idle.filter(can).min_by_key(|(_, member)| load(member))?;
        // Who fell asleep last is the one whose caches are warm.
        let bell = best.asleep.pop()?;
        self.coming += 1;
        Some(bell)
    }

    /// The bells of all who sleep, taken off the lists.
    pub(super) fn everyone(&mut self) -> Vec<Bell> {
        let asleep = self.members.iter_mut().flat_map(|(_, member)| std::mem::take(&mut member.asleep));
        let bells: Vec<_> = asleep.collect();
        self.coming += bells.len();
        bells
    }

    /// Notes that a session steps aside for others, and comes then.
    pub(super) fn steps_aside(&mut self) {
        self.coming += 1;
    }

    /// Notes that it has come.
    pub(super) fn comes_back(&mut self) {
        self.coming -= 1;
    }

    /// Notes that a session falls asleep.
    pub(super) fn falls_asleep(&mut self, seat: &Seat) {
        self.member(seat.place.member).asleep.push(Arc::clone(&seat.bell));
    }

    /// Whether a session that has woken up was called: then it has come. One that has waited long enough is taken off the
    /// list.
    pub(super) fn was_called(&mut self, seat: &Seat, waited_long_enough: bool) -> bool {
        let asleep = &mut self.member(seat.place.member).asleep;
        match position(asleep, seat) {
            None => {
                self.coming -= 1;
                true
            }
            Some(place) => {
                if waited_long_enough {
                    asleep.remove(place);
                }
                false
            }
        }
    }

    /// Sessions that sleep.
    #[cfg(all(test, not(feature = "shuttle")))]
    pub(super) fn asleep(&self) -> usize {
        self.members.iter().map(|(_, member)| member.asleep.len()).sum()
    }
}

fn position(bells: &[Bell], seat: &Seat) -> Option<usize> {
    bells.iter().position(|bell| Arc::ptr_eq(bell, &seat.bell))
}
