//! What the service says of a key.

use std::collections::HashSet;

use der::Document;
use google_cloud_kms_v1::model::crypto_key_version::CryptoKeyVersionState;
use google_cloud_kms_v1::model::{CryptoKeyVersion, PublicKey as Published};
use parking_lot::Mutex;

use super::fault;
use crate::backend::cloud::{BEING_MADE, Found, ill, unknown_kind};
use crate::backend::{BackendError, Fate};
use crate::crypto;
use crate::model::{CloudKind, CloudService, Fault};

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

/// The versions that are to be destroyed, as far as that was told: once for each time that it comes about, however often
/// the key is looked up.
#[derive(Default)]
pub(super) struct Doomed(Mutex<HashSet<String>>);

impl Doomed {
    pub(super) fn watch(&self, version: &CryptoKeyVersion) {
        if version.state != CryptoKeyVersionState::DestroyScheduled {
            self.0.lock().remove(&version.name);
        } else if self.0.lock().insert(version.name.clone()) {
            let when = version.destroy_time.map(|time| format!(" at {}", String::from(time))).unwrap_or_default();
            tracing::error!(
                key = version.name,
                "A GOOGLE CLOUD KMS KEY IS TO BE DESTROYED{when}: restore it if it is still needed"
            );
        }
    }
}

/// Refuses a version that can do nothing now, saying why.
pub(super) fn check_state(version: &CryptoKeyVersion, title: &str) -> Result<(), BackendError> {
    let why = match &version.state {
        CryptoKeyVersionState::Enabled => return Ok(()),
        CryptoKeyVersionState::PendingGeneration => {
            return Err(being_made(title));
        }
        CryptoKeyVersionState::Disabled => "it is disabled: enable it".to_owned(),
        CryptoKeyVersionState::DestroyScheduled => {
            let when = version.destroy_time.map(|time| format!(" at {}", String::from(time))).unwrap_or_default();
            format!("it is to be destroyed{when}: restore it")
        }
        CryptoKeyVersionState::Destroyed => "it is destroyed for good: register another version".to_owned(),
        state => format!("its state is {}", state.name().unwrap_or("one that nobody knows")),
    };
    let fault = Fault::Unavailable { what: format!("{title}: {why}") };
    Err(BackendError { fault, fate: Fate::Keep, cause: "key_state" })
}

/// That the version is still being made.
pub(super) fn being_made(title: &str) -> BackendError {
    ill(BEING_MADE, format!("{title}: the service is still making it; try again"))
}

/// A key with the public half that the service gives, whose checksum must be right.
pub(super) fn found(
    id: String,
    kind: &'static CloudKind,
    published: Option<&Published>,
    title: &str,
) -> Result<Found, BackendError> {
    let Some(published) = published else { return Ok(Found { id, kind, public: None }) };
    if published.pem_crc32c != Some(i64::from(crc32c::crc32c(published.pem.as_bytes()))) {
        return Err(fault::checksum("GetPublicKey", title, "the public key"));
    }
    let (_, spki) = Document::from_pem(&published.pem)
        .map_err(|_| ill("unreadable_answer", format!("{title}: GetPublicKey: a public key that cannot be read")))?;
    let public = crypto::parse_spki(spki.as_bytes()).map_err(BackendError::keep)?;
    if public.kind != kind.kind {
        return Err(BackendError::keep(Fault::internal("a public key of another kind than its key")));
    }
    Ok(Found { id, kind, public: Some(public) })
}
