//! What lies between clear records and the disk: AES-256-GCM, bound to each record's name and version.
//!
//! A stored record is
//!
//! | bytes | what |
//! |---|---|
//! | 1 | barrier format, 1 |
//! | 2 | version of the value's format |
//! | 16 + 4 | the data key: instance and epoch |
//! | 12 | nonce |
//! | rest | ciphertext and 16 bytes of tag |
//!
//! Integers are big-endian. The additional data is the first three bytes and the record's key in the physical store, so a
//! record moved to another name, or given another version, does not open. (An old value put back under its own name does.)
//!
//! Data keys come from the root key by HKDF-SHA-256 (RFC 5869). Each process start draws a random instance of 128 bits,
//! so no two processes share a data key; nonces are random, and an epoch ends after 2^24 of them: the chance that two
//! are alike is below 2^-49 per epoch, where NIST SP 800-38D (8.3) asks for 2^-32.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use parking_lot::{Mutex, RwLock};
use zeroize::Zeroizing;

use super::Record;
use crate::model::{Fault, Secret};

const FORMAT: u8 = 1;
const VERSION_END: usize = 3;
const INSTANCE_BYTES: usize = 16;
const KEY_END: usize = VERSION_END + INSTANCE_BYTES + 4;
const HEADER_BYTES: usize = KEY_END + NONCE_LEN;
const TAG_BYTES: usize = 16;

/// Length of the root key, in bytes.
pub(super) const ROOT_KEY_BYTES: usize = 32;

/// Seals with one data key, far below the 2^32 that random nonces of 96 bits allow.
const EPOCH_SEALS_MAX: u64 = 1 << 24;

/// Data keys of other instances and epochs kept for reading.
const OLD_KEYS_MAX: usize = 1_024;

type Instance = [u8; INSTANCE_BYTES];

/// Which data key: the process that derived it and its count there.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct KeyId {
    instance: Instance,
    epoch: u32,
}

/// Encrypts and opens records. Its keys are wiped when it is dropped: `Prk` does so, and AWS-LC clears all it frees.
pub(super) struct Barrier {
    root: Prk,
    current: ArcSwap<Epoch>,
    rotation: Mutex<()>,
    epoch_seals_max: u64,
    old: RwLock<HashMap<KeyId, Arc<LessSafeKey>>>,
    hash_keys: RwLock<HashMap<&'static str, hmac::Key>>,
}

struct Epoch {
    id: KeyId,
    key: LessSafeKey,
    seals: AtomicU64,
}

impl Barrier {
    /// A barrier with an instance of its own.
    pub(super) fn new(root_key: &Secret) -> Result<Barrier, Fault> {
        Barrier::with_epochs_of(root_key, EPOCH_SEALS_MAX)
    }

    fn with_epochs_of(root_key: &Secret, epoch_seals_max: u64) -> Result<Barrier, Fault> {
        if root_key.expose().len() != ROOT_KEY_BYTES {
            return Err(Fault::internal("the root key of the store has a wrong length"));
        }
        let root = Salt::new(HKDF_SHA256, b"keyway store v1").extract(root_key.expose());
        let mut instance = [0; INSTANCE_BYTES];
        random(&mut instance)?;
        let current = ArcSwap::from_pointee(Epoch::derive(&root, KeyId { instance, epoch: 0 })?);
        Ok(Barrier {
            root,
            current,
            rotation: Mutex::new(()),
            epoch_seals_max,
            old: RwLock::default(),
            hash_keys: RwLock::default(),
        })
    }

