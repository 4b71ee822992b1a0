//! What guards the root key: a wrapping of it lies in the store, and only the seal can open that.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, RandomizedNonceKey};
use zeroize::{Zeroize, Zeroizing};

use super::barrier::random;
use super::key_file::KeyFile;
use crate::config;
use crate::model::{Fault, Secret};

/// Wraps the root key and opens the wrapping, by a key kept elsewhere than in the store.
pub trait RootKeyWrap: Send + Sync {
    /// Its stable name, kept with the wrapping: `file`.
    fn kind(&self) -> &'static str;

    /// Wraps a new root key. Called at initialisation only, so this is when the wrapping key is made if need be; one that
    /// is there already and may guard another store is never replaced.
    fn wrap(&self, root_key: &Secret) -> Result<Vec<u8>, Fault>;

    /// The root key in what [`RootKeyWrap::wrap`] gave. Its fault says which key is missing or wrong, and what to do.
    fn open(&self, wrapped: &[u8]) -> Result<Secret, Fault>;

    /// Whether a key that is not to be had now may be there later by itself, as in an HSM that is away. Else nothing comes
    /// of asking again before somebody has done something.
    fn may_return(&self) -> bool {
        false
    }
}

/// The seal the operator configured.
pub fn from_config(seal: &config::Seal) -> Result<Box<dyn RootKeyWrap>, Fault> {
    Ok(match seal {
        config::Seal::File { path } => Box::new(KeyFile::new(path)),
        config::Seal::Ephemeral => Box::new(Ephemeral::new()?),
    })
}

/// A wrapping key that lives as long as this value, for `-dev` and tests.
pub struct Ephemeral {
    key: WrappingKey,
}

impl Ephemeral {
    /// A new random one.
    pub fn new() -> Result<Ephemeral, Fault> {
        Ok(Ephemeral { key: WrappingKey::generate()? })
    }
}

impl RootKeyWrap for Ephemeral {
    fn kind(&self) -> &'static str {
        "ephemeral"
    }

    fn wrap(&self, root_key: &Secret) -> Result<Vec<u8>, Fault> {
        self.key.wrap(root_key)
    }

    fn open(&self, wrapped: &[u8]) -> Result<Secret, Fault> {
        self.key.open(wrapped).ok_or_else(|| Fault::Unavailable {
            what: "the store was initialized under a key that ended with its process: begin with an empty store, or \
                   configure a seal that lasts"
                .to_owned(),
        })
    }
}

/// 256 bits that wrap a root key by AES-256-GCM: nonce, ciphertext, tag.
pub(super) struct WrappingKey(Zeroizing<[u8; 32]>);

const PURPOSE: &[u8] = b"keyway root key v1";

impl WrappingKey {
    pub(super) fn generate() -> Result<WrappingKey, Fault> {
        let mut bytes = Zeroizing::new([0; 32]);
        random(&mut *bytes)?;
        Ok(WrappingKey(bytes))
    }

    pub(super) fn from_bytes(bytes: Zeroizing<[u8; 32]>) -> WrappingKey {
        WrappingKey(bytes)
    }

    pub(super) fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    pub(super) fn wrap(&self, root_key: &Secret) -> Result<Vec<u8>, Fault> {
        let refused = |_| Fault::internal("AES-GCM refused to wrap the root key");
        let key = RandomizedNonceKey::new(&AES_256_GCM, &*self.0).map_err(refused)?;
        let mut sealed = Zeroizing::new(root_key.expose().to_vec());
        let (nonce, tag) =
            key.seal_in_place_separate_tag(Aad::from(PURPOSE), sealed.as_mut_slice()).map_err(refused)?;
        Ok([&nonce.as_ref()[..], sealed.as_slice(), tag.as_ref()].concat())
    }

    /// The root key; `None` if this key did not wrap it or the wrapping was altered.
    pub(super) fn open(&self, wrapped: &[u8]) -> Option<Secret> {
        let (nonce, sealed) = wrapped.split_at_checked(NONCE_LEN)?;
        let key = RandomizedNonceKey::new(&AES_256_GCM, &*self.0).ok()?;
        let nonce = aws_lc_rs::aead::Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut opened = Zeroizing::new(sealed.to_vec());
        let root_key = key.open_in_place(nonce, Aad::from(PURPOSE), &mut opened).ok()?;
        let secret = Secret::new(&*root_key);
        root_key.zeroize();
        Some(secret)
    }
}

/// What the store keeps of the seal: its kind and the wrapping. One byte of format, one of the kind's length, the kind,
/// the wrapping.
pub(super) struct StoredSeal {
    pub(super) kind: String,
    pub(super) wrapped: Vec<u8>,
}

const STORED_FORMAT: u8 = 1;

impl StoredSeal {
    pub(super) fn encode(kind: &str, wrapped: &[u8]) -> Result<Vec<u8>, Fault> {
        let length = u8::try_from(kind.len()).map_err(|_| Fault::internal("the name of a seal is too long"))?;
        Ok([&[STORED_FORMAT, length], kind.as_bytes(), wrapped].concat())
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<StoredSeal> {
        let (&[format, length], rest) = bytes.split_first_chunk::<2>()?;
        let (kind, wrapped) = rest.split_at_checked(usize::from(length))?;
        let kind = std::str::from_utf8(kind).ok()?.to_owned();
        (format == STORED_FORMAT).then(|| StoredSeal { kind, wrapped: wrapped.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapping_opens_under_its_own_key_only() {
        let root_key = Secret::new([5; 32]);
        let (one, two) = (WrappingKey::generate().unwrap(), WrappingKey::generate().unwrap());
        let wrapped = one.wrap(&root_key).unwrap();
        assert_eq!(one.open(&wrapped).unwrap().expose(), root_key.expose());
        assert!(two.open(&wrapped).is_none());
        for index in 0..wrapped.len() {
            let mut changed = wrapped.clone();
            changed[index] ^= 1;
            assert!(one.open(&changed).is_none());
            assert!(one.open(&wrapped[..index]).is_none());
        }
    }

    #[test]
    fn what_is_stored_of_a_seal_reads_back() {
        let bytes = StoredSeal::encode("file", b"wrapped").unwrap();
        let seal = StoredSeal::decode(&bytes).unwrap();
        assert_eq!((seal.kind.as_str(), seal.wrapped.as_slice()), ("file", &b"wrapped"[..]));
        assert!(StoredSeal::decode(&bytes[..4]).is_none());
        assert!(StoredSeal::decode(&[]).is_none());
        assert!(StoredSeal::decode(&[2, 0]).is_none());
    }
}
