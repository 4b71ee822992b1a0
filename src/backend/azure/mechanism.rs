//! The service's words for operations.

use azure_security_keyvault_keys::models::{
    EncryptionAlgorithm, KeyOperationParameters, SignParameters, SignatureAlgorithm,
};
use bytes::Bytes;

use crate::backend::BackendError;
use crate::backend::cloud::{Found, not_supported};
use crate::model::{Cipher, CipherScheme, GCM_TAG_BYTES, KeyOperation};

/// What is asked of a key.
pub(super) enum Request {
    /// A signature of a digest, or a MAC of a message.
    Sign(SignParameters),
    Encrypt(KeyOperationParameters),
    Decrypt(KeyOperationParameters),
}

/// The request for an operation; refuses what the service does not do with such a key.
pub(super) fn request(found: &Found, operation: &KeyOperation) -> Result<Request, BackendError> {
    match operation {
        KeyOperation::Sign { scheme, hash, input } => {
            let signing = found.signing(*scheme, *hash, input)?;
            Ok(Request::Sign(sign(signing.native, &signing.input)))
        }
        KeyOperation::Mac { hash, message } => {
            let what = || not_supported(found.kind, &format!("an HMAC with {}", hash.name()));
            let native = found.kind.mac(*hash).ok_or_else(what)?;
            found.check_message(message.expose().len())?;
            Ok(Request::Sign(sign(native, message.expose())))
        }
        KeyOperation::Encrypt { cipher, plaintext } => {
            found.check_plaintext(plaintext.expose().len(), &[])?;
            let mut asked = cipher_of(found, cipher, "encryption", plaintext.expose())?;
            match cipher {
                // The service makes the IV itself, and takes none.
                Cipher::AesGcm { associated_data, .. } => {
                    asked.additional_authenticated_data = given(associated_data);
                }
                Cipher::AesCbc { iv, .. } => asked.iv = Some(iv.to_vec()),
                Cipher::RsaPkcs1 | Cipher::RsaOaep { .. } | Cipher::AesBlock | Cipher::ServiceAead { .. } => {
                    return Err(not_supported(found.kind, "encryption so"));
                }
            }
            Ok(Request::Encrypt(asked))
        }
        KeyOperation::Decrypt { cipher, ciphertext } => decrypt(found, cipher, ciphertext).map(Request::Decrypt),
    }
}

fn decrypt(found: &Found, cipher: &Cipher, ciphertext: &Bytes) -> Result<KeyOperationParameters, BackendError> {
    let mut asked = cipher_of(found, cipher, "decryption", ciphertext)?;
    match cipher {
        Cipher::AesGcm { iv, associated_data } => {
            let at = ciphertext.len().checked_sub(GCM_TAG_BYTES);
            let at = at.ok_or_else(|| not_supported(found.kind, "decryption of what has no tag"))?;
            let (inner, tag) = ciphertext.split_at(at);
            asked.value = Some(inner.to_vec());
            asked.authentication_tag = Some(tag.to_vec());
            asked.iv = Some(iv.to_vec());
            asked.additional_authenticated_data = given(associated_data);
        }
        Cipher::AesCbc { iv, .. } => asked.iv = Some(iv.to_vec()),
        Cipher::RsaPkcs1 | Cipher::RsaOaep { .. } | Cipher::AesBlock | Cipher::ServiceAead { .. } => {}
    }
    Ok(asked)
}

fn given(bytes: &Bytes) -> Option<Vec<u8>> {
    (!bytes.is_empty()).then(|| bytes.to_vec())
}

fn sign(native: &str, value: &[u8]) -> SignParameters {
    // Parsing never fails: what has no name of its own there is passed on.
    let algorithm = native.parse::<SignatureAlgorithm>().ok();
    SignParameters { algorithm, value: Some(value.to_vec()) }
}

fn cipher_of(found: &Found, cipher: &Cipher, what: &str, value: &[u8]) -> Result<KeyOperationParameters, BackendError> {
    let padding = |scheme: &CipherScheme| match scheme {
        CipherScheme::RsaPkcs1 | CipherScheme::RsaOaep { .. } => format!("{what} with this padding"),
        CipherScheme::AesGcm | CipherScheme::AesCbc { .. } | CipherScheme::ServiceAead => {
            format!("{what} in this mode")
        }
    };
    let scheme = cipher.scheme().ok_or_else(|| not_supported(found.kind, &format!("{what} of single blocks")))?;
    let native = found.kind.decryption(scheme).ok_or_else(|| not_supported(found.kind, &padding(&scheme)))?;
    let algorithm = native.parse::<EncryptionAlgorithm>().ok();
    Ok(KeyOperationParameters { algorithm, value: Some(value.to_vec()), ..KeyOperationParameters::default() })
}
