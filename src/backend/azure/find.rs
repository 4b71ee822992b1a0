//! What the service says of a key.

use azure_core::time::OffsetDateTime;
use azure_security_keyvault_keys::models::{CurveName, DeletedKey, JsonWebKey, Key, KeyAttributes, KeyType};
use time::format_description::well_known::Rfc3339;

use super::fault::first_line;
use crate::backend::cloud::{self, Found, unknown_kind};
use crate::backend::{BackendError, Fate};
use crate::crypto;
use crate::model::{CloudKind, CloudService, Curve, Fault, KeyKind, PublicKey};

/// Most letters of a key's identifier.
const ID_MAX: usize = 512;

/// A key pair that was answered; of a symmetric key its identifier and whether it is for MACs.
pub(super) enum Answered {
    Pair(Found),
    Symmetric { id: String, macs: bool },
}

/// Which key it is, and what it may do.
pub(super) fn read(title: &str, answer: Key) -> Result<Answered, BackendError> {
    let unreadable = |what: &str| cloud::ill("unreadable_answer", format!("{title}: an answer without {what}"));
    let key = answer.key.ok_or_else(|| unreadable("a key"))?;
    let id = key.kid.clone().filter(|id| is_identifier(id)).ok_or_else(|| unreadable("a proper identifier"))?;
    check_state(title, answer.attributes.as_ref())?;
    if matches!(key.kty, Some(KeyType::Oct | KeyType::OctHsm)) {
        let may = |wanted: &str| key.key_ops.iter().flatten().any(|operation| operation == wanted);
        return Ok(Answered::Symmetric { id, macs: may("sign") && !may("encrypt") });
    }
    let public = public_key(&key)?;
    let native = first_line(key.kty.as_ref().map_or("of no type", AsRef::as_ref));
    let public = public.ok_or_else(|| unknown_kind(&id, &native))?;
    let key_type = native.to_uppercase();
    let fits = |kind: &&CloudKind| kind.key_type == key_type && kind.kind == public.kind;
    let kind = kinds().iter().find(fits).ok_or_else(|| unknown_kind(&id, &native))?;
    Ok(Answered::Pair(Found::new(id, kind, Some(public))))
}

/// Whether it is a URL that ends in a version.
fn is_identifier(id: &str) -> bool {
    let version = version_of(id);
    id.len() <= ID_MAX
        && id.chars().all(|letter| letter.is_ascii_graphic())
        && !version.is_empty()
        && version.chars().all(|letter| letter.is_ascii_alphanumeric())
}

fn kinds() -> &'static [CloudKind] {
    CloudService::AzureKeyVault.kinds()
}

/// The rows of symmetric keys, among which the service does not tell.
pub(super) fn symmetric(macs: bool) -> impl Iterator<Item = &'static CloudKind> {
    kinds().iter().filter(move |kind| match kind.kind {
        KeyKind::Hmac { .. } => macs,
        KeyKind::Aes { .. } => !macs,
        _ => false,
    })
}

/// The version in the identifier of a key, `https://VAULT/keys/NAME/VERSION`.
pub(super) fn version_of(id: &str) -> &str {
    id.rsplit('/').next().unwrap_or_default()
}

fn public_key(key: &JsonWebKey) -> Result<Option<PublicKey>, BackendError> {
    let part = |part: &Option<Vec<u8>>| part.clone().unwrap_or_default();
    let made = match key.kty {
        Some(KeyType::Rsa | KeyType::RsaHsm) => crypto::rsa_spki(&part(&key.n), &part(&key.e)),
        Some(KeyType::Ec | KeyType::EcHsm) => {
            let curve = match key.crv {
                Some(CurveName::P256) => Curve::P256,
                Some(CurveName::P384) => Curve::P384,
                Some(CurveName::P521) => Curve::P521,
                Some(CurveName::P256K) => Curve::Secp256k1,
                _ => return Ok(None),
            };
            crypto::ec_spki(curve, &point(curve, &part(&key.x), &part(&key.y)))
        }
        _ => return Ok(None),
    };
    made.map(Some).map_err(BackendError::keep)
}

