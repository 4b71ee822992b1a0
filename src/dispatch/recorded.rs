//! What audit devices are told of an operation and of what came of it: before it runs, and before its answer leaves.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::Value;

use super::{Considered, Dispatch, typed};
use crate::apart;
use crate::audit::{Answered, Asked, Bearer, Place, Recorder, Recording, Taken};
use crate::identity::Token;
use crate::model::{
    Body, Capability, Data, Fault, Marshaling, Mount, Namespace, Operation, Outcome, RequestId, Response,
};

/// What a worker forms a record of by itself: about 500 us' work. A string counts as much as so many bytes as its HMAC costs.
const SHORT: usize = 128 << 10;
/// What is recorded of requests without a token: what the paths for anyone read.
const OF_STRANGERS: [&str; 3] = ["role", "token", "http_raw_body"];
/// What a string costs beside its bytes.
const STRING: usize = 128;

/// An operation, and what its records tell beside it.
pub(super) struct Subject {
    operation: Operation,
    id: RequestId,
    pub(super) token: Option<Arc<Token>>,
    mount: Option<Arc<Mount>>,
    namespace_id: String,
    refused: Option<Fault>,
    /// Whether policies let it.
    is_allowed: bool,
}

impl Dispatch {
    /// Runs an operation that is recorded.
    pub(super) async fn run_recorded(
        &self,
        recorder: Recorder,
        operation: Operation,
        considered: Result<Considered, Fault>,
    ) -> Result<Outcome, Fault> {
        let deadline = operation.deadline.instant();
        let marshaling = match &operation.body {
            Body::Sign(request) => request.marshaling,
            _ => Marshaling::Asn1,
        };
        let subject = self.subject(operation, considered.as_ref().err().or_else(|| refusal(&considered)).cloned());
        let (subject, begun) = record(subject, recorder).await?;
        let (recording, taken) = begun?;
        if let Err(why) = taken.by(Some(deadline)).await {
            let fault = self.not_begun(&subject, why);
            // Where it can still be told, it is; nobody waits for it.
            drop(recording.answer(&Answered::Fault(&fault)));
            return Err(fault);
        }
        let (is_run, namespace) = (subject.refused.is_none(), subject.operation.namespace.clone());
        // While it was recorded, its token may have ended.
        let asked = &subject.operation;
        let is_over = match &subject.token {
            Some(_) => self.identity.token(&asked.caller, &asked.namespace).is_err(),
            None => subject.refused.is_some(),
        };
        // And the daemon may have been sealed.
        self.audit.check_on()?;
        let result = match considered {
            Ok(_) if is_over => Err(Fault::PermissionDenied),
            Ok(considered) => self.carry_out(subject.operation, considered).await,
            Err(fault) => Err(fault),
        };
        let (result, taken) = record_answer(&namespace, recording, result, marshaling).await?;
        if let Err(why) = taken.by(None).await {
            self.audit.count_unrecorded();
            return Err(Fault::Unrecorded { why, done: is_run && may_be_done(&result) });
        }
        result
    }

    /// Why a request is not begun that no device has recorded.
    fn not_begun(&self, subject: &Subject, why: String) -> Fault {
        if Instant::now() >= subject.operation.deadline.instant() {
            return Fault::DeadlineExceeded { stage: "queued" };
        }
        self.audit.count_unrecorded();
        // Strangers are answered alike, and learn nothing of the devices.
        let why = if subject.token.is_some() { why } else { "no audit device takes it".to_owned() };
        Fault::Unrecorded { why, done: false }
    }

    pub(super) fn subject(&self, operation: Operation, refused: Option<Fault>) -> Subject {
        let id = operation.id.unwrap_or_else(|| RequestId(uuid::Uuid::new_v4().into_bytes()));
        let token = self.identity.token(&operation.caller, &operation.namespace).ok();
        // A token that ended since it was judged refuses it: nothing is done that would be recorded as nobody's.
        let is_of_nobody = token.is_none() && !self.is_public(&operation);
        let refused = refused.or_else(|| is_of_nobody.then_some(Fault::PermissionDenied));
        Subject {
            id,
            token,
            mount: self.namespaces.route(&operation.namespace, &operation.path()).map(|(mount, _)| mount),
            namespace_id: self.namespaces.id(&operation.namespace),
            is_allowed: !matches!(refused, Some(Fault::PermissionDenied | Fault::TokenRefused { .. })),
            refused,
            operation,
        }
    }
}

