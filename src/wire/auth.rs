//! Answers with a token in them: written in one go, so that no copy of it is left in memory.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;

use crate::model::{Auth, Secret, wiped};

/// Room for the envelope of a token without its policies and notes.
const ENVELOPE_BYTES: usize = 2048;

#[derive(Serialize)]
struct Envelope<'a> {
    request_id: String,
    lease_id: &'static str,
    renewable: bool,
    lease_duration: u64,
    data: Option<()>,
    wrap_info: Option<()>,
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

/// The body of an answer with an `auth` member.
pub(super) fn auth_body(auth: &Auth, warnings: &[String]) -> Bytes {
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
            ..empty(warnings)
        },
        room,
    )
}

fn empty(warnings: &[String]) -> Envelope<'_> {
    Envelope {
        request_id: uuid::Uuid::new_v4().to_string(),
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
