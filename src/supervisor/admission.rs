//! Leave for the next operation of a session, where flow control gives it, and how long its call may take.

use std::time::{Duration, Instant};

use super::super::job::Job;
use super::{Running, SessionEvent, SessionThread};
use crate::backend::{Refused, Turn};

/// So many sessions may wait for leave: fair shares of it are among those who are there to take theirs.
const SESSIONS_IN_LINE: usize = 4;
/// Leave that comes within this time was not waited for.
const AT_ONCE: Duration = Duration::from_millis(1);

impl SessionThread {
    /// Waits until flow control has the next operation begin. False where it does not: what was taken is with the lane again.
    pub(super) fn admitted(&self, running: &mut Running) -> bool {
        if !self.flow_control {
            return true;
        }
        let Some((next, avoid)) = self.watch.next() else { return true };
        let ((namespace, weight), class) = (next.key.party(), next.terms.class);
        let is_wanted = || self.watch.is_wanted() && !self.lane.prefers_another(&self.seat, &next, avoid);
        let until = next.terms.deadline.instant();
        self.look_whether_short(SESSIONS_IN_LINE);
        let asked = Instant::now();
        let refused = running.session.admit(&Turn { namespace, weight, class, until, is_wanted: &is_wanted });
        running.now = Instant::now();
        match refused {
            Ok(()) => {
                // Where leave is what there is too little of, more sessions are no help.
                if running.now - asked < AT_ONCE {
                    self.look_whether_short(usize::MAX);
                }
                return true;
            }
            Err(Refused::Later { is_throttled }) => {
                if is_throttled {
                    next.key.note_throttled();
                }
                self.lane.hand_back(self.watch.reclaim().into_iter(), self.seat.place.member);
            }
            Err(Refused::Late { fault }) => {
                next.key.note_throttled();
                let mut jobs = self.watch.reclaim();
                let late = jobs.pop_front();
                self.lane.put_back(jobs.into_iter());
                late.into_iter().for_each(|job| self.lane.too_late(job, fault.clone(), self.seat.place.member));
            }
            Err(Refused::Paused { fault, until }) => {
                next.key.note_throttled();
                self.lane.pause(self.watch.reclaim().into_iter(), fault, self.seat.place.member, until);
                (self.report)(SessionEvent::Rests(until));
            }
            Err(Refused::Shut { fault, until }) => {
                for job in self.watch.reclaim() {
                    if let Some(due) = self.lane.refused(job, fault.clone(), self.seat.place.member, until) {
                        (self.report)(SessionEvent::Rests(due));
                    }
                }
            }
        }
        false
    }

    fn look_whether_short(&self, most: usize) {
        if self.lane.is_short(&self.seat, most) {
            (self.report)(SessionEvent::Short);
        }
    }

    /// When a job's call is given up at the latest: at its deadline. Where another member could still do it, that is to have half
    /// of the time that is left, so that one which is silent does not take all of it; but never less is left than twice what such
    /// calls take.
    pub(super) fn end_of(&self, job: &Job, now: Instant) -> Instant {
        let end = job.terms.deadline.instant();
        let is_last = job.attempts + 1 >= self.lane.limits().resting_attempts;
        if !self.flow_control || is_last || !self.lane.is_held_elsewhere(job, self.seat.place.member) {
            return end;
        }
        let half = end.saturating_duration_since(now) / 2;
        end.min(now + half.max(job.key.learnt(&job.operation) * 2))
    }
}
