//! Who sits at a lane: sessions come, leave, and turn out to be too few or too many.

use std::time::Instant;

use super::super::job::Job;
use super::super::route::MemberId;
use super::super::seats::Seat;
use super::{Lane, State, Wake, judge, ring};

impl Lane {
    /// Takes a seat. The session may pull from now on.
    pub(in super::super) fn sit(&self, seat: &Seat) {
        self.state.lock().seats.sit(seat);
    }

    /// Leaves a seat: by the session itself, or by who gave it up while it was inside a call. Whoever comes second finds it
    /// left.
    pub(in super::super) fn leave(&self, seat: &Seat) {
        let mut state = self.state.lock();
        // Its call had returned just before it was given up: it is to end all the same.
        if let Some(bell) = state.seats.leave(seat) {
            ring(&bell);
        }
        // It may have been woken for a job that it leaves to others.
        self.wake(state);
    }

    /// Whether there is work for one more session of this one's member, if there are less than `most`. Once: until another has
    /// come, or [`Lane::listen`].
    pub(in super::super) fn is_short(&self, seat: &Seat, most: usize) -> bool {
        let (now, mut state) = (Instant::now(), self.state.lock());
        let State { schedule, seats, shut, .. } = &mut *state;
        let place = seat.place;
        if schedule.is_empty() || seats.is_heard(place.member) || seats.sleeps(place.member) {
            return false;
        }
        if seats.seated(place.member) >= most {
            return false;
        }
        let is_short = schedule.any(&mut |job: &Job| judge(job, place, shut, now));
        seats.hear(place.member, is_short);
        is_short
    }

    /// Has it said again if sessions of a member are too few.
    pub(in super::super) fn listen(&self, member: MemberId) {
        self.state.lock().seats.hear(member, false);
    }

    /// Leaves the seat, if more than `kept` sessions of its member are there.
    pub(in super::super) fn leave_if_spare(&self, seat: &Seat, kept: usize) -> bool {
        let mut state = self.state.lock();
        // What came in this moment woke nobody.
        let is_spare = state.is_empty() && state.seats.seated(seat.place.member) > kept;
        if is_spare {
            state.seats.leave(seat);
        }
        is_spare
    }

    /// Begins a new epoch of `member`: the seats of older ones are void, and their sessions leave.
    pub(in super::super) fn begin_epoch(&self, member: MemberId, epoch: u64) {
        let asleep = {
            let mut state = self.state.lock();
            state.shut.forget(member);
            state.seats.begin_epoch(member, epoch)
        };
        asleep.iter().for_each(|bell| ring(bell));
    }

    /// A member is gone, and every session of it.
    pub(in super::super) fn forget(&self, member: MemberId) {
        let mut state = self.state.lock();
        state.shut.forget(member);
        state.seats.forget(member);
    }

    /// Its members are others now, or turned out to be, and are better woken so.
    pub(in super::super) fn wake_by(&self, wake: Wake) {
        let mut state = self.state.lock();
        state.wake = wake;
        self.wake(state);
    }
}
