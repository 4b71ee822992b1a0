//! What lies between clear records and the disk: AES-256-GCM, bound to each record's name and version.
//!
//! A stored record is
//!
//! | bytes | what |
//! |---|---|
//! | 1 | barrier format: 1 in term 0, 2 in the others |
//! | 2 | version of the value's format |
//! | 4 | the term, in format 2 |
//! | 16 + 4 | the data key: instance and epoch |
//! | 12 | nonce |
//! | rest | ciphertext and 16 bytes of tag |
//!
//! Integers are big-endian. The additional data is the first three bytes and the record's key in the physical store, so a
//! record moved to another name, or given another version, does not open. (An old value put back under its own name does.)
//!
//! Data keys come from the key of their term (`keyring.rs`) by HKDF-SHA-256 (RFC 5869). Each process start draws a random instance of 128 bits,
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
use super::keyring::{Keyring, Term};
use crate::model::{Fault, Secret};

/// Of term 0, whose number is not told.
const FORMAT_FIRST: u8 = 1;
const FORMAT: u8 = 2;
const VERSION_END: usize = 3;
const INSTANCE_BYTES: usize = 16;
/// The longest header.
const HEADER_MAX: usize = VERSION_END + 4 + INSTANCE_BYTES + 4 + NONCE_LEN;
const TAG_BYTES: usize = 16;

/// Length of the root key, in bytes.
pub(super) const ROOT_KEY_BYTES: usize = 32;

/// Seals with one data key, far below the 2^32 that random nonces of 96 bits allow.
const EPOCH_SEALS_MAX: u64 = 1 << 24;

/// Data keys of other instances and epochs kept for reading.
const OLD_KEYS_MAX: usize = 1_024;

type Instance = [u8; INSTANCE_BYTES];

/// Which data key: its term, the process that derived it, and its count there.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct KeyId {
    term: u32,
    instance: Instance,
    epoch: u32,
}

/// What stands before the ciphertext.
struct Header {
    version: u16,
    id: KeyId,
    nonce: [u8; NONCE_LEN],
    /// Where the ciphertext begins.
    end: usize,
}

/// Encrypts and opens records. Its keys are wiped when it is dropped: `Prk` does so, and AWS-LC clears all it frees.
pub(super) struct Barrier {
    root_key: Mutex<Secret>,
    keyring: Mutex<Keyring>,
    /// What data keys of each term are derived from. One that the keyring has lost stays, for who has read a record before.
    terms: RwLock<HashMap<u32, Arc<Prk>>>,
    hashes: Prk,
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
    /// A barrier of a store without a keyring, with an instance of its own.
    pub(super) fn new(root_key: &Secret) -> Result<Barrier, Fault> {
        Barrier::with_keyring(root_key, Keyring::of_root(root_key))
    }

    /// The same, of a store with this keyring.
    pub(super) fn with_keyring(root_key: &Secret, keyring: Keyring) -> Result<Barrier, Fault> {
        Barrier::with_epochs_of(root_key, keyring, EPOCH_SEALS_MAX)
    }

    fn with_epochs_of(root_key: &Secret, keyring: Keyring, epoch_seals_max: u64) -> Result<Barrier, Fault> {
        if root_key.expose().len() != ROOT_KEY_BYTES {
            return Err(Fault::internal("the root key of the store has a wrong length"));
        }
        let mut instance = [0; INSTANCE_BYTES];
        random(&mut instance)?;
        let term = |term: &Term| Ok((term.number, Arc::new(extract(&term.key)?)));
        let terms = keyring.terms.iter().map(term).collect::<Result<HashMap<u32, Arc<Prk>>, Fault>>()?;
        let id = KeyId { term: keyring.current()?.number, instance, epoch: 0 };
        let current = ArcSwap::from_pointee(Epoch::derive(&terms, id)?.ok_or_else(no_term)?);
        Ok(Barrier {
            root_key: Mutex::new(root_key.clone()),
            hashes: extract(&keyring.hash_key)?,
            keyring: Mutex::new(keyring),
            terms: RwLock::new(terms),
            current,
            rotation: Mutex::new(()),
            epoch_seals_max,
            old: RwLock::default(),
            hash_keys: RwLock::default(),
        })
    }

    /// The root key, for who wraps it or seals the keyring.
    pub(super) fn root_key(&self) -> Secret {
        self.root_key.lock().clone()
    }

    /// Another root key guards the keyring from now on.
    pub(super) fn replace_root(&self, root_key: Secret) {
        *self.root_key.lock() = root_key;
    }

