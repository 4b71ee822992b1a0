//! The text of a record: Vault's, one line of JSON each, with HMACs in the place of values.

use std::collections::BTreeMap;
use std::ops::Range;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::Value;
use time::UtcDateTime;
use time::format_description::well_known::Rfc3339;

use super::hash::Hasher;
use super::options::Settings;
use super::recording::{Answered, Asked, Bearer};
use crate::model::{Auth, Data, Fault, Response, Secret, Verb, WrapInfo};

/// Room for a record of one of the short operations.
const ROOM: usize = 1280;

/// So many bytes are told of a path that a stranger made up.
const STRANGERS_PATH: usize = 256;

/// A record would be longer than any may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// A text being written for one device.
pub(super) struct Text<'d> {
    out: Vec<u8>,
    hasher: &'d Hasher,
    settings: &'d Settings,
    bytes_max: usize,
}

/// Where a text has what is told twice, so that it is hashed once.
#[derive(Default)]
struct Shown {
    token: Option<Range<usize>>,
    accessor: Option<Range<usize>>,
}

/// Whose numbers are values, and are hashed: those of requests. A PIN may come as one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Numbers {
    Hashed,
    Shown,
}

/// What is told of a path in clear: of one that a stranger made up, its beginning.
fn told<'p>(path: &'p str, asked: &Asked<'_>) -> &'p str {
    if asked.bearer.is_some() || path.len() <= STRANGERS_PATH {
        path
    } else {
        &path[..path.floor_char_boundary(STRANGERS_PATH)]
    }
}

