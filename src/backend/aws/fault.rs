//! The border: an error of the service, or on the way to it, becomes a [`Fault`](crate::model::Fault) for the asker and a
//! [`Fate`] for the key.

use std::error::Error;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::config::http::HttpResponse;
use aws_sdk_kms::error::{ConnectorError, ProvideErrorMetadata, SdkError};

use crate::backend::cloud::{
    NO_CREDENTIALS, TIMEOUT, Undelivered, ill, ill_until, innermost, shown, throttled, without_words,
};
use crate::backend::{BackendError, Fate};
use crate::model::Fault;

/// What an error code means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// The account's quota, or a burst, is used up.
    Throttled,
    /// The service is ill: another call may fare better.
    Ill,
    /// The key cannot be used until somebody does something about it.
    KeyState,
    /// There is no such key.
    Absent,
    /// Our credentials are refused, or do not allow it.
    Refused,
    /// The clocks differ.
    Clock,
    /// The input is wrong.
    Input,
    /// The ciphertext is not the key's.
    Ciphertext,
    /// Not with such a key.
    NotSupported,
}

/// Every code that says something, its cause in metrics, and what to do. The service's text follows.
const CODES: &[(&str, Class, &str, &str)] = &[
    ("ThrottlingException", Class::Throttled, "throttled", ""),
    ("LimitExceededException", Class::Throttled, "throttled", ""),
    ("TooManyRequestsException", Class::Throttled, "throttled", ""),
    ("RequestLimitExceeded", Class::Throttled, "throttled", ""),
    ("Throttling", Class::Throttled, "throttled", ""),
    ("ThrottledException", Class::Throttled, "throttled", ""),
    ("RequestThrottled", Class::Throttled, "throttled", ""),
    ("RequestThrottledException", Class::Throttled, "throttled", ""),
    ("SlowDown", Class::Throttled, "throttled", ""),
    ("KMSInternalException", Class::Ill, "service_error", ""),
    ("DependencyTimeoutException", Class::Ill, "service_error", ""),
    ("InternalFailure", Class::Ill, "service_error", ""),
    ("ServiceUnavailableException", Class::Ill, "service_error", ""),
    ("ServiceUnavailable", Class::Ill, "service_error", ""),
    ("DisabledException", Class::KeyState, "key_state", "enable the key"),
    ("KMSInvalidStateException", Class::KeyState, "key_state", "cancel its deletion, or enable it"),
    ("KeyUnavailableException", Class::KeyState, "key_store", "see to the key's custom key store"),
    ("CloudHsmClusterNotActiveException", Class::KeyState, "key_store", "see to the key's CloudHSM cluster"),
    ("CloudHsmClusterInvalidConfigurationException", Class::KeyState, "key_store", "see to the key's CloudHSM cluster"),
    ("CustomKeyStoreInvalidStateException", Class::KeyState, "key_store", "connect the key's custom key store"),
    ("XksProxyUriUnreachableException", Class::KeyState, "key_store", "see to the external key store's proxy"),
    ("XksKeyInvalidConfigurationException", Class::KeyState, "key_store", "see to the external key"),
    ("NotFoundException", Class::Absent, "not_found", "register another kms_key, or restore it"),
    ("AccessDeniedException", Class::Refused, "access_denied", "allow it in the key's policy or in IAM"),
    ("AccessDenied", Class::Refused, "access_denied", "allow it in the key's policy or in IAM"),
    ("UnauthorizedOperation", Class::Refused, "access_denied", "allow it in the key's policy or in IAM"),
    ("ExpiredTokenException", Class::Refused, "credentials_expired", "renew the session's credentials"),
    ("ExpiredToken", Class::Refused, "credentials_expired", "renew the session's credentials"),
    ("UnrecognizedClientException", Class::Refused, "credentials_refused", "correct access_key and secret_key"),
    ("InvalidClientTokenId", Class::Refused, "credentials_refused", "correct access_key and secret_key"),
    ("IncompleteSignature", Class::Refused, "credentials_refused", "correct access_key and secret_key"),
    ("MissingAuthenticationToken", Class::Refused, "credentials_refused", "give access_key and secret_key"),
    ("OptInRequired", Class::Refused, "credentials_refused", "open the account for AWS KMS"),
    (
        "InvalidSignatureException",
        Class::Refused,
        "credentials_refused",
        "correct secret_key, or set this host's clock",
    ),
    ("SignatureDoesNotMatch", Class::Refused, "credentials_refused", "correct secret_key"),
    ("RequestExpired", Class::Clock, "clock_skew", "set this host's clock"),
    ("RequestTimeTooSkewed", Class::Clock, "clock_skew", "set this host's clock"),
    ("ValidationException", Class::Input, "invalid_request", ""),
    ("InvalidCiphertextException", Class::Ciphertext, "not_decrypted", ""),
    ("IncorrectKeyException", Class::Ciphertext, "not_decrypted", ""),
    ("InvalidArnException", Class::Input, "invalid_request", "correct kms_key"),
    ("AlreadyExistsException", Class::Input, "already_exists", ""),
    ("InvalidAliasNameException", Class::Input, "invalid_request", "correct kms_key"),
    ("TagException", Class::Input, "invalid_request", ""),
    ("InvalidKeyUsageException", Class::NotSupported, "not_supported", ""),
    ("UnsupportedOperationException", Class::NotSupported, "not_supported", ""),
];

