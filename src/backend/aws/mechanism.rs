//! The service's words for operations.

use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{EncryptionAlgorithmSpec, MacAlgorithmSpec, MessageType, SigningAlgorithmSpec};

use crate::backend::BackendError;
use crate::backend::cloud::{Found, not_supported};
use crate::model::{Cipher, Hash, KeyOperation, SignInput};

/// What is asked of a key.
pub(super) enum Request {
    Sign { algorithm: SigningAlgorithmSpec, form: MessageType, message: Blob },
    Decrypt { algorithm: EncryptionAlgorithmSpec, ciphertext: Blob },
    Mac { algorithm: MacAlgorithmSpec, message: Blob },
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
        KeyOperation::Decrypt { cipher: cipher @ (Cipher::RsaOaep { .. } | Cipher::RsaPkcs1), ciphertext } => {
            let native = cipher.scheme().and_then(|scheme| found.kind.decryption(scheme));
            let native = native.ok_or_else(|| not_supported(found.kind, "decryption with this padding"))?;
            Ok(Request::Decrypt {
                algorithm: EncryptionAlgorithmSpec::from(native),
                ciphertext: Blob::new(ciphertext.as_ref()),
            })
        }
        KeyOperation::Mac { hash, message } => {
            let native = found.kind.mac(*hash).ok_or_else(|| not_supported(found.kind, &mac(*hash)))?;
            found.check_message(message.expose().len())?;
            Ok(Request::Mac { algorithm: MacAlgorithmSpec::from(native), message: Blob::new(message.expose()) })
        }
        KeyOperation::Encrypt { .. } | KeyOperation::Decrypt { .. } => {
            Err(not_supported(found.kind, "symmetric encryption"))
        }
    }
}

fn mac(hash: Hash) -> String {
    format!("an HMAC with {}", hash.name())
}