    /// The keyring in force.
    pub(super) fn keyring(&self) -> Keyring {
        self.keyring.lock().clone()
    }

    /// Another keyring is in force: records are encrypted in its current term from now on.
    pub(super) fn install(&self, keyring: Keyring) -> Result<(), Fault> {
        let _rotation = self.rotation.lock();
        let term = keyring.current()?;
        let before = self.current.load().id;
        if term.number != before.term {
            let mut terms = self.terms.write();
            terms.insert(term.number, Arc::new(extract(&term.key)?));
            let id = KeyId { term: term.number, instance: before.instance, epoch: 0 };
            self.current.store(Arc::new(Epoch::derive(&terms, id)?.ok_or_else(no_term)?));
        }
        *self.keyring.lock() = keyring;
        Ok(())
    }

    /// Records encrypted in the current term by this process.
    pub(super) fn encryptions(&self) -> u64 {
        let epoch = self.current.load();
        u64::from(epoch.id.epoch) * self.epoch_seals_max + epoch.seals.load(Ordering::Relaxed).min(self.epoch_seals_max)
    }

    /// Whether a record, as it is stored, was encrypted in the current term.
    pub(super) fn is_current(&self, sealed: &[u8]) -> bool {
        Header::read(sealed).is_some_and(|header| header.id.term == self.current.load().id.term)
    }

    /// The older term that a record says it was encrypted in; `None` where that is none that there is a key of.
    pub(super) fn old_term_of(&self, sealed: &[u8]) -> Option<u32> {
        let term = Header::read(sealed)?.id.term;
        self.keyring.lock().terms.iter().any(|known| known.number == term).then_some(term)
    }

    /// The stored form of a value under the key of its entry. The clear value is wiped.
    pub(super) fn seal(&self, entry: &[u8], version: u16, value: Vec<u8>) -> Result<Vec<u8>, Fault> {
        let value = Zeroizing::new(value);
        let epoch = self.epoch_for_one_seal()?;
        let mut nonce = [0; NONCE_LEN];
        random(&mut nonce)?;
        let mut sealed = Vec::with_capacity(HEADER_MAX + value.len() + TAG_BYTES);
        Header { version, id: epoch.id, nonce, end: 0 }.write(&mut sealed);
        let begin = sealed.len();
        sealed.extend_from_slice(&value);
        let aad = additional_data(&sealed[..VERSION_END], entry);
        let tag = epoch
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut sealed[begin..])
            .map_err(|_| Fault::internal("AES-GCM refused to encrypt a record"))?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// The record whose stored form this is, read from under this key; `None` if it is not what was stored there.
    pub(super) fn open(&self, entry: &[u8], sealed: &[u8]) -> Result<Option<Record>, Fault> {
        let Some(Header { version, id, nonce, end }) = Header::read(sealed) else { return Ok(None) };
        let aad = additional_data(&sealed[..VERSION_END], entry);
        let mut value = sealed[end..].to_vec();
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
        derive(&self.hashes, &[b"keyed hash v1", &[0], purpose.as_bytes()], &mut derived)?;
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
                let next = Epoch::derive(&self.terms.read(), KeyId { epoch: next, ..epoch.id })?;
                self.current.store(Arc::new(next.ok_or_else(no_term)?));
            }
        }
    }

    fn open_with_old(&self, id: KeyId, nonce: [u8; NONCE_LEN], aad: &[u8], value: &mut [u8]) -> Result<bool, Fault> {
        let cached = self.old.read().get(&id).cloned();
        if let Some(key) = cached {
            return Ok(open_with(&key, nonce, aad, value));
        }
        let Some(Epoch { key, .. }) = Epoch::derive(&self.terms.read(), id)? else { return Ok(false) };
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
    /// `None`: its term is not known.
    fn derive(terms: &HashMap<u32, Arc<Prk>>, id: KeyId) -> Result<Option<Epoch>, Fault> {
        let Some(term) = terms.get(&id.term) else { return Ok(None) };
        let mut bytes = Zeroizing::new([0; 32]);
        derive(term, &[b"data key v1", &id.instance, &id.epoch.to_be_bytes()], &mut bytes)?;
        let key =
            UnboundKey::new(&AES_256_GCM, &*bytes).map_err(|_| Fault::internal("AES-GCM refused a derived key"))?;
        Ok(Some(Epoch { id, key: LessSafeKey::new(key), seals: AtomicU64::new(0) }))
    }
}

