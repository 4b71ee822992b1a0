//! Whose a key is: the first namespace that records its public key or check value has it, and no other may use it while one of that
//! namespace's managed keys stands for it; unless the configuration shares it (`shared_keys`).
//!
//! A claim is by what the key is, whatever library, token, label or id led to it. The records are the claims: nothing else
//! is stored, and the last record that goes takes the claim with it. They are counted here, so that a claim is found at once
//! among very many.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::registry::Entry;
use crate::crypto;
use crate::model::{CheckMethod, Fault, KeyIdentity, KeyKind, Namespace};

/// Every claim there is, also of the namespaces that the configuration does not name now: they come back with their keys.
#[derive(Default)]
pub(super) struct Claims(HashMap<Claimed, HashMap<Namespace, usize>, RandomState>);

/// What a key is, whatever led to it.
#[derive(PartialEq, Eq, Hash)]
enum Claimed {
    /// Not the whole SubjectPublicKeyInfo: libraries differ in how they write its parameters.
    Public(KeyKind, Box<[u8]>),
    /// By the value alone: not every token tells the length of a key.
    Secret(CheckMethod, [u8; 32]),
}

impl Claimed {
    fn by(identity: &KeyIdentity) -> Result<Claimed, Fault> {
        Ok(match identity {
            KeyIdentity::Public(public) => Claimed::Public(public.kind, crypto::subject_public_key(public)?.into()),
            KeyIdentity::Secret(value) => Claimed::Secret(value.method, value.digest),
        })
    }
}

impl Claims {
    /// One more managed key of a namespace stands for this. A key that cannot be read is nobody's: none found is like it.
    pub(super) fn add(&mut self, namespace: &Namespace, identity: &KeyIdentity) {
        if let Ok(claimed) = Claimed::by(identity) {
            *self.0.entry(claimed).or_default().entry(namespace.clone()).or_default() += 1;
        }
    }

    /// One of them does no longer.
    pub(super) fn remove(&mut self, namespace: &Namespace, identity: &KeyIdentity) {
        let Ok(claimed) = Claimed::by(identity) else { return };
        let Some(by) = self.0.get_mut(&claimed) else { return };
        if let Some(count) = by.get_mut(namespace) {
            *count -= 1;
            if *count == 0 {
                by.remove(namespace);
            }
        }
        if by.is_empty() {
            self.0.remove(&claimed);
        }
    }

    /// None of a namespace's does.
    pub(super) fn end(&mut self, namespace: &Namespace) {
        self.0.retain(|_, by| {
            by.remove(namespace);
            !by.is_empty()
        });
    }

    /// Refuses where another namespace than the entry's has the key `found` for the entry.
    pub(super) fn check(&self, entry: &Entry, found: &KeyIdentity) -> Result<(), Fault> {
        let Some(by) = self.0.get(&Claimed::by(found)?) else { return Ok(()) };
        let Some(claimed_by) = by.keys().find(|namespace| **namespace != entry.namespace) else { return Ok(()) };
        // For the operator of the daemon; whoever asks is not told whose it is.
        tracing::warn!(
            key = entry.name, namespace = %entry.namespace, %claimed_by,
            "a key of another namespace was refused: name its label in shared_keys of its kms_library or kms_pool to have \
             several share it"
        );
        Err(Fault::invalid(format!(
            "managed key {:?} cannot be used: the key it names on its token is another namespace's; register another label or \
             id, or have the key released there",
            entry.name
        )))
    }
}
