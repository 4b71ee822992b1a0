//! Lint: what RFC 5280, and where a role asks for it the CA/Browser Forum, demand of a certificate, judged on the very bytes
//! that would be signed. A certificate that breaks a rule is not made.
//!
//! The rules stand beside those that made the certificate, and share nothing with them but how names are spelled: what one
//! of them overlooks, the other tells. This room must not know: roles, requests, keys or tokens.

mod cabf;
mod reading;
mod rfc5280;
#[cfg(test)]
mod tests;

use const_oid::ObjectIdentifier;
use const_oid::db::rfc5280 as oids;
use der::asn1::AnyRef;
use der::flagset::FlagSet;
use der::{Decode, Tagged};
use serde::{Deserialize, Serialize};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages, NameConstraints};
use x509_cert::time::Time;

use crate::crypto;
use crate::model::{Fault, KeyKind};
use reading::{Extension, GeneralName, context, sequence, values};

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

/// What becomes of a certificate that is not as a CA should make it, where it is all that it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    /// It is not made: what it says is ours to say.
    Binding,
    /// It is made, and its asker told: what it says is theirs.
    Told,
}

/// Refuses a TBSCertificate (DER) that breaks a rule, naming every rule it breaks. Answers what it should have been otherwise,
/// where that is only told.
pub(super) fn check(tbs: &[u8], rules: Rules, advice: Advice) -> Result<Vec<String>, Fault> {
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
    findings.verdict(advice)
}

/// What was found wrong.
#[derive(Debug, Default)]
struct Findings {
    /// Against what must be.
    broken: Vec<String>,
    /// Against what should be.
    unadvised: Vec<String>,
}

impl Findings {
    fn add(&mut self, rule: &str, what: impl std::fmt::Display) {
        self.broken.push(format!("{what} ({rule})"));
    }

    /// Adds it unless `holds`.
    fn require(&mut self, holds: bool, rule: &str, what: impl std::fmt::Display) {
        if !holds {
            self.add(rule, what);
        }
    }

    /// Adds what should not be, unless `holds`.
    fn advise(&mut self, holds: bool, rule: &str, what: impl std::fmt::Display) {
        if !holds {
            self.unadvised.push(format!("{what} ({rule})"));
        }
    }

    fn verdict(self, advice: Advice) -> Result<Vec<String>, Fault> {
        let Findings { mut broken, mut unadvised } = self;
        if advice == Advice::Binding {
            broken.append(&mut unadvised);
        }
        if broken.is_empty() {
            return Ok(unadvised
                .into_iter()
                .map(|what| format!("The certificate is as it was asked for: {what}"))
                .collect());
        }
        let found = broken.join("; ");
        Err(Fault::invalid(format!("no certificate was issued, since it would break these rules: {found}")))
    }
}

/// An extension that was read: whether it is critical, and its value.
#[derive(Clone, Copy)]
struct Read<T> {
    critical: bool,
    value: T,
}

/// A TBSCertificate, read once.
struct Facts<'a> {
    is_version_3: bool,
    /// Content octets.
    serial: &'a [u8],
    issuer: AnyRef<'a>,
    subject: AnyRef<'a>,
    /// `notBefore` and `notAfter`.
    validity: [Time; 2],
    has_unique_ids: bool,
    key: Option<KeyKind>,
    extensions: Vec<Extension<'a>>,
    basic_constraints: Option<Read<BasicConstraints>>,
    key_usage: Option<Read<FlagSet<KeyUsages>>>,
    name_constraints: Option<Read<NameConstraints>>,
    extended_key_usage: Option<Read<AnyRef<'a>>>,
    alternative_names: Option<Read<AnyRef<'a>>>,
    policies: Option<Read<AnyRef<'a>>>,
    authority_key: Option<Read<AnyRef<'a>>>,
    information_access: Option<Read<AnyRef<'a>>>,
    distribution_points: Option<Read<AnyRef<'a>>>,
    subject_key: Option<Read<&'a [u8]>>,
}

