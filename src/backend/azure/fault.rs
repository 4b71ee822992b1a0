//! Which error of the service, or on the way to it, becomes a [`Fault`](crate::model::Fault) for the asker and a
//! [`Fate`] for the key.

use std::error::Error as _;
use std::time::Duration;

use azure_core::error::{Error, ErrorKind};
use azure_core::http::RawResponse;
use azure_core::http::headers::HeaderName;
use azure_security_keyvault_keys::models::KeyVaultError;

use crate::backend::cloud::{NO_CREDENTIALS, Undelivered, ill, ill_until, innermost, throttled, without_words};
use crate::backend::{BackendError, Fate};
use crate::model::Fault;

/// What an error means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// The vault's quota is used up.
    Throttled,
    /// The service is ill: another call may fare better.
    Ill,
    /// The key cannot be used until somebody does something about it.
    KeyState,
    /// There is no such key.
    Absent,
    /// Our credentials are refused, or do not allow it.
    Refused,
    /// The input is wrong.
    Input,
    /// Not with such a key.
    NotSupported,
}

/// The call that decrypts, and the service's word for what is wrong with it.
pub(super) const DECRYPT: &str = "decrypt";
const BAD: &str = "BadParameter";

/// Every code that says something, the narrower before the wider; its cause in metrics, and what to do. The service's text follows.
const CODES: &[(&str, Class, &str, &str)] = &[
    ("KeyDisabled", Class::KeyState, "key_state", "enable the key"),
    ("KeyExpired", Class::KeyState, "key_state", "move its expiry date"),
    ("KeyNotYetValid", Class::KeyState, "key_state", "move its activation date"),
    ("ObjectIsDeletedButRecoverable", Class::KeyState, "key_state", "recover the key, or purge it"),
    ("ObjectIsBeingDeleted", Class::KeyState, "key_state", ""),
    ("ObjectIsBeingRecovered", Class::KeyState, "key_state", ""),
    ("KeyOperationForbidden", Class::NotSupported, "not_supported", "allow the operation in the key's key_ops"),
    ("ForbiddenByRbac", Class::Refused, "access_denied", "give the identity a role such as Key Vault Crypto User"),
    ("ForbiddenByPolicy", Class::Refused, "access_denied", "allow it in the vault's access policy"),
    ("AccessDenied", Class::Refused, "access_denied", "allow it in the vault's access policy"),
    ("ForbiddenByFirewall", Class::Refused, "firewall", "let this host through the vault's firewall"),
    ("ForbiddenByConnection", Class::Refused, "firewall", "reach the vault by its private endpoint"),
    ("KeyNotFound", Class::Absent, "not_found", "register another key_name, or recover it"),
    ("Throttled", Class::Throttled, "throttled", ""),
    ("TooManyRequests", Class::Throttled, "throttled", ""),
    (BAD, Class::Input, "invalid_request", ""),
    ("Forbidden", Class::Refused, "access_denied", "allow it in the vault's roles or access policy"),
    ("Unauthorized", Class::Refused, "credentials_refused", "correct tenant_id, client_id and client_secret"),
];

/// An error of `call` on the key called `title`.
pub(super) fn of(call: &str, title: &str, error: &Error) -> BackendError {
    match error.kind() {
        ErrorKind::HttpResponse { status, raw_response, .. } => {
            let said = raw_response.as_deref().map(said).unwrap_or_default();
            // The library's own word for it is the status, where the service said none.
            let codes = [said.inner.as_deref(), said.code.as_deref()];
            let retry_after = raw_response.as_deref().and_then(retry_after);
            let answer = Answer { codes, message: said.message.as_deref(), status: u16::from(*status), retry_after };
            of_answer(call, title, &answer)
        }
        ErrorKind::Credential => {
            let what = format!("{title}: {call}: no token: {}", chain(error));
            // Whoever gives out tokens may be out of reach as well.
            match connection(error) {
                Some(_) => ill(NO_CREDENTIALS, what),
                None => refused(NO_CREDENTIALS, what),
            }
        }
        ErrorKind::Connection | ErrorKind::Io => {
            let cause = connection(error).unwrap_or("connection");
            ill(cause, format!("{title}: {call}: the service cannot be reached: {}", innermost(error)))
        }
        ErrorKind::DataConversion => {
            ill("unreadable_answer", format!("{title}: {call}: an answer that cannot be read: {}", chain(error)))
        }
        _ => ill("unsent", format!("{title}: {call}: the request could not be made: {}", chain(error))),
    }
}

/// An answer that is an error.
struct Answer<'a> {
    /// The narrower one before the wider.
    codes: [Option<&'a str>; 2],
    message: Option<&'a str>,
    status: u16,
    retry_after: Option<Duration>,
}

/// When the service says to come again.
fn retry_after(response: &RawResponse) -> Option<Duration> {
    let number = |name: &'static str| response.headers().get_optional_str(&HeaderName::from_static(name))?.parse().ok();
    number("retry-after-ms")
        .or_else(|| number("x-ms-retry-after-ms"))
        .map(Duration::from_millis)
        .or_else(|| number("retry-after").map(Duration::from_secs))
}

