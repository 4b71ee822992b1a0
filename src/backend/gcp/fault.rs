//! The service's errors, classed once: what the asker is told, and what becomes of the key.

use std::error::Error as StdError;
use std::time::Duration;

use google_cloud_gax::error::Error;
use google_cloud_gax::error::rpc::{Code, Status, StatusDetails};

use crate::backend::cloud::{
    NO_CREDENTIALS, TIMEOUT, Undelivered, ill, ill_until, innermost, shown, throttled, without_words,
};
use crate::backend::{BackendError, Fate};
use crate::model::Fault;

/// An error of `call` on the key called `title`.
pub(super) fn of(call: &str, title: &str, error: &Error) -> BackendError {
    if let Some(status) = error.status() {
        // A code that Google's client does not find, as in the older form of such answers, and a gateway's, is `Unknown` to it.
        return match error.http_status_code() {
            Some(http @ ..=499) if status.code == Code::Unknown => without_words(title, call, http, retry_after(error)),
            _ => of_status(call, title, status, retry_after(error)),
        };
    }
    if error.is_authentication() {
        let what = format!("{title}: {call}: no credentials: {}", innermost(error));
        return if is_transient(error) { ill(NO_CREDENTIALS, what) } else { refused(NO_CREDENTIALS, what) };
    }
    if error.is_timeout() {
        return ill(TIMEOUT, format!("{title}: {call}: no answer in time"));
    }
    if error.is_io() {
        let cause = Undelivered::among(error).map_or("connection", Undelivered::cause);
        return ill(cause, format!("{title}: {call}: the service cannot be reached: {}", innermost(error)));
    }
    if let Some(status) = error.http_status_code() {
        return without_words(title, call, status, retry_after(error));
    }
    if error.is_binding() || error.is_serialization() {
        let what = format!("{title}: {call}: the request could not be made: {}", innermost(error));
        return BackendError::keep(Fault::invalid(what));
    }
    ill("unreadable_answer", format!("{title}: {call}: an answer that cannot be read: {}", innermost(error)))
}

fn of_status(call: &str, title: &str, status: &Status, retry_after: Option<Duration>) -> BackendError {
    let said = |advice: &str| {
        let name = status.code.name();
        let mut what = format!("{title}: {call}: {name}");
        for more in [&*shown(&status.message), advice].into_iter().filter(|more| !more.is_empty()) {
            what.push_str(": ");
            what.push_str(more.trim_end_matches('.'));
        }
        what
    };
    match status.code {
        Code::ResourceExhausted => throttled(said(""), retry_after),
        // The code that Google's API has for 503.
        Code::Unavailable => ill_until("service_error", said(""), 503, retry_after),
        Code::Internal | Code::Unknown | Code::DataLoss | Code::Aborted | Code::Cancelled => {
            ill("service_error", said(""))
        }
        Code::DeadlineExceeded => ill(TIMEOUT, said("")),
        // Looked up anew, the key says for good what is the matter, and is tried again with pauses.
        Code::FailedPrecondition => {
            let (cause, advice) = precondition(status);
            BackendError { fault: Fault::Unavailable { what: said(advice) }, fate: Fate::FindAgain, cause }
        }
        Code::NotFound => absent(said("register another key, or restore it")),
        Code::PermissionDenied => refused("access_denied", said("grant it to the account in IAM")),
        Code::Unauthenticated => refused("credentials_refused", said("correct credentials, or set this host's clock")),
        Code::AlreadyExists => keep(Fault::invalid(said("")), "already_exists"),
        Code::Unimplemented => keep(Fault::NotSupported { what: said("") }, "not_supported"),
        // It has no word of its own for a ciphertext of another key, nor for one that was damaged on the way.
        Code::InvalidArgument if OPENS.contains(&call) => keep(Fault::not_decrypted(said("")), "not_decrypted"),
        _ => keep(Fault::invalid(said("")), "invalid_request"),
    }
}

/// The calls that decrypt.
const OPENS: &[&str] = &["Decrypt", "RawDecrypt", "AsymmetricDecrypt"];

/// What is the matter with a key, and what to do about it.
fn precondition(status: &Status) -> (&'static str, &'static str) {
    let violations = status.details.iter().filter_map(|detail| match detail {
        StatusDetails::PreconditionFailure(failure) => Some(&failure.violations),
        _ => None,
    });
    for violation in violations.flatten() {
        match violation.r#type.as_str() {
            "KEY_DISABLED" => return ("key_state", "enable the key's version"),
            "KEY_DESTROYED" => return ("key_state", "register another version"),
            "KEY_DESTROY_SCHEDULED" => return ("key_state", "restore the key's version"),
            "KEY_PENDING_GENERATION" => return ("key_state", "wait until the service has made it"),
            _ => {}
        }
    }
    ("key_state", "")
}

