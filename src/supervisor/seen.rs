//! What a session remembers to have seen behind its handles, within a bound.

use std::collections::HashSet;
use std::hash::Hash;

use foldhash::fast::RandomState;

use super::job::Work;
use crate::model::{KeyOperation, SignatureScheme};

/// Keys a session remembers to have seen behind their handles.
const SEEN_MAX: usize = 4096;

/// A key, by its flow, behind a handle of its own, and whether it was seen to make proper PSS signatures: who makes others may be
/// wrong about salts.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Seen {
    flow: usize,
    handle: u64,
    pss: bool,
}

impl Seen {
    pub(super) fn of(work: &Work, handle: u64) -> Seen {
        let pss = matches!(work.operation, KeyOperation::Sign { scheme: SignatureScheme::RsaPss { .. }, .. });
        Seen { flow: work.flow(), handle, pss }
    }

    /// What it says of signatures that are not PSS.
    pub(super) fn as_any_signature(self) -> Seen {
        Seen { pss: false, ..self }
    }
}

/// Notes a key; of very many, all are looked at again.
pub(super) fn note<K: Eq + Hash>(keys: &mut HashSet<K, RandomState>, key: K) {
    if keys.len() >= SEEN_MAX {
        keys.clear();
    }
    keys.insert(key);
}
