//! One good certificate, and what each rule says of one that breaks it.

use const_oid::db::{rfc4519, rfc5280};
use der::flagset::FlagSet;
use x509_cert::ext::pkix::ExtendedKeyUsage;

use super::super::asn1::{encode, explicit, extension as write_extension, sequence, tlv};
use super::super::extensions;
use super::super::san::AlternativeNames;
use super::super::serial::Serial;
use super::super::urls::Urls;
use super::super::validity::encode_time;
use super::*;
use crate::model::Curve;

const BEGINS: u64 = 1_800_000_000;
const DAY: u64 = 86_400;
const DOMAIN_VALIDATED: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.140.1.2.1");

/// A TBSCertificate in parts.
#[derive(Clone)]
struct Parts {
    version: Vec<u8>,
    serial: Vec<u8>,
    issuer: Vec<u8>,
    begins: Vec<u8>,
    ends: Vec<u8>,
    subject: Vec<u8>,
    key: Vec<u8>,
    extensions: Vec<(&'static str, Vec<u8>)>,
}

impl Parts {
    fn set(mut self, name: &'static str, value: Vec<u8>) -> Parts {
        self.extensions.retain(|(known, _)| *known != name);
        if !value.is_empty() {
            self.extensions.push((name, value));
        }
        self
    }

    fn encode(&self) -> Vec<u8> {
        let list: Vec<&[u8]> = self.extensions.iter().map(|(_, value)| value.as_slice()).collect();
        let algorithm = sequence(&[&encode(&const_oid::db::rfc5912::ECDSA_WITH_SHA_256).unwrap()]).unwrap();
        sequence(&[
            &self.version,
            &self.serial,
            &algorithm,
            &self.issuer,
            &sequence(&[&self.begins, &self.ends]).unwrap(),
            &self.subject,
            &self.key,
            &extensions::list(&list).unwrap(),
        ])
        .unwrap()
    }

