//! What the service says of a key.

use aws_sdk_kms::types::{KeyMetadata, KeyState, KeyUsageType};

use crate::backend::cloud::{self, Found, unknown_kind};
use crate::backend::{BackendError, Fate};
use crate::crypto;
use crate::model::{CloudKind, CloudService, CloudUse, Fault, PublicKey};

/// Which key it is, and what it may do; its public half is fetched beside.
pub(super) fn kind_of(key: &KeyMetadata) -> Result<(String, &'static CloudKind), BackendError> {
    let id = key.arn().unwrap_or(key.key_id()).to_owned();
    let native = key.key_spec().map_or("of no kind", |spec| spec.as_str());
    let does = match key.key_usage() {
        Some(KeyUsageType::SignVerify) => CloudUse::Sign,
        Some(KeyUsageType::EncryptDecrypt) => CloudUse::Decrypt,
        Some(KeyUsageType::GenerateVerifyMac) => CloudUse::Mac,
        _ => return Err(unknown_kind(&id, native)),
    };
    let kinds = CloudService::AwsKms.kinds();
    let kind = kinds.iter().find(|kind| kind.native == native && kind.does == does);
    kind.map(|kind| (id.clone(), kind)).ok_or_else(|| unknown_kind(&id, native))
}

/// Refuses a key that can do nothing now, saying why.
pub(super) fn check_state(key: &KeyMetadata) -> Result<(), BackendError> {
    let (cause, why) = match key.key_state() {
        Some(KeyState::Enabled) => return Ok(()),
        Some(KeyState::Disabled) => (cloud::DISABLED, "it is disabled: enable it".to_owned()),
        Some(KeyState::PendingDeletion | KeyState::PendingReplicaDeletion) => {
            let when = key.deletion_date().map(|date| format!(" on {date}")).unwrap_or_default();
            (cloud::PENDING_DELETION, format!("it is to be deleted{when}: cancel its deletion"))
        }
        Some(state) => (cloud::OUT_OF_USE, format!("its state is {}", state.as_str())),
        None => return Ok(()),
    };
    let what = format!("AWS KMS key {}: {why}", key.arn().unwrap_or(key.key_id()));
    Err(BackendError { fault: Fault::Unavailable { what }, fate: Fate::Keep, cause })
}

/// A key with the public half that the service gives.
pub(super) fn found(id: String, kind: &'static CloudKind, spki: Option<&[u8]>) -> Result<Found, BackendError> {
    let public = spki.map(crypto::parse_spki).transpose().map_err(BackendError::keep)?;
    if let Some(PublicKey { kind: real, .. }) = &public
        && *real != kind.kind
    {
        return Err(BackendError::keep(Fault::internal("a public key of another kind than its key")));
    }
    Ok(Found::new(id, kind, public))
}

/// A key's ARN without its region: `arn:aws:kms::ACCOUNT:key/ID`.
pub(super) fn without_region(arn: &str) -> String {
    let mut parts: Vec<&str> = arn.splitn(6, ':').collect();
    if let [_, _, _, region, _, _] = &mut parts[..] {
        *region = "";
    }
    parts.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_in_two_regions_have_one_name_without_them() {
        let [one, other] =
            ["eu-west-1", "us-east-1"].map(|region| format!("arn:aws:kms:{region}:111122223333:key/mrk-12"));
        assert_eq!(without_region(&one), "arn:aws:kms::111122223333:key/mrk-12");
        assert_eq!(without_region(&one), without_region(&other));
        assert_eq!(without_region("no-arn"), "no-arn");
    }
}