/// An error of `call` on the key called `title`.
pub(super) fn of<E>(call: &str, title: &str, error: &SdkError<E, HttpResponse>) -> BackendError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match error {
        // What its client could make nothing of.
        SdkError::ServiceError(service) if service.raw().status().is_success() => {
            ill("unreadable_answer", format!("{title}: {call}: an answer that cannot be read"))
        }
        SdkError::ServiceError(service) => {
            let status = service.raw().status().as_u16();
            of_code(call, title, service.err().code(), service.err().message(), status, retry_after(service.raw()))
        }
        SdkError::ResponseError(response) => {
            let status = response.raw().status().as_u16();
            ill("unreadable_answer", format!("{title}: {call}: an answer (HTTP {status}) that cannot be read"))
        }
        SdkError::TimeoutError(_) => ill(TIMEOUT, format!("{title}: {call}: no answer in time")),
        SdkError::DispatchFailure(failure) => {
            if let Some(why) = among::<CredentialsError>(error) {
                return no_credentials(call, title, why);
            }
            let why = innermost(error);
            let cause = match Undelivered::among(error) {
                Some(Undelivered::TooLong) => {
                    return ill("unreadable_answer", format!("{title}: {call}: an answer that cannot be read: {why}"));
                }
                Some(undelivered) => undelivered.cause(),
                None if failure.is_timeout() => TIMEOUT,
                None => "connection",
            };
            ill(cause, format!("{title}: {call}: the service cannot be reached: {why}"))
        }
        _ => {
            if let Some(why) = among::<CredentialsError>(error) {
                return no_credentials(call, title, why);
            }
            ill("unsent", format!("{title}: {call}: the request could not be made: {}", innermost(error)))
        }
    }
}

/// When the service says to come again. It rarely does; what stands before it may.
fn retry_after(answer: &HttpResponse) -> Option<Duration> {
    let number = |name| answer.headers().get(name)?.trim().parse().ok();
    number("x-amz-retry-after").map(Duration::from_millis).or_else(|| number("retry-after").map(Duration::from_secs))
}

/// An error by its code, or by the status of the answer where nobody knows the code.
fn of_code(
    call: &str,
    title: &str,
    code: Option<&str>,
    message: Option<&str>,
    status: u16,
    retry_after: Option<Duration>,
) -> BackendError {
    let Some(code) = code.map(bare).filter(|code| !code.is_empty()) else {
        return without_words(title, call, status, retry_after);
    };
    let (by_status, unknown) = match status {
        // A gateway's or a proxy's words, which are not those of the service.
        429 => (Class::Throttled, "throttled"),
        401 | 403 | 407 => (Class::Refused, "other"),
        400..=407 | 409..=499 => (Class::Input, "other"),
        // What is neither an answer nor a refusal is nobody's mistake who asked.
        _ => (Class::Ill, "service_error"),
    };
    let code = if is_about_clocks(message) { "RequestTimeTooSkewed" } else { code };
    let known = CODES.iter().find(|(known, ..)| *known == code);
    let (class, cause, advice) =
        known.map_or((by_status, unknown, ""), |(_, class, cause, advice)| (*class, *cause, *advice));
    let mut what = format!("{title}: {call}: {code}");
    for more in [&*shown(message.unwrap_or_default()), advice].into_iter().filter(|more| !more.is_empty()) {
        what.push_str(": ");
        what.push_str(more.trim_end_matches('.'));
    }
    match class {
        Class::Throttled => throttled(what, retry_after),
        Class::Ill => ill_until(cause, what, status, retry_after),
        // Looked up anew, the key says for good what is the matter, and is tried again with pauses.
        Class::KeyState | Class::Absent => {
            BackendError { fault: Fault::Unavailable { what }, fate: Fate::FindAgain, cause }
        }
        Class::Refused | Class::Clock => refused(cause, what),
        Class::Input => BackendError { fault: Fault::invalid(what), fate: Fate::Keep, cause },
        Class::Ciphertext => BackendError { fault: Fault::not_decrypted(what), fate: Fate::Keep, cause },
        Class::NotSupported => BackendError { fault: Fault::NotSupported { what }, fate: Fate::Keep, cause },
    }
}

