//! The service's words for operations.

use std::collections::HashMap;

use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{EncryptionAlgorithmSpec, MacAlgorithmSpec, MessageType, SigningAlgorithmSpec};

use crate::backend::BackendError;
use crate::backend::cloud::{Found, not_supported};
use crate::crypto;
use crate::model::{Cipher, Fault, Hash, KeyOperation, SecretBytes, SignInput};

/// What the digest of associated data is called in an encryption context. That is part of what is authenticated; and it is text, and
/// is written to AWS CloudTrail as it is, so that the data itself is none of it.
const ASSOCIATED_DATA: &str = "keyway-associated-data-sha256";
/// Most bytes of a ciphertext.
const CIPHERTEXT_MAX: usize = 6144;

/// The encryption context of a message.
pub(super) type Context = Option<HashMap<String, String>>;

/// What is asked of a key.
pub(super) enum Request {
    Sign { algorithm: SigningAlgorithmSpec, form: MessageType, message: Blob },
    Encrypt { algorithm: EncryptionAlgorithmSpec, context: Context, plaintext: SecretBytes },
    Decrypt { algorithm: EncryptionAlgorithmSpec, context: Context, ciphertext: Blob },
    Mac { algorithm: MacAlgorithmSpec, message: SecretBytes },
}

/// The request for an operation; refuses what the service does not do with such a key.
pub(super) fn request(found: &Found, operation: &KeyOperation) -> Result<Request, BackendError> {
    match operation {
        KeyOperation::Sign { scheme, hash, input } => {
            let signing = found.signing(*scheme, *hash, input)?;
            let algorithm = SigningAlgorithmSpec::from(signing.native);
            let form = match input {
                SignInput::Digest(_) => MessageType::Digest,
                SignInput::Message(_) => MessageType::Raw,
            };
            Ok(Request::Sign { algorithm, form, message: Blob::new(signing.input) })
        }
        KeyOperation::Encrypt { cipher: cipher @ Cipher::ServiceAead { associated_data }, plaintext } => {
            let algorithm = algorithm(found, cipher, "encryption")?;
            found.check_plaintext(plaintext.expose().len(), associated_data)?;
            Ok(Request::Encrypt { algorithm, context: context(associated_data)?, plaintext: plaintext.clone() })
        }
        KeyOperation::Decrypt { cipher, ciphertext } => {
            let algorithm = algorithm(found, cipher, "decryption")?;
            let context = match cipher {
                Cipher::ServiceAead { associated_data } => context(associated_data)?,
                _ => None,
            };
            if ciphertext.len() > CIPHERTEXT_MAX {
                let what =
                    format!("a ciphertext for a key {}: it makes none of more than {CIPHERTEXT_MAX} bytes", found.kind);
                return Err(BackendError::keep(Fault::invalid(what)));
            }
            Ok(Request::Decrypt { algorithm, context, ciphertext: Blob::new(ciphertext.as_ref()) })
        }
        KeyOperation::Mac { hash, message } => {
            let native = found.kind.mac(*hash).ok_or_else(|| not_supported(found.kind, &mac(*hash)))?;
            found.check_message(message.expose().len())?;
            Ok(Request::Mac { algorithm: MacAlgorithmSpec::from(native), message: message.clone() })
        }
        KeyOperation::Encrypt { .. } => Err(not_supported(found.kind, "encryption in this mode")),
    }
}

/// The service's name for a padding or mode.
fn algorithm(found: &Found, cipher: &Cipher, what: &str) -> Result<EncryptionAlgorithmSpec, BackendError> {
    let native = cipher.scheme().and_then(|scheme| found.kind.decryption(scheme));
    let native = native.ok_or_else(|| not_supported(found.kind, &format!("{what} with this padding or mode")))?;
    Ok(EncryptionAlgorithmSpec::from(native))
}

fn context(associated_data: &[u8]) -> Result<Context, BackendError> {
    if associated_data.is_empty() {
        return Ok(None);
    }
    let digest = crypto::digest(Hash::Sha2_256, associated_data).map_err(BackendError::keep)?;
    Ok(Some(HashMap::from([(ASSOCIATED_DATA.to_owned(), hex::encode(digest.as_bytes()))])))
}

fn mac(hash: Hash) -> String {
    format!("an HMAC with {}", hash.name())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::CloudService;

    #[test]
    fn associated_data_is_bound_by_its_digest_and_lengths_are_the_service_s() {
        let kind = CloudService::AwsKms.kinds().iter().find(|kind| kind.native == "SYMMETRIC_DEFAULT").unwrap();
        let found = Found::new("arn".into(), kind, None);
        let encrypt = |bytes: usize, data: &'static [u8]| {
            let cipher = Cipher::ServiceAead { associated_data: Bytes::from_static(data) };
            let operation = KeyOperation::Encrypt { cipher, plaintext: SecretBytes::new(vec![7; bytes]) };
            request(&found, &operation)
        };
        let Ok(Request::Encrypt { context: None, .. }) = encrypt(4096, b"") else { panic!("no plain request") };
        let Ok(Request::Encrypt { context: Some(context), .. }) = encrypt(1, b"abc") else { panic!("no context") };
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(context, HashMap::from([("keyway-associated-data-sha256".to_owned(), digest.to_owned())]));
        let Err(BackendError { fault: Fault::TooLarge { what }, .. }) = encrypt(4097, b"") else { panic!("taken") };
        assert!(what.contains("at most 4096 bytes; with encryption_mode"), "{what}");
        let decrypt = |bytes: usize| {
            let (cipher, ciphertext) = (Cipher::ServiceAead { associated_data: Bytes::new() }, vec![7; bytes].into());
            request(&found, &KeyOperation::Decrypt { cipher, ciphertext })
        };
        assert!(decrypt(6144).is_ok() && decrypt(6145).is_err());
        let cipher = Cipher::AesBlock;
        let block = KeyOperation::Encrypt { cipher, plaintext: SecretBytes::new(vec![7; 16]) };
        assert!(request(&found, &block).is_err());
    }
}
