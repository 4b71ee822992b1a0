//! The supervisor's memory of PINs, kept in the store: what a token refused once is not tried again after a restart.

use arc_swap::ArcSwapOption;

use crate::backend::TokenIdentity;
use crate::model::{Fault, Namespace, Secret};
use crate::store::{RecordKey, Store, Write};
use crate::supervisor::{PinHash, PinMemory};

const REFUSED: &str = "refused-pins";
const TAKEN: &str = "taken-pins";
const UNANSWERED: &str = "unanswered-pins";

/// What the record of a token's taken PIN is called.
const LAST: &str = "last";

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

/// The record of a token in this collection. A serial number may be empty, a record's name may not: `of` never is.
fn own(store: &Store, collection: &'static str, token: &TokenIdentity, of: &str) -> Result<RecordKey, Fault> {
    let identity = hex::encode(store.keyed_hash("token-identity", &token.bytes())?);
    Ok(RecordKey::new(&Namespace::root(), collection, format!("{}/{identity}/{of}", token.serial)))
}

/// The record that was kept by the serial number alone before tokens were told apart by more: it counts for every token of
/// that number, and none such is made any more.
fn former(collection: &'static str, token: &TokenIdentity, of: &str) -> RecordKey {
    RecordKey::new(&Namespace::root(), collection, format!("{}/{of}", token.serial))
}

/// What is remembered, in its own record or in the former one.
fn read(store: &Store, collection: &'static str, token: &TokenIdentity, of: &str) -> Result<Option<Vec<u8>>, Fault> {
    let record = match store.get(&own(store, collection, token, of)?)? {
        None => store.get(&former(collection, token, of))?,
        own => own,
    };
    Ok(record.map(|record| record.value))
}

impl PinMemory for StoredPins {
    fn hash(&self, token: &TokenIdentity, pin: &Secret) -> Result<PinHash, Fault> {
        // With the serial number only, so that former records are understood: records tell tokens apart by their names. The
        // number's length keeps it and the PIN apart.
        let serial = token.serial.as_bytes();
        let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(8 + serial.len() + pin.expose().len()));
        bytes.extend_from_slice(&(serial.len() as u64).to_be_bytes());
        bytes.extend_from_slice(serial);
        bytes.extend_from_slice(pin.expose());
        self.store()?.keyed_hash("token-pin", &bytes)
    }

    fn refused(&self, token: &TokenIdentity, hash: &PinHash) -> Result<bool, Fault> {
        Ok(read(&self.store()?, REFUSED, token, &hex::encode(hash))?.is_some())
    }

    fn remember(&self, token: &TokenIdentity, hash: &PinHash) -> Result<(), Fault> {
        let store = self.store()?;
        let key = own(&store, REFUSED, token, &hex::encode(hash))?;
        store.commit_now(vec![Write::Put { key, version: 1, value: Vec::new() }])
    }

    fn taken(&self, token: &TokenIdentity) -> Result<Option<PinHash>, Fault> {
        let value = read(&self.store()?, TAKEN, token, LAST)?;
        Ok(value.and_then(|value| value.as_slice().try_into().ok()))
    }

    fn remember_taken(&self, token: &TokenIdentity, hash: &PinHash) -> Result<(), Fault> {
        let store = self.store()?;
        let key = own(&store, TAKEN, token, LAST)?;
        store.commit_now(vec![Write::Put { key, version: 1, value: hash.to_vec() }])
    }

    fn unanswered(&self, token: &TokenIdentity, hash: &PinHash) -> Result<u8, Fault> {
        let value = read(&self.store()?, UNANSWERED, token, &hex::encode(hash))?;
        Ok(value.and_then(|value| value.first().copied()).unwrap_or(0))
    }

    fn remember_unanswered(&self, token: &TokenIdentity, hash: &PinHash, tries: u8) -> Result<(), Fault> {
        let (store, of) = (self.store()?, hex::encode(hash));
        let key = own(&store, UNANSWERED, token, &of)?;
        // A former record would show again. It may be another token's, and stays.
        let is_none = tries == 0 && store.get(&former(UNANSWERED, token, &of))?.is_none();
        let write = if is_none { Write::Delete { key } } else { Write::Put { key, version: 1, value: vec![tries] } };
        store.commit_now(vec![write])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Storage;
    use crate::store::Ephemeral;

    fn pins() -> StoredPins {
        let pins = StoredPins::default();
        let store = Store::open(&Storage::Memory, Box::new(Ephemeral::new().unwrap())).unwrap();
        store.initialize().unwrap();
        pins.keep_in(Some(store));
        pins
    }

    fn token(manufacturer: &str, model: &str, label: &str) -> TokenIdentity {
        TokenIdentity::new(manufacturer, model, "0000000000000000", label)
    }

    #[test]
    fn what_is_remembered_of_a_token_is_of_no_other_with_its_serial_number() {
        let pins = pins();
        let one = token("maker", "model", "one");
        let hash = pins.hash(&one, &Secret::from("1111")).unwrap();
        pins.remember(&one, &hash).unwrap();
        pins.remember_taken(&one, &hash).unwrap();
        pins.remember_unanswered(&one, &hash, 2).unwrap();
        assert!(pins.refused(&one, &hash).unwrap());
        assert_eq!((pins.taken(&one).unwrap(), pins.unanswered(&one, &hash).unwrap()), (Some(hash), 2));
        for other in [token("maker", "model", "two"), token("maker", "other", "one"), token("makerm", "odel", "one")] {
            assert!(!pins.refused(&other, &hash).unwrap(), "{other:?}");
            assert_eq!((pins.taken(&other).unwrap(), pins.unanswered(&other, &hash).unwrap()), (None, 0));
        }
        pins.remember_unanswered(&one, &hash, 0).unwrap();
        assert_eq!(pins.unanswered(&one, &hash).unwrap(), 0);
    }

    #[test]
    fn what_was_remembered_by_the_serial_number_alone_still_counts() {
        let pins = pins();
        let (one, two) = (token("maker", "model", "one"), token("maker", "model", "two"));
        let hash = pins.hash(&one, &Secret::from("1111")).unwrap();
        let other = pins.hash(&one, &Secret::from("2222")).unwrap();
        let name = format!("0000000000000000/{}", hex::encode(hash));
        let put = |collection, name: &str, value: &[u8]| Write::Put {
            key: RecordKey::new(&Namespace::root(), collection, name),
            version: 1,
            value: value.to_vec(),
        };
        let records =
            [put(REFUSED, &name, b""), put(UNANSWERED, &name, &[2]), put(TAKEN, "0000000000000000/last", &hash)];
        pins.store().unwrap().commit_now(records.into()).unwrap();
        for token in [&one, &two] {
            assert!(pins.refused(token, &hash).unwrap() && !pins.refused(token, &other).unwrap());
            assert_eq!((pins.taken(token).unwrap(), pins.unanswered(token, &hash).unwrap()), (Some(hash), 2));
        }
        // What is learnt of one says nothing of the other.
        pins.remember_taken(&one, &other).unwrap();
        pins.remember_unanswered(&one, &hash, 0).unwrap();
        assert_eq!((pins.taken(&one).unwrap(), pins.unanswered(&one, &hash).unwrap()), (Some(other), 0));
        assert_eq!((pins.taken(&two).unwrap(), pins.unanswered(&two, &hash).unwrap()), (Some(hash), 2));
    }
}