impl Subject {
    /// The same, of what no policy was asked about.
    pub(super) fn unjudged(self) -> Subject {
        Subject { is_allowed: false, ..self }
    }

    pub(super) fn record(&self, recorder: Recorder) -> Result<(Recording, Taken), Fault> {
        let operation = &self.operation;
        let path = operation.path();
        let place = match &self.mount {
            Some(mount) => Place {
                kind: &mount.engine,
                point: &mount.path,
                accessor: &mount.accessor,
                clear_in_requests: &mount.config.audit_non_hmac_request_keys,
                clear_in_answers: &mount.config.audit_non_hmac_response_keys,
            },
            None if path.starts_with("sys/") => Place { kind: "system", point: "sys/", ..Place::default() },
            None if path.starts_with("auth/token/") => {
                Place { kind: "token", point: "auth/token/", ..Place::default() }
            }
            None if path.starts_with("auth/unix/") => Place { kind: "unix", point: "auth/unix/", ..Place::default() },
            None => Place::default(),
        };
        let bearer = self.token.as_deref().map(|token| Bearer {
            accessor: &token.accessor,
            display_name: &token.display_name,
            policies: &token.policies,
            meta: &token.meta,
            issued: token.creation_time,
        });
        recorder.request(&Asked {
            id: self.id,
            operation,
            verb: verb(operation.capability()),
            data: self.data(),
            bearer,
            place,
            namespace_id: &self.namespace_id,
            is_allowed: self.is_allowed,
            refused: self.refused.as_ref(),
        })
    }