/// The uncompressed point; coordinates may come without their leading zeros.
fn point(curve: Curve, x: &[u8], y: &[u8]) -> Vec<u8> {
    let width = curve.field_bytes();
    let mut point = vec![4];
    for part in [x, y] {
        point.resize(point.len() + width.saturating_sub(part.len()), 0);
        point.extend_from_slice(part);
    }
    point
}

/// Refuses a key that can do nothing now, saying why.
fn check_state(title: &str, attributes: Option<&KeyAttributes>) -> Result<(), BackendError> {
    let Some(attributes) = attributes else { return Ok(()) };
    let now = OffsetDateTime::now_utc();
    let (cause, why) = match (attributes.enabled, attributes.expires, attributes.not_before) {
        (Some(false), ..) => (cloud::DISABLED, "it is disabled: enable it".to_owned()),
        (_, Some(end), _) if end <= now => {
            (cloud::OUT_OF_USE, format!("it expired on {}: move its expiry date, or take it away", date(end)))
        }
        (.., Some(begin)) if begin > now => (cloud::OUT_OF_USE, format!("it is not to be used before {}", date(begin))),
        _ => return Ok(()),
    };
    Err(out_of_use(cause, format!("{title}: {why}")))
}

/// A date as others are told: RFC 3339.
fn date(date: OffsetDateTime) -> String {
    date.format(&Rfc3339).unwrap_or_default()
}

/// Of a key that is not there since somebody deleted it, and can still be had back: nobody may take it for one that never was.
pub(super) fn deleted(title: &str, key: &DeletedKey) -> BackendError {
    let until = key.scheduled_purge_date.map(|end| format!(" until {}", date(end))).unwrap_or_default();
    let what =
        format!("{title}: it is deleted, and can be recovered{until}: recover it, or purge it and register another");
    out_of_use(cloud::PENDING_DELETION, what)
}

fn out_of_use(cause: &'static str, what: String) -> BackendError {
    BackendError { fault: Fault::Unavailable { what }, fate: Fate::Keep, cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinates_without_their_zeros_are_filled_up() {
        let made = point(Curve::P256, &[7; 31], &[8; 32]);
        assert_eq!(made.len(), 65);
        assert_eq!((made[0], made[1], made[2], made[33]), (4, 0, 7, 8));
    }

    #[test]
    fn an_identifier_ends_in_the_version() {
        for wrong in ["https://v/keys/k/", "https://v/keys/k/a?b", "https://v/keys/k\n/a", ""] {
            assert!(!is_identifier(wrong), "{wrong:?}");
        }
        assert!(is_identifier("https://v.vault.azure.net/keys/k/78deebed173b48e48f55abf87ed4cf71"));
        assert_eq!(
            version_of("https://v.vault.azure.net/keys/k/78deebed173b48e48f55abf87ed4cf71"),
            "78deebed173b48e48f55abf87ed4cf71"
        );
    }

    #[test]
    fn dates_are_of_rfc_3339() {
        let key: DeletedKey = serde_json::from_str("{\"scheduledPurgeDate\": 1796363724}").unwrap();
        let told = deleted("key a", &key).fault.to_string();
        assert!(told.contains("recovered until 2026-12-04T05:55:24Z: recover it"), "{told}");
    }

    #[test]
    fn a_key_out_of_use_says_why() {
        let said = |attributes: KeyAttributes| check_state("key a", Some(&attributes)).unwrap_err().fault.to_string();
        let hour = azure_core::time::Duration::hours(1);
        let now = OffsetDateTime::now_utc();
        assert!(said(KeyAttributes { enabled: Some(false), ..KeyAttributes::default() }).contains("disabled"));
        assert!(said(KeyAttributes { expires: Some(now - hour), ..KeyAttributes::default() }).contains("expired"));
        assert!(said(KeyAttributes { not_before: Some(now + hour), ..KeyAttributes::default() }).contains("before"));
        let good = KeyAttributes { enabled: Some(true), expires: Some(now + hour), ..KeyAttributes::default() };
        assert!(check_state("key a", Some(&good)).is_ok());
    }
}
