//! Whether names are within what a CA's certificate says it may certify (RFC 5280, 4.2.1.10).
//!
//! Kinds of constraints that are not judged here refuse every certificate that has a name of that kind: a constraint is
//! never passed over.

use std::net::IpAddr;

use const_oid::ObjectIdentifier;
use const_oid::db::rfc3280::EMAIL_ADDRESS;
use const_oid::db::rfc4519::COMMON_NAME;
use der::{Decode, Encode};
use x509_cert::ext::pkix::NameConstraints;
use x509_cert::ext::pkix::constraints::name::GeneralSubtree;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;

use super::asn1::unencodable;
use super::names;
use super::san::AlternativeNames;
use crate::model::Fault;

/// A name that is to be certified.
#[derive(Clone, Copy)]
enum Candidate<'a> {
    Dns(&'a str),
    Email(&'a str),
    Ip(IpAddr),
    Uri(&'a str),
    Directory(&'a Name),
    Other(&'a str),
}

/// Refuses a certificate with this subject (DER) and these names, if `constraints` do. The common name of a leaf without DNS
/// names is judged as one, since some clients take it for one.
pub(super) fn check(
    constraints: &NameConstraints,
    subject: &[u8],
    alternative: &AlternativeNames,
    is_leaf: bool,
) -> Result<(), Fault> {
    let subject = Name::from_der(subject).map_err(unencodable)?;
    let mut candidates: Vec<Candidate<'_>> = Vec::with_capacity(alternative.len() + 1);
    if subject.iter().next().is_some() {
        candidates.push(Candidate::Directory(&subject));
    }
    let common_names = if is_leaf && alternative.dns.is_empty() { host_names(&subject) } else { Vec::new() };
    candidates.extend(alternative.dns.iter().chain(&common_names).map(|name| Candidate::Dns(name)));
    candidates.extend(alternative.emails.iter().map(|address| Candidate::Email(address)));
    candidates.extend(alternative.ips.iter().map(|address| Candidate::Ip(*address)));
    candidates.extend(alternative.uris.iter().map(|uri| Candidate::Uri(uri)));
    candidates.extend(alternative.others.iter().map(|other| Candidate::Other(&other.value)));
    let addresses = texts(&subject, EMAIL_ADDRESS);
    candidates.extend(addresses.iter().map(|address| Candidate::Email(address)));
    for candidate in candidates {
        candidate.check(constraints)?;
    }
    Ok(())
}

/// The values of an attribute of a subject that are text.
fn texts(subject: &Name, kind: ObjectIdentifier) -> Vec<String> {
    let values = subject.iter().filter(|attribute| attribute.oid == kind);
    // Text of any type: email addresses are IA5String.
    values.filter_map(|attribute| String::from_utf8(attribute.value.value().to_vec()).ok()).collect()
}

/// The common names that look like names of hosts.
fn host_names(subject: &Name) -> Vec<String> {
    let mut found = texts(subject, COMMON_NAME);
    found.retain(|text| text.contains('.') && names::is_hostname(text));
    found
}

impl Candidate<'_> {
    fn check(&self, constraints: &NameConstraints) -> Result<(), Fault> {
        let told = self.told();
        let refuse = |why: &str| {
            Err(Fault::invalid(format!("{told} is {why} by the name constraints of the issuer's own certificate")))
        };
        for subtree in constraints.excluded_subtrees.iter().flatten() {
            if self.is_of_kind(&subtree.base) && self.is_within(subtree)? {
                return refuse("excluded");
            }
        }
        let permitted = constraints.permitted_subtrees.iter().flatten();
        let mut of_kind = permitted.filter(|subtree| self.is_of_kind(&subtree.base)).peekable();
        if of_kind.peek().is_none() {
            return Ok(());
        }
        for subtree in of_kind {
            // What cannot be judged permits nothing.
            if matches!(subtree.base, GeneralName::OtherName(_)) {
                continue;
            }
            if self.is_within(subtree)? {
                return Ok(());
            }
        }
        refuse("not permitted")
    }

    fn is_of_kind(&self, base: &GeneralName) -> bool {
        matches!(
            (self, base),
            (Candidate::Dns(_), GeneralName::DnsName(_))
                | (Candidate::Email(_), GeneralName::Rfc822Name(_))
                | (Candidate::Ip(_), GeneralName::IpAddress(_))
                | (Candidate::Uri(_), GeneralName::UniformResourceIdentifier(_))
                | (Candidate::Directory(_), GeneralName::DirectoryName(_))
                | (Candidate::Other(_), GeneralName::OtherName(_))
        )
    }

    fn is_within(&self, subtree: &GeneralSubtree) -> Result<bool, Fault> {
        Ok(match (self, &subtree.base) {
            (Candidate::Dns(name), GeneralName::DnsName(base)) => is_below(name, base.as_str()),
            (Candidate::Email(address), GeneralName::Rfc822Name(base)) => email_within(address, base.as_str()),
            (Candidate::Ip(address), GeneralName::IpAddress(base)) => ip_within(*address, base.as_bytes()),
            (Candidate::Uri(uri), GeneralName::UniformResourceIdentifier(base)) => uri_within(uri, base.as_str()),
            (Candidate::Directory(name), GeneralName::DirectoryName(base)) => directory_within(name, base)?,
            // Excluded for certain, as it cannot be judged.
            (Candidate::Other(_), GeneralName::OtherName(_)) => true,
            _ => false,
        })
    }

    fn told(&self) -> String {
        match self {
            Candidate::Dns(name) => format!("DNS name {name:?}"),
            Candidate::Email(address) => format!("email address {address:?}"),
            Candidate::Ip(address) => format!("IP address {address}"),
            Candidate::Uri(uri) => format!("URI {uri:?}"),
            Candidate::Directory(name) => format!("subject {:?}", name.to_string()),
            Candidate::Other(value) => format!("other name {value:?}"),
        }
    }
}

/// Whether a DNS name is `base` or below it. Everything is below the empty base; a leading dot asks for a true subdomain,
/// as OpenSSL and Go read it.
fn is_below(name: &str, base: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let base = base.trim_end_matches('.').to_ascii_lowercase();
    match base.strip_prefix('.') {
        _ if base.is_empty() => true,
        Some(parent) => name.strip_suffix(parent).is_some_and(|head| head.len() > 1 && head.ends_with('.')),
        None => name == base || name.strip_suffix(&base).is_some_and(|head| head.ends_with('.')),
    }
}

/// Whether an address is the base, at the host of the base, or below its domain.
fn email_within(address: &str, base: &str) -> bool {
    let Some((local, host)) = address.split_once('@') else { return false };
    match base.split_once('@') {
        Some((base_local, base_host)) => local == base_local && host.eq_ignore_ascii_case(base_host),
        None if base.starts_with('.') => is_below(host, base),
        None => base.is_empty() || host.eq_ignore_ascii_case(base),
    }
}

/// Whether the host of a URI is the base, or below it where the base begins with a dot. One without a host that is a name
/// is within nothing.
fn uri_within(uri: &str, base: &str) -> bool {
    let Some((_, rest)) = uri.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    if host.starts_with('[') {
        return false;
    }
    let host = host.split(':').next().unwrap_or_default();
    let is_name = !host.is_empty() && host.parse::<IpAddr>().is_err();
    is_name
        && if base.starts_with('.') { is_below(host, base) } else { base.is_empty() || host.eq_ignore_ascii_case(base) }
}

/// Whether an address is in a network, written as address and mask.
fn ip_within(address: IpAddr, base: &[u8]) -> bool {
    let octets = match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let (network, mask) = base.split_at(base.len() / 2);
    base.len() == 2 * octets.len()
        && octets.iter().zip(network).zip(mask).all(|((octet, network), mask)| octet & mask == network & mask)
}

/// Whether a name begins with all of the base's attributes, compared as they are written.
fn directory_within(name: &Name, base: &Name) -> Result<bool, Fault> {
    let encoded = |name: &Name| -> Result<Vec<Vec<u8>>, Fault> {
        name.iter_rdn().map(|rdn| rdn.to_der().map_err(unencodable)).collect()
    };
    Ok(encoded(name)?.starts_with(&encoded(base)?))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::engine::pki::extensions;
    use crate::engine::pki::san::OtherSan;
    use crate::engine::pki::subject::Subject;
    use crate::model::Fields;

    fn constraints(value: Value) -> NameConstraints {
        let encoded = extensions::name_constraints(&mut Fields::new(value.as_object().unwrap())).unwrap();
        let extension = x509_cert::ext::Extension::from_der(&encoded).unwrap();
        NameConstraints::from_der(extension.extn_value.as_bytes()).unwrap()
    }

    fn allows(constraints: &NameConstraints, add: impl FnOnce(&mut AlternativeNames)) -> bool {
        let mut names = AlternativeNames::default();
        add(&mut names);
        let subject = Subject { common_name: Some("x"), ..Subject::default() }.encode().unwrap();
        check(constraints, &subject, &names, true).is_ok()
    }

    #[test]
    fn dns_names_are_within_or_not() {
        let some = constraints(
            json!({"permitted_dns_domains": "example.com,.corp", "excluded_dns_domains": "bad.example.com"}),
        );
        for (name, allowed) in [
            ("example.com", true),
            ("a.example.com", true),
            ("*.Example.COM", true),
            ("aexample.com", false),
            ("corp", false),
            ("a.corp", true),
            ("bad.example.com", false),
            ("x.bad.example.com", false),
            ("example.org", false),
        ] {
            assert_eq!(allows(&some, |names| names.add_dns(name).unwrap()), allowed, "{name}");
        }
        // A common name stands for a DNS name where there is none, and only in a leaf.
        let subject = Subject { common_name: Some("example.org"), ..Subject::default() }.encode().unwrap();
        let mut named = AlternativeNames::default();
        assert!(check(&some, &subject, &named, true).is_err() && check(&some, &subject, &named, false).is_ok());
        named.add_dns("example.com").unwrap();
        assert!(check(&some, &subject, &named, true).is_ok());
        // Kinds without constraints are free.
        assert!(allows(&some, |names| names.add_email("me@elsewhere.org").unwrap()));
    }

    #[test]
    fn addresses_uris_and_emails_are_within_or_not() {
        let some = constraints(
            json!({"permitted_ip_ranges": "10.0.0.0/8,fd00::/8", "excluded_ip_ranges": "10.9.0.0/16",
            "permitted_email_addresses": "me@a.example,b.example,.c.example", "permitted_uri_domains": "u.example,.v.example"}),
        );
        for (address, allowed) in
            [("10.1.2.3", true), ("10.9.2.3", false), ("11.1.1.1", false), ("fd00::1", true), ("fe80::1", false)]
        {
            assert_eq!(allows(&some, |names| names.add_ip(address.parse().unwrap()).unwrap()), allowed, "{address}");
        }
        for (address, allowed) in [
            ("me@a.example", true),
            ("you@a.example", false),
            ("you@b.example", true),
            ("you@x.b.example", false),
            ("you@x.c.example", true),
            ("you@c.example", false),
        ] {
            assert_eq!(allows(&some, |names| names.add_email(address).unwrap()), allowed, "{address}");
        }
        for (uri, allowed) in [
            ("https://u.example/x", true),
            ("https://me@u.example:8443/x", true),
            ("https://x.u.example", false),
            ("https://x.v.example?y", true),
            ("https://10.0.0.1/", false),
            ("urn:a:b", false),
            ("https://evil.org/u.example", false),
        ] {
            assert_eq!(allows(&some, |names| names.add_uri(uri).unwrap()), allowed, "{uri}");
        }
    }

    #[test]
    fn subjects_are_judged_by_their_first_attributes() {
        let base = Subject { common_name: Some("x"), ..Subject::default() }.encode().unwrap();
        let other = Subject { common_name: Some("y"), ..Subject::default() }.encode().unwrap();
        let subtree = GeneralSubtree {
            base: GeneralName::DirectoryName(Name::from_der(&base).unwrap()),
            minimum: 0,
            maximum: None,
        };
        let permitted = NameConstraints { permitted_subtrees: Some(vec![subtree.clone()]), excluded_subtrees: None };
        let excluded = NameConstraints { permitted_subtrees: None, excluded_subtrees: Some(vec![subtree]) };
        let names = AlternativeNames::default();
        assert!(check(&permitted, &base, &names, true).is_ok() && check(&permitted, &other, &names, true).is_err());
        assert!(check(&excluded, &base, &names, true).is_err() && check(&excluded, &other, &names, true).is_ok());
    }

    #[test]
    fn what_cannot_be_judged_is_refused() {
        let other = OtherSan::parse("1.2.3;UTF8:x").unwrap();
        let mut with = AlternativeNames::default();
        with.add_other(other).unwrap();
        let encoded = with.extension(false).unwrap().unwrap();
        let extension = x509_cert::ext::Extension::from_der(&encoded).unwrap();
        let base = Vec::<GeneralName>::from_der(extension.extn_value.as_bytes()).unwrap().remove(0);
        let subtree = vec![GeneralSubtree { base, minimum: 0, maximum: None }];
        let permitted = NameConstraints { permitted_subtrees: Some(subtree.clone()), excluded_subtrees: None };
        let excluded = NameConstraints { permitted_subtrees: None, excluded_subtrees: Some(subtree) };
        let nobody = Subject::default().encode().unwrap();
        assert!(check(&permitted, &nobody, &with, true).is_err() && check(&excluded, &nobody, &with, true).is_err());
    }
}