fn keep(fault: Fault, cause: &'static str) -> BackendError {
    BackendError { fault, fate: Fate::Keep, cause }
}

fn absent(what: String) -> BackendError {
    BackendError { fault: Fault::Unavailable { what }, fate: Fate::FindAgain, cause: "not_found" }
}

/// Whether it says that there is no such key.
pub(super) fn is_absent(error: &BackendError) -> bool {
    error.cause == "not_found"
}

fn refused(cause: &'static str, what: String) -> BackendError {
    BackendError { fault: Fault::CredentialsRefused { what }, fate: Fate::FindAgain, cause }
}

/// Whether the token was refused, and another may not be.
pub(super) fn is_about_the_token(error: &Error) -> bool {
    error.status().is_some_and(|status| status.code == Code::Unauthenticated) || error.http_status_code() == Some(401)
}

/// Bytes that were not what they were when they were sent.
pub(super) fn checksum(call: &str, title: &str, which: &str) -> BackendError {
    ill(CHECKSUM, format!("{title}: {call}: the checksum of {which} is wrong"))
}

const CHECKSUM: &str = "checksum";

/// Whether bytes were lost on the way.
pub(super) fn is_checksum(error: &BackendError) -> bool {
    error.cause == CHECKSUM
}

/// When to come again, by the service's word.
fn retry_after(error: &Error) -> Option<Duration> {
    let header = error.http_headers()?.get("retry-after")?.to_str().ok()?;
    header.trim().parse().ok().map(Duration::from_secs)
}

fn is_transient(error: &Error) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<google_cloud_gax::error::CredentialsError>() {
            return error.is_transient();
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_a_code_is_known_by_its_status() {
        for (http, cause, fate) in [
            (307, "unreadable_answer", Fate::BackOff),
            (403, "unreadable_answer", Fate::BackOff),
            (404, "unreadable_answer", Fate::BackOff),
            (408, "service_error", Fate::BackOff),
            (429, "throttled", Fate::Throttled),
            (500, "service_error", Fate::BackOff),
        ] {
            let said = format!("{{\"error\": {{\"code\": {http}, \"message\": \"It is so.\"}}}}");
            let said = Status::try_from(&bytes::Bytes::from(said)).unwrap();
            let error = Error::service_with_http_metadata(said, Some(http), None);
            let error = of("MacSign", "key a", &error);
            assert_eq!((error.cause, error.fate), (cause, fate), "{http}: {}", error.fault);
        }
    }

    #[test]
    fn every_code_has_the_fate_that_is_written_of_it() {
        let of = |code: Code| {
            let status = Status::default().set_code(code).set_message("It is so.");
            of_status("AsymmetricSign", "key a", &status, None)
        };
        assert_eq!(of(Code::ResourceExhausted).fate, Fate::Throttled);
        for code in [Code::Unavailable, Code::Internal, Code::DeadlineExceeded] {
            assert_eq!(of(code).fate, Fate::BackOff, "{code:?}");
        }
        for code in [Code::FailedPrecondition, Code::NotFound, Code::PermissionDenied, Code::Unauthenticated] {
            assert_eq!(of(code).fate, Fate::FindAgain, "{code:?}");
        }
        for code in [Code::InvalidArgument, Code::Unimplemented, Code::AlreadyExists] {
            assert_eq!(of(code).fate, Fate::Keep, "{code:?}");
        }
        let is_not_its_own = |call: &str, code: Code| {
            let error = of_status(call, "key a", &Status::default().set_code(code), None);
            matches!(error.fault, Fault::NotDecrypted { .. })
        };
        for call in OPENS {
            assert!(is_not_its_own(call, Code::InvalidArgument), "{call}");
            assert!(!is_not_its_own(call, Code::OutOfRange), "{call}");
        }
        assert!(!is_not_its_own("AsymmetricSign", Code::InvalidArgument));
        let said = of(Code::PermissionDenied).fault.to_string();
        let expected = "key a: AsymmetricSign: PERMISSION_DENIED: It is so: grant it to the account in IAM";
        assert!(said.contains(expected), "{said}");
        // Who says when to come again is asked again then.
        let seven = Some(Duration::from_secs(7));
        let unavailable = Status::default().set_code(Code::Unavailable);
        let BackendError { fault, fate, .. } = of_status("Sign", "key a", &unavailable, seven);
        assert!(
            fate == Fate::Throttled
                && matches!(fault, Fault::QuotaExceeded { retry_after, .. } if Some(retry_after) == seven)
        );
        let internal = Status::default().set_code(Code::Internal);
        assert_eq!(of_status("Sign", "key a", &internal, seven).fate, Fate::BackOff, "the key may have been used");
    }
}
