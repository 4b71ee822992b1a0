//! Errors in Azure's words and its JSON.

use serde_json::{Value, json};

use crate::keys;
use crate::server::{self, Response};

/// Why a request is not done.
#[derive(Debug, PartialEq)]
pub(super) struct Error {
    pub(super) status: u16,
    code: String,
    /// The narrower code, where there is one.
    inner: Option<&'static str>,
    pub(super) message: String,
    /// Those of the token service have another form.
    by_authority: bool,
}

impl Error {
    pub(super) fn new(status: u16, code: &str, message: impl Into<String>) -> Error {
        Error { status, code: code.into(), inner: None, message: message.into(), by_authority: false }
    }

    pub(super) fn bad(message: impl Into<String>) -> Error {
        Error::new(400, "BadParameter", message)
    }

    fn forbidden(inner: &'static str, message: String) -> Error {
        Error { inner: Some(inner), ..Error::new(403, "Forbidden", message) }
    }

    pub(super) fn unauthorized(message: impl Into<String>) -> Error {
        Error::new(401, "Unauthorized", message)
    }

    /// One of the token service.
    pub(super) fn of_authority(status: u16, code: &str, message: impl Into<String>) -> Error {
        Error { by_authority: true, ..Error::new(status, code, message) }
    }

    pub(super) fn not_found(name: &str) -> Error {
        Error::new(
            404,
            "KeyNotFound",
            format!(
                "A key with (name/id) {name} was not found in this key vault. If you recently deleted this key you may be \
                 able to recover it using the correct recovery command. For help resolving this issue, please see \
                 https://go.microsoft.com/fwlink/?linkid=2125182"
            ),
        )
    }

    pub(super) fn deleted_not_found(name: &str) -> Error {
        Error::new(404, "KeyNotFound", format!("Deleted Key not found: {name}"))
    }

    pub(super) fn name_in_use(name: &str) -> Error {
        Error {
            inner: Some("ObjectIsDeletedButRecoverable"),
            ..Error::new(
                409,
                "Conflict",
                format!(
                    "Key {name} is currently in a deleted but recoverable state, and its name cannot be reused; in this \
                     state, the key can only be recovered or purged."
                ),
            )
        }
    }

    pub(super) fn disabled(operation: &str) -> Error {
        Error::forbidden("KeyDisabled", format!("Operation {operation} is not allowed on a disabled key."))
    }

    pub(super) fn expired(operation: &str) -> Error {
        Error::forbidden("KeyExpired", format!("Operation {operation} is not allowed on an expired key."))
    }

    pub(super) fn not_yet_valid(operation: &str) -> Error {
        Error::forbidden("KeyNotYetValid", format!("Operation {operation} is not allowed on a not yet valid key."))
    }

    pub(super) fn not_permitted(operation: &str) -> Error {
        Error::forbidden("KeyOperationForbidden", format!("Operation {operation} is not permitted on this key."))
    }

    pub(super) fn revoked(operation: &str) -> Error {
        Error::forbidden(
            "ForbiddenByRbac",
            format!(
                "Caller is not authorized to perform action on resource.\r\nIf role assignments, deny assignments or role \
                 definitions were changed recently, please observe propagation time.\r\nAction: \
                 'Microsoft.KeyVault/vaults/keys/{operation}/action'\r\nAssignment: (not found)\r\nDecisionReason: 'DeniedWithNoValidRBAC'"
            ),
        )
    }

    pub(super) fn throttled() -> Error {
        Error::new(
            429,
            "Throttled",
            "Request was not processed because too many requests were received. Reason: VaultRequestTypeLimitReached",
        )
    }

    /// One that a fault ordered.
    pub(super) fn ordered(status: u16, code: Option<&str>) -> Error {
        let usual = match status {
            400 => "BadParameter",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "KeyNotFound",
            409 => "Conflict",
            429 => "Throttled",
            502 => "BadGateway",
            503 => "ServiceUnavailable",
            504 => "GatewayTimeout",
            _ => "InternalServerError",
        };
        Error::new(status, code.unwrap_or(usual), "The request was refused, as was ordered.")
    }

    pub(super) fn response(&self) -> Response {
        server::json(self.status, &self.body())
    }

    fn body(&self) -> Value {
        if self.by_authority {
            return json!({"error": self.code, "error_description": self.message, "error_codes": [], "trace_id": "0"});
        }
        let mut error = json!({"code": self.code, "message": self.message});
        if let Some(inner) = self.inner {
            error["innererror"] = json!({"code": inner});
        }
        json!({"error": error})
    }
}

impl From<keys::Error> for Error {
    fn from(error: keys::Error) -> Error {
        match error {
            keys::Error::Unsupported => Error::bad("The operation is not supported for this key."),
            keys::Error::Input(what) => Error::bad(format!("The input cannot be used: {what}.")),
            keys::Error::Internal => Error::new(500, "InternalServerError", "The cryptography failed."),
        }
    }
}
