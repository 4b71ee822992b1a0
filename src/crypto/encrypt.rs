//! RSA encryption, for which the public key is enough.

use aws_lc_rs::rsa::{
    OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384, OAEP_SHA512_MGF1SHA512,
    OaepPublicEncryptingKey, Pkcs1PublicEncryptingKey, PublicEncryptingKey,
};
use bytes::Bytes;
use spki::DecodePublicKey;

use crate::model::{CipherScheme, Fault, Hash, KeyKind, PublicKey};

/// The longest plaintext that an RSA key of so many bits encrypts so (RFC 8017, 7.1.1 and 7.2.1); `None` for schemes that are
/// not RSA's.
pub const fn rsa_plaintext_max(bits: u32, scheme: CipherScheme) -> Option<usize> {
    let overhead = match scheme {
        CipherScheme::RsaPkcs1 => 11,
        CipherScheme::RsaOaep { hash } => 2 * hash.digest_bytes() + 2,
        CipherScheme::AesGcm | CipherScheme::AesCbc { .. } | CipherScheme::ServiceAead => return None,
    };
    Some((bits.div_ceil(8) as usize).saturating_sub(overhead))
}

/// Encrypts with an RSA key. Refuses what is too long, and schemes that are not RSA's.
pub fn rsa_encrypt(key: &PublicKey, scheme: CipherScheme, plaintext: &[u8]) -> Result<Bytes, Fault> {
    let wrong = || Fault::invalid(format!("a key of kind {} does not encrypt so", key.kind));
    let KeyKind::Rsa { bits } = key.kind else { return Err(wrong()) };
    let most = rsa_plaintext_max(bits, scheme).ok_or_else(wrong)?;
    if plaintext.len() > most {
        // Not how long it is: whoever has a ciphertext rewrapped is not to learn of what is in it.
        return Err(Fault::invalid(format!(
            "plaintext is too long: a key of kind {} encrypts at most {most} bytes so",
            key.kind
        )));
    }
    let failed = |_| Fault::invalid(format!("encryption with the {} key fails: the key may be malformed", key.kind));
    let public = || PublicEncryptingKey::from_der(&key.spki).map_err(|_| Fault::invalid("the RSA key is malformed"));
    let mut room = vec![0; bits.div_ceil(8) as usize];
    let algorithm = match scheme {
        CipherScheme::RsaPkcs1 => {
            let key = Pkcs1PublicEncryptingKey::new(public()?).map_err(failed)?;
            key.encrypt(plaintext, &mut room).map_err(failed)?;
            return Ok(Bytes::from(room));
        }
        CipherScheme::RsaOaep { hash: Hash::Sha1 } => &OAEP_SHA1_MGF1SHA1,
        CipherScheme::RsaOaep { hash: Hash::Sha2_256 } => &OAEP_SHA256_MGF1SHA256,
        CipherScheme::RsaOaep { hash: Hash::Sha2_384 } => &OAEP_SHA384_MGF1SHA384,
        CipherScheme::RsaOaep { hash: Hash::Sha2_512 } => &OAEP_SHA512_MGF1SHA512,
        // The one that the main library lacks.
        CipherScheme::RsaOaep { hash: Hash::Sha2_224 } => {
            let key = rsa::PublicKey::from_public_key_der(&key.spki).map_err(|_| wrong())?;
            let made = key.oaep_encrypt::<sha2::Sha224>(plaintext);
            return made.map(Bytes::from).map_err(|error| Fault::invalid(format!("RSA encryption: {error}")));
        }
        _ => return Err(wrong()),
    };
    let key = OaepPublicEncryptingKey::new(public()?).map_err(failed)?;
    key.encrypt(algorithm, plaintext, &mut room, None).map_err(failed)?;
    Ok(Bytes::from(room))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SoftwareKey;
    use crate::model::{Cipher, KeyOperation};

    #[test]
    fn what_is_encrypted_for_a_key_is_decrypted_by_it_and_by_no_other() {
        let [key, other] = [(); 2].map(|()| SoftwareKey::generate(KeyKind::Rsa { bits: 2048 }).unwrap());
        let oaep = |hash| (CipherScheme::RsaOaep { hash }, Cipher::RsaOaep { hash });
        for (scheme, cipher) in [
            (CipherScheme::RsaPkcs1, Cipher::RsaPkcs1),
            oaep(Hash::Sha1),
            oaep(Hash::Sha2_256),
            oaep(Hash::Sha2_384),
            oaep(Hash::Sha2_512),
        ] {
            let most = rsa_plaintext_max(2048, scheme).unwrap();
            for plaintext in [&b""[..], b"secret", &vec![7; most]] {
                let ciphertext = rsa_encrypt(key.public(), scheme, plaintext).unwrap();
                let operation = KeyOperation::Decrypt { cipher: cipher.clone(), ciphertext };
                assert_eq!(key.perform(&operation).unwrap(), plaintext, "{scheme:?}");
                assert_ne!(other.perform(&operation).ok().as_deref(), Some(plaintext), "{scheme:?}");
            }
            assert!(rsa_encrypt(key.public(), scheme, &vec![7; most + 1]).is_err(), "{scheme:?}");
        }
    }

    #[test]
    fn oaep_with_sha_224_has_its_length_and_other_schemes_and_keys_are_refused() {
        let key = SoftwareKey::generate(KeyKind::Rsa { bits: 2048 }).unwrap();
        let scheme = CipherScheme::RsaOaep { hash: Hash::Sha2_224 };
        assert_eq!(rsa_plaintext_max(2048, scheme), Some(198));
        assert_eq!(rsa_encrypt(key.public(), scheme, &[1; 198]).unwrap().len(), 256);
        assert!(rsa_encrypt(key.public(), CipherScheme::AesGcm, b"x").is_err());
        let ed = SoftwareKey::generate(KeyKind::Ed25519).unwrap();
        assert!(rsa_encrypt(ed.public(), CipherScheme::RsaPkcs1, b"x").is_err());
    }
}
