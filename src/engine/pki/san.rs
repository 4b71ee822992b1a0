//! Subject alternative names (RFC 5280, 4.2.1.6).

use std::net::IpAddr;

use const_oid::ObjectIdentifier;
use const_oid::db::rfc5280::ID_CE_SUBJECT_ALT_NAME;
use der::asn1::{Any, Ia5String, OctetString, Utf8StringRef};
use der::{Decode, Tag, Tagged};
use x509_cert::ext::pkix::name::{GeneralName, OtherName};

use super::asn1::{encode, extension, unencodable};
use super::names;
use crate::model::Fault;

/// The most alternative names of one certificate.
pub(super) const NAMES_MAX: usize = 1000;

/// An `otherName` with a UTF-8 value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OtherSan {
    pub(super) oid: ObjectIdentifier,
    pub(super) value: String,
}

impl OtherSan {
    /// `oid;UTF8:value`, as `other_sans` writes it.
    pub(super) fn parse(text: &str) -> Result<OtherSan, Fault> {
        let malformed = || Fault::invalid(format!("other SAN {text:?}: expected \"<oid>;UTF8:<value>\""));
        let (oid, rest) = text.split_once(';').ok_or_else(malformed)?;
        let (kind, value) = rest.split_once(':').ok_or_else(malformed)?;
        if !(kind.eq_ignore_ascii_case("UTF8") || kind.eq_ignore_ascii_case("UTF-8")) {
            return Err(Fault::invalid(format!("other SAN {text:?}: only the type UTF8 is supported")));
        }
        let oid = oid.parse().map_err(|_| malformed())?;
        OtherSan::new(oid, value)
    }

    fn new(oid: ObjectIdentifier, value: &str) -> Result<OtherSan, Fault> {
        if value.is_empty() || value.len() > 1024 || value.chars().any(|c| c == '\0') {
            return Err(Fault::invalid(format!("the other SAN for {oid} is empty, too long or has a zero byte")));
        }
        Ok(OtherSan { oid, value: value.to_owned() })
    }
}

/// The names of one certificate, by kind, each well-formed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AlternativeNames {
    pub(super) dns: Vec<String>,
    pub(super) emails: Vec<String>,
    pub(super) ips: Vec<IpAddr>,
    pub(super) uris: Vec<String>,
    pub(super) others: Vec<OtherSan>,
}

impl AlternativeNames {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.dns.len() + self.emails.len() + self.ips.len() + self.uris.len() + self.others.len()
    }

    /// Adds a DNS name, once.
    pub(super) fn add_dns(&mut self, name: &str) -> Result<(), Fault> {
        if !names::is_dns_name(name) {
            return Err(Fault::invalid(format!(
                "{name:?} is not a valid DNS name: write names beyond ASCII in their xn-- form"
            )));
        }
        push_once(&mut self.dns, name);
        self.bounded()
    }

    /// Adds an email address, once.
    pub(super) fn add_email(&mut self, address: &str) -> Result<(), Fault> {
        if !names::is_email(address) {
            return Err(Fault::invalid(format!("{address:?} is not a valid email address")));
        }
        push_once(&mut self.emails, address);
        self.bounded()
    }

    /// Adds an IP address, once.
    pub(super) fn add_ip(&mut self, address: IpAddr) -> Result<(), Fault> {
        if !self.ips.contains(&address) {
            self.ips.push(address);
        }
        self.bounded()
    }

    /// Adds a URI, once.
    pub(super) fn add_uri(&mut self, uri: &str) -> Result<(), Fault> {
        if !names::is_uri(uri) {
            return Err(Fault::invalid(format!("{uri:?} is not a valid URI")));
        }
        push_once(&mut self.uris, uri);
        self.bounded()
    }

    /// Adds another name, once.
    pub(super) fn add_other(&mut self, other: OtherSan) -> Result<(), Fault> {
        if !self.others.contains(&other) {
            self.others.push(other);
        }
        self.bounded()
    }

    /// Reads the value of a SubjectAltName extension. `Ok(false)` says that it has names of kinds nobody here issues.
    pub(super) fn read(&mut self, value: &[u8]) -> Result<bool, Fault> {
        let malformed = |_| Fault::invalid("the request's subject alternative names are malformed");
        let general = Vec::<GeneralName>::from_der(value).map_err(malformed)?;
        let mut all_known = true;
        for name in general {
            match name {
                GeneralName::DnsName(name) => self.add_dns(name.as_str())?,
                GeneralName::Rfc822Name(address) => self.add_email(address.as_str())?,
                GeneralName::UniformResourceIdentifier(uri) => self.add_uri(uri.as_str())?,
                GeneralName::IpAddress(octets) => {
                    let octets = octets.as_bytes();
                    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
                    let address = v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from));
                    self.add_ip(address.map_err(|_| Fault::invalid("an IP address in the request is malformed"))?)?;
                }
                GeneralName::OtherName(other) if Tagged::tag(&other.value) == Tag::Utf8String => {
                    let value = other.value.decode_as::<Utf8StringRef<'_>>();
                    let value = value.map_err(|_| Fault::invalid("an other SAN in the request is malformed"))?;
                    self.add_other(OtherSan::new(other.type_id, value.as_ref())?)?;
                }
                _ => all_known = false,
            }
        }
        Ok(all_known)
    }

    /// The extension, or none if there are no names. Critical where the subject is empty.
    pub(super) fn extension(&self, subject_is_empty: bool) -> Result<Option<Vec<u8>>, Fault> {
        if self.len() == 0 {
            return Ok(None);
        }
        extension(ID_CE_SUBJECT_ALT_NAME, subject_is_empty, &encode(&self.general_names()?)?).map(Some)
    }

    fn general_names(&self) -> Result<Vec<GeneralName>, Fault> {
        let ia5 = |text: &String| Ia5String::new(text.as_str()).map_err(unencodable);
        let mut general = Vec::with_capacity(self.len());
        for name in &self.dns {
            general.push(GeneralName::DnsName(ia5(name)?));
        }
        for address in &self.emails {
            general.push(GeneralName::Rfc822Name(ia5(address)?));
        }
        for address in &self.ips {
            general.push(GeneralName::IpAddress(ip_octets(*address)?));
        }
        for uri in &self.uris {
            general.push(GeneralName::UniformResourceIdentifier(ia5(uri)?));
        }
        for other in &self.others {
            let value = Any::new(Tag::Utf8String, other.value.as_bytes()).map_err(unencodable)?;
            general.push(GeneralName::OtherName(OtherName { type_id: other.oid, value }));
        }
        Ok(general)
    }

    fn bounded(&self) -> Result<(), Fault> {
        if self.len() > NAMES_MAX {
            return Err(Fault::invalid(format!("a certificate has at most {NAMES_MAX} subject alternative names")));
        }
        Ok(())
    }
}

