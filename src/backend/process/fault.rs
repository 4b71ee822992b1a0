//! Errors across the pair: a [`BackendError`] as bytes. Same file name as in every backend, since here too native errors
//! become ours: the worker has classed them already.

use bytes::BufMut;

use super::codec::{Malformed, Reader, put_text};
use crate::backend::{BackendError, Fate};
use crate::model::{Fault, FaultLabel};

/// Most bytes of one text of a fault; what is longer is cut.
const TEXT_MAX: usize = 1024;
/// Most bytes of a cause.
const CAUSE_MAX: usize = 64;

/// The cause of every answer of a worker process that is gone.
pub(super) const WORKER_DIED: &str = "worker_died";
/// The return values of the standard (PKCS#11 v3.2), by name.
const RETURN_VALUES: &str = "
    CKR_VENDOR_DEFINED CKR_UNKNOWN CKR_CANCEL CKR_HOST_MEMORY CKR_SLOT_ID_INVALID CKR_GENERAL_ERROR
    CKR_FUNCTION_FAILED CKR_ARGUMENTS_BAD CKR_NO_EVENT CKR_NEED_TO_CREATE_THREADS CKR_CANT_LOCK
    CKR_ATTRIBUTE_READ_ONLY CKR_ATTRIBUTE_SENSITIVE CKR_ATTRIBUTE_TYPE_INVALID CKR_ATTRIBUTE_VALUE_INVALID
    CKR_ACTION_PROHIBITED CKR_DATA_INVALID CKR_DATA_LEN_RANGE CKR_DEVICE_ERROR CKR_DEVICE_MEMORY
    CKR_DEVICE_REMOVED CKR_ENCRYPTED_DATA_INVALID CKR_ENCRYPTED_DATA_LEN_RANGE CKR_FUNCTION_CANCELED
    CKR_FUNCTION_NOT_PARALLEL CKR_FUNCTION_NOT_SUPPORTED CKR_KEY_HANDLE_INVALID CKR_KEY_SIZE_RANGE
    CKR_KEY_TYPE_INCONSISTENT CKR_KEY_NOT_NEEDED CKR_KEY_CHANGED CKR_KEY_NEEDED CKR_KEY_INDIGESTIBLE
    CKR_KEY_FUNCTION_NOT_PERMITTED CKR_KEY_NOT_WRAPPABLE CKR_KEY_UNEXTRACTABLE CKR_MECHANISM_INVALID
    CKR_MECHANISM_PARAM_INVALID CKR_OBJECT_HANDLE_INVALID CKR_OPERATION_ACTIVE CKR_OPERATION_NOT_INITIALIZED
    CKR_PIN_INCORRECT CKR_PIN_INVALID CKR_PIN_LEN_RANGE CKR_PIN_EXPIRED CKR_PIN_LOCKED CKR_SESSION_CLOSED
    CKR_SESSION_COUNT CKR_SESSION_HANDLE_INVALID CKR_SESSION_PARALLEL_NOT_SUPPORTED CKR_SESSION_READ_ONLY
    CKR_SESSION_EXISTS CKR_SESSION_READ_ONLY_EXISTS CKR_SESSION_READ_WRITE_SO_EXISTS CKR_SIGNATURE_INVALID
    CKR_SIGNATURE_LEN_RANGE CKR_TEMPLATE_INCOMPLETE CKR_TEMPLATE_INCONSISTENT CKR_TOKEN_NOT_PRESENT
    CKR_TOKEN_NOT_RECOGNIZED CKR_TOKEN_WRITE_PROTECTED CKR_UNWRAPPING_KEY_HANDLE_INVALID
    CKR_UNWRAPPING_KEY_SIZE_RANGE CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT CKR_USER_ALREADY_LOGGED_IN
    CKR_USER_NOT_LOGGED_IN CKR_USER_PIN_NOT_INITIALIZED CKR_USER_TYPE_INVALID
    CKR_USER_ANOTHER_ALREADY_LOGGED_IN CKR_USER_TOO_MANY_TYPES CKR_WRAPPED_KEY_INVALID
    CKR_WRAPPED_KEY_LEN_RANGE CKR_WRAPPING_KEY_HANDLE_INVALID CKR_WRAPPING_KEY_SIZE_RANGE
    CKR_WRAPPING_KEY_TYPE_INCONSISTENT CKR_RANDOM_SEED_NOT_SUPPORTED CKR_RANDOM_NO_RNG
    CKR_DOMAIN_PARAMS_INVALID CKR_CURVE_NOT_SUPPORTED CKR_BUFFER_TOO_SMALL CKR_SAVED_STATE_INVALID
    CKR_INFORMATION_SENSITIVE CKR_STATE_UNSAVEABLE CKR_CRYPTOKI_NOT_INITIALIZED
    CKR_CRYPTOKI_ALREADY_INITIALIZED CKR_MUTEX_BAD CKR_MUTEX_NOT_LOCKED CKR_NEW_PIN_MODE CKR_NEXT_OTP
    CKR_EXCEEDED_MAX_ITERATIONS CKR_FIPS_SELF_TEST_FAILED CKR_LIBRARY_LOAD_FAILED CKR_PIN_TOO_WEAK
    CKR_PUBLIC_KEY_INVALID CKR_FUNCTION_REJECTED CKR_AEAD_DECRYPT_FAILED CKR_TOKEN_RESOURCE_EXCEEDED
    CKR_OPERATION_CANCEL_FAILED CKR_KEY_EXHAUSTED CKR_PENDING CKR_SESSION_ASYNC_NOT_SUPPORTED
    CKR_SEED_RANDOM_REQUIRED CKR_OPERATION_NOT_VALIDATED CKR_TOKEN_NOT_INITIALIZED
    CKR_PARAMETER_SET_NOT_SUPPORTED
