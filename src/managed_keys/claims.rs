//! Whose a key is: the first namespace that records its public key or check value has it, and no other may use it while one of that
//! namespace's managed keys stands for it.
//!
//! A claim is by what the key is, whatever library, token, label or id led to it. The records are the claims: nothing else
//! is stored, and the last record that goes takes the claim with it.

use super::record::{COLLECTION, KeyRecord};
use super::registry::{Entry, KEYS_MAX};
use crate::crypto;
use crate::model::{Fault, KeyIdentity, Namespace};
use crate::store::Store;

/// Claims of the namespaces that the configuration does not name now: they come back with their keys.
#[derive(Default)]
pub(super) struct Unserved(Vec<(Namespace, KeyIdentity)>);

impl Unserved {
    /// Reads those of these namespaces.
    pub(super) fn load(store: &Store, unserved: &[Namespace]) -> Result<Unserved, Fault> {
        let mut claims = Vec::new();
        for namespace in unserved {
            for (_, record) in store.read_all::<KeyRecord>(namespace, COLLECTION, None, KEYS_MAX)? {
                claims.extend(record.identity()?.map(|identity| (namespace.clone(), identity)));
            }
        }
        Ok(Unserved(claims))
    }

    /// Those of other namespaces than this.
    pub(super) fn without(&self, namespace: &Namespace) -> Unserved {
        Unserved(self.0.iter().filter(|(of, _)| of != namespace).cloned().collect())
    }

    /// The claims.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Namespace, &KeyIdentity)> {
        self.0.iter().map(|(namespace, identity)| (namespace, identity))
    }
}

/// Refuses where one of `claims`, of another namespace than the entry's, is to the key `found` for the entry.
pub(super) fn check<'c>(
    entry: &Entry,
    found: &KeyIdentity,
    claims: impl Iterator<Item = (&'c Namespace, &'c KeyIdentity)>,
) -> Result<(), Fault> {
    let bytes = found.public().map(crypto::subject_public_key).transpose()?;
    let same = |other: &KeyIdentity| match (found, other) {
        // Not the whole SubjectPublicKeyInfo: libraries differ in how they write its parameters.
        (KeyIdentity::Public(found), KeyIdentity::Public(other)) => {
            found.kind == other.kind && crypto::subject_public_key(other).ok() == bytes
        }
        (KeyIdentity::Secret(found), KeyIdentity::Secret(other)) => found == other,
        _ => false,
    };
    let mut others = claims.filter(|(namespace, _)| **namespace != entry.namespace);
    let Some((claimed_by, _)) = others.find(|(_, other)| same(other)) else { return Ok(()) };
    // For the operator of the daemon; whoever asks is not told whose it is.
    tracing::warn!(key = entry.name, namespace = %entry.namespace, %claimed_by, "a key of another namespace was refused");
    Err(Fault::invalid(format!(
        "managed key {:?} cannot be used: the key it names on its token is another namespace's; register another label or \
         id, or have the key released there",
        entry.name
    )))
}
