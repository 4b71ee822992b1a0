//! The calls that encrypt and decrypt with secret keys, and the checksums of what is sent.

use bytes::Bytes;
use google_cloud_kms_v1::client::KeyManagementService;

use super::mechanism::{How, Opening, Sealing};
use crate::model::{GCM_IV_BYTES, GCM_TAG_BYTES};

/// What was answered, unchecked.
pub(super) struct Answered {
    /// The version that did it; empty where the service does not say.
    pub(super) by: String,
    /// The IV that stands in front of a ciphertext, where that is not in it.
    pub(super) iv: Bytes,
    pub(super) made: Bytes,
    /// The checksum of what was made.
    pub(super) sent: Option<i64>,
    /// Whether the service got what was sent.
    pub(super) verified: bool,
}

type Answer = Result<Answered, google_cloud_gax::error::Error>;

/// The checksum that goes with bytes.
pub(super) fn crc(bytes: &[u8]) -> i64 {
    i64::from(crc32c::crc32c(bytes))
}

/// The key that a version is of, by its whole name.
pub(super) fn key_of(version: &str) -> &str {
    version.split_once("/cryptoKeyVersions/").map_or(version, |(key, _)| key)
}

/// Encrypts with the version `id`.
pub(super) async fn seal(kms: &KeyManagementService, id: &str, asked: &Sealing) -> Answer {
    let (plaintext, check) = (asked.plaintext.clone().into_bytes(), crc(asked.plaintext.expose()));
    let aad = &asked.associated_data;
    match &asked.how {
        How::Own => {
            let call = kms.encrypt().set_name(id).set_plaintext(plaintext).set_plaintext_crc32c(check);
            let call = call.set_additional_authenticated_data(aad.clone());
            let made = call.set_additional_authenticated_data_crc32c(crc(aad)).send().await?;
            Ok(Answered {
                by: made.name,
                iv: Bytes::new(),
                made: made.ciphertext,
                sent: made.ciphertext_crc32c,
                verified: made.verified_plaintext_crc32c && made.verified_additional_authenticated_data_crc32c,
            })
        }
        How::Raw { iv } => {
            let mut call = kms.raw_encrypt().set_name(id).set_plaintext(plaintext).set_plaintext_crc32c(check);
            if let Some(iv) = iv {
                call = call.set_initialization_vector(iv.clone()).set_initialization_vector_crc32c(crc(iv));
            }
            if !aad.is_empty() {
                call = call.set_additional_authenticated_data(aad.clone());
                call = call.set_additional_authenticated_data_crc32c(crc(aad));
            }
            let made = call.send().await?;
            let is_iv_right = match iv {
                Some(iv) => made.verified_initialization_vector_crc32c && made.initialization_vector == *iv,
                // Whether it arrived whole is told by its checksum.
                None => {
                    made.initialization_vector.len() == GCM_IV_BYTES
                        && made.initialization_vector_crc32c == Some(crc(&made.initialization_vector))
                }
            };
            let is_aad_right = aad.is_empty() || made.verified_additional_authenticated_data_crc32c;
            Ok(Answered {
                by: made.name,
                iv: made.initialization_vector,
                made: made.ciphertext,
                sent: made.ciphertext_crc32c,
                verified: made.verified_plaintext_crc32c && is_iv_right && is_aad_right,
            })
        }
    }
}

/// Decrypts with the version `id`; what is in the service's own form, with the version of that key that made it.
pub(super) async fn open(kms: &KeyManagementService, id: &str, asked: &Opening) -> Answer {
    let (ciphertext, check, aad) = (asked.ciphertext.clone(), crc(&asked.ciphertext), &asked.associated_data);
    match &asked.how {
        How::Own => {
            let call = kms.decrypt().set_name(key_of(id)).set_ciphertext(ciphertext).set_ciphertext_crc32c(check);
            let call = call.set_additional_authenticated_data(aad.clone());
            let made = call.set_additional_authenticated_data_crc32c(crc(aad)).send().await?;
            // What arrived wrong the service refuses here, and says nothing of what arrived right.
            let (by, iv, verified) = (String::new(), Bytes::new(), true);
            Ok(Answered { by, iv, made: made.plaintext, sent: made.plaintext_crc32c, verified })
        }
        How::Raw { iv } => {
            let iv = iv.clone().unwrap_or_default();
            let mut call = kms.raw_decrypt().set_name(id).set_ciphertext(ciphertext).set_ciphertext_crc32c(check);
            call = call.set_initialization_vector_crc32c(crc(&iv)).set_initialization_vector(iv.clone());
            if iv.len() == GCM_IV_BYTES {
                call = call.set_tag_length(GCM_TAG_BYTES as i32);
            }
            if !aad.is_empty() {
                call = call.set_additional_authenticated_data(aad.clone());
                call = call.set_additional_authenticated_data_crc32c(crc(aad));
            }
            let made = call.send().await?;
            let is_aad_right = aad.is_empty() || made.verified_additional_authenticated_data_crc32c;
            let verified =
                made.verified_ciphertext_crc32c && made.verified_initialization_vector_crc32c && is_aad_right;
            let (by, iv) = (String::new(), Bytes::new());
            Ok(Answered { by, iv, made: made.plaintext, sent: made.plaintext_crc32c, verified })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_of_one_key() {
        let key = "projects/p/locations/l/keyRings/r/cryptoKeys/k";
        for version in ["/cryptoKeyVersions/1", "/cryptoKeyVersions/22", ""] {
            assert_eq!(key_of(&format!("{key}{version}")), key);
        }
    }
}
