//! Envelopes: a message encrypted with a key of its own (AES-256-GCM), and that key with an RSA key. So messages may be of any
//! length, and have associated data. An envelope is the encrypted key, as long as the modulus, and behind it the IV, the
//! ciphertext and the tag.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use bytes::Bytes;

use super::{SecretKey, rsa_encrypt};
use crate::model::{
    Cipher, CipherScheme, Fault, GCM_IV_BYTES, GCM_TAG_BYTES, KeyKind, KeyOperation, PublicKey, SecretBytes,
};

const KIND: KeyKind = KeyKind::Aes { bits: 256 };
const KEY_BYTES: usize = 32;

/// Puts a plaintext into an envelope for an RSA key; `scheme` says how its key is encrypted.
pub fn seal_envelope(
    key: &PublicKey,
    scheme: CipherScheme,
    associated_data: Bytes,
    plaintext: SecretBytes,
) -> Result<Bytes, Fault> {
    let no_random = |_| Fault::internal("the system's random generator fails");
    let (mut value, mut iv) = (zeroize::Zeroizing::new(vec![0; KEY_BYTES]), [0; GCM_IV_BYTES]);
    SystemRandom::new().fill(&mut value).map_err(no_random)?;
    SystemRandom::new().fill(&mut iv).map_err(no_random)?;
    let wrapped = rsa_encrypt(key, scheme, &value)?;
    let cipher = Cipher::AesGcm { iv, associated_data };
    let sealed = SecretKey::new(KIND, value.to_vec())?.perform(&KeyOperation::Encrypt { cipher, plaintext })?;
    Ok([&wrapped[..], &sealed].concat().into())
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
/// [`Fault::InvalidRequest`]: it was changed, or has other associated data, or `key` is none.
pub fn open_envelope(key: &[u8], associated_data: Bytes, sealed: &Bytes) -> Result<Bytes, Fault> {
    let refused = || Fault::invalid("the ciphertext does not decrypt with this key and associated data");
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
}
