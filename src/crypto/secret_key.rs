//! Secret keys in memory: for the fake backend and for tests, never for a client's key.

use aws_lc_rs::aead::{AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext,
    PaddedBlockDecryptingKey, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::{cipher, hmac};
use bytes::Bytes;
use zeroize::Zeroizing;

use crate::model::{BLOCK_BYTES, Cipher, Fault, Hash, KeyKind, KeyOperation, wiped};

/// A secret key in memory.
pub struct SecretKey {
    kind: KeyKind,
    value: Zeroizing<Vec<u8>>,
}

/// Bytes that this key did not encrypt so, or that were changed since.
fn not_its_own<E>(_: E) -> Fault {
    Fault::not_decrypted("the ciphertext does not decrypt")
}

fn failed<E>(_: E) -> Fault {
    Fault::internal("a software key fails")
}

impl SecretKey {
    /// Generates one.
    pub fn generate(kind: KeyKind) -> Result<SecretKey, Fault> {
        let (KeyKind::Aes { bits } | KeyKind::Hmac { bits }) = kind else {
            return Err(Fault::internal(format!("a key of kind {kind} is no secret key")));
        };
        let mut value = vec![0; bits as usize / 8];
        SystemRandom::new().fill(&mut value).map_err(failed)?;
        SecretKey::new(kind, value)
    }

    /// A key of a known value.
    pub fn new(kind: KeyKind, value: Vec<u8>) -> Result<SecretKey, Fault> {
        match kind {
            KeyKind::Aes { bits: bits @ (128 | 192 | 256) } if value.len() * 8 == bits as usize => {}
            KeyKind::Hmac { .. } if !value.is_empty() => {}
            _ => return Err(Fault::invalid(format!("{} bytes are no key of kind {kind}", value.len()))),
        }
        Ok(SecretKey { kind, value: Zeroizing::new(value) })
    }

    /// What key it is.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// Runs an operation.
    pub fn perform(&self, operation: &KeyOperation) -> Result<Bytes, Fault> {
        match (self.kind, operation) {
            (KeyKind::Aes { .. }, KeyOperation::Encrypt { cipher, plaintext }) => {
                self.encrypt(cipher, plaintext.expose())
            }
            (KeyKind::Aes { .. }, KeyOperation::Decrypt { cipher, ciphertext }) => self.decrypt(cipher, ciphertext),
            (KeyKind::Hmac { .. }, KeyOperation::Mac { hash, message }) => {
                let algorithm = match hash {
                    Hash::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
                    Hash::Sha2_224 => hmac::HMAC_SHA224,
                    Hash::Sha2_256 => hmac::HMAC_SHA256,
                    Hash::Sha2_384 => hmac::HMAC_SHA384,
                    Hash::Sha2_512 => hmac::HMAC_SHA512,
                    other => return Err(Fault::NotSupported { what: format!("HMAC with {}", other.name()) }),
                };
                let key = hmac::Key::new(algorithm, &self.value);
                Ok(Bytes::copy_from_slice(hmac::sign(&key, message.expose()).as_ref()))
            }
            (kind, _) => Err(Fault::NotSupported { what: format!("this by a key of kind {kind}") }),
        }
    }

    fn encrypt(&self, cipher: &Cipher, plaintext: &[u8]) -> Result<Bytes, Fault> {
        let mut made = plaintext.to_vec();
        match cipher {
            Cipher::AesGcm { iv, associated_data } => {
                let nonce = Nonce::assume_unique_for_key(*iv);
                let key = self.gcm()?;
                key.seal_in_place_append_tag(nonce, Aad::from(associated_data), &mut made).map_err(failed)?;
                Ok([&iv[..], &made].concat().into())
            }
            Cipher::AesCbc { iv, padded } => {
                let context = EncryptionContext::Iv128(FixedLength::from(iv));
                if *padded {
                    let key = PaddedBlockEncryptingKey::cbc_pkcs7(self.block()?).map_err(failed)?;
                    key.less_safe_encrypt(&mut made, context).map_err(failed)?;
                } else {
                    let key = EncryptingKey::cbc(self.block()?).map_err(failed)?;
                    whole_blocks(&made)?;
                    key.less_safe_encrypt(&mut made, context).map_err(failed)?;
                }
                Ok([&iv[..], &made].concat().into())
            }
            Cipher::AesBlock => {
                whole_blocks(&made)?;
                EncryptingKey::ecb(self.block()?).and_then(|key| key.encrypt(&mut made)).map_err(failed)?;
                Ok(made.into())
            }
            Cipher::RsaPkcs1 | Cipher::RsaOaep { .. } | Cipher::ServiceAead { .. } => {
                Err(Fault::NotSupported { what: "this by an AES key".into() })
            }
        }
    }

    fn decrypt(&self, cipher: &Cipher, ciphertext: &[u8]) -> Result<Bytes, Fault> {
        let mut made = Zeroizing::new(ciphertext.to_vec());
        let plaintext = match cipher {
            Cipher::AesGcm { iv, associated_data } => {
                let nonce = Nonce::assume_unique_for_key(*iv);
                let key = self.gcm()?;
                &*key.open_in_place(nonce, Aad::from(associated_data), &mut made).map_err(not_its_own)?
            }
            Cipher::AesCbc { iv, padded } => {
                whole_blocks(ciphertext)?;
                let context = DecryptionContext::Iv128(FixedLength::from(iv));
                if *padded {
                    let key = PaddedBlockDecryptingKey::cbc_pkcs7(self.block()?).map_err(failed)?;
                    &*key.decrypt(&mut made, context).map_err(not_its_own)?
                } else {
                    let key = DecryptingKey::cbc(self.block()?).map_err(failed)?;
                    &*key.decrypt(&mut made, context).map_err(not_its_own)?
                }
            }
            Cipher::AesBlock | Cipher::ServiceAead { .. } | Cipher::RsaPkcs1 | Cipher::RsaOaep { .. } => {
                return Err(Fault::NotSupported { what: "this by an AES key".into() });
            }
        };
        Ok(wiped(plaintext.to_vec()))
    }

    fn gcm(&self) -> Result<LessSafeKey, Fault> {
        let algorithm = match self.value.len() {
            16 => &AES_128_GCM,
            24 => &AES_192_GCM,
            _ => &AES_256_GCM,
        };
        UnboundKey::new(algorithm, &self.value).map(LessSafeKey::new).map_err(failed)
    }

    fn block(&self) -> Result<UnboundCipherKey, Fault> {
        let algorithm: &'static cipher::Algorithm = match self.value.len() {
            16 => &AES_128,
            24 => &AES_192,
            _ => &AES_256,
        };
        UnboundCipherKey::new(algorithm, &self.value).map_err(failed)
    }
}

