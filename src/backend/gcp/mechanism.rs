//! The service's words for operations.

use bytes::Bytes;
use google_cloud_kms_v1::model::Digest;

use crate::backend::BackendError;
use crate::backend::cloud::{Found, not_supported};
use crate::crypto::digest_info;
use crate::model::{Cipher, Fault, Hash, KeyOperation, SecretBytes, SignInput};

/// How most algorithms sign, by the field of the request; the others sign data.
const DIGEST: &str = "digest";

/// What is asked of a key.
pub(super) enum Request {
    /// A signature of a digest, whose bytes stand beside for their checksum.
    Digest(Digest, Bytes),
    /// A signature of these bytes.
    Data(Bytes),
    /// With the private half of a key.
    Decrypt(Bytes),
    Seal(Sealing),
    Open(Opening),
    Mac(SecretBytes),
}

/// Encryption with a secret key.
pub(super) struct Sealing {
    pub(super) how: How,
    pub(super) associated_data: Bytes,
    pub(super) plaintext: SecretBytes,
}

/// Decryption with a secret key.
pub(super) struct Opening {
    pub(super) how: How,
    pub(super) associated_data: Bytes,
    pub(super) ciphertext: Bytes,
}

/// How a secret key encrypts.
pub(super) enum How {
    /// In the service's own form.
    Own,
    /// With this IV, which stands in front of what is answered, or where there is none with one that the service makes.
    Raw { iv: Option<Bytes> },
}

/// The request for an operation; refuses what the service does not do with such a key.
pub(super) fn request(found: &Found, operation: &KeyOperation) -> Result<Request, BackendError> {
    match operation {
        KeyOperation::Sign { scheme, hash, input } => {
            let signing = found.signing(*scheme, *hash, input)?;
            let bytes = Bytes::copy_from_slice(&signing.input);
            match input {
                SignInput::Digest(_) if signing.native == DIGEST => {
                    Ok(Request::Digest(digest(signing.hash, &bytes)?, bytes))
                }
                // The service pads what it gets, and no more.
                SignInput::Digest(_) => Ok(Request::Data([digest_info(*hash), &bytes].concat().into())),
                SignInput::Message(_) => Ok(Request::Data(bytes)),
            }
        }
        KeyOperation::Encrypt { cipher, plaintext } => {
            check(found, cipher)?;
            let (how, associated_data) = match cipher {
                Cipher::AesCbc { iv, .. } => (How::Raw { iv: Some(Bytes::copy_from_slice(iv)) }, Bytes::new()),
                Cipher::AesGcm { associated_data, .. } => (How::Raw { iv: None }, associated_data.clone()),
                Cipher::ServiceAead { associated_data } => (How::Own, associated_data.clone()),
                Cipher::RsaPkcs1 | Cipher::RsaOaep { .. } | Cipher::AesBlock => {
                    return Err(not_supported(found.kind, "encryption in this mode"));
                }
            };
            found.check_plaintext(plaintext.expose().len(), &associated_data)?;
            Ok(Request::Seal(Sealing { how, associated_data, plaintext: plaintext.clone() }))
        }
        KeyOperation::Decrypt { cipher, ciphertext } => {
            check(found, cipher)?;
            let ciphertext = Bytes::copy_from_slice(ciphertext);
            let (how, associated_data) = match cipher {
                Cipher::AesCbc { iv, .. } => (How::Raw { iv: Some(Bytes::copy_from_slice(iv)) }, Bytes::new()),
                Cipher::AesGcm { iv, associated_data } => {
                    (How::Raw { iv: Some(Bytes::copy_from_slice(iv)) }, associated_data.clone())
                }
                Cipher::ServiceAead { associated_data } => (How::Own, associated_data.clone()),
                Cipher::RsaPkcs1 | Cipher::RsaOaep { .. } | Cipher::AesBlock => {
                    return Ok(Request::Decrypt(ciphertext));
                }
            };
            Ok(Request::Open(Opening { how, associated_data, ciphertext }))
        }
        KeyOperation::Mac { hash, message } => {
            let what = || not_supported(found.kind, &format!("an HMAC with {}", hash.name()));
            found.kind.mac(*hash).ok_or_else(what)?;
            found.check_message(message.expose().len())?;
            Ok(Request::Mac(message.clone()))
        }
    }
}

/// Refuses a padding or mode that the key's algorithm is not of.
fn check(found: &Found, cipher: &Cipher) -> Result<(), BackendError> {
    let native = cipher.scheme().and_then(|scheme| found.kind.decryption(scheme));
    native.map(|_| ()).ok_or_else(|| not_supported(found.kind, "this padding or mode"))
}

fn digest(hash: Hash, bytes: &Bytes) -> Result<Digest, BackendError> {
    match hash {
        Hash::Sha2_256 => Ok(Digest::new().set_sha256(bytes.clone())),
        Hash::Sha2_384 => Ok(Digest::new().set_sha384(bytes.clone())),
        Hash::Sha2_512 => Ok(Digest::new().set_sha512(bytes.clone())),
        other => Err(BackendError::keep(Fault::internal(format!("a digest of {}", other.name())))),
    }
}