";
/// A cause that no table has.
const OTHER: &str = "other";

pub(super) fn put_error(out: &mut Vec<u8>, error: &BackendError) {
    put_text(out, error.cause, CAUSE_MAX);
    put_fate(out, error.fate);
    put_fault(out, &error.fault);
}

pub(super) fn error(reader: &mut Reader<'_>) -> Result<BackendError, Malformed> {
    let cause = cause(reader.bytes()?);
    let fate = fate(reader)?;
    Ok(BackendError { fault: fault(reader)?, fate, cause })
}

/// The cause of this name, from the closed set that metrics count.
fn cause(name: &[u8]) -> &'static str {
    let labels = FaultLabel::ALL.iter().map(|label| label.as_str());
    let mut known = labels.chain([WORKER_DIED]).chain(RETURN_VALUES.split_ascii_whitespace());
    known.find(|known| known.as_bytes() == name).unwrap_or(OTHER)
}

fn put_fate(out: &mut Vec<u8>, fate: Fate) {
    out.put_u8(match fate {
        Fate::Keep => 0,
        Fate::Reopen => 1,
        Fate::LoginAgain => 2,
        Fate::Reinitialize => 3,
        Fate::BackOff => 4,
        Fate::Retire => 5,
        Fate::FindAgain => 6,
    });
}

fn fate(reader: &mut Reader<'_>) -> Result<Fate, Malformed> {
    Ok(match reader.u8()? {
        0 => Fate::Keep,
        1 => Fate::Reopen,
        2 => Fate::LoginAgain,
        3 => Fate::Reinitialize,
        4 => Fate::BackOff,
        5 => Fate::Retire,
        6 => Fate::FindAgain,
        _ => return Err(Malformed),
    })
}

/// Faults that no backend answers cross as internal ones: a worker cannot speak for the front or the store.
fn put_fault(out: &mut Vec<u8>, fault: &Fault) {
    let (code, one, other) = match fault {
        Fault::Unavailable { what } => (0, what, None),
        Fault::DeviceError { what } => (1, what, None),
        Fault::DeviceStuck { what } => (2, what, None),
        Fault::CredentialsRefused { what } => (3, what, None),
        Fault::NotSupported { what } => (4, what, None),
        Fault::InvalidRequest { reason } => (5, reason, None),
        Fault::TooLarge { what } => (6, what, None),
        Fault::NotFound { what } => (7, what, None),
        Fault::Internal { what } => (8, what, None),
        Fault::KeyUnavailable { key, reason } => (9, key, Some(reason)),
        Fault::KeyMismatch { key, reason } => (10, key, Some(reason)),
        Fault::Overloaded { .. }
        | Fault::DeadlineExceeded { .. }
        | Fault::UnsupportedOperation
        | Fault::PermissionDenied
        | Fault::QuotaExceeded { .. }
        | Fault::Sealed
        | Fault::NotInitialized => (8, &format!("a worker process met: {fault}"), None),
    };
    out.put_u8(code);
    put_text(out, one, TEXT_MAX);
    if let Some(other) = other {
        put_text(out, other, TEXT_MAX);
    }
}

fn fault(reader: &mut Reader<'_>) -> Result<Fault, Malformed> {
    let (code, what) = (reader.u8()?, reader.line(TEXT_MAX)?);
    Ok(match code {
        0 => Fault::Unavailable { what },
        1 => Fault::DeviceError { what },
        2 => Fault::DeviceStuck { what },
        3 => Fault::CredentialsRefused { what },
        4 => Fault::NotSupported { what },
        5 => Fault::InvalidRequest { reason: what },
        6 => Fault::TooLarge { what },
        7 => Fault::NotFound { what },
        8 => Fault::Internal { what },
        9 => Fault::KeyUnavailable { key: what, reason: reader.line(TEXT_MAX)? },
        10 => Fault::KeyMismatch { key: what, reason: reader.line(TEXT_MAX)? },
        _ => return Err(Malformed),
    })
}
