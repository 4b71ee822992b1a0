//! The supervisor's memory of PINs, kept in the store: what a token refused once is not tried again after a restart.

use arc_swap::ArcSwapOption;

use crate::model::{Fault, Namespace, Secret};
use crate::store::{RecordKey, Store, Write};
use crate::supervisor::{PinHash, PinMemory};

const REFUSED: &str = "refused-pins";
const TAKEN: &str = "taken-pins";
const UNANSWERED: &str = "unanswered-pins";

/// What is remembered of tokens, which no older state of the store makes undone: a refused PIN counts on its token.
pub(super) const COLLECTIONS: [&str; 3] = [REFUSED, TAKEN, UNANSWERED];

/// The supervisor outlives the store, which is another after each unsealing.
#[derive(Default)]
pub(super) struct StoredPins {
    store: ArcSwapOption<Store>,
}

impl StoredPins {
    /// Keeps them in this store from now on; without one, no PIN is known or tried.
    pub(super) fn keep_in(&self, store: Option<Store>) {
        self.store.store(store.map(std::sync::Arc::new));
    }

    /// The store there is now, unless it is sealed.
    pub(super) fn store(&self) -> Result<Store, Fault> {
        self.store.load().as_deref().cloned().ok_or(Fault::Sealed)
    }
}

fn key(collection: &'static str, serial: &str, hash: &PinHash) -> RecordKey {
    RecordKey::new(&Namespace::root(), collection, format!("{serial}/{}", hex::encode(hash)))
}

fn taken_key(serial: &str) -> RecordKey {
    // A serial number may be empty, a record's name may not.
    RecordKey::new(&Namespace::root(), TAKEN, format!("{serial}/last"))
}

impl PinMemory for StoredPins {
    fn hash(&self, serial: &str, pin: &Secret) -> Result<PinHash, Fault> {
        // The serial's length keeps serial and PIN apart.
        let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(8 + serial.len() + pin.expose().len()));
        bytes.extend_from_slice(&(serial.len() as u64).to_be_bytes());
        bytes.extend_from_slice(serial.as_bytes());
        bytes.extend_from_slice(pin.expose());
        self.store()?.keyed_hash("token-pin", &bytes)
    }

    fn refused(&self, serial: &str, hash: &PinHash) -> Result<bool, Fault> {
        Ok(self.store()?.get(&key(REFUSED, serial, hash))?.is_some())
    }

    fn remember(&self, serial: &str, hash: &PinHash) -> Result<(), Fault> {
        self.store()?.commit_now(vec![Write::Put { key: key(REFUSED, serial, hash), version: 1, value: Vec::new() }])
    }

    fn taken(&self, serial: &str) -> Result<Option<PinHash>, Fault> {
        let record = self.store()?.get(&taken_key(serial))?;
        Ok(record.and_then(|record| record.value.as_slice().try_into().ok()))
    }

    fn remember_taken(&self, serial: &str, hash: &PinHash) -> Result<(), Fault> {
        self.store()?.commit_now(vec![Write::Put { key: taken_key(serial), version: 1, value: hash.to_vec() }])
    }

    fn unanswered(&self, serial: &str, hash: &PinHash) -> Result<u8, Fault> {
        let record = self.store()?.get(&key(UNANSWERED, serial, hash))?;
        Ok(record.and_then(|record| record.value.first().copied()).unwrap_or(0))
    }

    fn remember_unanswered(&self, serial: &str, hash: &PinHash, tries: u8) -> Result<(), Fault> {
        let key = key(UNANSWERED, serial, hash);
        let write = match tries {
            0 => Write::Delete { key },
            tries => Write::Put { key, version: 1, value: vec![tries] },
        };
        self.store()?.commit_now(vec![write])
    }
}
