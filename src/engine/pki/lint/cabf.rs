//! The CA/Browser Forum's Baseline Requirements for TLS server certificates, version 2, as far as a certificate by itself
//! shows them: sections 6.1, 6.3.2 and 7.1.
//!
//! Whether a domain is registered, or was validated, no certificate shows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use const_oid::ObjectIdentifier;
use const_oid::db::{rfc4519, rfc5280};
use x509_cert::ext::pkix::KeyUsages;

use super::super::names;
use super::reading::{GeneralName, accesses, attributes, full_name, values};
use super::{Facts, Findings};
use crate::model::KeyKind;

const fn oid(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(text)
}

/// How the subject was validated (7.1.6.1).
const DOMAIN_VALIDATED: ObjectIdentifier = oid("2.23.140.1.2.1");
const ORGANIZATION_VALIDATED: ObjectIdentifier = oid("2.23.140.1.2.2");
const INDIVIDUAL_VALIDATED: ObjectIdentifier = oid("2.23.140.1.2.3");
const EXTENDED_VALIDATION: ObjectIdentifier = oid("2.23.140.1.1");
const RESERVED: [ObjectIdentifier; 4] =
    [DOMAIN_VALIDATED, ORGANIZATION_VALIDATED, INDIVIDUAL_VALIDATED, EXTENDED_VALIDATION];

/// From a day on (Unix seconds), the most days a certificate lives (6.3.2), newest first.
const DAYS: [(u64, u64); 4] = [
    (1_868_227_200, 47),  // 2029-03-15
    (1_805_068_800, 100), // 2027-03-15
    (1_773_532_800, 200), // 2026-03-15
    (0, 398),
];

/// Top-level domains that are nobody's (RFC 2606, RFC 6761, RFC 6762, and ICANN's for private use).
const SPECIAL: [&str; 9] = ["local", "localhost", "test", "example", "invalid", "internal", "onion", "arpa", "alt"];

/// Holds a subscriber's certificate to them; of an authority's only its key is judged.
pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings) {
    key(facts, findings);
    if facts.is_ca() {
        return;
    }
    validity(facts, findings);
    usages(facts, findings);
    subject(facts, findings);
    names_in_it(facts, findings);
    pointers(facts, findings);
}

fn key(facts: &Facts<'_>, findings: &mut Findings) {
    let fits = match facts.key {
        Some(KeyKind::Rsa { bits }) => bits >= 2048 && bits % 8 == 0,
        Some(KeyKind::Ec(_)) => true,
        _ => false,
    };
    findings.require(fits, "BR 6.1.5", "its key is neither RSA of 2048 bits or more nor of a NIST curve");
}

fn validity(facts: &Facts<'_>, findings: &mut Findings) {
    let [from, to] = facts.period();
    let days = DAYS.iter().find(|(since, _)| from >= *since).map_or(0, |(_, days)| *days);
    // Both ends count.
    let fits = to.saturating_sub(from) < days * 86_400;
    findings.require(fits, "BR 6.3.2", format_args!("it is valid for more than {days} days"));
}

fn usages(facts: &Facts<'_>, findings: &mut Findings) {
    let allowed = [rfc5280::ID_KP_SERVER_AUTH, rfc5280::ID_KP_CLIENT_AUTH];
    let fits = facts.extended_usages().any(|oid| oid == rfc5280::ID_KP_SERVER_AUTH)
        && facts.extended_usages().all(|oid| allowed.contains(&oid));
    findings.require(fits, "BR 7.1.2.7.10", "its extended key usage is not ServerAuth, or ServerAuth and ClientAuth");
    let usages = facts.usages();
    let allowed = match facts.key {
        Some(KeyKind::Rsa { .. }) => KeyUsages::DigitalSignature | KeyUsages::KeyEncipherment,
        _ => KeyUsages::DigitalSignature | KeyUsages::KeyAgreement,
    };
    let fits = allowed.contains(usages) && usages.contains(KeyUsages::DigitalSignature);
    findings.require(fits, "BR 7.1.2.7.11", "its key usage is not DigitalSignature, with what its key may add to it");
    let count = facts.policies().filter(|policy| RESERVED.contains(policy)).count();
    findings.require(count == 1, "BR 7.1.2.7.9", "its policies have not exactly one of those the Forum reserves");
}

