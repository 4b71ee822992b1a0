//! What an issuer may be used for, and how it treats leaves that would outlive it: Vault's words.

use std::collections::BTreeSet;

use der::flagset::FlagSet;
use serde::{Deserialize, Serialize};
use x509_cert::ext::pkix::KeyUsages;

use super::ca_certificate::CaCertificate;
use super::validity::Beyond;
use crate::model::Fault;

/// One use of an issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum IssuerUsage {
    /// It may be read: always so.
    ReadOnly,
    /// It signs certificates.
    IssuingCertificates,
    /// It signs CRLs.
    CrlSigning,
    /// It signs OCSP responses.
    OcspSigning,
}

impl IssuerUsage {
    const ALL: [IssuerUsage; 4] =
        [IssuerUsage::ReadOnly, IssuerUsage::IssuingCertificates, IssuerUsage::CrlSigning, IssuerUsage::OcspSigning];

    /// What the issuer's own certificate must say of its key (RFC 5280, 4.2.1.3).
    fn key_usage(self) -> FlagSet<KeyUsages> {
        match self {
            IssuerUsage::ReadOnly => FlagSet::default(),
            IssuerUsage::IssuingCertificates => KeyUsages::KeyCertSign.into(),
            IssuerUsage::CrlSigning => KeyUsages::CRLSign.into(),
            // RFC 6960 asks for none of the issuer itself, and few state digitalSignature.
            IssuerUsage::OcspSigning => FlagSet::default(),
        }
    }

    /// Vault's name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            IssuerUsage::ReadOnly => "read-only",
            IssuerUsage::IssuingCertificates => "issuing-certificates",
            IssuerUsage::CrlSigning => "crl-signing",
            IssuerUsage::OcspSigning => "ocsp-signing",
        }
    }
}

/// The uses of one issuer. `read-only` is always among them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct IssuerUsages(BTreeSet<IssuerUsage>);

impl Default for IssuerUsages {
    /// All of them.
    fn default() -> IssuerUsages {
        IssuerUsages(IssuerUsage::ALL.into())
    }
}

impl IssuerUsages {
    /// Reads the field `usage`.
    pub(super) fn parse(names: &[String]) -> Result<IssuerUsages, Fault> {
        let mut usages = BTreeSet::from([IssuerUsage::ReadOnly]);
        for name in names {
            let known = IssuerUsage::ALL.into_iter().find(|usage| usage.name() == name);
            usages.insert(known.ok_or_else(|| {
                let all = IssuerUsage::ALL.map(IssuerUsage::name).join(", ");
                Fault::invalid(format!("unknown issuer usage name: {name}; expected any of {all}"))
            })?);
        }
        Ok(IssuerUsages(usages))
    }

    /// Whether `usage` is among them.
    pub(super) fn allow(&self, usage: IssuerUsage) -> bool {
        self.0.contains(&usage)
    }

    /// These, as far as the key usage that a CA's own certificate states allows them.
    pub(super) fn within(mut self, certificate: &CaCertificate) -> IssuerUsages {
        self.0.retain(|usage| certificate.allows(usage.key_usage()));
        self
    }

    /// As Vault writes them: names with commas.
    pub(super) fn names(&self) -> String {
        self.0.iter().map(|usage| usage.name()).collect::<Vec<_>>().join(",")
    }
}

/// What happens to a certificate that would end after its issuer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum LeafNotAfterBehavior {
    /// It is refused; that of a CA is cut.
    #[default]
    Err,
    /// It is cut to the issuer's end.
    Truncate,
    /// It is issued as it is.
    Permit,
    /// It is refused, whatever it is.
    AlwaysEnforceErr,
}

impl LeafNotAfterBehavior {
    const ALL: [LeafNotAfterBehavior; 4] = [
        LeafNotAfterBehavior::Err,
        LeafNotAfterBehavior::Truncate,
        LeafNotAfterBehavior::Permit,
        LeafNotAfterBehavior::AlwaysEnforceErr,
    ];

    /// Vault's name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            LeafNotAfterBehavior::Err => "err",
            LeafNotAfterBehavior::Truncate => "truncate",
            LeafNotAfterBehavior::Permit => "permit",
            LeafNotAfterBehavior::AlwaysEnforceErr => "always_enforce_err",
        }
    }

    /// What it means for a leaf.
    pub(super) const fn for_leaf(self) -> Beyond {
        match self {
            LeafNotAfterBehavior::Err | LeafNotAfterBehavior::AlwaysEnforceErr => Beyond::Refuse,
            LeafNotAfterBehavior::Truncate => Beyond::Cut,
            LeafNotAfterBehavior::Permit => Beyond::Keep,
        }
    }

    /// What it means for the certificate of a CA; `is_enforced` says that it is to be treated as a leaf.
    pub(super) const fn for_ca(self, is_enforced: bool) -> Beyond {
        match self {
            LeafNotAfterBehavior::Err if !is_enforced => Beyond::Cut,
            as_leaf => as_leaf.for_leaf(),
        }
    }

    /// The behaviour of this name.
    pub(super) fn parse(name: &str) -> Result<LeafNotAfterBehavior, Fault> {
        let known = LeafNotAfterBehavior::ALL.into_iter().find(|known| known.name() == name);
        known.ok_or_else(|| {
            Fault::invalid(format!(
                "Unknown value for field `leaf_not_after_behavior`: {name:?}; expected err, truncate, permit or \
                 always_enforce_err"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usages_have_vaults_names_and_can_always_be_read() {
        assert_eq!(IssuerUsages::default().names(), "read-only,issuing-certificates,crl-signing,ocsp-signing");
        let parsed = IssuerUsages::parse(&["crl-signing".into()]).unwrap();
        assert_eq!(parsed.names(), "read-only,crl-signing");
        assert!(parsed.allow(IssuerUsage::CrlSigning) && !parsed.allow(IssuerUsage::IssuingCertificates));
        assert!(IssuerUsages::parse(&["signing".into()]).is_err());
        let stored = serde_json::to_string(&parsed).unwrap();
        assert_eq!(stored, r#"["read-only","crl-signing"]"#);
    }

    #[test]
    fn behaviours_are_known_by_name() {
        for behavior in LeafNotAfterBehavior::ALL {
            assert_eq!(LeafNotAfterBehavior::parse(behavior.name()), Ok(behavior));
            assert_eq!(serde_json::to_value(behavior).unwrap(), behavior.name());
        }
        assert!(LeafNotAfterBehavior::parse("explode").is_err());
    }
}
