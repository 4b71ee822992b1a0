//! `policy_identifiers` of roles: the policies that certificates are issued under, each by its number alone or, in Vault's JSON,
//! with where its practices are told and what its users are to read (RFC 5280, 4.2.1.4). This module must not know roles.

use const_oid::ObjectIdentifier;
use const_oid::db::rfc5280;
use der::Tag;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::asn1::{encode, extension, sequence, tlv};
use super::{names, usage};
use crate::model::Fault;

/// The field's name.
pub(super) const FIELD: &str = "policy_identifiers";
/// `id-qt-cps` and `id-qt-unotice`.
const PRACTICES: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.2.1");
const NOTICE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.2.2");
/// Characters of a notice at most (RFC 5280, 4.2.1.4).
const NOTICE_CHARS: usize = 200;

/// A policy with its qualifiers, in Vault's words and order.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Qualified {
    oid: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    cps: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    notice: String,
}

/// The policies of a field that says them in JSON, a list or the text of one, as they are stored and read; `None` where it is
/// a plain list of numbers.
pub(super) fn from_json(value: &Value) -> Option<Result<Vec<String>, Fault>> {
    match value {
        Value::Array(items) => items.iter().any(Value::is_object).then(|| items.iter().map(item).collect()),
        Value::String(text) if text.trim_start().starts_with('[') => Some(
            serde_json::from_str::<Vec<Value>>(text)
                .map_err(|error| refuse(format_args!("it is no JSON list: {error}")))
                .and_then(|items| items.iter().map(item).collect()),
        ),
        _ => None,
    }
}

fn item(value: &Value) -> Result<String, Fault> {
    match value {
        Value::String(text) => Ok(text.trim().to_owned()),
        Value::Object(_) => {
            let qualified = Qualified::deserialize(value).map_err(refuse)?;
            serde_json::to_string(&qualified).map_err(|_| Fault::internal("a policy cannot be written as JSON"))
        }
        _ => Err(refuse("each is a number such as 1.3.6.1.4.1.99, or an object with oid, cps and notice")),
    }
}

/// The extension for these policies as they are stored; nothing where there are none. Refuses those that cannot be written.
pub(super) fn certificate_policies(stored: &[String]) -> Result<Vec<u8>, Fault> {
    if stored.is_empty() {
        return Ok(Vec::new());
    }
    let policies = stored.iter().map(|stored| information(stored)).collect::<Result<Vec<_>, Fault>>()?;
    extension(rfc5280::ID_CE_CERTIFICATE_POLICIES, false, &sequence(&slices(&policies))?)
}

/// `PolicyInformation`.
fn information(stored: &str) -> Result<Vec<u8>, Fault> {
    let plain = |oid: &str| {
        let parsed = usage::object_identifiers(FIELD, std::slice::from_ref(&oid.trim().to_owned()))?;
        parsed.first().map_or_else(|| Err(refuse("there is no number")), encode)
    };
    if !stored.starts_with('{') {
        return sequence(&[&plain(stored)?]);
    }
    let Qualified { oid, cps, notice } = serde_json::from_str(stored).map_err(refuse)?;
    let mut qualifiers = Vec::new();
    if !cps.is_empty() {
        if !names::is_uri(&cps) {
            return Err(refuse(format_args!("cps {cps:?} is no URI")));
        }
        let uri = tlv(Tag::Ia5String, &[cps.as_bytes()])?;
        qualifiers.push(sequence(&[&encode(&PRACTICES)?, &uri])?);
    }
    if !notice.is_empty() {
        let count = notice.chars().count();
        if count > NOTICE_CHARS || notice.chars().any(char::is_control) {
            return Err(refuse(format_args!(
                "a notice has at most {NOTICE_CHARS} characters, and no control characters; this one has {count}"
            )));
        }
        let text = sequence(&[&tlv(Tag::Utf8String, &[notice.as_bytes()])?])?;
        qualifiers.push(sequence(&[&encode(&NOTICE)?, &text])?);
    }
    let oid = plain(&oid)?;
    if qualifiers.is_empty() { sequence(&[&oid]) } else { sequence(&[&oid, &sequence(&slices(&qualifiers))?]) }
}

fn slices(parts: &[Vec<u8>]) -> Vec<&[u8]> {
    parts.iter().map(Vec::as_slice).collect()
}

fn refuse(why: impl std::fmt::Display) -> Fault {
    Fault::invalid(format!("{FIELD}: {why}"))
}

#[cfg(test)]
mod tests {
    use der::Decode;
    use serde_json::json;
    use x509_cert::ext::Extension;
    use x509_cert::ext::pkix::CertificatePolicies;

    use super::*;

    fn read(value: Value) -> Result<Vec<String>, String> {
        from_json(&value).expect("JSON").map_err(|fault| fault.to_string())
    }

    #[test]
    fn a_list_and_its_text_are_alike_and_read_back() {
        let list =
            json!(["1.2.3", {"notice": "Read, or else", "oid": "1.2.4"}, {"oid": "1.2.5", "cps": "https://a.b"}]);
        let expected =
            ["1.2.3", r#"{"oid":"1.2.4","notice":"Read, or else"}"#, r#"{"oid":"1.2.5","cps":"https://a.b"}"#];
        assert_eq!(read(list.clone()).unwrap(), expected);
        assert_eq!(read(json!(format!(" {list}"))).unwrap(), expected);
        assert!(from_json(&json!(expected)).is_none(), "what was read is a list of texts");
        assert!(from_json(&json!("1.2.3,1.2.4")).is_none());
        let written = certificate_policies(&expected.map(str::to_owned)).unwrap();
        let extension = Extension::from_der(&written).unwrap();
        assert!(!extension.critical);
        let policies = CertificatePolicies::from_der(extension.extn_value.as_bytes()).unwrap().0;
        let found: Vec<(String, usize)> = policies
            .iter()
            .map(|policy| {
                let qualifiers = policy.policy_qualifiers.as_ref().map_or(0, Vec::len);
                (policy.policy_identifier.to_string(), qualifiers)
            })
            .collect();
        assert_eq!(found, [("1.2.3".to_owned(), 0), ("1.2.4".to_owned(), 1), ("1.2.5".to_owned(), 1)]);
        assert_eq!(certificate_policies(&[]), Ok(Vec::new()));
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        for (bad, told) in [
            (json!("[1"), "no JSON list"),
            (json!([{"cps": "https://a.b"}]), "missing field `oid`"),
            (json!([{"oid": "1.2.3", "url": "x"}]), "unknown field `url`"),
            (json!([{"oid": "1.2.3"}, 7]), "each is a number"),
            (json!([{"oid": "here"}]), "is not an object identifier"),
            (json!([{"oid": "1.2.3", "cps": "not a uri"}]), "is no URI"),
            (json!([{"oid": "1.2.3", "notice": "x".repeat(201)}]), "at most 200 characters"),
            (json!([{"oid": "1.2.3", "notice": "a\u{0}b"}]), "no control characters"),
        ] {
            let refused = read(bad.clone()).and_then(|items| certificate_policies(&items).map_err(|e| e.to_string()));
            let refused = refused.unwrap_err();
            assert!(refused.contains(told), "{bad}: {refused}");
        }
    }
}
