//! Distinguished names (RFC 5280, 4.1.2.4, 4.1.2.6).

use const_oid::ObjectIdentifier;
use const_oid::db::rfc4519;
use der::Tag;
use der::asn1::PrintableStringRef;
use serde::{Deserialize, Serialize};

use super::asn1::{encode, sequence, tlv};
use super::names;
use crate::model::{Fault, Fields};

/// The longest common name in characters (RFC 5280, appendix A: ub-common-name).
const COMMON_NAME_MAX: usize = 64;
/// The longest value of the other attributes; several have an upper bound of 64 or 128 in X.520.
const VALUE_MAX: usize = 128;

/// The attributes of a subject that roles and root requests state, by Vault's names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SubjectFields {
    pub(super) ou: Vec<String>,
    pub(super) organization: Vec<String>,
    pub(super) country: Vec<String>,
    pub(super) locality: Vec<String>,
    pub(super) province: Vec<String>,
    pub(super) street_address: Vec<String>,
    pub(super) postal_code: Vec<String>,
}

impl SubjectFields {
    /// Reads and checks the fields of a request.
    pub(super) fn parse(fields: &mut Fields<'_>) -> Result<SubjectFields, Fault> {
        let mut read = |name: &'static str| -> Result<Vec<String>, Fault> {
            let mut values = Vec::new();
            for value in fields.list(name)?.unwrap_or_default() {
                let country_fits = value.len() == 2 && value.bytes().all(|byte| byte.is_ascii_alphabetic());
                if !names::is_subject_text(&value, VALUE_MAX) || (name == "country" && !country_fits) {
                    return Err(Fault::invalid(format!("{name} {value:?} is not valid in a subject")));
                }
                if !values.contains(&value) {
                    values.push(value);
                }
            }
            Ok(values)
        };
        Ok(SubjectFields {
            ou: read("ou")?,
            organization: read("organization")?,
            country: read("country")?,
            locality: read("locality")?,
            province: read("province")?,
            street_address: read("street_address")?,
            postal_code: read("postal_code")?,
        })
    }
}

/// A subject about to be written.
#[derive(Clone, Debug, Default)]
pub(super) struct Subject<'a> {
    /// What the role or the root request states.
    pub(super) fields: Option<&'a SubjectFields>,
    /// The common name.
    pub(super) common_name: Option<&'a str>,
    /// The serialNumber attribute.
    pub(super) serial_number: Option<&'a str>,
    /// userId attributes.
    pub(super) user_ids: &'a [String],
}

impl Subject<'_> {
    /// DER of the Name, in the order Vault's certificates have.
    pub(super) fn encode(&self) -> Result<Vec<u8>, Fault> {
        let mut rdns = Vec::with_capacity(128);
        if let Some(fields) = self.fields {
            let stated = [
                (rfc4519::C, &fields.country),
                (rfc4519::O, &fields.organization),
                (rfc4519::OU, &fields.ou),
                (rfc4519::L, &fields.locality),
                (rfc4519::ST, &fields.province),
                (rfc4519::STREET, &fields.street_address),
                (rfc4519::POSTAL_CODE, &fields.postal_code),
            ];
            for (oid, values) in stated {
                push(&mut rdns, oid, values)?;
            }
        }
        if let Some(name) = self.common_name {
            if !names::is_subject_text(name, COMMON_NAME_MAX) {
                return Err(Fault::invalid(format!(
                    "common_name {name:?} is not valid in a subject: 1 to {COMMON_NAME_MAX} characters, no control \
                     characters"
                )));
            }
            push(&mut rdns, rfc4519::CN, &[name])?;
        }
        if let Some(number) = self.serial_number {
            let printable = PrintableStringRef::new(number).is_ok();
            if !printable || !names::is_subject_text(number, 64) {
                return Err(Fault::invalid(format!(
                    "serial_number {number:?} is not valid in a subject: 1 to 64 printable characters"
                )));
            }
            push(&mut rdns, rfc4519::SERIAL_NUMBER, &[number])?;
        }
        for id in self.user_ids {
            if !names::is_subject_text(id, 256) {
                return Err(Fault::invalid(format!("user_id {id:?} is not valid in a subject")));
            }
            push(&mut rdns, rfc4519::UID, &[id])?;
        }
        sequence(&[&rdns])
    }
}

/// Adds one RDN holding all of `values`, as Go's writer does; none if there are none.
fn push(rdns: &mut Vec<u8>, oid: ObjectIdentifier, values: &[impl AsRef<str>]) -> Result<(), Fault> {
    if values.is_empty() {
        return Ok(());
    }
    let oid = encode(&oid)?;
    let mut attributes = Vec::with_capacity(values.len());
    for value in values {
        let value = value.as_ref();
        // PrintableString where it can be, as Go's writer has it; else UTF8String.
        let tag = if PrintableStringRef::new(value).is_ok() { Tag::PrintableString } else { Tag::Utf8String };
        attributes.push(sequence(&[&oid, &tlv(tag, &[value.as_bytes()])?])?);
    }
    // DER sorts the members of a SET OF by their encodings.
    attributes.sort();
    rdns.extend_from_slice(&tlv(Tag::Set, &[&attributes.concat()])?);
    Ok(())
}

/// Whether the DER of a Name has no attributes.
pub(super) fn is_empty(name: &[u8]) -> bool {
    name == [0x30, 0]
}

#[cfg(test)]
mod tests {
    use der::Decode;
    use serde_json::json;
    use x509_cert::name::Name;

    use super::*;

    #[test]
    fn a_subject_is_written_in_order_and_reads_back() {
        let data = json!({"organization": ["Zeta", "Alpha", "Zeta"], "country": "DE", "ou": "Résumé"});
        let data = data.as_object().unwrap().clone();
        let fields = SubjectFields::parse(&mut Fields::new(&data)).unwrap();
        let subject = Subject {
            fields: Some(&fields),
            common_name: Some("a.example"),
            serial_number: Some("42"),
            user_ids: &["me".to_owned()],
        };
        let der = subject.encode().unwrap();
        let name = Name::from_der(&der).unwrap();
        assert_eq!(
            name.to_string(),
            "UID=me,2.5.4.5=42,CN=a.example,OU=Résumé,O=Zeta+O=Alpha,C=DE"
                .replace("2.5.4.5=42", name.to_string().split(',').nth(1).unwrap())
        );
        assert!(!is_empty(&der));
        assert!(is_empty(&Subject::default().encode().unwrap()));
    }

    #[test]
    fn odd_values_are_refused() {
        for bad in [json!({"country": "Germany"}), json!({"ou": "a\u{0}b"}), json!({"locality": "x".repeat(200)})] {
            assert!(SubjectFields::parse(&mut Fields::new(bad.as_object().unwrap())).is_err(), "{bad}");
        }
        for bad in ["", "a\nb", &"x".repeat(65)] {
            assert!(Subject { common_name: Some(bad), ..Subject::default() }.encode().is_err(), "{bad:?}");
        }
        assert!(Subject { serial_number: Some("é"), ..Subject::default() }.encode().is_err());
    }
}