/// What an answer says of an error.
#[derive(Default)]
struct Said {
    code: Option<String>,
    inner: Option<String>,
    message: Option<String>,
}

fn said(response: &RawResponse) -> Said {
    let parsed: Option<KeyVaultError> = serde_json::from_slice(response.body().as_ref()).ok();
    let Some(error) = parsed.and_then(|parsed| parsed.error) else { return Said::default() };
    let inner = error.inner_error.and_then(|inner| inner.code);
    Said { code: error.code, inner, message: error.message }
}

/// An error by its codes, or by the status of the answer where nobody knows them.
fn of_answer(call: &str, title: &str, answer: &Answer<'_>) -> BackendError {
    let Answer { codes, message, status, retry_after } = *answer;
    if codes.into_iter().flatten().all(str::is_empty) {
        return without_words(title, call, status, retry_after);
    }
    let by_status = match status {
        429 => (Class::Throttled, "throttled", ""),
        401 => (Class::Refused, "credentials_refused", "correct tenant_id, client_id and client_secret"),
        403 => (Class::Refused, "access_denied", ""),
        // Of a service that does not know the path.
        404 => (Class::Input, "other", "correct vault_name, resource or endpoint"),
        // What is neither an answer nor a refusal is nobody's mistake who asked.
        ..=399 | 408 | 500.. => (Class::Ill, "service_error", ""),
        _ => (Class::Input, "other", ""),
    };
    let known = codes.into_iter().flatten().find_map(|code| CODES.iter().find(|(known, ..)| *known == code));
    // A status says more than a general code: a server that is ill may call it anything.
    let known = known.filter(|_| !matches!(by_status.0, Class::Throttled | Class::Ill));
    let (class, cause, advice) = known.map_or(by_status, |(_, class, cause, advice)| (*class, *cause, *advice));
    let code = first_line(codes.into_iter().flatten().next().unwrap_or("no code"));
    let mut what = format!("{title}: {call}: {code} (HTTP {status})");
    let message = message.map(first_line).unwrap_or_default();
    for more in [message.as_str(), advice].into_iter().filter(|more| !more.is_empty()) {
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
        Class::Refused => refused(cause, what),
        // Its word for a ciphertext of another key, and for one that was changed.
        Class::Input if call == DECRYPT && codes.contains(&Some(BAD)) => {
            BackendError { fault: Fault::not_decrypted(what), fate: Fate::Keep, cause: "not_decrypted" }
        }
        Class::Input => BackendError { fault: Fault::invalid(what), fate: Fate::Keep, cause },
        Class::NotSupported => BackendError { fault: Fault::NotSupported { what }, fate: Fate::Keep, cause },
    }
}

/// The first line of a text by the word of whoever answers, without control characters and not too long: what follows repeats who
/// asked.
pub(super) fn first_line(text: &str) -> String {
    const MOST: usize = 300;
    text.lines().next().unwrap_or_default().chars().filter(|letter| !letter.is_control()).take(MOST).collect()
}

/// Whether it says that there is no such key.
pub(super) fn is_absent(error: &BackendError) -> bool {
    error.cause == "not_found"
}

/// Whether it says that the request is wrong.
pub(super) fn is_input(error: &BackendError) -> bool {
    error.cause == "invalid_request"
}

/// Whether the service refused a token, which a newer one may cure.
pub(super) fn is_token_refused(error: &Error) -> bool {
    error.http_status() == Some(azure_core::http::StatusCode::Unauthorized)
}

fn refused(cause: &'static str, what: String) -> BackendError {
    BackendError { fault: Fault::CredentialsRefused { what }, fate: Fate::FindAgain, cause }
}

/// The cause of an error of the way there.
fn connection(error: &Error) -> Option<&'static str> {
    if let Some(undelivered) = Undelivered::among(error) {
        return Some(undelivered.cause());
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<Error>().is_some_and(|error| matches!(error.kind(), ErrorKind::Connection)) {
            return Some("connection");
        }
        cause = error.source();
    }
    None
}

/// The same error for another: of the same kind, and one of the way there if it was one.
pub(super) fn again(error: &Error) -> Error {
    let (kind, what) = (error.kind().clone(), chain(error));
    match (Undelivered::among(error), connection(error)) {
        (Some(undelivered), _) => Error::with_error(kind, undelivered.again(), what),
        (None, Some(_)) => Error::with_error(kind, Error::with_message(ErrorKind::Connection, innermost(error)), what),
        (None, None) => Error::with_message(kind, what),
    }
}

