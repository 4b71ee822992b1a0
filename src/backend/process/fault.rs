//! Errors across the pair: a [`BackendError`] as bytes. Same file name as in every backend, since here too native errors
//! become ours: the worker has classed them already.

use bytes::BufMut;

use super::codec::{Malformed, Reader, put_text};
use crate::backend::{BackendError, Fate, WORKER_DIED, pkcs11};
use crate::model::{Fault, FaultLabel};

/// Most bytes of one text of a fault; what is longer is cut.
const TEXT_MAX: usize = 1024;
/// Most bytes of a cause.
const CAUSE_MAX: usize = 64;

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
    let mut known = labels.chain([WORKER_DIED]).chain(pkcs11::CAUSES.iter().copied());
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
        Fate::Throttled => 7,
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
        7 => Fate::Throttled,
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
        Fault::NotDecrypted { what } => (11, what, None),
        Fault::Overloaded { .. }
        | Fault::DeadlineExceeded { .. }
        | Fault::UnsupportedOperation
        | Fault::PermissionDenied
        | Fault::TokenRefused { .. }
        | Fault::QuotaExceeded { .. }
        | Fault::Locked { .. }
        | Fault::Unrecorded { .. }
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
        11 => Fault::NotDecrypted { what },
        _ => return Err(Malformed),
    })
}
