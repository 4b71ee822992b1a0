//! Envelopes: a message encrypted with a key of its own (AES-256-GCM), and that key with an RSA key, or with a symmetric key that a
//! cloud's service keeps. So messages may be of any length, and have associated data.
//!
//! An envelope for an RSA key is the encrypted key, as long as the modulus, and behind it the IV, the ciphertext and the tag. Services'
//! ciphertexts have any length: such an envelope begins with a mark that no service's does, and the length of the encrypted key.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use bytes::Bytes;

use super::{SecretKey, rsa_encrypt};
use crate::model::{
    Cipher, CipherScheme, Fault, GCM_IV_BYTES, GCM_TAG_BYTES, KeyKind, KeyOperation, PublicKey, SecretBytes,
};

const KIND: KeyKind = KeyKind::Aes { bits: 256 };
const KEY_BYTES: usize = 32;
/// How an envelope for a service's symmetric key begins. Behind it, the length of the encrypted key in two bytes, big end first.
const MARK: &[u8; 16] = b"keyway envelope1";

/// The key of a new envelope: random.
pub fn envelope_key() -> Result<SecretBytes, Fault> {
    let mut value = vec![0; KEY_BYTES];
    let filled = SystemRandom::new().fill(&mut value);
    let value = SecretBytes::new(value);
    filled.map(|()| value).map_err(|_| Fault::internal("the system's random generator fails"))
}

/// Encrypts with the key of an envelope: the IV, the ciphertext, and the tag.
fn seal(key: &SecretBytes, associated_data: Bytes, plaintext: SecretBytes) -> Result<Bytes, Fault> {
    let mut iv = [0; GCM_IV_BYTES];
    SystemRandom::new().fill(&mut iv).map_err(|_| Fault::internal("the system's random generator fails"))?;
    let cipher = Cipher::AesGcm { iv, associated_data };
    SecretKey::new(KIND, key.expose().to_vec())?.perform(&KeyOperation::Encrypt { cipher, plaintext })
}

/// Puts a plaintext into an envelope for an RSA key; `scheme` says how its key is encrypted.
pub fn seal_envelope(
    key: &PublicKey,
    scheme: CipherScheme,
    associated_data: Bytes,
    plaintext: SecretBytes,
) -> Result<Bytes, Fault> {
    let value = envelope_key()?;
    let wrapped = rsa_encrypt(key, scheme, value.expose())?;
    Ok([&wrapped[..], &seal(&value, associated_data, plaintext)?].concat().into())
}

/// Puts a plaintext into an envelope whose key `value` a service has encrypted as `wrapped`.
pub fn seal_marked_envelope(
    value: &SecretBytes,
    wrapped: &[u8],
    associated_data: Bytes,
    plaintext: SecretBytes,
) -> Result<Bytes, Fault> {
    let too_long = |_| Fault::internal("an encrypted key of more than 64 KiB");
    let length = u16::try_from(wrapped.len()).map_err(too_long)?.to_be_bytes();
    Ok([&MARK[..], &length, wrapped, &seal(value, associated_data, plaintext)?].concat().into())
}

/// The encrypted key of an envelope for a service's symmetric key, and what was encrypted with it; `None` of what is no such envelope.
pub fn split_marked_envelope(envelope: &Bytes) -> Option<(Bytes, Bytes)> {
    let (length, _) = envelope.strip_prefix(MARK)?.split_first_chunk()?;
    let front = MARK.len() + length.len();
    let end = front + usize::from(u16::from_be_bytes(*length));
    (envelope.len() >= end + GCM_IV_BYTES + GCM_TAG_BYTES).then(|| (envelope.slice(front..end), envelope.slice(end..)))
}

