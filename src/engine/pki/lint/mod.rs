//! Lint: what RFC 5280, and where a role asks for it the CA/Browser Forum, demand of a certificate, judged on the very bytes
//! that would be signed. A certificate that breaks a rule is not made.
//!
//! The rules stand beside those that made the certificate, and share nothing with them but how names are spelled: what one
//! of them overlooks, the other tells. This room must not know: roles, requests, keys or tokens.

mod cabf;
mod rfc5280;
#[cfg(test)]
mod tests;

use const_oid::AssociatedOid;
use const_oid::ObjectIdentifier;
use der::Decode;
use der::flagset::FlagSet;
use serde::{Deserialize, Serialize};
use x509_cert::TbsCertificate;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityInfoAccessSyntax, AuthorityKeyIdentifier, BasicConstraints, CertificatePolicies, CrlDistributionPoints,
    ExtendedKeyUsage, KeyUsage, KeyUsages, NameConstraints, SubjectAltName, SubjectKeyIdentifier,
};

use super::asn1::encode;
use crate::crypto;
use crate::model::{Fault, KeyKind};

/// Which rules a certificate is held to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Rules {
    /// Those of RFC 5280 and of the standards it names for keys and names.
    #[default]
    Rfc5280,
    /// Beside these, the CA/Browser Forum's Baseline Requirements for TLS server certificates.
    CabfServerauth,
}

impl Rules {
    /// Every set of rules, by the name a role gives it.
    pub(super) const ALL: [(&'static str, Rules); 2] =
        [("rfc5280", Rules::Rfc5280), ("cabf-serverauth", Rules::CabfServerauth)];
}

/// Refuses a TBSCertificate (DER) that breaks a rule, naming every rule it breaks.
pub(super) fn check(tbs: &[u8], rules: Rules) -> Result<(), Fault> {
    let mut findings = Findings::default();
    match Facts::read(tbs, &mut findings) {
        Some(facts) => {
            rfc5280::check(&facts, &mut findings);
            if rules == Rules::CabfServerauth {
                cabf::check(&facts, &mut findings);
            }
        }
        None => findings.add("RFC 5280, 4.1", "it cannot be read"),
    }
    findings.verdict()
}

/// What was found wrong.
#[derive(Debug, Default)]
struct Findings(Vec<String>);

impl Findings {
    fn add(&mut self, rule: &str, what: impl std::fmt::Display) {
        self.0.push(format!("{what} ({rule})"));
    }

    /// Adds it unless `holds`.
    fn require(&mut self, holds: bool, rule: &str, what: impl std::fmt::Display) {
        if !holds {
            self.add(rule, what);
        }
    }

    fn verdict(self) -> Result<(), Fault> {
        if self.0.is_empty() {
            return Ok(());
        }
        let found = self.0.join("; ");
        Err(Fault::invalid(format!("no certificate was issued, since it would break these rules: {found}")))
    }
}

/// An extension as far as lint reads it: whether it is critical, and its value.
struct Read<T> {
    critical: bool,
    value: T,
}

/// A TBSCertificate, with its extensions read once.
struct Facts {
    tbs: TbsCertificate,
    key: Option<KeyKind>,
    is_self_issued: bool,
    basic_constraints: Option<Read<BasicConstraints>>,
    key_usage: Option<Read<KeyUsage>>,
    extended_key_usage: Option<Read<ExtendedKeyUsage>>,
    alternative_names: Option<Read<SubjectAltName>>,
    name_constraints: Option<Read<NameConstraints>>,
    policies: Option<Read<CertificatePolicies>>,
    subject_key: Option<Read<SubjectKeyIdentifier>>,
    authority_key: Option<Read<AuthorityKeyIdentifier>>,
    information_access: Option<Read<AuthorityInfoAccessSyntax>>,
    distribution_points: Option<Read<CrlDistributionPoints>>,
}

impl Facts {
    fn read(tbs: &[u8], findings: &mut Findings) -> Option<Facts> {
        let tbs = TbsCertificate::from_der(tbs).ok()?;
        let key = match crypto::parse_spki(&encode(tbs.subject_public_key_info()).ok()?) {
            Ok(key) => Some(key.kind),
            Err(fault) => {
                findings.add("RFC 5280, 4.1.2.7", fault);
                None
            }
        };
        Some(Facts {
            key,
            is_self_issued: tbs.issuer() == tbs.subject(),
            basic_constraints: extension(&tbs, findings),
            key_usage: extension(&tbs, findings),
            extended_key_usage: extension(&tbs, findings),
            alternative_names: extension(&tbs, findings),
            name_constraints: extension(&tbs, findings),
            policies: extension(&tbs, findings),
            subject_key: extension(&tbs, findings),
            authority_key: extension(&tbs, findings),
            information_access: extension(&tbs, findings),
            distribution_points: extension(&tbs, findings),
            tbs,
        })
    }

    fn is_ca(&self) -> bool {
        self.basic_constraints.as_ref().is_some_and(|read| read.value.ca)
    }

    /// The key usages; none where there is no such extension.
    fn usages(&self) -> FlagSet<KeyUsages> {
        self.key_usage.as_ref().map_or_else(FlagSet::default, |read| read.value.0)
    }

    fn names(&self) -> &[GeneralName] {
        self.alternative_names.as_ref().map_or(&[], |read| &read.value.0)
    }

    fn extended_usages(&self) -> &[ObjectIdentifier] {
        self.extended_key_usage.as_ref().map_or(&[], |read| &read.value.0)
    }
}

/// The first extension of this type; one that cannot be read is a finding.
fn extension<T: AssociatedOid + for<'a> Decode<'a, Error = der::Error>>(
    tbs: &TbsCertificate,
    findings: &mut Findings,
) -> Option<Read<T>> {
    let found = tbs.extensions()?.iter().find(|extension| extension.extn_id == T::OID)?;
    match T::from_der(found.extn_value.as_bytes()) {
        Ok(value) => Some(Read { critical: found.critical, value }),
        Err(error) => {
            findings.add("RFC 5280, 4.2", format!("extension {} cannot be read: {error}", T::OID));
            None
        }
    }
}
