//! Vault's JSON envelope, and the one place that turns a [`Fault`] into an HTTP answer.

use bytes::Bytes;
use serde_json::{Value, json};

use super::auth::{auth_body, wrap_body};
use super::from_model::json as to_bytes;
use crate::model::{Fault, RequestId, Response};

/// The media type of the envelope.
pub const JSON: &str = "application/json";

/// An answer as HTTP carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// HTTP status.
    pub status: u16,
    /// Media type; empty with an empty body.
    pub content_type: &'static str,
    /// The body.
    pub body: Bytes,
    /// `Retry-After` in seconds.
    pub retry_after: Option<u64>,
}

/// A response in its envelope, that of the request called `id`.
pub fn render(response: Response, id: RequestId) -> Rendered {
    match response {
        Response::Empty => Rendered { status: 204, content_type: "", body: Bytes::new(), retry_after: None },
        Response::Data { data, warnings, mirrored } => {
            let mut envelope = envelope(id, warnings);
            if mirrored && let Some(top) = envelope.as_object_mut() {
                // Vault repeats the members of data beside it on a few paths; its own members win.
                for (name, value) in &data {
                    top.entry(name.clone()).or_insert_with(|| value.clone());
                }
            }
            envelope["data"] = Value::Object(data);
            Rendered { status: 200, content_type: JSON, body: to_bytes(&envelope), retry_after: None }
        }
        Response::Accepted { warnings } => {
            let body = to_bytes(&envelope(id, warnings));
            Rendered { status: 202, content_type: JSON, body, retry_after: None }
        }
        Response::Leased { data, warnings, lease } => {
            let mut envelope = envelope(id, warnings);
            envelope["lease_id"] = lease.id.into();
            envelope["lease_duration"] = lease.duration.into();
            envelope["data"] = Value::Object(data);
            Rendered { status: 200, content_type: JSON, body: to_bytes(&envelope), retry_after: None }
        }
        Response::Auth { auth, warnings } => {
            Rendered { status: 200, content_type: JSON, body: auth_body(id, &auth, &warnings), retry_after: None }
        }
        Response::Wrapped(info) => {
            Rendered { status: 200, content_type: JSON, body: wrap_body(id, &info), retry_after: None }
        }
        Response::Failed { status, data, warnings } => {
            let mut envelope = envelope(id, warnings);
            envelope["data"] = Value::Object(data);
            Rendered { status, content_type: JSON, body: to_bytes(&envelope), retry_after: None }
        }
        Response::Bare { status, body } => {
            Rendered { status, content_type: JSON, body: to_bytes(&body), retry_after: None }
        }
        Response::Raw { content_type, body } => {
            let (status, content_type) = if body.is_empty() { (204, "") } else { (200, content_type) };
            Rendered { status, content_type, body, retry_after: None }
        }
        Response::Dated { response, .. } => render(*response, id),
        Response::NotModified { .. } => {
            Rendered { status: 304, content_type: "", body: Bytes::new(), retry_after: None }
        }
    }
}

fn envelope(id: RequestId, warnings: Vec<String>) -> Value {
    json!({
        "request_id": id.to_string(),
        "lease_id": "",
        "renewable": false,
        "lease_duration": 0,
        "data": null,
        "wrap_info": null,
        "warnings": if warnings.is_empty() { Value::Null } else { warnings.into() },
        "auth": null,
    })
}

/// HTTP's status for a fault.
pub fn status(fault: &Fault) -> u16 {
    match fault {
        Fault::Overloaded { .. }
        | Fault::Unavailable { .. }
        | Fault::Locked { .. }
        | Fault::Sealed
        | Fault::NotInitialized => 503,
        Fault::QuotaExceeded { .. } => 429,
        Fault::DeadlineExceeded { .. } => 504,
        Fault::InvalidRequest { .. } | Fault::NotDecrypted { .. } | Fault::NotSupported { .. } => 400,
        Fault::TooLarge { .. } => 413,
        Fault::PermissionDenied | Fault::TokenRefused { .. } => 403,
        Fault::NotFound { .. } => 404,
        Fault::UnsupportedOperation => 405,
        Fault::KeyUnavailable { .. }
        | Fault::DeviceError { .. }
        | Fault::DeviceStuck { .. }
        | Fault::CredentialsRefused { .. }
        | Fault::KeyMismatch { .. }
        | Fault::Unrecorded { .. }
        | Fault::Internal { .. } => 500,
    }
}

/// A fault as HTTP answers it: `{"errors": [...]}`.
pub fn render_fault(fault: &Fault) -> Rendered {
    let status = status(fault);
    let errors: Vec<String> = match fault {
        Fault::NotFound { what } if what.is_empty() => Vec::new(),
        // Vault's form of an error that is nobody's request's fault.
        _ if status == 500 => vec![format!("1 error occurred:\n\t* {fault}\n\n")],
        _ => vec![fault.to_string()],
    };
    Rendered {
        status,
        content_type: JSON,
        body: to_bytes(&json!({ "errors": errors })),
        retry_after: fault.retry_after().map(|after| after.as_secs().max(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Data;

    const ID: RequestId = RequestId([7; 16]);

    fn body(rendered: &Rendered) -> Value {
        serde_json::from_slice(&rendered.body).expect("JSON")
    }

    #[test]
    fn data_sits_in_the_envelope_and_on_some_paths_beside_it() {
        let mut data = Data::new();
        data.insert("pki/".into(), json!({"type": "pki"}));
        let mirrored = render(Response::Data { data: data.clone(), warnings: vec!["w".into()], mirrored: true }, ID);
        let body_mirrored = body(&mirrored);
        assert_eq!(body_mirrored["data"]["pki/"], body_mirrored["pki/"]);
        assert_eq!(body_mirrored["warnings"], json!(["w"]));
        let plain = body(&render(Response::data(data), ID));
        assert!(plain.get("pki/").is_none());
        assert_eq!(plain["warnings"], Value::Null);
        assert_eq!(plain["lease_id"], "");
        assert_eq!(plain["request_id"], ID.to_string());
    }

    #[test]
    fn absent_things_have_no_error_text_and_device_errors_vaults_form() {
        let absent = render_fault(&Fault::absent());
        assert_eq!((absent.status, body(&absent)), (404, json!({"errors": []})));
        let device = render_fault(&Fault::DeviceError { what: "C_Sign: CKR_DEVICE_ERROR (0x30)".into() });
        let text = "1 error occurred:\n\t* device error: C_Sign: CKR_DEVICE_ERROR (0x30)\n\n";
        assert_eq!((device.status, body(&device)), (500, json!({"errors": [text]})));
        let busy = render_fault(&Fault::Unavailable { what: "x".into() });
        assert_eq!((busy.status, busy.retry_after), (503, Some(1)));
    }

    #[test]
    fn nothing_to_say_is_no_content() {
        assert_eq!(render(Response::Empty, ID).status, 204);
        let begun = render(Response::Accepted { warnings: vec!["w".into()] }, ID);
        assert_eq!(
            (begun.status, &body(&begun)["data"], &body(&begun)["warnings"]),
            (202, &Value::Null, &json!(["w"]))
        );
        assert_eq!(render(Response::Raw { content_type: "application/pkix-crl", body: Bytes::new() }, ID).status, 204);
    }
}