fn subject(facts: &Facts<'_>, findings: &mut Findings) {
    let has = |oid| attributes(facts.subject).any(|attribute| attribute.oid == oid);
    let asserts = |oid| facts.policies().any(|policy| policy == oid);
    if asserts(DOMAIN_VALIDATED) {
        let fits = attributes(facts.subject).all(|attribute| [rfc4519::C, rfc4519::CN].contains(&attribute.oid));
        findings.require(fits, "BR 7.1.2.7.2", "domain validation vouches for no more than a country and a name");
    }
    if asserts(ORGANIZATION_VALIDATED) {
        let fits = has(rfc4519::O) && has(rfc4519::C) && (has(rfc4519::L) || has(rfc4519::ST));
        findings.require(fits, "BR 7.1.2.7.4", "its subject lacks organization, country, or locality and province");
    }
    findings.require(!has(rfc4519::OU), "BR 7.1.2.7.4", "its subject has an organizational unit");
    let common_names = || attributes(facts.subject).filter(|attribute| attribute.oid == rfc4519::CN);
    findings.require(common_names().count() <= 1, "BR 7.1.4.3", "its subject has more than one common name");
    for attribute in common_names() {
        let name = String::from_utf8_lossy(attribute.value.value());
        let is_named = facts.names().any(|known| match known {
            GeneralName::Dns(dns) => dns == name,
            GeneralName::Ip(octets) => address(octets).is_some_and(|ip| ip.to_string() == name),
            _ => false,
        });
        findings.require(is_named, "BR 7.1.4.3", format_args!("common name {name:?} is none of its alternative names"));
    }
}

fn names_in_it(facts: &Facts<'_>, findings: &mut Findings) {
    findings.require(facts.names().next().is_some(), "BR 7.1.2.7.12", "it has no alternative names");
    for name in facts.names() {
        let (fits, what) = match name {
            GeneralName::Dns(dns) => (is_public(dns), dns.to_owned()),
            GeneralName::Ip(octets) => {
                let ip = address(octets);
                (ip.is_some_and(is_global), ip.map_or_else(String::new, |ip| ip.to_string()))
            }
            other => (false, format!("{other:?}")),
        };
        findings.require(fits, "BR 7.1.2.7.12", format_args!("{what:?} is no public DNS name or IP address"));
    }
}

/// Whether a DNS name could be registered: a host name of at least two labels below a public top-level domain, where `*` is
/// a whole label.
fn is_public(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let rest = name.strip_prefix("*.").unwrap_or(&name);
    let top = rest.rsplit('.').next().unwrap_or_default();
    names::is_hostname(rest)
        && !rest.contains('*')
        && rest.contains('.')
        && !top.bytes().all(|byte| byte.is_ascii_digit())
        && !SPECIAL.contains(&top)
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(octets)
        .map(|octets| IpAddr::V4(Ipv4Addr::from(octets)))
        .or_else(|_| <[u8; 16]>::try_from(octets).map(|octets| IpAddr::V6(Ipv6Addr::from(octets))))
        .ok()
}

/// Whether an address is not reserved (IANA's registries of special-purpose addresses, as far as they are unicast).
fn is_global(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let shared = a == 100 && b & 0xC0 == 64;
            let benchmarking = a == 198 && b & 0xFE == 18;
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_documentation() || shared)
                && !(benchmarking || a == 0 || a >= 224)
        }
        // Global unicast is 2000::/3; documentation, benchmarking and 6to4 are in it.
        IpAddr::V6(ip) => {
            let [first, second, ..] = ip.segments();
            let special = (first == 0x2001 && (second == 0x0DB8 || second == 2)) || first == 0x2002 || first == 0x3FFF;
            first & 0xE000 == 0x2000 && !special
        }
    }
}

fn pointers(facts: &Facts<'_>, findings: &mut Findings) {
    let is_http = |name: GeneralName<'_>| matches!(name, GeneralName::Uri(uri) if uri.starts_with("http://"));
    let access = || facts.information_access.into_iter().flat_map(|read| accesses(read.value)).flatten();
    let fits = access().next().is_some() && access().all(|(_, place)| is_http(place));
    findings.require(fits, "BR 7.1.2.7.7", "it has no authority information access by http");
    let answers = access().any(|(method, _)| method == rfc5280::ID_AD_OCSP);
    let mut points = facts.distribution_points.into_iter().flat_map(|read| values(read.value));
    let fits = points.all(|point| full_name(point).is_some_and(|mut names| names.all(is_http)));
    findings.require(fits, "BR 7.1.2.11.2", "a CRL distribution point is not by http");
    let is_told = answers || facts.distribution_points.is_some();
    findings.require(is_told, "BR 7.1.2.11.2", "it has neither an OCSP responder nor a CRL");
}