/// An error, and what it comes from at last.
pub(super) fn chain(error: &Error) -> String {
    let (top, last) = (first_line(&error.to_string()), innermost(error));
    if error.source().is_none() || top.contains(&last) { top } else { format!("{top}: {last}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(inner: Option<&str>, code: &str, status: u16) -> BackendError {
        let message = Some("Some text.\r\nCaller: somebody");
        of_answer("sign", "key a", &Answer { codes: [inner, Some(code)], message, status, retry_after: None })
    }

    #[test]
    fn every_answer_has_the_fate_that_is_written_of_it() {
        let fate = |inner, code, status| answer(inner, code, status).fate;
        assert_eq!(fate(None, "Throttled", 429), Fate::Throttled);
        assert_eq!(fate(None, "Whatever", 429), Fate::Throttled);
        for (code, status) in [("InternalServerError", 500), ("ServiceUnavailable", 503), ("BadParameter", 503)] {
            assert_eq!(fate(None, code, status), Fate::BackOff, "{code}");
        }
        for inner in ["KeyDisabled", "KeyExpired", "ForbiddenByRbac", "Unheard"] {
            assert_eq!(fate(Some(inner), "Forbidden", 403), Fate::FindAgain, "{inner}");
        }
        assert_eq!(answer(Some("KeyDisabled"), "Forbidden", 403).cause, "key_state");
        assert_eq!(answer(Some("Unheard"), "Forbidden", 403).cause, "access_denied");
        assert_eq!(answer(None, "KeyNotFound", 404).cause, "not_found");
        assert_eq!(answer(None, "NotFound", 404).fate, Fate::Keep);
        assert_eq!(fate(None, "BadParameter", 400), Fate::Keep);
        assert_eq!(fate(None, "Unauthorized", 401), Fate::FindAgain);
        // An answer that is none, of whatever stands in the service's place, whatever it calls it.
        for code in ["", "LoginRequired", "AccessDenied"] {
            assert_eq!(fate(None, code, 307), Fate::BackOff, "{code}");
        }
        assert_eq!(fate(None, BAD, 408), Fate::BackOff);
    }

    #[test]
    fn an_answer_that_is_not_the_services_says_nothing_of_the_key_or_the_caller() {
        for status in [200, 307, 400, 401, 403, 404] {
            let answer = Answer { codes: [None, None], message: None, status, retry_after: None };
            for call in ["sign", "get", DECRYPT] {
                let error = of_answer(call, "key a", &answer);
                assert_eq!((error.fate, error.cause), (Fate::BackOff, "unreadable_answer"), "{status}");
            }
        }
        // Nor does what the library makes of it: the status is no word.
        let status = azure_core::http::StatusCode::NotFound;
        let kind = ErrorKind::HttpResponse { status, error_code: Some("404".to_owned()), raw_response: None };
        let error = of(DECRYPT, "key a", &Error::with_message(kind, "404"));
        assert_eq!((error.fate, error.cause), (Fate::BackOff, "unreadable_answer"), "{}", error.fault);
    }

    #[test]
    fn one_word_alone_says_that_a_ciphertext_does_not_decrypt() {
        let is_not_its_own = |call: &str, code: &str, status| {
            let answer = Answer { codes: [None, Some(code)], message: None, status, retry_after: None };
            matches!(of_answer(call, "key a", &answer).fault, Fault::NotDecrypted { .. })
        };
        assert!(is_not_its_own(DECRYPT, BAD, 400));
        for (call, code, status) in
            [("sign", BAD, 400), (DECRYPT, BAD, 503), (DECRYPT, "New", 400), (DECRYPT, "NotFound", 404)]
        {
            assert!(!is_not_its_own(call, code, status), "{call} {code} {status}");
        }
    }

    #[test]
    fn an_error_that_is_told_once_more_is_classed_alike() {
        let unreachable = Error::with_message(ErrorKind::Connection, "no route");
        let unreachable = Error::with_error(ErrorKind::Credential, unreachable, "no token");
        let refused = Error::with_message(ErrorKind::Credential, "AADSTS7000215: invalid client secret");
        let untrusted = Undelivered::Again { cause: "tls", why: "invalid peer certificate".to_owned() };
        let untrusted = Error::with_error(ErrorKind::Credential, untrusted, "no token");
        for (error, fate) in [(unreachable, Fate::BackOff), (refused, Fate::FindAgain), (untrusted, Fate::BackOff)] {
            let [first, again] = [of("sign", "key a", &error), of("sign", "key a", &again(&error))];
            // None of it is the service's: it was not asked.
            let cause = NO_CREDENTIALS;
            assert_eq!((first.cause, first.fate, again.fate), (cause, fate, fate));
            assert_eq!((again.cause, again.fault.to_string()), (cause, first.fault.to_string()));
        }
    }

    #[test]
    fn who_says_when_to_come_again_is_asked_again_then() {
        for status in [429, 503] {
            let retry_after = Some(Duration::from_secs(7));
            let answer = Answer { codes: [None, None], message: None, status, retry_after };
            let BackendError { fault, fate, .. } = of_answer("sign", "key a", &answer);
            assert_eq!(fate, Fate::Throttled, "{status}");
            assert!(matches!(fault, Fault::QuotaExceeded { retry_after, .. } if retry_after == Duration::from_secs(7)));
        }
    }

    #[test]
    fn an_error_says_what_to_do_and_not_who_asked() {
        let said = answer(Some("KeyDisabled"), "Forbidden", 403).fault.to_string();
        assert!(said.contains("key a: sign: KeyDisabled (HTTP 403): Some text: enable the key"), "{said}");
        assert!(!said.contains("somebody"), "{said}");
    }
}