impl<'a> Facts<'a> {
    fn read(tbs: &'a [u8], findings: &mut Findings) -> Option<Facts<'a>> {
        let mut parts = values(sequence(tbs)?);
        let first = parts.next()?;
        let is_explicit = context(first) == Some(0);
        let is_version_3 = is_explicit && first.value() == [2, 1, 2];
        let serial = if is_explicit { parts.next()? } else { first };
        let [_algorithm, issuer, validity, subject, key] = [(); 5].map(|()| parts.next());
        let (issuer, validity, subject) = (issuer?, validity?, subject?);
        let mut times = values(validity).map(reading::time);
        let validity = [times.next()??, times.next()??];
        let key = match crypto::spki_kind(key?) {
            Ok(kind) => Some(kind),
            Err(fault) => {
                findings.add("RFC 5280, 4.1.2.7", fault);
                None
            }
        };
        let mut has_unique_ids = false;
        let mut extensions = Vec::with_capacity(12);
        for part in parts {
            match context(part) {
                Some(1 | 2) => has_unique_ids = true,
                Some(3) => {
                    for extension in values(values(part).next()?) {
                        extensions.push(Extension::read(extension)?);
                    }
                }
                _ => return None,
            }
        }
        let mut reader = Reader { extensions: &extensions, findings };
        Some(Facts {
            is_version_3,
            serial: serial.value(),
            issuer,
            subject,
            validity,
            has_unique_ids,
            key,
            basic_constraints: reader
                .read(oids::ID_CE_BASIC_CONSTRAINTS, |value| BasicConstraints::from_der(value).ok()),
            key_usage: reader.read(oids::ID_CE_KEY_USAGE, |value| Some(KeyUsage::from_der(value).ok()?.0)),
            name_constraints: reader.read(oids::ID_CE_NAME_CONSTRAINTS, |value| NameConstraints::from_der(value).ok()),
            extended_key_usage: reader.read(oids::ID_CE_EXT_KEY_USAGE, sequence),
            alternative_names: reader.read(oids::ID_CE_SUBJECT_ALT_NAME, sequence),
            policies: reader.read(oids::ID_CE_CERTIFICATE_POLICIES, sequence),
            authority_key: reader.read(oids::ID_CE_AUTHORITY_KEY_IDENTIFIER, sequence),
            information_access: reader.read(oids::ID_PE_AUTHORITY_INFO_ACCESS, sequence),
            distribution_points: reader.read(oids::ID_CE_CRL_DISTRIBUTION_POINTS, sequence),
            subject_key: reader
                .read(oids::ID_CE_SUBJECT_KEY_IDENTIFIER, |value| Some(AnyRef::from_der(value).ok()?.value())),
            extensions,
        })
    }

    fn is_self_issued(&self) -> bool {
        self.issuer == self.subject
    }

    fn is_ca(&self) -> bool {
        self.basic_constraints.as_ref().is_some_and(|read| read.value.ca)
    }

    /// The key usages; none where there is no such extension.
    fn usages(&self) -> FlagSet<KeyUsages> {
        self.key_usage.map_or_else(FlagSet::default, |read| read.value)
    }

    fn names(&self) -> impl Iterator<Item = GeneralName<'a>> + use<'a> {
        self.alternative_names.into_iter().flat_map(|read| values(read.value)).map(GeneralName::read)
    }

    fn extended_usages(&self) -> impl Iterator<Item = ObjectIdentifier> + use<'a> {
        self.extended_key_usage.into_iter().flat_map(|read| values(read.value)).filter_map(|oid| oid.decode_as().ok())
    }

    /// The policies, without their qualifiers.
    fn policies(&self) -> impl Iterator<Item = ObjectIdentifier> + use<'a> {
        let policies = self.policies.into_iter().flat_map(|read| values(read.value));
        policies.filter_map(|policy| values(policy).next()?.decode_as().ok())
    }

    /// The validity in Unix seconds.
    fn period(&self) -> [u64; 2] {
        self.validity.map(|time| time.to_unix_duration().as_secs())
    }
}

/// Whether a Name has no attribute.
fn is_nameless(name: AnyRef<'_>) -> bool {
    name.tag() == der::Tag::Sequence && name.value().is_empty()
}

/// Finds and reads extensions; one that cannot be read is a finding.
struct Reader<'r, 'a> {
    extensions: &'r [Extension<'a>],
    findings: &'r mut Findings,
}

impl<'a> Reader<'_, 'a> {
    fn read<T>(&mut self, oid: ObjectIdentifier, read: impl FnOnce(&'a [u8]) -> Option<T>) -> Option<Read<T>> {
        let found = self.extensions.iter().find(|extension| extension.oid == oid)?;
        let value = read(found.value);
        if value.is_none() {
            self.findings.add("RFC 5280, 4.2", format_args!("extension {oid} cannot be read"));
        }
        Some(Read { critical: found.critical, value: value? })
    }
}
