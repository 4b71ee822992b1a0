//! Key usages and extended key usages by the names Vault gives them (Go's, without their prefix).

use const_oid::ObjectIdentifier;
use const_oid::db::rfc5280;
use der::flagset::FlagSet;
use x509_cert::ext::pkix::KeyUsages;

use crate::model::{Fault, KeyKind};

const KEY_USAGES: [(&str, KeyUsages); 9] = [
    ("DigitalSignature", KeyUsages::DigitalSignature),
    ("ContentCommitment", KeyUsages::NonRepudiation),
    ("KeyEncipherment", KeyUsages::KeyEncipherment),
    ("DataEncipherment", KeyUsages::DataEncipherment),
    ("KeyAgreement", KeyUsages::KeyAgreement),
    ("CertSign", KeyUsages::KeyCertSign),
    ("CRLSign", KeyUsages::CRLSign),
    ("EncipherOnly", KeyUsages::EncipherOnly),
    ("DecipherOnly", KeyUsages::DecipherOnly),
];

const fn oid(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(text)
}

const EXTENDED_KEY_USAGES: [(&str, ObjectIdentifier); 14] = [
    ("Any", rfc5280::ANY_EXTENDED_KEY_USAGE),
    ("ServerAuth", rfc5280::ID_KP_SERVER_AUTH),
    ("ClientAuth", rfc5280::ID_KP_CLIENT_AUTH),
    ("CodeSigning", rfc5280::ID_KP_CODE_SIGNING),
    ("EmailProtection", rfc5280::ID_KP_EMAIL_PROTECTION),
    ("IPSECEndSystem", oid("1.3.6.1.5.5.7.3.5")),
    ("IPSECTunnel", oid("1.3.6.1.5.5.7.3.6")),
    ("IPSECUser", oid("1.3.6.1.5.5.7.3.7")),
    ("TimeStamping", rfc5280::ID_KP_TIME_STAMPING),
    ("OCSPSigning", rfc5280::ID_KP_OCSP_SIGNING),
    ("MicrosoftServerGatedCrypto", oid("1.3.6.1.4.1.311.10.3.3")),
    ("NetscapeServerGatedCrypto", oid("2.16.840.1.113730.4.1")),
    ("MicrosoftCommercialCodeSigning", oid("1.3.6.1.4.1.311.2.1.22")),
    ("MicrosoftKernelCodeSigning", oid("1.3.6.1.4.1.311.61.1.1")),
];

/// The key usages called `names`. An unknown name is refused.
pub(super) fn key_usages(names: &[String]) -> Result<FlagSet<KeyUsages>, Fault> {
    names.iter().try_fold(FlagSet::default(), |set, name| {
        let wanted = strip_prefix(name, "KeyUsage");
        let found = KEY_USAGES.iter().find(|(known, _)| known.eq_ignore_ascii_case(wanted));
        found.map(|(_, usage)| set | *usage).ok_or_else(|| unknown("key_usage", name, KEY_USAGES.map(|(name, _)| name)))
    })
}

/// The usages that a key of this kind can be put to: RSA keys agree on nothing (RFC 3279, 2.3.1), EC keys encipher nothing
/// (RFC 8813, 3), and Edwards and ML-DSA keys only sign (RFC 8410, 5;
/// RFC 9881, 5).
pub(super) fn fitting(kind: KeyKind) -> FlagSet<KeyUsages> {
    let signs = KeyUsages::DigitalSignature | KeyUsages::NonRepudiation | KeyUsages::KeyCertSign | KeyUsages::CRLSign;
    match kind {
        KeyKind::Rsa { .. } => signs | KeyUsages::KeyEncipherment | KeyUsages::DataEncipherment,
        KeyKind::Ec(_) => signs | KeyUsages::KeyAgreement | KeyUsages::EncipherOnly | KeyUsages::DecipherOnly,
        KeyKind::Ed25519 | KeyKind::MlDsa(_) => signs,
        // Nobody certifies a secret key.
        KeyKind::Aes { .. } | KeyKind::Hmac { .. } => FlagSet::default(),
    }
}

/// The extended key usages called `names`. An unknown name is refused.
pub(super) fn extended_key_usages(names: &[String]) -> Result<Vec<ObjectIdentifier>, Fault> {
    let find = |name: &String| {
        let wanted = strip_prefix(name, "ExtKeyUsage");
        let found = EXTENDED_KEY_USAGES.iter().find(|(known, _)| known.eq_ignore_ascii_case(wanted));
        found
            .map(|(_, oid)| *oid)
            .ok_or_else(|| unknown("ext_key_usage", name, EXTENDED_KEY_USAGES.map(|(name, _)| name)))
    };
    names.iter().map(find).collect()
}

/// Object identifiers written as text, for the field `name`.
pub(super) fn object_identifiers(name: &str, texts: &[String]) -> Result<Vec<ObjectIdentifier>, Fault> {
    let parse = |text: &String| {
        text.parse::<ObjectIdentifier>()
            .map_err(|_| Fault::invalid(format!("{name}: {text:?} is not an object identifier such as 1.3.6.1.4.1.99")))
    };
    texts.iter().map(parse).collect()
}

fn strip_prefix<'n>(name: &'n str, prefix: &str) -> &'n str {
    match name.get(..prefix.len()) {
        Some(start) if start.eq_ignore_ascii_case(prefix) => name.get(prefix.len()..).unwrap_or_default(),
        _ => name,
    }
}

fn unknown<const N: usize>(field: &str, name: &str, known: [&str; N]) -> Fault {
    Fault::invalid(format!("{field}: {name:?} is not known; expected any of {}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn names_are_known_in_any_case_and_with_gos_prefix() {
        let set = key_usages(&list(&["digitalsignature", "KeyUsageCertSign"])).unwrap();
        assert_eq!(set, KeyUsages::DigitalSignature | KeyUsages::KeyCertSign);
        assert!(key_usages(&list(&["Signing"])).is_err());
        let found = extended_key_usages(&list(&["serverauth", "ExtKeyUsageTimeStamping"])).unwrap();
        assert_eq!(found, [rfc5280::ID_KP_SERVER_AUTH, rfc5280::ID_KP_TIME_STAMPING]);
        assert!(extended_key_usages(&list(&["ExtKeyUsage"])).is_err());
        assert!(object_identifiers("x", &list(&["1.2.840", "no"])).is_err());
    }
}