fn whole_blocks(data: &[u8]) -> Result<(), Fault> {
    if !data.is_empty() && data.len().is_multiple_of(BLOCK_BYTES) {
        return Ok(());
    }
    Err(Fault::invalid(format!("{} bytes are no whole blocks", data.len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SecretBytes;

    fn key(kind: KeyKind, value: &str) -> SecretKey {
        SecretKey::new(kind, hex::decode(value).unwrap()).unwrap()
    }

    fn encrypt(key: &SecretKey, cipher: &Cipher, plaintext: &[u8]) -> Result<Bytes, Fault> {
        let plaintext = SecretBytes::new(plaintext.to_vec());
        key.perform(&KeyOperation::Encrypt { cipher: cipher.clone(), plaintext })
    }

    #[test]
    fn the_known_answers_come_out() {
        // FIPS 197, appendix C.1.
        let aes = key(KeyKind::Aes { bits: 128 }, "000102030405060708090a0b0c0d0e0f");
        let block = hex::decode("00112233445566778899aabbccddeeff").unwrap();
        let made = encrypt(&aes, &Cipher::AesBlock, &block).unwrap();
        assert_eq!(hex::encode(&made), "69c4e0d86a7b0430d8cdb78070b4c55a");
        // With an IV of zeros, the first block of CBC is that of ECB: both give one check value.
        let chained = encrypt(&aes, &Cipher::AesCbc { iv: [0; 16], padded: false }, &block).unwrap();
        assert_eq!(chained[16..], made);
        // RFC 4231, case 2.
        let hmac = key(KeyKind::Hmac { bits: 32 }, "4a656665");
        let message = SecretBytes::new(b"what do ya want for nothing?".to_vec());
        let made = hmac.perform(&KeyOperation::Mac { hash: Hash::Sha2_256, message }).unwrap();
        assert_eq!(hex::encode(made), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn what_a_key_encrypts_it_decrypts_and_nothing_that_was_changed() {
        for bits in [128, 192, 256] {
            let [key, other] = [(); 2].map(|()| SecretKey::generate(KeyKind::Aes { bits }).unwrap());
            let iv = [3; 16];
            for (cipher, front, certain) in [
                (Cipher::AesGcm { iv: [3; 12], associated_data: Bytes::from_static(b"aad") }, 12, true),
                (Cipher::AesCbc { iv, padded: true }, 16, false),
                (Cipher::AesCbc { iv, padded: false }, 16, false),
            ] {
                let made = encrypt(&key, &cipher, &[9; 32]).unwrap();
                let decrypt = |key: &SecretKey, ciphertext: Bytes| {
                    key.perform(&KeyOperation::Decrypt { cipher: cipher.clone(), ciphertext })
                };
                assert_eq!(decrypt(&key, made.slice(front..)).unwrap(), [9; 32][..]);
                assert_ne!(decrypt(&other, made.slice(front..)).ok().as_deref(), Some(&[9; 32][..]));
                let mut changed = made[front..].to_vec();
                changed[0] ^= 1;
                assert!(!certain || decrypt(&key, changed.into()).is_err());
            }
            assert!(encrypt(&key, &Cipher::AesCbc { iv, padded: false }, &[9; 31]).is_err());
        }
    }
}
