//! The keys that records are encrypted under, one a term, as they are kept: encrypted under the root key, beside its wrapping.
//!
//! A store begins in term 0, whose key is the root key itself, and has no keyring before the first rotation. So a store that
//! was never rotated is read by every version of Keyway.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::Prk;
use zeroize::{Zeroize, Zeroizing};

use super::barrier::{ROOT_KEY_BYTES, derive, extract, random};
use crate::model::{Fault, Secret};

const FORMAT: u8 = 1;
const PURPOSE: &[u8] = b"keyway keyring v1";
/// Bytes of one term: number, time, key.
const TERM_BYTES: usize = 4 + 8 + ROOT_KEY_BYTES;
/// Terms at once: each but the last goes when no record is under it any more.
const TERMS_MAX: usize = 1_000;

/// One key.
#[derive(Clone)]
pub(super) struct Term {
    pub(super) number: u32,
    /// Seconds since 1970.
    pub(super) installed: u64,
    pub(super) key: Secret,
}

/// All of them, in the order of their numbers; there is at least one.
#[derive(Clone)]
pub(super) struct Keyring {
    /// What keyed hashes are made by. It never changes: tokens and PINs are known by them.
    pub(super) hash_key: Secret,
    pub(super) terms: Vec<Term>,
}

impl Keyring {
    /// That of a store that has none.
    pub(super) fn of_root(root_key: &Secret) -> Keyring {
        let term = Term { number: 0, installed: 0, key: root_key.clone() };
        Keyring { hash_key: root_key.clone(), terms: vec![term] }
    }

    /// The term that records are encrypted in.
    pub(super) fn current(&self) -> Result<&Term, Fault> {
        self.terms.last().ok_or_else(|| Fault::internal("a keyring without a key"))
    }

    /// With a new term, which is the current one.
    pub(super) fn with_next(&self, now: u64) -> Result<Keyring, Fault> {
        if self.terms.len() >= TERMS_MAX {
            let what = format!("{TERMS_MAX} keys are in use: wait until the records are encrypted under the newest");
            return Err(Fault::Unavailable { what });
        }
        let number = self.current()?.number.checked_add(1).ok_or_else(|| Fault::internal("the terms are used up"))?;
        let mut key = Zeroizing::new([0; ROOT_KEY_BYTES]);
        random(&mut *key)?;
        let mut next = self.clone();
        next.terms.push(Term { number, installed: now, key: Secret::new(&key[..]) });
        Ok(next)
    }

    /// With those alone of the terms before the current one that `is_needed` says.
    pub(super) fn keeping(&self, is_needed: impl Fn(u32) -> bool) -> Result<Keyring, Fault> {
        let current = self.current()?.number;
        let is_kept = |term: &&Term| term.number == current || is_needed(term.number);
        Ok(Keyring { hash_key: self.hash_key.clone(), terms: self.terms.iter().filter(is_kept).cloned().collect() })
    }

    /// As it is kept.
    pub(super) fn seal(&self, root_key: &Secret) -> Result<Vec<u8>, Fault> {
        let mut clear = Zeroizing::new(Vec::with_capacity(1 + ROOT_KEY_BYTES + self.terms.len() * TERM_BYTES));
        clear.push(FORMAT);
        clear.extend_from_slice(self.hash_key.expose());
        for term in &self.terms {
            clear.extend_from_slice(&term.number.to_be_bytes());
            clear.extend_from_slice(&term.installed.to_be_bytes());
            clear.extend_from_slice(term.key.expose());
        }
        let refused = |_| Fault::internal("AES-GCM refused to encrypt the keyring");
        let (nonce, tag) =
            key_of(root_key)?.seal_in_place_separate_tag(Aad::from(PURPOSE), clear.as_mut_slice()).map_err(refused)?;
        Ok([&nonce.as_ref()[..], clear.as_slice(), tag.as_ref()].concat())
    }

    /// What was kept; `None` if this root key did not encrypt it, or it was altered.
    pub(super) fn open(root_key: &Secret, sealed: &[u8]) -> Result<Option<Keyring>, Fault> {
        let Some((nonce, sealed)) = sealed.split_first_chunk::<NONCE_LEN>() else { return Ok(None) };
        let mut bytes = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let Ok(clear) = key_of(root_key)?.open_in_place(nonce, Aad::from(PURPOSE), &mut bytes) else {
            return Ok(None);
        };
        let keyring = decode(clear);
        clear.zeroize();
        Ok(keyring)
    }
}

fn decode(clear: &[u8]) -> Option<Keyring> {
    let (&FORMAT, rest) = clear.split_first()? else { return None };
    let (hash_key, rest) = rest.split_first_chunk::<ROOT_KEY_BYTES>()?;
    let terms = rest.chunks(TERM_BYTES).map(decode_term).collect::<Option<Vec<Term>>>()?;
    let ordered = terms.is_sorted_by(|one, next| one.number < next.number);
    (ordered && !terms.is_empty()).then(|| Keyring { hash_key: Secret::new(&hash_key[..]), terms })
}

fn decode_term(bytes: &[u8]) -> Option<Term> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    let (installed, key) = rest.split_first_chunk::<8>()?;
    let (number, installed) = (u32::from_be_bytes(*number), u64::from_be_bytes(*installed));
    (key.len() == ROOT_KEY_BYTES).then(|| Term { number, installed, key: Secret::new(key) })
}

fn key_of(root_key: &Secret) -> Result<RandomizedNonceKey, Fault> {
    let root: Prk = extract(root_key)?;
    let mut bytes = Zeroizing::new([0; 32]);
    derive(&root, &[b"keyring v1"], &mut bytes)?;
    RandomizedNonceKey::new(&AES_256_GCM, &*bytes).map_err(|_| Fault::internal("AES-GCM refused a derived key"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn root(byte: u8) -> Secret {
        Secret::new([byte; ROOT_KEY_BYTES])
    }

    #[test]
    fn what_is_kept_opens_under_its_root_key_alone() {
        let keyring = Keyring::of_root(&root(1)).with_next(7).unwrap().with_next(8).unwrap();
        let sealed = keyring.seal(&root(2)).unwrap();
        let opened = Keyring::open(&root(2), &sealed).unwrap().unwrap();
        let of = |keyring: &Keyring| -> Vec<_> {
            keyring.terms.iter().map(|term| (term.number, term.installed, term.key.expose().to_vec())).collect()
        };
        assert_eq!(of(&opened), of(&keyring));
        assert_eq!(opened.hash_key.expose(), root(1).expose());
        assert_eq!((opened.terms.len(), opened.current().unwrap().number), (3, 2));
        assert!(Keyring::open(&root(1), &sealed).unwrap().is_none());
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(Keyring::open(&root(2), &changed).unwrap().is_none());
            assert!(Keyring::open(&root(2), &sealed[..index]).unwrap().is_none());
        }
        let left = opened.keeping(|_| false).unwrap();
        assert_eq!((left.terms.len(), left.current().unwrap().number), (1, 2));
        let left = opened.keeping(|term| term == 1).unwrap();
        assert_eq!(left.terms.iter().map(|term| term.number).collect::<Vec<_>>(), [1, 2]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = decode(&bytes);
            prop_assert!(Keyring::open(&root(1), &bytes).unwrap().is_none());
        }
    }
}
