//! Whose a key is: the first namespace that records its public key or check value has it, and no other may use it while one of that
//! namespace's managed keys stands for it; unless the configuration shares it (`shared_keys`). One that was named by a managed key and
//! never used is whose managed key named it first.
//!
//! A claim is by what the key is, whatever library, token, label or id led to it; of one that nobody has used yet, by what may lead
//! to it. The records are the claims: nothing else is stored, and the last record that goes takes the claim with it. They are
//! counted here, so that a claim is found at once among very many.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use foldhash::fast::RandomState;

use super::registry::Entry;
use super::settings::Settings;
use crate::crypto;
use crate::model::{CheckMethod, CheckValue, Fault, Hash, KeyIdentity, KeyKind, Namespace, TokenSelector};
use crate::supervisor::{FoundAt, PreparedKey};

/// What is digested with the endpoints of a key and its name.
const ELSEWHERE: &[u8] = b"keyway managed key lasting name elsewhere v1\0";

/// Every claim there is, also of the namespaces that the configuration does not name now: they come back with their keys.
#[derive(Default)]
pub(super) struct Claims {
    recorded: HashMap<Claimed, HashMap<Namespace, usize>, RandomState>,
    /// Managed keys that were never used, by their UUIDs.
    named: HashMap<Named, HashMap<String, Arc<Entry>>, RandomState>,
    /// The highest `named_since` there is.
    newest: u64,
}

/// What a key is, whatever led to it.
#[derive(PartialEq, Eq, Hash)]
enum Claimed {
    /// Not the whole SubjectPublicKeyInfo: libraries differ in how they write its parameters.
    Public(KeyKind, Box<[u8]>),
    /// By the value or lasting name alone: not every token tells the length of a key.
    Secret(CheckMethod, [u8; 32]),
}

/// What a managed key names its key by; one that gives both is found by its label.
#[derive(PartialEq, Eq, Hash)]
enum Named {
    Label(String),
    Id(Vec<u8>),
}

impl Claimed {
    fn by(identity: &KeyIdentity) -> Result<Claimed, Fault> {
        Ok(match identity {
            KeyIdentity::Public(public) => Claimed::Public(public.kind, crypto::subject_public_key(public)?.into()),
            KeyIdentity::Secret(value) => Claimed::Secret(value.method, value.lasting()),
        })
    }
}

/// What a key was found to be, where the copies that `settings` name said so. The name of a key that opens what it sealed is the word
/// of whoever answers: at an endpoint of the managed key's own it is another name than at the service itself, so that nobody claims
/// the keys of others by a server that says what he likes.
pub(super) fn said_there(settings: &Settings, mut identity: KeyIdentity) -> Result<KeyIdentity, Fault> {
    let (KeyIdentity::Secret(CheckValue { name: Some(name), .. }), Some(TokenSelector::Cloud(key))) =
        (&mut identity, &settings.token)
    else {
        return Ok(identity);
    };
    let endpoints: BTreeSet<String> = key.copies().filter_map(|copy| copy.endpoint).collect();
    if !endpoints.is_empty() {
        // None has a line feed, and the name is as long as it always is.
        let said: String = endpoints.iter().flat_map(|endpoint| [endpoint, "\n"]).collect();
        let digest = crypto::digest(Hash::Sha2_256, &[ELSEWHERE, said.as_bytes(), &*name].concat())?;
        *name = digest.as_bytes().try_into().map_err(|_| Fault::internal("SHA-256 makes 32 bytes"))?;
    }
    Ok(identity)
}

impl Named {
    fn by(entry: &Entry) -> Option<Named> {
        let selector = entry.settings.selector();
        selector.label.map(Named::Label).or(selector.id.map(Named::Id))
    }
}

impl Claims {
    /// When a managed key that is written now names what it names.
    pub(super) fn next(&mut self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.newest = u64::try_from(now.as_millis()).unwrap_or_default().max(self.newest.saturating_add(1));
        self.newest
    }

    /// One more managed key stands for its key, or names one. A key that cannot be read is nobody's: none found is like it.
    pub(super) fn add(&mut self, entry: &Arc<Entry>) {
        self.newest = self.newest.max(entry.named_since);
        match &entry.ready {
            Some(ready) => {
                if let Ok(claimed) = Claimed::by(&ready.identity) {
                    *self.recorded.entry(claimed).or_default().entry(entry.namespace.clone()).or_default() += 1;
                }
            }
            None => {
                if let Some(named) = Named::by(entry) {
                    self.named.entry(named).or_default().insert(entry.uuid.clone(), Arc::clone(entry));
                }
            }
        }
    }