    /// What it says. Of strangers who are refused, nothing, and of others little: they would fill the disk with what they please.
    /// Names of members are told as they are, so that none of theirs are.
    fn data(&self) -> Cow<'_, Data> {
        let said = data(&self.operation.body);
        if self.token.is_some() {
            return said;
        }
        let known = said.iter().filter(|(name, value)| {
            let is_one = !value.is_object() && !value.is_array();
            self.refused.is_none() && is_one && OF_STRANGERS.contains(&name.as_str())
        });
        Cow::Owned(known.map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    fn is_strangers(&self) -> bool {
        self.token.is_none() && self.refused.is_some()
    }

    fn is_long(&self) -> bool {
        if self.is_strangers() {
            return false;
        }
        let mut left = SHORT;
        let fits = match &self.operation.body {
            Body::Request(request) => spend(&mut left, request.raw.len()) && weigh_data(&request.data, &mut left),
            Body::Sign(request) => spend(&mut left, request.input.len()),
            Body::Verify(request) => spend(&mut left, request.signed.input.len()),
            Body::Encrypt(request) => spend(&mut left, request.plaintext.expose().len()),
            Body::Decrypt(request) => spend(&mut left, request.ciphertext.len()),
            Body::Mac(request) => spend(&mut left, request.input.expose().len()),
            Body::SignCertificate(request) => weigh_data(&request.data, &mut left),
            Body::SignCertificates(request) => request.csrs.iter().all(|csr| spend(&mut left, STRING + csr.len())),
        };
        !fits
    }
}

/// Forms the record of a request: a long one on a thread that nobody else waits for.
async fn record(subject: Subject, recorder: Recorder) -> Result<(Subject, Result<(Recording, Taken), Fault>), Fault> {
    if !subject.is_long() {
        let begun = subject.record(recorder);
        return Ok((subject, begun));
    }
    let namespace = subject.operation.namespace.clone();
    let formed = apart::run(&namespace, move || {
        let begun = subject.record(recorder);
        (subject, begun)
    });
    formed.await
}

/// Forms the record of an answer, likewise.
async fn record_answer(
    namespace: &Namespace,
    recording: Recording,
    result: Result<Outcome, Fault>,
    marshaling: Marshaling,
) -> Result<(Result<Outcome, Fault>, Taken), Fault> {
    if !result.as_ref().is_ok_and(is_long_answer) {
        let taken = answer(recording, &result, marshaling);
        return Ok((result, taken));
    }
    let formed = apart::run(namespace, move || {
        let taken = answer(recording, &result, marshaling);
        (result, taken)
    });
    formed.await
}

fn answer(recording: Recording, result: &Result<Outcome, Fault>, marshaling: Marshaling) -> Taken {
    match result {
        Ok(Outcome::Response(response)) => recording.answer(&Answered::Response(response)),
        Ok(outcome) => recording.answer(&Answered::Typed(&typed::answer(outcome, marshaling))),
        Err(fault) => recording.answer(&Answered::Fault(fault)),
    }
}

fn is_long_answer(outcome: &Outcome) -> bool {
    let mut left = SHORT;
    let fits = match outcome {
        Outcome::Response(response) => match response {
            Response::Data { data, .. } | Response::Failed { data, .. } | Response::Leased { data, .. } => {
                weigh_data(data, &mut left)
            }
            Response::Bare { body, .. } => weigh(body, &mut left),
            Response::Raw { body, .. } => spend(&mut left, body.len()),
            // What has a date is made of DER or PEM.
            Response::Dated { .. } => false,
            _ => true,
        },
        Outcome::Plaintext(plaintext) => spend(&mut left, plaintext.expose().len()),
        Outcome::Ciphertext { ciphertext, .. } => spend(&mut left, ciphertext.len()),
        Outcome::Certificates { results, .. } => spend(&mut left, results.len() * 8 * STRING),
        _ => true,
    };
    !fits
}

/// Takes so much of what is left. False if that is too little.
fn spend(left: &mut usize, bytes: usize) -> bool {
    match left.checked_sub(bytes) {
        Some(rest) => *left = rest,
        None => return false,
    }
    true
}

fn weigh_data(data: &Data, left: &mut usize) -> bool {
    data.iter().all(|(name, value)| spend(left, name.len()) && weigh(value, left))
}

fn weigh(value: &Value, left: &mut usize) -> bool {
    match value {
        Value::String(text) => spend(left, STRING + text.len()),
        Value::Array(items) => items.iter().all(|item| weigh(item, left)),
        Value::Object(members) => weigh_data(members, left),
        _ => spend(left, STRING),
    }
}

/// What an operation says, as its form over HTTP would.
fn data(body: &Body) -> Cow<'_, Data> {
    match body {
        Body::Request(request) if request.raw.is_empty() => Cow::Borrowed(&request.data),
        Body::Request(request) => {
            let mut data = request.data.clone();
            data.insert("http_raw_body".into(), BASE64_STANDARD.encode(&request.raw).into());
            Cow::Owned(data)
        }
        typed => Cow::Owned(typed::fields(typed)),
    }
}

const fn verb(capability: Capability) -> &'static str {
    match capability {
        Capability::Create => "create",
        Capability::Read => "read",
        Capability::Update => "update",
        Capability::Patch => "patch",
        Capability::Delete => "delete",
        Capability::List => "list",
    }
}

fn refusal(considered: &Result<Considered, Fault>) -> Option<&Fault> {
    considered.as_ref().ok().and_then(|considered| considered.allowed.as_ref().err())
}

/// Whether what was asked may have been done.
const fn may_be_done(result: &Result<Outcome, Fault>) -> bool {
    !matches!(
        result,
        Err(Fault::InvalidRequest { .. }
            | Fault::NotDecrypted { .. }
            | Fault::TooLarge { .. }
            | Fault::NotSupported { .. }
            | Fault::UnsupportedOperation
            | Fault::PermissionDenied
            | Fault::TokenRefused { .. }
            | Fault::NotFound { .. }
            | Fault::QuotaExceeded { .. }
            | Fault::Overloaded { .. })
    )
}