impl<'d> Text<'d> {
    pub(super) fn new(hasher: &'d Hasher, settings: &'d Settings, bytes_max: usize) -> Text<'d> {
        Text { out: Vec::with_capacity(ROOM), hasher, settings, bytes_max }
    }

    /// What the records of a request and of its answer have in common: who asked, and what.
    pub(super) fn common(mut self, asked: &Asked<'_>) -> Result<Vec<u8>, TooLong> {
        self.raw("\"auth\":{");
        let mut shown = Shown::default();
        if let Some(token) = asked.operation.token.as_deref() {
            self.raw("\"client_token\":");
            shown.token = Some(self.written(|text| text.secret(token)));
            self.raw(",");
        }
        if let Some(bearer) = &asked.bearer {
            shown.accessor = Some(self.bearer(bearer));
        }
        self.raw("\"policy_results\":{\"allowed\":");
        self.raw(if asked.is_allowed { "true}}" } else { "false}}" });
        self.request(asked, shown)?;
        Ok(self.out)
    }

    /// Answers where the accessor stands.
    fn bearer(&mut self, bearer: &Bearer<'_>) -> Range<usize> {
        self.raw("\"accessor\":");
        let accessor = self.written(|text| text.accessor(bearer.accessor));
        self.raw(",\"display_name\":");
        self.plain(bearer.display_name);
        for name in [",\"policies\":", ",\"token_policies\":"] {
            self.raw(name);
            self.json(bearer.policies);
        }
        if !bearer.meta.is_empty() {
            self.raw(",\"metadata\":");
            self.json::<BTreeMap<String, String>>(bearer.meta);
        }
        self.raw(",\"entity_id\":\"\",\"token_type\":\"service\",\"token_issue_time\":");
        self.moment(bearer.issued);
        self.raw(",");
        accessor
    }

    fn request(&mut self, asked: &Asked<'_>, shown: Shown) -> Result<(), TooLong> {
        let operation = asked.operation;
        self.raw(",\"request\":{\"id\":\"");
        self.raw(&asked.id.to_string());
        self.raw("\",\"operation\":\"");
        self.raw(asked.verb);
        self.raw("\",\"mount_type\":");
        self.plain(asked.place.kind);
        self.raw(",\"mount_point\":");
        self.plain(asked.place.point);
        self.raw(",\"mount_accessor\":");
        self.plain(asked.place.accessor);
        for (name, place) in [(",\"client_token\":", shown.token), (",\"client_token_accessor\":", shown.accessor)] {
            if let Some(place) = place {
                self.raw(name);
                self.out.extend_from_within(place);
            }
        }
        self.raw(",\"namespace\":{\"id\":");
        self.plain(asked.namespace_id);
        if !operation.namespace.is_root() {
            self.raw(",\"path\":");
            self.plain(told(operation.namespace.as_str(), asked));
        }
        self.raw("},\"path\":");
        self.plain(told(&operation.path(), asked));
        if !asked.data.is_empty() {
            self.raw(",\"data\":");
            self.data(&asked.data, asked.place.clear_in_requests, Numbers::Hashed)?;
        }
        if let Some(ttl) = operation.wrap_ttl {
            self.raw(",\"wrap_ttl\":");
            self.json(&ttl.as_secs());
        }
        let peer = operation.caller.peer;
        self.raw(",\"wire\":\"");
        self.raw(operation.caller.wire.label());
        self.raw("\",\"peer\":{\"uid\":");
        self.json(&peer.uid);
        self.raw(",\"gid\":");
        self.json(&peer.gid);
        self.raw(",\"pid\":");
        self.json(&peer.pid);
        self.raw("}}");
        self.check()
    }

    /// The record of a request.
    pub(super) fn asked(mut self, common: &[u8], refused: Option<&Fault>) -> Result<Vec<u8>, TooLong> {
        self.begin("request", common);
        if let Some(fault) = refused {
            self.error(fault);
        }
        self.end()
    }

    /// The record that shows that a device can be written.
    pub(super) fn trial(mut self) -> Result<Vec<u8>, TooLong> {
        self.begin("request", b"\"auth\":{},\"request\":{\"operation\":\"update\",\"path\":\"sys/audit/test\",\"namespace\":{\"id\":\"root\"}}");
        self.end()
    }

    /// The record of an answer.
    pub(super) fn answered(
        mut self,
        common: &[u8],
        answered: &Answered<'_>,
        clear: &[String],
        verb: Option<Verb>,
    ) -> Result<Vec<u8>, TooLong> {
        self.begin("response", common);
        match answered {
            Answered::Fault(fault) => {
                self.error(fault);
                if let Some(reason) = unfit(fault) {
                    self.raw(",\"response\":{\"data\":{\"error\":");
                    self.value_of(reason.as_bytes());
                    self.raw("}}");
                }
            }
            Answered::Typed(data) => {
                self.raw(",\"response\":{\"data\":");
                self.data(data, clear, Numbers::Shown)?;
                self.raw("}");
            }
            Answered::Response(response) => self.response(response, clear, verb)?,
            Answered::Nobody => self.raw(",\"error\":\"the asker left before the answer\""),
        }
        self.end()
    }

    /// The record of an answer whose own would be too long.
    pub(super) fn answered_at_length(mut self, common: &[u8]) -> Result<Vec<u8>, TooLong> {
        self.begin("response", common);
        self.raw(",\"response\":{\"elided\":\"the answer is longer than a record may be\"}");
        self.end()
    }

    fn response(&mut self, response: &Response, clear: &[String], verb: Option<Verb>) -> Result<(), TooLong> {
        if let Response::Dated { response, .. } = response {
            return self.response(response, clear, verb);
        }
        self.raw(",\"response\":{");
        let warnings = match response {
            Response::Empty | Response::Dated { .. } => &[][..],
            Response::NotModified { .. } => {
                self.raw("\"data\":{\"http_status_code\":304}");
                &[]
            }
            Response::Data { data, warnings, .. } | Response::Failed { data, warnings, .. } => {
                self.answer_data(data, clear, verb)?;
                warnings
            }
            Response::Leased { data, warnings, lease } => {
                self.answer_data(data, clear, verb)?;
                self.raw(",\"secret\":{\"lease_id\":");
                self.plain(&lease.id);
                self.raw("}");
                warnings
            }
            Response::Accepted { warnings } => warnings,
            Response::Auth { auth, warnings } => {
                self.auth(auth);
                warnings
            }
            Response::Wrapped(info) => {
                self.wrapped(info);
                &[]
            }
            Response::Bare { status, body } => {
                self.raw("\"data\":{\"http_status_code\":");
                self.json(status);
                self.raw(",\"http_body\":");
                self.value(body, Numbers::Shown)?;
                self.raw("}");
                &[]
            }
            Response::Raw { content_type, body } => {
                self.raw("\"data\":{\"http_content_type\":");
                self.plain(content_type);
                self.raw(",\"http_raw_body\":");
                match std::str::from_utf8(body) {
                    Ok(text) => self.value_of(text.as_bytes()),
                    Err(_) => self.value_of(BASE64_STANDARD.encode(body).as_bytes()),
                }
                self.raw("}");
                &[]
            }
        };
        if !warnings.is_empty() {
            // They may say what was asked.
            self.raw(if self.out.ends_with(b"{") { "\"warnings\":" } else { ",\"warnings\":" });
            self.list(warnings.iter().map(String::as_bytes));
        }
        self.raw("}");
        self.check()
    }

    fn answer_data(&mut self, data: &Data, clear: &[String], verb: Option<Verb>) -> Result<(), TooLong> {
        self.raw("\"data\":");
        if !self.settings.elides_lists || verb != Some(Verb::List) {
            return self.data(data, clear, Numbers::Shown);
        }
        let count = |value: &Value| match value {
            Value::Array(items) => Some(items.len()),
            Value::Object(members) => Some(members.len()),
            _ => None,
        };
        let elided = data.iter().map(|(name, value)| {
            let is_list = ["keys", "key_info"].contains(&name.as_str());
            (name.clone(), count(value).filter(|_| is_list).map_or_else(|| value.clone(), Value::from))
        });
        self.data(&elided.collect(), clear, Numbers::Shown)
    }

    fn auth(&mut self, auth: &Auth) {
        self.raw("\"auth\":{\"client_token\":");
        self.secret(&auth.client_token);
        self.raw(",\"accessor\":");
        self.accessor(&auth.accessor);
        for name in [",\"policies\":", ",\"token_policies\":"] {
            self.raw(name);
            self.json(&auth.policies);
        }
        if !auth.metadata.is_empty() {
            self.raw(",\"metadata\":");
            self.json(&auth.metadata);
        }
        self.raw(",\"lease_duration\":");
        self.json(&auth.lease_duration);
        self.raw(",\"renewable\":");
        self.json(&auth.renewable);
        self.raw(",\"num_uses\":");
        self.json(&auth.num_uses);
        self.raw(",\"entity_id\":\"\",\"token_type\":\"service\"}");
    }

    fn wrapped(&mut self, info: &WrapInfo) {
        self.raw("\"wrap_info\":{\"token\":");
        self.secret(&info.token);
        self.raw(",\"accessor\":");
        self.accessor(&info.accessor);
        self.raw(",\"ttl\":");
        self.json(&info.ttl);
        self.raw(",\"creation_time\":");
        self.moment(info.creation_time);
        self.raw(",\"creation_path\":");
        self.plain(&info.creation_path);
        if !info.wrapped_accessor.is_empty() {
            self.raw(",\"wrapped_accessor\":");
            self.accessor(&info.wrapped_accessor);
        }
        self.raw("}");
    }

    fn begin(&mut self, kind: &str, common: &[u8]) {
        self.raw("{\"type\":\"");
        self.raw(kind);
        self.raw("\",\"time\":\"");
        self.raw(&UtcDateTime::now().format(&Rfc3339).unwrap_or_default());
        self.raw("\",");
        self.out.extend_from_slice(common);
    }

    fn end(mut self) -> Result<Vec<u8>, TooLong> {
        self.raw("}\n");
        self.check()?;
        Ok(self.out)
    }

    fn check(&self) -> Result<(), TooLong> {
        if self.out.len() > self.bytes_max { Err(TooLong) } else { Ok(()) }
    }

    /// What went wrong. Texts that may say what was asked are told by their kind alone.
    fn error(&mut self, fault: &Fault) {
        self.raw(",\"error\":");
        match unfit(fault) {
            Some(_) => self.plain(fault.label().as_str()),
            None => self.plain(&fault.to_string()),
        }
    }

    /// Data, with the values of the members named in `clear` as they are.
    fn data(&mut self, data: &Data, clear: &[String], numbers: Numbers) -> Result<(), TooLong> {
        self.raw("{");
        for (index, (name, value)) in data.iter().enumerate() {
            self.raw(if index == 0 { "" } else { "," });
            self.plain(name);
            self.raw(":");
            match clear.contains(name) {
                true => self.json(value),
                false => self.value(value, numbers)?,
            }
        }
        self.raw("}");
        self.check()
    }

    fn value(&mut self, value: &Value, numbers: Numbers) -> Result<(), TooLong> {
        match value {
            Value::String(text) => self.value_of(text.as_bytes()),
            Value::Number(number) if numbers == Numbers::Hashed => self.value_of(number.to_string().as_bytes()),
            Value::Array(items) => {
                self.raw("[");
                for (index, item) in items.iter().enumerate() {
                    self.raw(if index == 0 { "" } else { "," });
                    self.value(item, numbers)?;
                }
                self.raw("]");
            }
            Value::Object(members) => return self.data(members, &[], numbers),
            plain => self.json(plain),
        }
        self.check()
    }

    fn list<'t>(&mut self, texts: impl Iterator<Item = &'t [u8]>) {
        self.raw("[");
        for (index, text) in texts.enumerate() {
            self.raw(if index == 0 { "" } else { "," });
            self.value_of(text);
        }
        self.raw("]");
    }

    /// A value, or what stands for it.
    fn value_of(&mut self, value: &[u8]) {
        if self.settings.is_raw {
            return self.plain(&String::from_utf8_lossy(value));
        }
        self.out.push(b'"');
        self.hasher.write(&mut self.out, value);
        self.out.push(b'"');
    }

    /// A token. None is shown as none.
    fn secret(&mut self, token: &Secret) {
        match token.is_empty() {
            true => self.raw("\"\""),
            false => self.value_of(token.expose()),
        }
    }

    fn accessor(&mut self, accessor: &str) {
        match self.settings.hashes_accessors {
            true => self.value_of(accessor.as_bytes()),
            false => self.plain(accessor),
        }
    }

    /// Has something written, and answers where it stands now.
    fn written(&mut self, write: impl FnOnce(&mut Self)) -> Range<usize> {
        let begin = self.out.len();
        write(self);
        begin..self.out.len()
    }

    fn moment(&mut self, seconds: u64) {
        let moment = i64::try_from(seconds).ok().and_then(|seconds| UtcDateTime::from_unix_timestamp(seconds).ok());
        self.plain(&moment.and_then(|moment| moment.format(&Rfc3339).ok()).unwrap_or_default());
    }

    fn plain(&mut self, text: &str) {
        self.json(text);
    }

    fn json<T: serde::Serialize + ?Sized>(&mut self, value: &T) {
        // What is written into memory always can be, and none of this has keys that are no strings.
        let _ = serde_json::to_writer(&mut self.out, value);
    }

    fn raw(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }
}

/// The text of a fault that may say what was asked, as the client was told it.
fn unfit(fault: &Fault) -> Option<String> {
    match fault {
        Fault::InvalidRequest { .. }
        | Fault::NotDecrypted { .. }
        | Fault::NotSupported { .. }
        | Fault::TooLarge { .. }
        | Fault::NotFound { .. } => Some(fault.to_string()),
        _ => None,
    }
}