    /// This very one does no longer.
    pub(super) fn remove(&mut self, entry: &Entry) {
        let Some(ready) = &entry.ready else { return self.remove_name(entry) };
        let Ok(claimed) = Claimed::by(&ready.identity) else { return };
        let Some(by) = self.recorded.get_mut(&claimed) else { return };
        if let Some(count) = by.get_mut(&entry.namespace) {
            *count -= 1;
            if *count == 0 {
                by.remove(&entry.namespace);
            }
        }
        if by.is_empty() {
            self.recorded.remove(&claimed);
        }
    }

    fn remove_name(&mut self, entry: &Entry) {
        let Some(named) = Named::by(entry) else { return };
        let Some(by) = self.named.get_mut(&named) else { return };
        // Written anew, it may stand here as it is now.
        if by.get(&entry.uuid).is_some_and(|known| std::ptr::eq(Arc::as_ptr(known), entry)) {
            by.remove(&entry.uuid);
        }
        if by.is_empty() {
            self.named.remove(&named);
        }
    }

    /// None of a namespace's does.
    pub(super) fn end(&mut self, namespace: &Namespace) {
        self.recorded.retain(|_, by| {
            by.remove(namespace);
            !by.is_empty()
        });
        self.named.retain(|_, by| {
            by.retain(|_, entry| entry.namespace != *namespace);
            !by.is_empty()
        });
    }

    /// Refuses where another namespace than the entry's has the key `found` for the entry, or named it before the entry did:
    /// `may_name` tells whether the token of one that was never used may be the one where the key was found.
    ///
    /// # Errors
    ///
    /// [`Fault::NotFound`], as of a key that is not there.
    pub(super) fn check(
        &self,
        entry: &Entry,
        found: &PreparedKey,
        may_name: impl Fn(&Entry, &FoundAt) -> bool,
    ) -> Result<(), Fault> {
        let recorded = self.recorded.get(&Claimed::by(&found.identity)?).into_iter().flat_map(|by| by.keys());
        let recorded = recorded.filter(|namespace| **namespace != entry.namespace);
        let named =
            found.at.iter().flat_map(|at| self.names_before(entry, found, at).filter(|other| may_name(other, at)));
        let Some(claimed_by) = recorded.chain(named.map(|other| &other.namespace)).next() else { return Ok(()) };
        // For the operator of the daemon; whoever asks is not told whose it is, nor that it is there.
        tracing::warn!(
            key = entry.name, namespace = %entry.namespace, %claimed_by,
            "a key of another namespace was refused: delete its managed key there, or name its label in shared_keys of its \
             kms_library or kms_pool to have several share it"
        );
        let token = found.at.first().map(|at| at.token.to_string()).unwrap_or_default();
        Err(Fault::NotFound { what: format!("token {token} holds no such key for this namespace") })
    }

    /// Those of other namespaces that named a key of the entry's class and label before it did, on whatever token.
    pub(super) fn labels_before<'c>(&'c self, entry: &'c Entry) -> impl Iterator<Item = &'c Arc<Entry>> {
        let own = entry.settings.selector();
        let by = own.label.and_then(|label| self.named.get(&Named::Label(label)));
        let others = by.into_iter().flat_map(|by| by.values());
        others.filter(move |other| other.is_before(entry) && other.settings.selector().secret == own.secret)
    }

    /// Those of other namespaces that named a key of this class, label and id before `entry` did, on whatever token.
    fn names_before<'c>(
        &'c self,
        entry: &Entry,
        found: &PreparedKey,
        at: &FoundAt,
    ) -> impl Iterator<Item = &'c Arc<Entry>> {
        let is_secret = matches!(found.identity, KeyIdentity::Secret(_));
        let (label, id) = (Named::Label(at.label.clone()), Named::Id(at.id.clone()));
        let by = self.named.get(&label).into_iter().chain(self.named.get(&id));
        by.flat_map(|by| by.values()).filter(move |other| {
            let selector = other.settings.selector();
            other.is_before(entry)
                && selector.secret == is_secret
                && selector.label.is_none_or(|label| label == at.label)
                && selector.id.is_none_or(|id| id == at.id)
        })
    }
}

impl Entry {
    /// Whether it is another namespace's, and named what it names before `other` did.
    fn is_before(&self, other: &Entry) -> bool {
        self.namespace != other.namespace && (self.named_since, &self.uuid) < (other.named_since, &other.uuid)
    }
}
