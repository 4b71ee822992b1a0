//! Answers with a token in them: written in one go, so that no copy of it is left in memory.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;
use time::UtcDateTime;
use time::format_description::well_known::Rfc3339;

use crate::model::{Auth, RequestId, Secret, WrapInfo, wiped};

/// Room for the envelope of a token without its policies and notes.
const ENVELOPE_BYTES: usize = 2048;

#[derive(Serialize)]
struct Envelope<'a> {
    request_id: String,
    lease_id: &'static str,
    renewable: bool,
    lease_duration: u64,
    data: Option<()>,
    wrap_info: Option<WrapMember<'a>>,
    warnings: Option<&'a [String]>,
    auth: Option<AuthMember<'a>>,
}

#[derive(Serialize)]
struct AuthMember<'a> {
    client_token: &'a str,
    accessor: &'a str,
    policies: &'a [String],
    token_policies: &'a [String],
    metadata: Option<&'a BTreeMap<String, String>>,
    lease_duration: u64,
    renewable: bool,
    entity_id: &'static str,
    token_type: &'static str,
    orphan: bool,
    mfa_requirement: Option<()>,
    num_uses: u64,
}

#[derive(Serialize)]
struct WrapMember<'a> {
    token: &'a str,
    accessor: &'a str,
    ttl: u64,
    creation_time: String,
    creation_path: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    wrapped_accessor: &'a str,
}

/// The body of an answer with an `auth` member.
pub(super) fn auth_body(id: RequestId, auth: &Auth, warnings: &[String]) -> Bytes {
    let texts = auth.policies.iter().chain(auth.metadata.keys()).chain(auth.metadata.values()).chain(warnings);
    // Escaped, a byte takes six; policies are told twice.
    let room = texts.map(|text| 12 * text.len() + 16).sum();
    write(
        &Envelope {
            auth: Some(AuthMember {
                client_token: text(&auth.client_token),
                accessor: &auth.accessor,
                policies: &auth.policies,
                token_policies: &auth.policies,
                metadata: (!auth.metadata.is_empty()).then_some(&auth.metadata),
                lease_duration: auth.lease_duration,
                renewable: auth.renewable,
                entity_id: "",
                token_type: "service",
                orphan: auth.orphan,
                mfa_requirement: None,
                num_uses: auth.num_uses,
            }),
            ..empty(id, warnings)
        },
        room,
    )
}

/// The body of an answer with a `wrap_info` member.
pub(super) fn wrap_body(id: RequestId, info: &WrapInfo) -> Bytes {
    let made = i64::try_from(info.creation_time).ok().and_then(|made| UtcDateTime::from_unix_timestamp(made).ok());
    write(
        &Envelope {
            wrap_info: Some(WrapMember {
                token: text(&info.token),
                accessor: &info.accessor,
                ttl: info.ttl,
                creation_time: made.and_then(|made| made.format(&Rfc3339).ok()).unwrap_or_default(),
                creation_path: &info.creation_path,
                wrapped_accessor: &info.wrapped_accessor,
            }),
            ..empty(id, &[])
        },
        6 * info.creation_path.len(),
    )
}

fn empty(id: RequestId, warnings: &[String]) -> Envelope<'_> {
    Envelope {
        request_id: id.to_string(),
        lease_id: "",
        renewable: false,
        lease_duration: 0,
        data: None,
        wrap_info: None,
        warnings: (!warnings.is_empty()).then_some(warnings),
        auth: None,
    }
}

fn text(secret: &Secret) -> &str {
    secret.expose_str().unwrap_or_default()
}

fn write(envelope: &Envelope<'_>, room: usize) -> Bytes {
    let mut body = Vec::with_capacity(ENVELOPE_BYTES + room);
    // Texts and numbers always serialize.
    let _ = serde_json::to_writer(&mut body, envelope);
    wiped(body)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_token_is_answered_as_vault_does() {
        let auth = Auth {
            client_token: Secret::from("hvs.x"),
            accessor: "a".into(),
            policies: vec!["p".into()],
            metadata: [("note".to_owned(), "\u{1}".repeat(5000))].into(),
            lease_duration: 60,
            renewable: true,
            orphan: false,
            num_uses: 3,
        };
        let body = auth_body(RequestId([7; 16]), &auth, &["w".to_owned()]);
        let told: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&told["data"], &told["wrap_info"], &told["warnings"]), (&Value::Null, &Value::Null, &json!(["w"])));
        let golden = json!({
            "client_token": "hvs.x", "accessor": "a", "policies": ["p"], "token_policies": ["p"],
            "metadata": auth.metadata, "lease_duration": 60, "renewable": true, "entity_id": "",
            "token_type": "service", "orphan": false, "mfa_requirement": null, "num_uses": 3,
        });
        assert_eq!(told["auth"], golden);
    }

    #[test]
    fn a_wrapped_answer_is_told_as_vault_does() {
        let info = WrapInfo {
            token: Secret::from("hvs.w"),
            accessor: "a".into(),
            ttl: 60,
            creation_time: 0,
            creation_path: "auth/token/create".into(),
            wrapped_accessor: String::new(),
        };
        let told: Value = serde_json::from_slice(&wrap_body(RequestId([7; 16]), &info)).unwrap();
        let golden = json!({
            "token": "hvs.w", "accessor": "a", "ttl": 60, "creation_time": "1970-01-01T00:00:00Z",
            "creation_path": "auth/token/create",
        });
        assert_eq!((&told["wrap_info"], &told["auth"]), (&golden, &Value::Null));
    }
}
