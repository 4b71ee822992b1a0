//! Members of a lane that are left alone for a while, since what they lead to did not answer several times in a row: jobs
//! go to others meanwhile, where there are any.

use std::time::Instant;

use super::route::MemberId;

/// Those members; few, and mostly none.
#[derive(Default)]
pub(super) struct Shut(Vec<(MemberId, Instant)>);

impl Shut {
    /// Leaves a member alone until then.
    pub(super) fn note(&mut self, member: MemberId, until: Instant) {
        self.0.retain(|(known, _)| *known != member);
        self.0.push((member, until));
    }

    /// Whether a member is left alone now.
    pub(super) fn has(&self, member: MemberId, now: Instant) -> bool {
        self.0.iter().any(|(known, until)| *known == member && now < *until)
    }

    /// Nothing is held against a member any more.
    pub(super) fn forget(&mut self, member: MemberId) {
        self.0.retain(|(known, _)| *known != member);
    }
}
