//! Encryption by the secret keys of made-up tokens.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{
    AES_256, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext, PaddedBlockDecryptingKey,
    PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use cryptoki_sys::{
    CK_GCM_PARAMS, CK_MECHANISM, CK_MECHANISM_TYPE, CK_ULONG, CKM_AES_CBC, CKM_AES_CBC_PAD, CKM_AES_ECB, CKM_AES_GCM,
    CKR_DATA_LEN_RANGE, CKR_ENCRYPTED_DATA_INVALID, CKR_ENCRYPTED_DATA_LEN_RANGE, CKR_FUNCTION_FAILED,
    CKR_KEY_TYPE_INCONSISTENT, CKR_MECHANISM_INVALID, CKR_MECHANISM_PARAM_INVALID,
};

use super::key::Key;
use crate::call::Answer;

/// The mechanisms that encrypt.
pub(super) const MECHANISMS: &[CK_MECHANISM_TYPE] = &[CKM_AES_ECB, CKM_AES_CBC, CKM_AES_CBC_PAD, CKM_AES_GCM];

const BLOCK: usize = 16;
const GCM_IV: usize = 12;

/// An encryption or a decryption that has begun.
pub(crate) struct Ciphering {
    value: Vec<u8>,
    mode: Mode,
}

enum Mode {
    Ecb,
    Cbc { iv: [u8; BLOCK], padded: bool },
    Gcm { iv: [u8; GCM_IV], associated_data: Vec<u8> },
}

impl Ciphering {
    /// Reads a mechanism for a key.
    ///
    /// # Safety
    ///
    /// The mechanism's parameter must be null or as long as it says, and what it points to as long as it says.
    pub(super) unsafe fn read(mechanism: &CK_MECHANISM, key: &Key) -> Answer<Ciphering> {
        if !MECHANISMS.contains(&mechanism.mechanism) {
            return Err(CKR_MECHANISM_INVALID);
        }
        let value = key.secret().filter(|value| value.len() == 32).ok_or(CKR_KEY_TYPE_INCONSISTENT)?;
        let mode = match mechanism.mechanism {
            CKM_AES_ECB => Mode::Ecb,
            CKM_AES_GCM => {
                // SAFETY: as the caller says.
                let parameter = unsafe { parameter::<CK_GCM_PARAMS>(mechanism) }?;
                if parameter.ulIvLen != GCM_IV as CK_ULONG || parameter.ulTagBits != 128 || parameter.pIv.is_null() {
                    return Err(CKR_MECHANISM_PARAM_INVALID);
                }
                // SAFETY: not null, and as the caller says, so long.
                let iv = unsafe { parameter.pIv.cast::<[u8; GCM_IV]>().read_unaligned() };
                let len = usize::try_from(parameter.ulAADLen).unwrap_or(0);
                let associated_data = match parameter.pAAD.is_null() || len == 0 {
                    true => Vec::new(),
                    // SAFETY: not null, and as the caller says, so long.
                    false => unsafe { std::slice::from_raw_parts(parameter.pAAD, len) }.to_vec(),
                };
                Mode::Gcm { iv, associated_data }
            }
            // SAFETY: as the caller says.
            cbc => Mode::Cbc { iv: unsafe { parameter(mechanism) }?, padded: cbc == CKM_AES_CBC_PAD },
        };
        Ok(Ciphering { value, mode })
    }

    pub(super) fn encrypt(&self, data: &[u8]) -> Answer<Vec<u8>> {
        let mut made = data.to_vec();
        match &self.mode {
            Mode::Gcm { iv, associated_data } => {
                let (key, nonce) = (self.gcm()?, Nonce::assume_unique_for_key(*iv));
                key.seal_in_place_append_tag(nonce, Aad::from(associated_data), &mut made).map_err(failed)?;
            }
            Mode::Cbc { iv, padded: true } => {
                let context = EncryptionContext::Iv128(FixedLength::from(iv));
                let key = PaddedBlockEncryptingKey::cbc_pkcs7(self.aes()?).map_err(failed)?;
                key.less_safe_encrypt(&mut made, context).map_err(failed)?;
            }
            Mode::Cbc { iv, padded: false } => {
                let context = EncryptionContext::Iv128(FixedLength::from(iv));
                whole(data, CKR_DATA_LEN_RANGE)?;
                let key = EncryptingKey::cbc(self.aes()?).map_err(failed)?;
                key.less_safe_encrypt(&mut made, context).map_err(failed)?;
            }
            Mode::Ecb => {
                whole(data, CKR_DATA_LEN_RANGE)?;
                EncryptingKey::ecb(self.aes()?).and_then(|key| key.encrypt(&mut made)).map_err(failed)?;
            }
        }
        Ok(made)
    }

    pub(super) fn decrypt(&self, data: &[u8]) -> Answer<Vec<u8>> {
        let mut made = data.to_vec();
        let wrong = |_| CKR_ENCRYPTED_DATA_INVALID;
        let len = match &self.mode {
            Mode::Gcm { iv, associated_data } => {
                let (key, nonce) = (self.gcm()?, Nonce::assume_unique_for_key(*iv));
                key.open_in_place(nonce, Aad::from(associated_data), &mut made).map_err(wrong)?.len()
            }
            Mode::Cbc { iv, padded } => {
                let context = DecryptionContext::Iv128(FixedLength::from(iv));
                whole(data, CKR_ENCRYPTED_DATA_LEN_RANGE)?;
                if *padded {
                    let key = PaddedBlockDecryptingKey::cbc_pkcs7(self.aes()?).map_err(failed)?;
                    key.decrypt(&mut made, context).map_err(wrong)?.len()
                } else {
                    let key = DecryptingKey::cbc(self.aes()?).map_err(failed)?;
                    key.decrypt(&mut made, context).map_err(wrong)?.len()
                }
            }
            Mode::Ecb => {
                whole(data, CKR_ENCRYPTED_DATA_LEN_RANGE)?;
                let key = DecryptingKey::ecb(self.aes()?).map_err(failed)?;
                key.decrypt(&mut made, DecryptionContext::None).map_err(wrong)?.len()
            }
        };
        made.truncate(len);
        Ok(made)
    }

    fn gcm(&self) -> Answer<LessSafeKey> {
        UnboundKey::new(&AES_256_GCM, &self.value).map(LessSafeKey::new).map_err(failed)
    }

    fn aes(&self) -> Answer<UnboundCipherKey> {
        UnboundCipherKey::new(&AES_256, &self.value).map_err(failed)
    }
}

fn failed<E>(_: E) -> cryptoki_sys::CK_RV {
    CKR_FUNCTION_FAILED
}

fn whole(data: &[u8], otherwise: cryptoki_sys::CK_RV) -> Answer {
    if !data.is_empty() && data.len().is_multiple_of(BLOCK) { Ok(()) } else { Err(otherwise) }
}

/// A mechanism's parameter.
///
/// # Safety
///
/// It must be null or as long as the mechanism says; any bytes must be good for a `T`.
unsafe fn parameter<T>(mechanism: &CK_MECHANISM) -> Answer<T> {
    let place = mechanism.pParameter.cast::<T>();
    if place.is_null() || mechanism.ulParameterLen != size_of::<T>() as CK_ULONG {
        return Err(CKR_MECHANISM_PARAM_INVALID);
    }
    // SAFETY: not null, and as long as this; the caller says that its bytes are good for it.
    Ok(unsafe { place.read_unaligned() })
}
