//! Members of a lane that are left alone for a while: since what they lead to did not answer several times in a row, or since it
//! asked for that. Jobs go to others meanwhile, where there are any.

use std::time::Instant;

use super::job::Job;
use super::route::MemberId;
use crate::model::{Deadline, Fault};

/// Those members; few, and mostly none.
#[derive(Default)]
pub(super) struct Shut {
    ill: Vec<(MemberId, Instant)>,
    /// With what an asker is told whose deadline is sooner.
    paused: Vec<(MemberId, Instant, Fault)>,
}

impl Shut {
    /// Leaves a member alone until then that did not answer.
    pub(super) fn note(&mut self, member: MemberId, until: Instant) {
        self.ill.retain(|(known, _)| *known != member);
        self.ill.push((member, until));
    }

    /// Leaves a member alone until then that asked for it.
    pub(super) fn pause(&mut self, member: MemberId, until: Instant, fault: Fault) {
        self.paused.retain(|(known, ..)| *known != member);
        self.paused.push((member, until, fault));
    }

    /// Whether a member is left alone now that does not answer.
    pub(super) fn has(&self, member: MemberId, now: Instant) -> bool {
        self.ill.iter().any(|(known, until)| *known == member && now < *until)
    }

    /// Whether one is that asked for it.
    pub(super) fn is_paused(&self, member: MemberId, now: Instant) -> bool {
        self.paused.iter().any(|(known, until, _)| *known == member && now < *until)
    }

    /// Whether a member is not left alone.
    pub(super) fn is_well(&self, member: MemberId, now: Instant) -> bool {
        !self.has(member, now) && !self.is_paused(member, now)
    }

    /// What a job is answered with at once that nobody can begin in time, since all who hold its key are to be left alone for longer.
    pub(super) fn too_late(&self, job: &Job, now: Instant) -> Option<Fault> {
        if !self.paused.iter().any(|(_, until, _)| now < *until) {
            return None;
        }
        let members = job.key.members();
        let told: Option<Vec<Fault>> =
            members.iter().map(|member| self.too_long(*member, job.terms.deadline, now)).collect();
        told?.into_iter().next()
    }

    /// What an asker with this deadline is told, if this member is to be left alone for longer.
    fn too_long(&self, member: MemberId, deadline: Deadline, now: Instant) -> Option<Fault> {
        let (_, until, fault) = self.paused.iter().find(|(known, ..)| *known == member)?;
        (now < *until && deadline.instant() <= *until).then(|| match fault {
            Fault::QuotaExceeded { what, .. } => {
                Fault::QuotaExceeded { what: what.clone(), retry_after: until.saturating_duration_since(now) }
            }
            other => other.clone(),
        })
    }

    /// Nothing is held against a member any more.
    pub(super) fn forget(&mut self, member: MemberId) {
        self.ill.retain(|(known, _)| *known != member);
        self.paused.retain(|(known, ..)| *known != member);
    }
}
