//! The rules of RFC 5280, and of RFC 3279, 4055, 5480, 8410 and 8813 on what keys are for.

use const_oid::ObjectIdentifier;
use const_oid::db::{rfc3280, rfc4519, rfc5280};
use der::asn1::AnyRef;
use der::flagset::FlagSet;
use der::{Tag, Tagged};
use x509_cert::ext::pkix::KeyUsages;
use x509_cert::time::Time;

use super::super::{names, usage};
use super::reading::{Attribute, GeneralName, accesses, attributes, context, full_name, values};
use super::{Facts, Findings, is_nameless};

/// 2050-01-01T00:00:00Z in Unix seconds: until then times are UTCTime, from then on GeneralizedTime.
const GENERALIZED_FROM: u64 = 2_524_608_000;

/// The most characters of an attribute's value (appendix A; X.520), and whether it is printable only.
const ATTRIBUTES: [(ObjectIdentifier, &str, usize, bool); 11] = [
    (rfc4519::CN, "common name", 64, false),
    (rfc4519::O, "organization", 64, false),
    (rfc4519::OU, "organizational unit", 64, false),
    (rfc4519::L, "locality", 128, false),
    (rfc4519::ST, "province", 128, false),
    (rfc4519::STREET, "street address", 128, false),
    (rfc4519::POSTAL_CODE, "postal code", 40, false),
    (rfc4519::C, "country", 2, true),
    (rfc4519::SERIAL_NUMBER, "serial number", 64, true),
    (rfc4519::UID, "user id", 256, false),
    (rfc4519::TITLE, "title", 64, false),
];

/// Holds a certificate to them.
pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings) {
    fields(facts, findings);
    distinguished_name(facts.issuer, "issuer", findings);
    distinguished_name(facts.subject, "subject", findings);
    extensions(facts, findings);
    key_usage(facts, findings);
    authority(facts, findings);
    alternative_names(facts, findings);
    pointers(facts, findings);
}

fn fields(facts: &Facts<'_>, findings: &mut Findings) {
    findings.require(facts.is_version_3, "4.1.2.1", "it has extensions but is not of version 3");
    let serial = facts.serial;
    let is_positive = serial.first().is_some_and(|first| first & 0x80 == 0) && serial.iter().any(|byte| *byte != 0);
    findings.require(is_positive && serial.len() <= 20, "4.1.2.2", "its serial number is not positive, or too long");
    findings.require(!is_nameless(facts.issuer), "4.1.2.4", "its issuer has no name");
    findings.require(!facts.has_unique_ids, "4.1.2.8", "it has a unique identifier");
    let [from, to] = facts.period();
    findings.require(from <= to, "4.1.2.5", "it ends before it begins");
    for (time, at) in facts.validity.iter().zip([from, to]) {
        let fits = matches!(time, Time::UtcTime(_)) == (at < GENERALIZED_FROM);
        findings.require(fits, "4.1.2.5", "a time is not written as its year demands");
    }
}

fn distinguished_name(name: AnyRef<'_>, what: &str, findings: &mut Findings) {
    for attribute in attributes(name) {
        if let Err(why) = attribute_fits(attribute) {
            findings.add("appendix A", format_args!("its {what}'s {why}"));
        }
    }
}

fn attribute_fits(attribute: Attribute<'_>) -> Result<(), String> {
    let text = std::str::from_utf8(attribute.value.value()).map_err(|_| format!("{} is not UTF-8", attribute.oid))?;
    let tag = attribute.value.tag();
    let Some((_, name, most, printable_only)) = ATTRIBUTES.iter().find(|(oid, ..)| *oid == attribute.oid) else {
        let is_ia5 = matches!(attribute.oid, rfc3280::EMAIL_ADDRESS | rfc4519::DC);
        let fits = if is_ia5 { tag == Tag::Ia5String } else { true };
        return if fits { Ok(()) } else { Err(format!("{} is no IA5String", attribute.oid)) };
    };
    let fits = match tag {
        Tag::PrintableString => true,
        Tag::Utf8String => !printable_only,
        _ => false,
    };
    if !fits {
        return Err(format!("{name} is of a wrong string type"));
    }
    let count = text.chars().count();
    if count == 0 || count > *most || (attribute.oid == rfc4519::C && count != 2) {
        return Err(format!("{name} has {count} characters; it may have {most}"));
    }
    if text.chars().any(char::is_control) {
        return Err(format!("{name} has control characters"));
    }
    Ok(())
}

fn extensions(facts: &Facts<'_>, findings: &mut Findings) {
    for (index, extension) in facts.extensions.iter().enumerate() {
        let is_new = facts.extensions.iter().take(index).all(|before| before.oid != extension.oid);
        findings.require(is_new, "4.2", format_args!("extension {} is there twice", extension.oid));
    }
    if let Some(usages) = &facts.extended_key_usage {
        let fits = are_distinct(|| facts.extended_usages());
        findings.require(fits, "4.2.1.12", "its extended key usages are none, or one of them is there twice");
        let any = facts.extended_usages().any(|oid| oid == rfc5280::ANY_EXTENDED_KEY_USAGE);
        findings.advise(!(any && usages.critical), "4.2.1.12", "any extended key usage is allowed, yet it is critical");
    }
    if facts.policies.is_some() {
        let fits = are_distinct(|| facts.policies());
        findings.require(fits, "4.2.1.4", "its policies are none, or one of them is there twice");
    }
}

/// Whether there is at least one, and none is there twice.
fn are_distinct<I: Iterator<Item = ObjectIdentifier>>(list: impl Fn() -> I) -> bool {
    list().next().is_some() && list().enumerate().all(|(index, oid)| list().take(index).all(|before| before != oid))
}