    /// What is found: empty where nothing is.
    fn findings(&self, rules: Rules) -> String {
        check(&self.encode(), rules, Advice::Binding).err().map_or_else(String::new, |fault| fault.to_string())
    }
}

fn name(attributes: &[(ObjectIdentifier, der::Tag, &str)]) -> Vec<u8> {
    let rdn = |(oid, tag, text): &(ObjectIdentifier, der::Tag, &str)| {
        let pair = sequence(&[&encode(oid).unwrap(), &tlv(*tag, &[text.as_bytes()]).unwrap()]).unwrap();
        tlv(der::Tag::Set, &[&pair]).unwrap()
    };
    let rdns: Vec<Vec<u8>> = attributes.iter().map(rdn).collect();
    sequence(&rdns.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap()
}

fn common_name(text: &str) -> Vec<u8> {
    name(&[(rfc4519::CN, der::Tag::Utf8String, text)])
}

fn names(dns: &[&str]) -> Vec<u8> {
    let mut names = AlternativeNames::default();
    dns.iter().for_each(|name| names.add_dns(name).unwrap());
    names.extension(false).unwrap().unwrap_or_default()
}

fn usages(usages: impl Into<FlagSet<KeyUsages>>) -> Vec<u8> {
    extensions::key_usage(usages.into()).unwrap()
}

fn extended(list: &[ObjectIdentifier]) -> Vec<u8> {
    let value = encode(&ExtendedKeyUsage(list.to_vec())).unwrap();
    write_extension(rfc5280::ID_CE_EXT_KEY_USAGE, false, &value).unwrap()
}

fn policies(list: &[ObjectIdentifier]) -> Vec<u8> {
    let one = |oid: &ObjectIdentifier| sequence(&[&encode(oid).unwrap()]).unwrap();
    let list: Vec<Vec<u8>> = list.iter().map(one).collect();
    let value = sequence(&list.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
    write_extension(rfc5280::ID_CE_CERTIFICATE_POLICIES, false, &value).unwrap()
}

fn urls(scheme: &str) -> Vec<u8> {
    let urls = Urls {
        issuing_certificates: vec![format!("{scheme}://ca.acme.com/ca")],
        crl_distribution_points: vec![format!("{scheme}://ca.acme.com/crl")],
        ..Urls::default()
    };
    extensions::of_urls(&urls).unwrap()
}

fn p256() -> Vec<u8> {
    let point = [&[4][..], &[7; 64]].concat();
    crypto::ec_spki(Curve::P256, &point).unwrap().spki.to_vec()
}

/// A server's certificate that breaks no rule.
fn good() -> Parts {
    let identifier = [9; 20];
    Parts {
        version: explicit(0, &[&[2, 1, 2]]).unwrap(),
        serial: Serial::from_bytes(&[5; 16]).unwrap().der(),
        issuer: common_name("A CA"),
        begins: encode_time(BEGINS).unwrap(),
        ends: encode_time(BEGINS + 90 * DAY).unwrap(),
        subject: common_name("www.acme.com"),
        key: p256(),
        extensions: vec![
            ("usage", usages(KeyUsages::DigitalSignature)),
            ("extended", extended(&[rfc5280::ID_KP_SERVER_AUTH])),
            ("policies", policies(&[DOMAIN_VALIDATED])),
            ("subject key", extensions::subject_key_identifier(&identifier).unwrap()),
            ("authority key", extensions::authority_key_identifier(&identifier).unwrap()),
            ("urls", urls("http")),
            ("names", names(&["www.acme.com"])),
        ],
    }
}

/// An authority's.
fn authority() -> Parts {
    let signs = KeyUsages::KeyCertSign | KeyUsages::CRLSign;
    let constraints = extensions::basic_constraints(true, Some(0)).unwrap();
    good().set("usage", usages(signs)).set("basic", constraints).set("names", Vec::new())
}

#[test]
fn a_good_certificate_breaks_no_rule() {
    assert_eq!(good().findings(Rules::CabfServerauth), "");
    assert_eq!(authority().findings(Rules::CabfServerauth), "");
    let far = Parts { ends: encode_time(253_402_300_799).unwrap(), ..good() };
    assert_eq!(far.findings(Rules::Rfc5280), "");
}

#[test]
fn what_breaks_rfc_5280_is_told() {
    let (good, authority) = (good(), authority());
    let critical = |value: &[u8], oid| write_extension(oid, true, value).unwrap();
    let twice =
        Parts { extensions: [good.extensions.clone(), vec![("more", names(&["b.com"]))]].concat(), ..good.clone() };
    let many = "x".repeat(65);
    for (broken, expected) in [
        (Parts { version: Vec::new(), ..good.clone() }, "version 3"),
        (Parts { serial: vec![2, 1, 0], ..good.clone() }, "serial number"),
        (Parts { issuer: name(&[]), ..good.clone() }, "its issuer has no name"),
        (Parts { ends: encode_time(BEGINS - 1).unwrap(), ..good.clone() }, "before it begins"),
        (Parts { ends: tlv(der::Tag::GeneralizedTime, &[b"20300101000000Z"]).unwrap(), ..good.clone() }, "a time"),
        (Parts { subject: common_name(&many), ..good.clone() }, "65 characters"),
        (Parts { subject: name(&[(rfc4519::C, der::Tag::Utf8String, "CH")]), ..good.clone() }, "string type"),
        (Parts { subject: name(&[(rfc4519::C, der::Tag::PrintableString, "CHE")]), ..good.clone() }, "country has 3"),
        (Parts { subject: common_name("a\u{7}b"), ..good.clone() }, "control characters"),
        (Parts { subject: name(&[]), ..good.clone() }, "critical exactly where"),
        (Parts { subject: name(&[]), ..good.clone() }.set("names", Vec::new()), "it names nobody"),
        (twice, "extension 2.5.29.17 is there twice"),
        (good.clone().set("usage", usages(KeyUsages::KeyEncipherment)), "cannot be used for"),
        (good.clone().set("usage", critical(&[3, 2, 7, 0], rfc5280::ID_CE_KEY_USAGE)), "key usage is empty"),
        (good.clone().set("usage", usages(KeyUsages::EncipherOnly)), "agrees on no key"),
        (good.clone().set("usage", usages(KeyUsages::KeyCertSign)), "but it is no CA's"),
        (good.clone().set("extended", extended(&[])), "extended key usages are none"),
        (good.clone().set("extended", extended(&[rfc5280::ID_KP_SERVER_AUTH; 2])), "there twice"),
        (good.clone().set("policies", policies(&[DOMAIN_VALIDATED; 2])), "policies are none, or"),
        (good.clone().set("authority key", Vec::new()), "no authority key identifier"),
        (good.clone().set("names", critical(&[0x30, 0], rfc5280::ID_CE_SUBJECT_ALT_NAME)), "names are empty"),
        (
            good.clone().set("names", critical(&[0x30, 3, 0x87, 1, 9], rfc5280::ID_CE_SUBJECT_ALT_NAME)),
            "not well formed",
        ),
        (good.clone().set("names", critical(&[0x30, 1, 0], rfc5280::ID_CE_SUBJECT_ALT_NAME)), "cannot be read"),
        (
            good.clone().set("urls", critical(&[0x30, 0], rfc5280::ID_PE_AUTHORITY_INFO_ACCESS)),
            "authority information access",
        ),
        (good.clone().set("basic", extensions::basic_constraints(false, Some(1)).unwrap()), "signs no CA's"),
        (good.clone().set("constraints", critical(&[0x30, 0], rfc5280::ID_CE_NAME_CONSTRAINTS)), "but is no CA's"),
        (
            authority.clone().set("constraints", critical(&[0x30, 0], rfc5280::ID_CE_NAME_CONSTRAINTS)),
            "constraints are empty",
        ),
        (authority.clone().set("subject key", Vec::new()), "no subject key identifier"),
        (authority.clone().set("usage", Vec::new()), "but has no key usage"),
    ] {
        let found = broken.findings(Rules::Rfc5280);
        assert!(found.contains(expected), "{expected}: {found}");
    }
    assert!(check(b"0", Rules::Rfc5280, Advice::Told).unwrap_err().to_string().contains("cannot be read"));
}

#[test]
fn what_should_be_otherwise_is_told_where_the_content_is_the_askers() {
    let (good, authority) = (good(), authority());
    let plain = |oid, value: &[u8]| write_extension(oid, false, value).unwrap();
    let critical = |oid, value: &[u8]| write_extension(oid, true, value).unwrap();
    let names = [0x30, 3, 0x82, 1, b'a'];
    let any = encode(&ExtendedKeyUsage(vec![rfc5280::ANY_EXTENDED_KEY_USAGE])).unwrap();
    for (odd, expected) in [
        (authority.clone().set("usage", Vec::new()), "but has no key usage"),
        (authority.clone().set("usage", plain(rfc5280::ID_CE_KEY_USAGE, &[3, 2, 1, 6])), "key usage is not critical"),
        (good.clone().set("names", critical(rfc5280::ID_CE_SUBJECT_ALT_NAME, &names)), "names are critical"),
        (good.clone().set("extended", critical(rfc5280::ID_CE_EXT_KEY_USAGE, &any)), "yet it is critical"),
    ] {
        let told = check(&odd.encode(), Rules::Rfc5280, Advice::Told).unwrap();
        assert!(told.len() == 1 && told[0].contains(expected), "{expected}: {told:?}");
        assert!(odd.findings(Rules::Rfc5280).contains(expected), "{expected}");
    }
    // What must be, must be.
    let nameless = Parts { subject: name(&[]), ..good.clone() };
    let nobodys = nameless.set("names", plain(rfc5280::ID_CE_SUBJECT_ALT_NAME, &names));
    for broken in [nobodys, authority.set("subject key", Vec::new())] {
        assert!(check(&broken.encode(), Rules::Rfc5280, Advice::Told).is_err());
    }
    assert_eq!(check(&good.encode(), Rules::Rfc5280, Advice::Told), Ok(Vec::new()));
}

#[test]
fn what_breaks_the_baseline_requirements_is_told_only_where_they_are_asked_for() {
    let good = good();
    let unit = name(&[(rfc4519::OU, der::Tag::Utf8String, "ops"), (rfc4519::CN, der::Tag::Utf8String, "www.acme.com")]);
    let ed25519 = crypto::ed25519_spki(&[7; 32]).unwrap().spki.to_vec();
    let organization = ObjectIdentifier::new_unwrap("2.23.140.1.2.2");
    let server = rfc5280::ID_KP_SERVER_AUTH;
    for (broken, expected) in [
        (Parts { key: ed25519, ..good.clone() }, "BR 6.1.5"),
        (Parts { ends: encode_time(BEGINS + 200 * DAY).unwrap(), ..good.clone() }, "more than 200 days"),
        (good.clone().set("extended", Vec::new()), "BR 7.1.2.7.10"),
        (good.clone().set("extended", extended(&[server, rfc5280::ID_KP_CODE_SIGNING])), "BR 7.1.2.7.10"),
        (good.clone().set("usage", usages(KeyUsages::KeyAgreement)), "BR 7.1.2.7.11"),
        (good.clone().set("policies", Vec::new()), "BR 7.1.2.7.9"),
        (good.clone().set("policies", policies(&[organization])), "lacks organization"),
        (Parts { subject: unit, ..good.clone() }, "organizational unit"),
        (Parts { subject: common_name("other.acme.com"), ..good.clone() }, "none of its alternative names"),
        (good.clone().set("names", names(&["www.acme.com", "printer"])), "\"printer\" is no public"),
        (good.clone().set("names", names(&["www.acme.com", "db.internal"])), "\"db.internal\" is no public"),
        (good.clone().set("names", names(&["www.acme.com", "w*.acme.com"])), "\"w*.acme.com\" is no public"),
        (good.clone().set("urls", urls("https")), "no authority information access by http"),
        (good.clone().set("urls", Vec::new()), "neither an OCSP responder nor a CRL"),
    ] {
        assert_eq!(broken.findings(Rules::Rfc5280), "", "{expected}");
        let found = broken.findings(Rules::CabfServerauth);
        assert!(found.contains(expected), "{expected}: {found}");
    }
    let mut addresses = AlternativeNames::default();
    for ip in ["192.168.1.1", "9.9.9.9", "2620:fe::9", "fe80::1", "100.64.0.1"] {
        addresses.add_ip(ip.parse().unwrap()).unwrap();
    }
    let found = good.set("names", addresses.extension(false).unwrap().unwrap()).findings(Rules::CabfServerauth);
    let told = |ip: &str| found.contains(&format!("{ip:?} is no public"));
    assert!(told("192.168.1.1") && told("fe80::1") && told("100.64.0.1"), "{found}");
    assert!(!told("9.9.9.9") && !told("2620:fe::9"), "{found}");
}