/// The encrypted key of an envelope for an RSA key of so many bits, and what was encrypted with it; `None` of what is no envelope.
pub fn split_envelope(bits: u32, envelope: &Bytes) -> Option<(Bytes, Bytes)> {
    let front = bits.div_ceil(8) as usize;
    (envelope.len() >= front + GCM_IV_BYTES + GCM_TAG_BYTES).then(|| (envelope.slice(..front), envelope.slice(front..)))
}

/// Opens what was encrypted with the key of an envelope.
///
/// # Errors
///
/// [`Fault::NotDecrypted`]: it was changed, or has other associated data, or `key` is none.
pub fn open_envelope(key: &[u8], associated_data: Bytes, sealed: &Bytes) -> Result<Bytes, Fault> {
    let refused = || Fault::not_decrypted("the ciphertext does not decrypt with this key and associated data");
    let (iv, _) = sealed.split_first_chunk::<GCM_IV_BYTES>().ok_or_else(refused)?;
    if key.len() != KEY_BYTES {
        return Err(refused());
    }
    let cipher = Cipher::AesGcm { iv: *iv, associated_data };
    let operation = KeyOperation::Decrypt { cipher, ciphertext: sealed.slice(GCM_IV_BYTES..) };
    SecretKey::new(KIND, key.to_vec())?.perform(&operation).map_err(|_| refused())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SoftwareKey;
    use crate::model::Hash;

    #[test]
    fn an_envelope_is_opened_with_its_key_and_associated_data_alone() {
        let key = SoftwareKey::generate(KeyKind::Rsa { bits: 2048 }).unwrap();
        let (hash, aad) = (Hash::Sha2_256, Bytes::from_static(b"aad"));
        let plaintext = vec![7; 10_000];
        let sealed = SecretBytes::new(plaintext.clone());
        let made = seal_envelope(key.public(), CipherScheme::RsaOaep { hash }, aad.clone(), sealed).unwrap();
        let (wrapped, rest) = split_envelope(2048, &made).unwrap();
        assert_eq!((wrapped.len(), rest.len()), (256, 12 + 10_000 + 16));
        let operation = KeyOperation::Decrypt { cipher: Cipher::RsaOaep { hash }, ciphertext: wrapped };
        let value = key.perform(&operation).unwrap();
        assert_eq!(open_envelope(&value, aad.clone(), &rest).unwrap(), plaintext);
        assert!(open_envelope(&value, Bytes::new(), &rest).is_err());
        assert!(open_envelope(&value[1..], aad.clone(), &rest).is_err());
        let mut changed = rest.to_vec();
        changed[20] ^= 1;
        assert!(open_envelope(&value, aad.clone(), &changed.into()).is_err());
        assert!(open_envelope(&value, aad, &rest.slice(..11)).is_err());
        assert!(split_envelope(2048, &made.slice(..256 + 27)).is_none());
    }

    #[test]
    fn an_envelope_for_a_service_s_key_says_where_its_own_key_ends() {
        let (value, aad) = (envelope_key().unwrap(), Bytes::from_static(b"aad"));
        assert_ne!(value.expose(), envelope_key().unwrap().expose());
        let plaintext = SecretBytes::new(vec![7; 10_000]);
        let made = seal_marked_envelope(&value, &[9; 200], aad.clone(), plaintext).unwrap();
        let (wrapped, rest) = split_marked_envelope(&made).unwrap();
        assert_eq!((&wrapped[..], rest.len()), (&[9; 200][..], 12 + 10_000 + 16));
        assert_eq!(open_envelope(value.expose(), aad, &rest).unwrap(), vec![7; 10_000]);
        assert!(open_envelope(value.expose(), Bytes::new(), &rest).is_err());
        for no_envelope in [made.slice(1..), made.slice(..18 + 200 + 27), made.slice(..17), Bytes::new()] {
            assert!(split_marked_envelope(&no_envelope).is_none(), "{} bytes", no_envelope.len());
        }
        assert!(seal_marked_envelope(&value, &[0; 1 << 16], Bytes::new(), SecretBytes::new(Vec::new())).is_err());
    }
}