    /// The stored form of a value under the key of its entry. The clear value is wiped.
    pub(super) fn seal(&self, entry: &[u8], version: u16, value: Vec<u8>) -> Result<Vec<u8>, Fault> {
        let value = Zeroizing::new(value);
        let epoch = self.epoch_for_one_seal()?;
        let mut nonce = [0; NONCE_LEN];
        random(&mut nonce)?;
        let mut sealed = Vec::with_capacity(HEADER_BYTES + value.len() + TAG_BYTES);
        sealed.push(FORMAT);
        sealed.extend_from_slice(&version.to_be_bytes());
        sealed.extend_from_slice(&epoch.id.instance);
        sealed.extend_from_slice(&epoch.id.epoch.to_be_bytes());
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&value);
        let aad = additional_data(&sealed[..VERSION_END], entry);
        let tag = epoch
            .key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                &mut sealed[HEADER_BYTES..],
            )
            .map_err(|_| Fault::internal("AES-GCM refused to encrypt a record"))?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// The record whose stored form this is, read from under this key; `None` if it is not what was stored there.
    pub(super) fn open(&self, entry: &[u8], sealed: &[u8]) -> Result<Option<Record>, Fault> {
        if sealed.len() < HEADER_BYTES + TAG_BYTES || sealed[0] != FORMAT {
            return Ok(None);
        }
        let version = u16::from_be_bytes([sealed[1], sealed[2]]);
        let mut instance = [0; INSTANCE_BYTES];
        instance.copy_from_slice(&sealed[VERSION_END..VERSION_END + INSTANCE_BYTES]);
        let mut epoch = [0; 4];
        epoch.copy_from_slice(&sealed[VERSION_END + INSTANCE_BYTES..KEY_END]);
        let id = KeyId { instance, epoch: u32::from_be_bytes(epoch) };
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&sealed[KEY_END..HEADER_BYTES]);
        let aad = additional_data(&sealed[..VERSION_END], entry);
        let mut value = sealed[HEADER_BYTES..].to_vec();
        let current = self.current.load();
        let opened = if current.id == id {
            open_with(&current.key, nonce, &aad, &mut value)
        } else {
            self.open_with_old(id, nonce, &aad, &mut value)?
        };
        if !opened {
            return Ok(None);
        }
        value.truncate(value.len() - TAG_BYTES);
        Ok(Some(Record { version, value }))
    }

    /// HMAC-SHA-256 under a key of that purpose.
    pub(super) fn keyed_hash(&self, purpose: &'static str, bytes: &[u8]) -> Result<[u8; 32], Fault> {
        if let Some(key) = self.hash_keys.read().get(purpose) {
            return mac(key, bytes);
        }
        let mut derived = Zeroizing::new([0; 32]);
        derive(&self.root, &[b"keyed hash v1", &[0], purpose.as_bytes()], &mut derived)?;
        let key = hmac::Key::new(HMAC_SHA256, &*derived);
        let hash = mac(&key, bytes);
        self.hash_keys.write().insert(purpose, key);
        hash
    }

    /// The epoch to seal one record in, counted; begins the next when this one is used up.
    fn epoch_for_one_seal(&self) -> Result<Arc<Epoch>, Fault> {
        loop {
            let epoch = self.current.load_full();
            if epoch.seals.fetch_add(1, Ordering::Relaxed) < self.epoch_seals_max {
                return Ok(epoch);
            }
            let _rotation = self.rotation.lock();
            if self.current.load().id == epoch.id {
                let next = epoch.id.epoch.checked_add(1).ok_or_else(|| Fault::internal("the epochs are used up"))?;
                let id = KeyId { instance: epoch.id.instance, epoch: next };
                self.current.store(Arc::new(Epoch::derive(&self.root, id)?));
            }
        }
    }

    fn open_with_old(&self, id: KeyId, nonce: [u8; NONCE_LEN], aad: &[u8], value: &mut [u8]) -> Result<bool, Fault> {
        let cached = self.old.read().get(&id).cloned();
        if let Some(key) = cached {
            return Ok(open_with(&key, nonce, aad, value));
        }
        let key = Epoch::derive(&self.root, id)?.key;
        let opened = open_with(&key, nonce, aad, value);
        // Only ids that opened something: a damaged file cannot fill this.
        if opened {
            let mut old = self.old.write();
            if old.len() >= OLD_KEYS_MAX {
                old.clear();
            }
            old.insert(id, Arc::new(key));
        }
        Ok(opened)
    }
}

impl Epoch {
    fn derive(root: &Prk, id: KeyId) -> Result<Epoch, Fault> {
        let mut bytes = Zeroizing::new([0; 32]);
        derive(root, &[b"data key v1", &id.instance, &id.epoch.to_be_bytes()], &mut bytes)?;
        let key =
            UnboundKey::new(&AES_256_GCM, &*bytes).map_err(|_| Fault::internal("AES-GCM refused a derived key"))?;
        Ok(Epoch { id, key: LessSafeKey::new(key), seals: AtomicU64::new(0) })
    }
}

/// Fills with random bytes of AWS-LC.
pub(super) fn random(bytes: &mut [u8]) -> Result<(), Fault> {
    aws_lc_rs::rand::fill(bytes).map_err(|_| Fault::internal("no random bytes can be had"))
}