fn ip_octets(address: IpAddr) -> Result<OctetString, Fault> {
    match address {
        IpAddr::V4(v4) => OctetString::new(v4.octets()),
        IpAddr::V6(v6) => OctetString::new(v6.octets()),
    }
    .map_err(unencodable)
}

fn push_once(list: &mut Vec<String>, text: &str) {
    if !list.iter().any(|known| known == text) {
        list.push(text.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use der::Encode;
    use proptest::prelude::*;

    use super::*;

    fn some() -> AlternativeNames {
        let mut names = AlternativeNames::default();
        names.add_dns("a.example").unwrap();
        names.add_dns("a.example").unwrap();
        names.add_email("x@a.example").unwrap();
        names.add_ip("10.0.0.1".parse().unwrap()).unwrap();
        names.add_ip("::1".parse().unwrap()).unwrap();
        names.add_uri("spiffe://a/b").unwrap();
        names.add_other(OtherSan::parse("1.3.6.1.4.1.311.20.2.3;UTF8:me@corp").unwrap()).unwrap();
        names
    }

    #[test]
    fn names_are_kept_once_and_read_back() {
        let names = some();
        assert_eq!(names.len(), 6);
        let value = names.general_names().unwrap().to_der().unwrap();
        let mut read = AlternativeNames::default();
        assert!(read.read(&value).unwrap());
        assert_eq!(read, names);
    }

    #[test]
    fn malformed_names_are_refused() {
        let mut names = AlternativeNames::default();
        assert!(names.add_dns("a\0b").is_err());
        assert!(names.add_email("nobody").is_err());
        assert!(names.add_uri("relative").is_err());
        for text in ["1.2.3", "1.2.3;UTF8", "x;UTF8:a", "1.2.3;IA5:a", "1.2.3;UTF8:"] {
            assert!(OtherSan::parse(text).is_err(), "{text}");
        }
        assert_eq!(names.extension(true).unwrap(), None);
    }

    #[test]
    fn an_address_of_odd_length_in_a_request_is_refused() {
        // SEQUENCE { [7] 3 bytes }
        assert!(AlternativeNames::default().read(&[0x30, 5, 0x87, 3, 1, 2, 3]).is_err());
        // SEQUENCE { [8] 1.2.3 } is a kind nobody here issues.
        assert!(!AlternativeNames::default().read(&[0x30, 4, 0x88, 2, 0x2A, 3]).unwrap());
    }

    #[test]
    fn there_is_a_bound() {
        let mut names = AlternativeNames::default();
        let outcome = (0..=NAMES_MAX).try_for_each(|index| names.add_dns(&format!("n{index}.example")));
        assert!(outcome.is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = AlternativeNames::default().read(&bytes);
        }
    }
}
