//! Keys that are bytes: AES and HMAC.

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{
    self, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext, PaddedBlockDecryptingKey,
    PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::key_wrap::{self, AesKek, KeyWrap};

use super::{Error, Hash, random};

/// A mode of AES without authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Of whole blocks.
    Cbc,
    /// With the padding of PKCS#7.
    CbcPad,
    Ctr,
}

/// What AES-GCM makes of a plaintext.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gcm {
    pub(crate) ciphertext: Vec<u8>,
    /// 16 bytes.
    pub(crate) tag: Vec<u8>,
}

/// The bytes of a key.
pub(super) struct SecretKey(Vec<u8>);

const BAD_NONCE: Error = Error::Input("the nonce must have 12 bytes");
const BAD_IV: Error = Error::Input("the initialization vector must have 16 bytes");
const BAD_PLAINTEXT: Error = Error::Input("the plaintext has a wrong length");
const UNDECRYPTABLE: Error = Error::Input("the ciphertext does not decrypt");

impl SecretKey {
    pub(super) fn of(value: Vec<u8>) -> SecretKey {
        SecretKey(value)
    }

    pub(super) fn generate(bytes: u32) -> Result<SecretKey, Error> {
        random(bytes as usize).map(SecretKey)
    }

    fn gcm(&self) -> Result<LessSafeKey, Error> {
        let algorithm = match self.0.len() {
            16 => &aead::AES_128_GCM,
            24 => &aead::AES_192_GCM,
            _ => &aead::AES_256_GCM,
        };
        Ok(LessSafeKey::new(UnboundKey::new(algorithm, &self.0)?))
    }

    pub(super) fn gcm_encrypt(&self, nonce: &[u8], aad: &[u8], plaintext: &[u8]) -> Result<Gcm, Error> {
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| BAD_NONCE)?;
        let mut ciphertext = plaintext.to_vec();
        let tag = self.gcm()?.seal_in_place_separate_tag(nonce, Aad::from(aad), &mut ciphertext)?;
        Ok(Gcm { ciphertext, tag: tag.as_ref().to_vec() })
    }

    pub(super) fn gcm_decrypt(&self, nonce: &[u8], aad: &[u8], sealed: &Gcm) -> Result<Vec<u8>, Error> {
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| BAD_NONCE)?;
        let mut bytes = [&sealed.ciphertext[..], &sealed.tag].concat();
        let opened = self.gcm()?.open_in_place(nonce, Aad::from(aad), &mut bytes);
        Ok(opened.map_err(|_| UNDECRYPTABLE)?.to_vec())
    }

    fn cipher(&self) -> Result<UnboundCipherKey, Error> {
        let algorithm = match self.0.len() {
            16 => &cipher::AES_128,
            24 => &cipher::AES_192,
            _ => &cipher::AES_256,
        };
        Ok(UnboundCipherKey::new(algorithm, &self.0)?)
    }

    pub(super) fn block_encrypt(&self, mode: Mode, iv: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, Error> {
        let context = EncryptionContext::Iv128(FixedLength::try_from(iv).map_err(|_| BAD_IV)?);
        let mut bytes = plaintext.to_vec();
        let key = self.cipher()?;
        match mode {
            Mode::Cbc => EncryptingKey::cbc(key)?.less_safe_encrypt(&mut bytes, context),
            Mode::Ctr => EncryptingKey::ctr(key)?.less_safe_encrypt(&mut bytes, context),
            Mode::CbcPad => PaddedBlockEncryptingKey::cbc_pkcs7(key)?.less_safe_encrypt(&mut bytes, context),
        }
        .map_err(|_| BAD_PLAINTEXT)?;
        Ok(bytes)
    }

    pub(super) fn block_decrypt(&self, mode: Mode, iv: &[u8], ciphertext: &[u8]) -> Result<Vec<u8>, Error> {
        let context = DecryptionContext::Iv128(FixedLength::try_from(iv).map_err(|_| BAD_IV)?);
        let mut bytes = ciphertext.to_vec();
        let key = self.cipher()?;
        let len = match mode {
            Mode::Cbc => DecryptingKey::cbc(key)?.decrypt(&mut bytes, context).map(|opened| opened.len()),
            Mode::Ctr => DecryptingKey::ctr(key)?.decrypt(&mut bytes, context).map(|opened| opened.len()),
            Mode::CbcPad => {
                PaddedBlockDecryptingKey::cbc_pkcs7(key)?.decrypt(&mut bytes, context).map(|opened| opened.len())
            }
        }
        .map_err(|_| UNDECRYPTABLE)?;
        bytes.truncate(len);
        Ok(bytes)
    }

    fn kek(&self) -> Result<AesKek, Error> {
        let cipher = match self.0.len() {
            16 => &key_wrap::AES_128,
            32 => &key_wrap::AES_256,
            _ => return Err(Error::Unsupported),
        };
        Ok(AesKek::new(cipher, &self.0)?)
    }

    pub(super) fn wrap(&self, plaintext: &[u8]) -> Result<Vec<u8>, Error> {
        let mut room = vec![0; plaintext.len() + 8];
        let len = self.kek()?.wrap(plaintext, &mut room).map_err(|_| BAD_PLAINTEXT)?.len();
        room.truncate(len);
        Ok(room)
    }

    pub(super) fn unwrap(&self, wrapped: &[u8]) -> Result<Vec<u8>, Error> {
        let mut room = vec![0; wrapped.len()];
        let len = self.kek()?.unwrap(wrapped, &mut room).map_err(|_| UNDECRYPTABLE)?.len();
        room.truncate(len);
        Ok(room)
    }

    fn hmac(&self, hash: Hash) -> hmac::Key {
        let algorithm = match hash {
            Hash::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Hash::Sha224 => hmac::HMAC_SHA224,
            Hash::Sha256 => hmac::HMAC_SHA256,
            Hash::Sha384 => hmac::HMAC_SHA384,
            Hash::Sha512 => hmac::HMAC_SHA512,
        };
        hmac::Key::new(algorithm, &self.0)
    }

    pub(super) fn mac(&self, hash: Hash, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(hmac::sign(&self.hmac(hash), message).as_ref().to_vec())
    }

    pub(super) fn verify_mac(&self, hash: Hash, message: &[u8], mac: &[u8]) -> Result<bool, Error> {
        Ok(hmac::verify(&self.hmac(hash), message, mac).is_ok())
    }
}
