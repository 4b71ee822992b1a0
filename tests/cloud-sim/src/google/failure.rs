//! What went wrong, in Google's words and shape.

use serde_json::{Value, json};

use crate::server::{self, Response};

/// Google's canonical codes, as far as the service uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    InvalidArgument,
    FailedPrecondition,
    Unauthenticated,
    PermissionDenied,
    NotFound,
    AlreadyExists,
    ResourceExhausted,
    Internal,
    Unimplemented,
    Unavailable,
    DeadlineExceeded,
}

const CODES: &[(Code, u16, &str)] = &[
    // The first of a status is the one that is meant where only the status is known.
    (Code::InvalidArgument, 400, "INVALID_ARGUMENT"),
    (Code::FailedPrecondition, 400, "FAILED_PRECONDITION"),
    (Code::Unauthenticated, 401, "UNAUTHENTICATED"),
    (Code::PermissionDenied, 403, "PERMISSION_DENIED"),
    (Code::NotFound, 404, "NOT_FOUND"),
    (Code::AlreadyExists, 409, "ALREADY_EXISTS"),
    (Code::ResourceExhausted, 429, "RESOURCE_EXHAUSTED"),
    (Code::Internal, 500, "INTERNAL"),
    (Code::Unimplemented, 501, "UNIMPLEMENTED"),
    (Code::Unavailable, 503, "UNAVAILABLE"),
    (Code::DeadlineExceeded, 504, "DEADLINE_EXCEEDED"),
];

impl Code {
    /// The HTTP status and Google's name.
    fn words(self) -> (u16, &'static str) {
        CODES.iter().find(|(code, ..)| *code == self).map_or((500, "INTERNAL"), |(_, status, name)| (*status, *name))
    }

    /// The code of a name.
    pub(super) fn named(name: &str) -> Option<Code> {
        CODES.iter().find(|(.., known)| *known == name).map(|(code, ..)| *code)
    }

    /// The code of an HTTP status.
    pub(super) fn of_status(status: u16) -> Code {
        CODES.iter().find(|(_, known, _)| *known == status).map_or(Code::Internal, |(code, ..)| *code)
    }
}

/// An error as the service sends it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failure {
    code: Code,
    /// Another status than the code's.
    status: Option<u16>,
    message: String,
    details: Vec<Value>,
}

impl Failure {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Failure {
        Failure { code, status: None, message: message.into(), details: Vec::new() }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Failure {
        Failure::new(Code::InvalidArgument, message)
    }

    pub(super) fn not_found(what: &str, name: &str) -> Failure {
        Failure::new(Code::NotFound, format!("{what} {name} not found."))
    }

    pub(super) fn internal() -> Failure {
        Failure::new(Code::Internal, "Internal error encountered.")
    }

    /// A precondition that a resource does not meet.
    pub(super) fn precondition(message: impl Into<String>, violation: &str, subject: &str) -> Failure {
        let details = json!({
            "@type": "type.googleapis.com/google.rpc.PreconditionFailure",
            "violations": [{"type": violation, "subject": subject}],
        });
        Failure { details: vec![details], ..Failure::new(Code::FailedPrecondition, message) }
    }

    /// With the machine's reason.
    pub(super) fn because(mut self, reason: &str, domain: &str, metadata: Value) -> Failure {
        self.details.push(json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": reason,
            "domain": domain,
            "metadata": metadata,
        }));
        self
    }

    /// With this status, whatever the code's is.
    pub(super) fn with_status(mut self, status: u16) -> Failure {
        self.status = Some(status);
        self
    }

    /// The permission that the caller lacks.
    pub(super) fn denied(permission: &str, resource: &str) -> Failure {
        let message = format!("Permission '{permission}' denied on resource '{resource}' (or it may not exist).");
        let metadata = json!({"permission": permission, "resource": resource});
        let domain = "cloudkms.googleapis.com";
        Failure::new(Code::PermissionDenied, message).because("IAM_PERMISSION_DENIED", domain, metadata)
    }

    pub(super) fn response(&self) -> Response {
        let (status, name) = self.code.words();
        let status = self.status.unwrap_or(status);
        let mut error = json!({"code": status, "message": self.message, "status": name});
        if !self.details.is_empty() {
            error["details"] = json!(self.details);
        }
        server::json(status, &json!({"error": error}))
    }
}

/// A refusal of the endpoints of tokens, whose errors are OAuth's.
pub(super) fn oauth(status: u16, error: &str, description: &str) -> Response {
    server::json(status, &json!({"error": error, "error_description": description}))
}
