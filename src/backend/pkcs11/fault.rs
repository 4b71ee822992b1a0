//! The border: a native return value becomes a [`Fault`] for the asker and a [`Fate`] for the session. What each means is
//! the table in `class`; here are the words.

use cryptoki_sys::CK_RV;

use super::class::{self, Class, Function};
use super::return_value::{UNREADABLE, name};
use crate::backend::{BackendError, Fate};
use crate::config::Profile;
use crate::model::Fault;

/// An error of the module's, with the return value it came from.
#[derive(Debug)]
pub(super) struct NativeError {
    pub(super) error: BackendError,
    /// `None` where there is none.
    pub(super) rv: Option<CK_RV>,
    /// Whether another initialisation of the module may help.
    pub(super) outdates: bool,
}

/// An error that is nobody's session's fault.
pub(super) fn keep(fault: Fault) -> NativeError {
    NativeError::from(BackendError::keep(fault))
}

impl From<BackendError> for NativeError {
    fn from(error: BackendError) -> NativeError {
        NativeError { error, rv: None, outdates: false }
    }
}

/// What an answer of `function` that is no success means.
pub(super) fn from_rv(profile: Profile, function: Function, rv: CK_RV) -> NativeError {
    let row = class::row_of(profile, function, rv);
    let cause = name(rv);
    let colon = if row.advice.is_empty() { "" } else { ": " };
    let what = format!("{}: {cause} ({rv:#x}){colon}{}", function.name(), row.advice);
    let fault = match row.class {
        Class::Input if function == Function::Decrypt => {
            Fault::not_decrypted(format!("the token refuses the input: {what}"))
        }
        Class::Input => Fault::invalid(format!("the token refuses the input: {what}")),
        Class::NotSupported => Fault::NotSupported { what: format!("the token refuses it: {what}") },
        Class::Session | Class::Key | Class::Login | Class::Module => Fault::DeviceError { what },
        Class::Busy | Class::Unexplained => Fault::Unavailable { what },
        Class::Refused => Fault::CredentialsRefused { what },
    };
    let error = BackendError { fault, fate: row.class.fate(), cause };
    NativeError { error, rv: Some(rv), outdates: row.class.outdates() }
}

/// Whether `function` has succeeded by its answer, or what was to be done is done already.
pub(super) fn check(profile: Profile, function: Function, rv: CK_RV) -> Result<(), NativeError> {
    if class::is_success(function, rv) { Ok(()) } else { Err(from_rv(profile, function, rv)) }
}

/// An answer of `function` that makes no sense: the session it came from is not to be trusted.
pub(super) fn unreadable(function: Function, what: &str) -> NativeError {
    let fault = Fault::DeviceError { what: format!("{}: the module's answer makes no sense: {what}", function.name()) };
    BackendError { fault, fate: Fate::Reopen, cause: UNREADABLE }.into()
}

/// The same error with the place it happened at in front: `token "ca" (slot 3, serial 42)`.
pub(super) fn at(place: &str, error: BackendError) -> BackendError {
    within(place, "", error)
}

/// The same error with its place in front, and what comes of it behind.
pub(super) fn within(place: &str, after: &str, mut error: BackendError) -> BackendError {
    match &mut error.fault {
        Fault::DeviceError { what }
        | Fault::Unavailable { what }
        | Fault::NotSupported { what }
        | Fault::CredentialsRefused { what }
        | Fault::NotDecrypted { what }
        | Fault::InvalidRequest { reason: what } => *what = format!("{place}: {what}{after}"),
        _ => {}
    }
    error
}