impl Header {
    fn write(&self, out: &mut Vec<u8>) {
        let first = self.id.term == 0;
        out.push(if first { FORMAT_FIRST } else { FORMAT });
        out.extend_from_slice(&self.version.to_be_bytes());
        if !first {
            out.extend_from_slice(&self.id.term.to_be_bytes());
        }
        out.extend_from_slice(&self.id.instance);
        out.extend_from_slice(&self.id.epoch.to_be_bytes());
        out.extend_from_slice(&self.nonce);
    }

    /// That of a stored record; `None` if this is none.
    fn read(sealed: &[u8]) -> Option<Header> {
        let (&format, rest) = sealed.split_first()?;
        let (version, rest) = rest.split_first_chunk::<2>()?;
        let (term, rest) = match format {
            FORMAT_FIRST => (0, rest),
            FORMAT => rest.split_first_chunk::<4>().map(|(term, rest)| (u32::from_be_bytes(*term), rest))?,
            _ => return None,
        };
        let (instance, rest) = rest.split_first_chunk::<INSTANCE_BYTES>()?;
        let (epoch, rest) = rest.split_first_chunk::<4>()?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_LEN>()?;
        // In format 2 there is no term 0, so that no record has two forms.
        let is_whole = rest.len() >= TAG_BYTES && (term > 0 || format == FORMAT_FIRST);
        let id = KeyId { term, instance: *instance, epoch: u32::from_be_bytes(*epoch) };
        let version = u16::from_be_bytes(*version);
        is_whole.then(|| Header { version, id, nonce: *nonce, end: sealed.len() - rest.len() })
    }
}

fn no_term() -> Fault {
    Fault::internal("the keyring lacks the key of its own term")
}

/// What keys are derived from.
pub(super) fn extract(key: &Secret) -> Result<Prk, Fault> {
    if key.expose().len() != ROOT_KEY_BYTES {
        return Err(Fault::internal("a key of the store has a wrong length"));
    }
    Ok(Salt::new(HKDF_SHA256, b"keyway store v1").extract(key.expose()))
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

pub(super) fn derive(root: &Prk, info: &[&[u8]], key: &mut [u8; 32]) -> Result<(), Fault> {
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
                assert!(seen.insert(sealed[VERSION_END..VERSION_END + INSTANCE_BYTES + 4 + NONCE_LEN].to_vec()));
            }
        }
    }

    #[test]
    fn epochs_end_after_their_number_of_seals_and_stay_readable() {
        let barrier = Arc::new(Barrier::with_epochs_of(&root_key(), Keyring::of_root(&root_key()), 10).unwrap());
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let barrier = Arc::clone(&barrier);
                std::thread::spawn(move || (0..50).map(|_| barrier.seal(b"e", 1, vec![1]).unwrap()).collect::<Vec<_>>())
            })
            .collect();
        let sealed: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        let mut seals: HashMap<Vec<u8>, usize> = HashMap::new();
        for each in &sealed {
            *seals.entry(each[VERSION_END..VERSION_END + INSTANCE_BYTES + 4].to_vec()).or_default() += 1;
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

    #[test]
    fn a_term_ends_and_what_it_encrypted_stays_readable_as_long_as_its_key_is_kept() {
        let barrier = barrier();
        let hash = barrier.keyed_hash("token", b"x").unwrap();
        let first = barrier.seal(b"e", 1, b"one".to_vec()).unwrap();
        let next = barrier.keyring().with_next(5).unwrap();
        barrier.install(next.clone()).unwrap();
        let second = barrier.seal(b"e", 1, b"two".to_vec()).unwrap();
        assert!(!barrier.is_current(&first) && barrier.is_current(&second));
        assert_eq!(barrier.encryptions(), 1);
        let other_root = Secret::new([9; ROOT_KEY_BYTES]);
        let reader = Barrier::with_keyring(&other_root, next.clone()).unwrap();
        assert_eq!(reader.open(b"e", &first).unwrap().unwrap().value, b"one");
        assert_eq!(reader.open(b"e", &second).unwrap().unwrap().value, b"two");
        assert_eq!(reader.keyed_hash("token", b"x").unwrap(), hash);
        let left = Barrier::with_keyring(&other_root, next.keeping(|_| false).unwrap()).unwrap();
        assert_eq!(left.open(b"e", &first).unwrap(), None);
        assert_eq!(left.open(b"e", &second).unwrap().unwrap().value, b"two");
        for index in 0..second.len() {
            let mut changed = second.clone();
            changed[index] ^= 1;
            assert_eq!(reader.open(b"e", &changed).unwrap(), None, "byte {index}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            prop_assert_eq!(barrier().open(b"entry", &bytes).unwrap(), None);
        }
    }
}
