//! What the service says of a key.

use der::Document;
use google_cloud_kms_v1::model::crypto_key_version::CryptoKeyVersionState;
use google_cloud_kms_v1::model::{CryptoKeyVersion, ProtectionLevel, PublicKey as Published};

use super::fault;
use crate::backend::cloud::{self, BEING_MADE, Found, ill, unknown_kind};
use crate::backend::{BackendError, Fate};
use crate::crypto;
use crate::model::{CloudKind, CloudService, CloudUse, Fault};

/// Most bytes that a secret key in an HSM encrypts, with their associated data.
const HSM_MAX: usize = 8 * 1024;

/// Whether an answer is about the version that was asked for. Its project may be told by another of its names.
pub(super) fn is_of(answered: &str, asked: &str) -> bool {
    let in_project = |name: &str| name.find("/locations/").map(|at| name[at..].to_owned());
    in_project(answered) == in_project(asked)
}

/// The row of a version; refuses one that is of another algorithm than it is registered by.
pub(super) fn kind_of(
    version: &CryptoKeyVersion,
    registered: &str,
    title: &str,
) -> Result<&'static CloudKind, BackendError> {
    let native = version.algorithm.name().unwrap_or("of an algorithm that nobody knows");
    if native != registered {
        let what =
            format!("{title}: it is {native} and registered as {registered}: correct algorithm, or the key's name");
        return Err(BackendError::keep(Fault::invalid(what)));
    }
    let kind = CloudService::GcpCkms.kinds().iter().find(|kind| kind.native == native);
    kind.ok_or_else(|| unknown_kind(&version.name, native))
}

/// Refuses a version that can do nothing now, saying why.
pub(super) fn check_state(version: &CryptoKeyVersion, title: &str) -> Result<(), BackendError> {
    let (cause, why) = match &version.state {
        CryptoKeyVersionState::Enabled => return Ok(()),
        CryptoKeyVersionState::PendingGeneration => {
            return Err(being_made(title));
        }
        CryptoKeyVersionState::Disabled => (cloud::DISABLED, "it is disabled: enable it".to_owned()),
        CryptoKeyVersionState::DestroyScheduled => {
            let when = version.destroy_time.map(|time| format!(" at {}", String::from(time))).unwrap_or_default();
            (cloud::PENDING_DELETION, format!("it is to be destroyed{when}: restore it"))
        }
        CryptoKeyVersionState::Destroyed => {
            (cloud::OUT_OF_USE, "it is destroyed for good: register another version".to_owned())
        }
        state => (cloud::OUT_OF_USE, format!("its state is {}", state.name().unwrap_or("one that nobody knows"))),
    };
    let fault = Fault::Unavailable { what: format!("{title}: {why}") };
    Err(BackendError { fault, fate: Fate::Keep, cause })
}

/// That the version is still being made.
pub(super) fn being_made(title: &str) -> BackendError {
    ill(BEING_MADE, format!("{title}: the service is still making it; try again"))
}

/// A secret key. One in an HSM encrypts less than others.
pub(super) fn secret(version: &CryptoKeyVersion, kind: &'static CloudKind) -> Found {
    let is_software = matches!(
        version.protection_level,
        ProtectionLevel::Software | ProtectionLevel::External | ProtectionLevel::ExternalVpc
    );
    let sealed_max = (kind.does == CloudUse::Decrypt && !is_software).then_some(HSM_MAX);
    Found { sealed_max, ..Found::new(version.name.clone(), kind, None) }
}

/// A key with the public half that the service gives, whose checksum must be right.
pub(super) fn found(
    id: String,
    kind: &'static CloudKind,
    published: &Published,
    title: &str,
) -> Result<Found, BackendError> {
    if published.pem_crc32c != Some(i64::from(crc32c::crc32c(published.pem.as_bytes()))) {
        return Err(fault::checksum("GetPublicKey", title, "the public key"));
    }
    let (_, spki) = Document::from_pem(&published.pem)
        .map_err(|_| ill("unreadable_answer", format!("{title}: GetPublicKey: a public key that cannot be read")))?;
    let public = crypto::parse_spki(spki.as_bytes()).map_err(BackendError::keep)?;
    if public.kind != kind.kind {
        return Err(BackendError::keep(Fault::internal("a public key of another kind than its key")));
    }
    Ok(Found::new(id, kind, Some(public)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_about_another_version_is_none() {
        let asked = "projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1";
        assert!(is_of(asked, asked) && is_of(&asked.replacen("/p/", "/1234/", 1), asked));
        for other in ["", "projects/p", &asked.replace("/k/", "/other/"), &format!("{asked}2")] {
            assert!(!is_of(other, asked), "{other:?}");
        }
    }
}