/// Whether it says that there is no such key.
pub(super) fn is_absent(error: &BackendError) -> bool {
    error.cause == "not_found"
}

/// The codes of credentials that were good once, and that newer ones may replace: also a new secret of the same access key.
const OLD: &[&str] = &[
    "ExpiredTokenException",
    "ExpiredToken",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
];

/// Whether the service refused the credentials themselves, and others may be good. Where the clocks differ, all are refused.
pub(super) fn is_about_old_credentials<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    let Some(error) = error.as_service_error() else { return false };
    OLD.contains(&bare(error.code().unwrap_or_default())) && !is_about_clocks(error.message())
}

/// Whether a signature was refused for its time: the code is that of a wrong one.
fn is_about_clocks(message: Option<&str>) -> bool {
    message.is_some_and(|text| text.starts_with("Signature expired") || text.starts_with("Signature not yet"))
}

/// `com.amazonaws.kms#NotFoundException` in some answers.
fn bare(code: &str) -> &str {
    code.rsplit('#').next().unwrap_or(code)
}

fn refused(cause: &'static str, what: String) -> BackendError {
    BackendError { fault: Fault::CredentialsRefused { what }, fate: Fate::FindAgain, cause }
}

/// Whoever gives out credentials may be out of reach, which says nothing of them.
fn no_credentials(call: &str, title: &str, why: &CredentialsError) -> BackendError {
    let what = format!("{title}: {call}: no credentials: {}", innermost(why));
    match connection(why) {
        // It is the issuer that does not answer, and not the service.
        Some(_) => ill(NO_CREDENTIALS, what),
        None => refused(NO_CREDENTIALS, what),
    }
}

/// The cause of an error of the way to whoever gives out credentials.
fn connection(error: &CredentialsError) -> Option<&'static str> {
    if let Some(undelivered) = Undelivered::among(error) {
        return Some(undelivered.cause());
    }
    match among::<ConnectorError>(error) {
        Some(why) if why.is_timeout() => Some(TIMEOUT),
        Some(why) if why.is_io() => Some("connection"),
        _ => matches!(error, CredentialsError::ProviderTimedOut(_)).then_some(TIMEOUT),
    }
}

/// The same error for another: one of the way there if it was one.
pub(super) fn again(error: &CredentialsError) -> CredentialsError {
    let why = innermost(error);
    match connection(error) {
        Some(cause) => CredentialsError::provider_error(Undelivered::Again { cause, why }),
        None => CredentialsError::provider_error(why),
    }
}

/// The first such error of those that `error` comes from, itself included.
fn among<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    std::iter::successors(Some(error), |&error| error.source()).find_map(|error| error.downcast_ref())
}

#[cfg(test)]
mod tests {
    use aws_sdk_kms::error::ErrorMetadata;
    use aws_sdk_kms::operation::sign::SignError;
    use aws_smithy_runtime_api::http::StatusCode;
    use aws_smithy_types::body::SdkBody;

    use super::*;

    #[test]
    fn credentials_are_old_where_others_may_be_good() {
        let old = |code: &str, message: &str| {
            let error = SignError::generic(ErrorMetadata::builder().code(code).message(message).build());
            let answer = HttpResponse::new(StatusCode::try_from(400).unwrap(), SdkBody::empty());
            is_about_old_credentials(&SdkError::service_error(error, answer))
        };
        for code in OLD {
            assert!(
                old(code, "The request signature we calculated does not match the signature you provided."),
                "{code}"
            );
        }
        assert!(!old("InvalidSignatureException", "Signature expired: 20261127T030000Z is now earlier than"));
        assert!(!old("SignatureDoesNotMatch", "Signature not yet current: 20261127T030000Z is still later than"));
        assert!(!old("AccessDeniedException", "not authorized to perform: kms:Sign"));
    }

