//! What is refused before it is an operation, and yet is recorded: a greeting with a bad token, and what cannot be read.

use std::time::UNIX_EPOCH;

use super::{Dispatch, is_recorded};
use crate::audit::Answered;
use crate::model::{Fault, Operation};

/// Those that are recorded in one second: of strangers, and of who has a good token. Nobody waits for them, so they could be sent
/// faster than any device writes; and nothing was done for any.
const STRANGERS_EACH_SECOND: u64 = 10;
const KNOWN_EACH_SECOND: u64 = 1000;

impl Dispatch {
    /// See [`super::Door::note`]. Nobody waits for it: what is refused has done nothing.
    pub fn note(&self, operation: Operation, fault: &Fault) {
        let Ok(Some(recorder)) = self.audit.recorder() else { return };
        if !is_recorded(&operation) {
            return;
        }
        let subject = self.subject(operation, Some(fault.clone())).unjudged();
        let second = UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        let (counted, most) = match &subject.token {
            Some(_) => (&self.noted, KNOWN_EACH_SECOND),
            None => (&self.noted_of_strangers, STRANGERS_EACH_SECOND),
        };
        if counted.count(second) > most {
            return;
        }
        // One that is too long to be recorded says nothing beside its path, which was refused.
        if let Ok((recording, taken)) = subject.record(recorder) {
            drop((taken, recording.answer(&Answered::Fault(fault))));
        }
    }
}
