//! What AWS KMS says when it does not do something (JSON 1.1).

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::keys;
use crate::server::Response;

/// An error: its status, its name, and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Error {
    pub(super) status: u16,
    pub(super) code: String,
    message: String,
}

impl Error {
    pub(super) fn new(status: u16, code: &str, message: impl Into<String>) -> Error {
        Error { status, code: code.into(), message: message.into() }
    }

    pub(super) fn bad(code: &str, message: impl Into<String>) -> Error {
        Error::new(400, code, message)
    }

    pub(super) fn throttled() -> Error {
        let message = "You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls.";
        Error::bad("ThrottlingException", message)
    }

    pub(super) fn not_found(key: &str) -> Error {
        Error::bad("NotFoundException", format!("Key '{key}' does not exist"))
    }

    pub(super) fn disabled(key: &str) -> Error {
        Error::bad("DisabledException", format!("{key} is disabled."))
    }

    pub(super) fn pending_deletion(key: &str) -> Error {
        Error::bad("KMSInvalidStateException", format!("{key} is pending deletion."))
    }

    pub(super) fn denied(operation: &str, key: &str) -> Error {
        let message = format!(
            "User: arn:aws:iam::000000000000:user/test is not authorized to perform: kms:{operation} on resource: {key} \
             because no identity-based policy allows the kms:{operation} action"
        );
        Error::bad("AccessDeniedException", message)
    }

    pub(super) fn validation(message: impl Into<String>) -> Error {
        Error::bad("ValidationException", message)
    }

    /// What was ordered, in the service's words.
    pub(super) fn ordered(status: u16, code: Option<&str>) -> Error {
        let usual = match status {
            400 => "ValidationException",
            403 => "AccessDeniedException",
            503 => "ServiceUnavailableException",
            504 => "DependencyTimeoutException",
            _ => "KMSInternalException",
        };
        Error::new(status, code.unwrap_or(usual), "The request could not be processed.")
    }

    pub(super) fn response(&self) -> Response {
        let body = json!({"__type": self.code, "message": self.message});
        answer(self.status, "application/x-amz-json-1.1", body.to_string())
    }
}

impl From<keys::Error> for Error {
    fn from(error: keys::Error) -> Error {
        match error {
            keys::Error::Unsupported => Error::bad("InvalidKeyUsageException", "The key does not do that."),
            keys::Error::Input(what) => Error::validation(what),
            keys::Error::Internal => Error::new(500, "KMSInternalException", "An internal failure."),
        }
    }
}

/// An answer that went well.
pub(super) fn good(body: &Value) -> Response {
    answer(200, "application/x-amz-json-1.1", body.to_string())
}

/// An answer, with the number that each has.
pub(super) fn answer(status: u16, kind: &'static str, body: String) -> Response {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    let number = keys::random(16).map(|bytes| hex(&bytes)).unwrap_or_default();
    if let Ok(number) = HeaderValue::from_str(&number) {
        response.headers_mut().insert(HeaderName::from_static("x-amzn-requestid"), number);
    }
    response
}

/// Bytes in lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |text, byte| text + &format!("{byte:02x}"))
}