fn key_usage(facts: &Facts<'_>, findings: &mut Findings) {
    let usages = facts.usages();
    if let Some(read) = &facts.key_usage {
        findings.require(!read.value.is_empty(), "4.2.1.3", "its key usage is empty");
        findings.advise(read.critical, "4.2.1.3", "its key usage is not critical");
    }
    if let Some(kind) = facts.key {
        let odd: FlagSet<KeyUsages> = usages & !usage::fitting(kind);
        let rule = "RFC 3279, 2.3; RFC 8410, 5; RFC 8813, 3";
        findings.require(odd.is_empty(), rule, format_args!("a key of type {kind} cannot be used for {odd:?}"));
    }
    let deciphers = usages.contains(KeyUsages::EncipherOnly) || usages.contains(KeyUsages::DecipherOnly);
    let agrees = usages.contains(KeyUsages::KeyAgreement);
    findings.require(!deciphers || agrees, "4.2.1.3", "it enciphers or deciphers only, but agrees on no key");
}

/// What makes an authority, and what only one may have.
fn authority(facts: &Facts<'_>, findings: &mut Findings) {
    let signs = facts.usages().contains(KeyUsages::KeyCertSign);
    // Without the extension its key may be used for everything.
    let may_sign = signs || facts.key_usage.is_none();
    findings.require(!signs || facts.is_ca(), "4.2.1.9", "its key usage has CertSign, but it is no CA's");
    if let Some(read) = &facts.basic_constraints {
        let is_bounded = read.value.path_len_constraint.is_some();
        findings.require(
            !is_bounded || (facts.is_ca() && may_sign),
            "4.2.1.9",
            "it has a path length, but signs no CA's",
        );
        findings.require(!facts.is_ca() || read.critical, "4.2.1.9", "its basic constraints are not critical");
    }
    if facts.is_ca() {
        findings.require(!is_nameless(facts.subject), "4.1.2.6", "it is a CA's, but its subject is empty");
        // Who makes a CA's certificate must say it; one made elsewhere, by older rules, is none the worse for its signature here.
        findings.advise(facts.key_usage.is_some(), "4.2.1.3", "it is a CA's, but has no key usage");
        findings.require(facts.subject_key.is_some(), "4.2.1.2", "it is a CA's, but has no subject key identifier");
    }
    if let Some(read) = &facts.name_constraints {
        findings.require(facts.is_ca(), "4.2.1.10", "it has name constraints, but is no CA's");
        findings.require(read.critical, "4.2.1.10", "its name constraints are not critical");
        let subtrees = [&read.value.permitted_subtrees, &read.value.excluded_subtrees];
        let fits = subtrees.iter().any(|list| list.is_some())
            && subtrees.into_iter().flatten().all(|list| {
                !list.is_empty() && list.iter().all(|subtree| subtree.minimum == 0 && subtree.maximum.is_none())
            });
        findings.require(fits, "4.2.1.10", "its name constraints are empty, or bounded by distance");
    }
    let is_known = facts.authority_key.is_some_and(|read| values(read.value).any(|part| context(part) == Some(0)));
    findings.require(is_known || facts.is_self_issued(), "4.2.1.1", "it has no authority key identifier");
    let critical =
        facts.authority_key.is_some_and(|read| read.critical) || facts.subject_key.is_some_and(|read| read.critical);
    findings.require(!critical, "4.2.1.1, 4.2.1.2", "a key identifier is critical");
}

fn alternative_names(facts: &Facts<'_>, findings: &mut Findings) {
    let is_nameless = is_nameless(facts.subject);
    let Some(read) = &facts.alternative_names else {
        findings.require(!is_nameless, "4.2.1.6", "it names nobody");
        return;
    };
    findings.require(facts.names().next().is_some(), "4.2.1.6", "its alternative names are empty");
    let what = "its alternative names are critical exactly where its subject is empty";
    findings.require(read.critical || !is_nameless, "4.2.1.6", what);
    findings.advise(!read.critical || is_nameless, "4.2.1.6", what);
    for name in facts.names() {
        let fits = match name {
            GeneralName::Dns(name) => names::is_dns_name(name) && !name.ends_with('.'),
            GeneralName::Email(address) => names::is_email(address),
            GeneralName::Uri(uri) => names::is_uri(uri),
            GeneralName::Ip(octets) => matches!(octets.len(), 4 | 16),
            // Other, directory and registered names; the others were of a wrong string type.
            GeneralName::Other(number) => matches!(number, 0 | 4 | 8),
        };
        findings.require(fits, "4.2.1.6", format_args!("{name:?} is not well formed"));
    }
}

/// Where the issuer's certificate, its CRL and its OCSP responder are.
fn pointers(facts: &Facts<'_>, findings: &mut Findings) {
    let is_uri = |name: GeneralName<'_>| match name {
        GeneralName::Uri(uri) => names::is_uri(uri),
        GeneralName::Other(number) => number == 4,
        _ => false,
    };
    if let Some(read) = &facts.information_access {
        let mut places = accesses(read.value).peekable();
        let fits = places.peek().is_some() && places.all(|access| access.is_some_and(|(_, place)| is_uri(place)));
        findings.require(
            fits && !read.critical,
            "4.2.2.1",
            "its authority information access is empty, odd or critical",
        );
    }
    if let Some(read) = &facts.distribution_points {
        let fits = values(read.value).next().is_some()
            && values(read.value).all(|point| full_name(point).is_some_and(|mut names| names.all(is_uri)));
        findings.require(fits, "4.2.1.13", "its CRL distribution points are empty or odd");
    }
}