fn additional_data(format_and_version: &[u8], entry: &[u8]) -> Vec<u8> {
    [format_and_version, entry].concat()
}

fn open_with(key: &LessSafeKey, nonce: [u8; NONCE_LEN], aad: &[u8], value: &mut [u8]) -> bool {
    key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), value).is_ok()
}

fn derive(root: &Prk, info: &[&[u8]], key: &mut [u8; 32]) -> Result<(), Fault> {
    root.expand(info, HKDF_SHA256)
        .and_then(|okm| okm.fill(key))
        .map_err(|_| Fault::internal("HKDF refused to derive a key"))
}

fn mac(key: &hmac::Key, bytes: &[u8]) -> Result<[u8; 32], Fault> {
    let tag = hmac::sign(key, bytes);
    tag.as_ref().try_into().map_err(|_| Fault::internal("HMAC-SHA-256 of a wrong length"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn root_key() -> Secret {
        Secret::new([7; ROOT_KEY_BYTES])
    }

    fn barrier() -> Barrier {
        Barrier::new(&root_key()).unwrap()
    }

    #[test]
    fn another_process_with_the_root_key_reads_what_one_wrote() {
        let sealed = barrier().seal(b"entry", 3, b"value".to_vec()).unwrap();
        let reader = barrier();
        for _ in 0..2 {
            let record = reader.open(b"entry", &sealed).unwrap().unwrap();
            assert_eq!(record, Record { version: 3, value: b"value".to_vec() });
        }
        assert_eq!(reader.old.read().len(), 1);
    }

    #[test]
    fn another_root_key_reads_nothing() {
        let sealed = barrier().seal(b"entry", 1, b"value".to_vec()).unwrap();
        let other = Barrier::new(&Secret::new([8; ROOT_KEY_BYTES])).unwrap();
        assert_eq!(other.open(b"entry", &sealed).unwrap(), None);
        assert!(other.old.read().is_empty());
    }

    #[test]
    fn no_byte_can_be_changed() {
        let barrier = barrier();
        let sealed = barrier.seal(b"entry", 1, b"value".to_vec()).unwrap();
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert_eq!(barrier.open(b"entry", &changed).unwrap(), None, "byte {index}");
        }
        assert_eq!(barrier.open(b"other", &sealed).unwrap(), None);
    }

    #[test]
    fn the_clear_value_is_not_in_the_sealed_one() {
        let sealed = barrier().seal(b"entry", 1, b"a long secret value".to_vec()).unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
    }

    #[test]
    fn data_keys_and_nonces_are_never_used_twice() {
        let (one, two) = (barrier(), barrier());
        let mut seen = std::collections::HashSet::new();
        for barrier in [&one, &two] {
            for _ in 0..1000 {
                let sealed = barrier.seal(b"entry", 1, Vec::new()).unwrap();
                assert!(seen.insert(sealed[VERSION_END..HEADER_BYTES].to_vec()));
            }
        }
    }

    #[test]
    fn epochs_end_after_their_number_of_seals_and_stay_readable() {
        let barrier = Arc::new(Barrier::with_epochs_of(&root_key(), 10).unwrap());
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let barrier = Arc::clone(&barrier);
                std::thread::spawn(move || (0..50).map(|_| barrier.seal(b"e", 1, vec![1]).unwrap()).collect::<Vec<_>>())
            })
            .collect();
        let sealed: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        let mut seals: HashMap<Vec<u8>, usize> = HashMap::new();
        for each in &sealed {
            *seals.entry(each[VERSION_END..KEY_END].to_vec()).or_default() += 1;
            assert!(barrier.open(b"e", each).unwrap().is_some());
        }
        assert_eq!(seals.len(), 20);
        assert!(seals.values().all(|&count| count == 10));
    }

    #[test]
    fn keyed_hashes_differ_by_purpose_and_root_key() {
        let barrier = barrier();
        let hash = barrier.keyed_hash("token", b"x").unwrap();
        assert_eq!(hash, barrier.keyed_hash("token", b"x").unwrap());
        assert_ne!(hash, barrier.keyed_hash("pin", b"x").unwrap());
        let other = Barrier::new(&Secret::new([8; ROOT_KEY_BYTES])).unwrap();
        assert_ne!(hash, other.keyed_hash("token", b"x").unwrap());
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            prop_assert_eq!(barrier().open(b"entry", &bytes).unwrap(), None);
        }
    }
}