    #[test]
    fn who_gives_out_no_credentials_since_nobody_reaches_it_refuses_none() {
        let unreachable = Undelivered::Again { cause: "connection", why: "no route to host".to_owned() };
        let unreachable = ConnectorError::io(unreachable.into());
        let hung_up = ConnectorError::io("connection reset".into());
        let silent = ConnectorError::timeout("no answer within 1 s".into());
        for (why, fate) in [
            (CredentialsError::provider_error(unreachable), Fate::BackOff),
            (CredentialsError::provider_error(hung_up), Fate::BackOff),
            (CredentialsError::provider_error(silent), Fate::BackOff),
            (CredentialsError::provider_timed_out(Duration::from_secs(10)), Fate::BackOff),
            (CredentialsError::provider_error("AccessDenied"), Fate::FindAgain),
            (CredentialsError::not_loaded("none"), Fate::FindAgain),
        ] {
            let once_more = again(&why);
            // Of how the call failed, nothing is heard before that of the credentials.
            let of = |why| {
                let dispatch = SdkError::<SignError, _>::dispatch_failure(ConnectorError::other(why, None));
                of("Sign", "key a", &dispatch)
            };
            let [first, again] = [of(why.into()), of(once_more.into())];
            assert_eq!((first.cause, first.fate), (NO_CREDENTIALS, fate), "{}", first.fault);
            let told = (again.cause, again.fate, again.fault.to_string());
            assert_eq!(told, (NO_CREDENTIALS, fate, first.fault.to_string()));
        }
    }

    #[test]
    fn every_code_has_the_fate_that_is_written_of_it() {
        let fate = |code: &str, status| of_code("Sign", "key a", Some(code), Some("Rate exceeded."), status, None).fate;
        assert_eq!(fate("ThrottlingException", 400), Fate::Throttled);
        assert_eq!(fate("KMSInternalException", 500), Fate::BackOff);
        for code in ["DisabledException", "KMSInvalidStateException", "NotFoundException", "AccessDeniedException"] {
            assert_eq!(fate(code, 400), Fate::FindAgain, "{code}");
        }
        assert_eq!(fate("ValidationException", 400), Fate::Keep);
        assert_eq!(fate("com.amazonaws.kms#ThrottlingException", 400), Fate::Throttled);
        // Who says when to come again is asked again then.
        let seven = Some(Duration::from_secs(7));
        for (code, status) in [("ThrottlingException", 400), ("ServiceUnavailableException", 503)] {
            let BackendError { fault, fate, .. } = of_code("Sign", "key a", Some(code), None, status, seven);
            assert_eq!(fate, Fate::Throttled, "{code}");
            assert!(matches!(fault, Fault::QuotaExceeded { retry_after, .. } if Some(retry_after) == seven));
        }
        // An answer that is not the service's says nothing of the caller, the key or the credentials, whatever its status.
        for status in [200, 307, 400, 401, 403, 404] {
            for code in [None, Some("")] {
                let error = of_code("Decrypt", "key a", code, None, status, None);
                assert_eq!((error.fate, error.cause), (Fate::BackOff, "unreadable_answer"), "{status}");
            }
        }
        let cause = |status| of_code("Sign", "key a", None, None, status, None).cause;
        assert_eq!((cause(429), cause(502)), ("throttled", "service_error"));
        // What nobody has heard of, by its status.
        assert_eq!(
            (fate("NewException", 503), fate("NewException", 400), fate("New", 403)),
            (Fate::BackOff, Fate::Keep, Fate::FindAgain)
        );
        assert_eq!((fate("RATE_LIMITED", 429), fate("SlowDown", 503)), (Fate::Throttled, Fate::Throttled));
        assert_eq!((fate("proxy_auth", 401), fate("proxy_auth", 407)), (Fate::FindAgain, Fate::FindAgain));
        assert_eq!((fate("timed_out", 408), fate("too_large", 413)), (Fate::BackOff, Fate::Keep));
        // An answer that is none, of whatever stands in the service's place.
        let BackendError { fault, fate, .. } = of_code("Sign", "key a", None, None, 307, None);
        assert!(
            fate == Fate::BackOff && fault.to_string().contains("an answer (HTTP 307) that is not the service's"),
            "{fault}"
        );
        // That a ciphertext is another key's has codes of its own, and no other refusal is taken for that.
        let is_not_its_own = |code: &str| {
            let fault = of_code("Decrypt", "key a", Some(code), None, 400, None).fault;
            matches!(fault, Fault::NotDecrypted { .. })
        };
        for code in ["InvalidCiphertextException", "IncorrectKeyException"] {
            assert!(is_not_its_own(code), "{code}");
        }
        for code in ["ValidationException", "InvalidArnException", "NewException"] {
            assert!(!is_not_its_own(code), "{code}");
        }
        let said = of_code("Sign", "AWS KMS key a", Some("DisabledException"), Some("a is disabled."), 400, None)
            .fault
            .to_string();
        assert!(said.contains("AWS KMS key a: Sign: DisabledException: a is disabled: enable the key"), "{said}");
    }
}
