//! The border: a native return value, by the function that gave it and the vendor's profile, becomes a [`Fault`] for the
//! asker and a [`Fate`] for the session.

use cryptoki::context::Function as NativeFunction;
use cryptoki::error::{Error, Rv, RvError};
use cryptoki_sys::CK_RV;

use crate::backend::{BackendError, DeviceInfo, Fate};
use crate::config::Profile;
use crate::model::Fault;

/// The calls whose errors are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Initialize,
    GetSlotList,
    GetTokenInfo,
    OpenSession,
    FindObjects,
    GetAttributeValue,
    GenerateKeyPair,
    SignInit,
    Sign,
}

impl Function {
    const fn name(self) -> &'static str {
        match self {
            Function::Initialize => "C_Initialize",
            Function::GetSlotList => "C_GetSlotList",
            Function::GetTokenInfo => "C_GetTokenInfo",
            Function::OpenSession => "C_OpenSession",
            Function::FindObjects => "C_FindObjects",
            Function::GetAttributeValue => "C_GetAttributeValue",
            Function::GenerateKeyPair => "C_GenerateKeyPair",
            Function::SignInit => "C_SignInit",
            Function::Sign => "C_Sign",
        }
    }
}

/// An error that is nobody's session's fault.
pub(super) fn keep(fault: Fault) -> BackendError {
    BackendError::keep(fault)
}

/// An error of a hot call.
pub(super) fn from_rv(profile: Profile, function: Function, rv: CK_RV) -> BackendError {
    match Rv::from(rv) {
        Rv::Ok => keep(Fault::internal("an error that is none")),
        Rv::Error(error) => classify(profile, function, &error, Some(rv)),
    }
}

/// An error of `cryptoki`.
pub(super) fn from_cryptoki(profile: Profile, function: Function, error: &Error) -> BackendError {
    match error {
        Error::Pkcs11(error, NativeFunction::FindObjectsInit | NativeFunction::FindObjectsFinal) => {
            classify(profile, Function::FindObjects, error, None)
        }
        Error::Pkcs11(error, _) => classify(profile, function, error, None),
        other => BackendError::new(Fate::Reopen, Fault::DeviceError { what: format!("{}: {other}", function.name()) }),
    }
}

/// An error of `C_Login`. Every refusal of the PIN is final: three tries lock most tokens. Where no PIN is set yet, none
/// was tried, and it may be set at any time.
pub(super) fn from_login(profile: Profile, token: &DeviceInfo, error: &Error) -> BackendError {
    let Error::Pkcs11(error, _) = error else { return from_cryptoki(profile, Function::OpenSession, error) };
    let advice = match error {
        RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange => "correct the PIN",
        RvError::PinLocked => "the PIN is locked: have the security officer reset it",
        RvError::PinExpired => "the PIN has expired: set a new one",
        RvError::UserPinNotInitialized => {
            let what = format!(
                "token {:?} (serial {}): its user PIN is not set: have the security officer set it",
                token.label, token.serial
            );
            return BackendError::new(Fate::BackOff, Fault::Unavailable { what });
        }
        other => return classify(profile, Function::OpenSession, other, None),
    };
    let what = format!("token {:?} (serial {}): C_Login: {error:?}: {advice}", token.label, token.serial);
    BackendError::new(Fate::Retire, Fault::CredentialsRefused { what })
}

fn classify(profile: Profile, function: Function, error: &RvError, rv: Option<CK_RV>) -> BackendError {
    let number = rv.map(|rv| format!(" ({rv:#x})")).unwrap_or_default();
    let what = format!("{}: {}{number}", function.name(), ckr_name(error));
    let fate = fate(profile, function, error);
    let fault = match error {
        RvError::MechanismInvalid
        | RvError::MechanismParamInvalid
        | RvError::CurveNotSupported
        | RvError::DomainParamsInvalid
        | RvError::FunctionNotSupported
        | RvError::KeyFunctionNotPermitted
        | RvError::KeyTypeInconsistent
        | RvError::KeySizeRange
        | RvError::AttributeValueInvalid
        | RvError::AttributeTypeInvalid
        | RvError::TemplateInconsistent
        | RvError::TemplateIncomplete => Fault::NotSupported { what: format!("the token refuses it: {what}") },
        RvError::DataInvalid | RvError::DataLenRange => Fault::invalid(format!("the token refuses the input: {what}")),
        RvError::ArgumentsBad if function == Function::SignInit => {
            Fault::NotSupported { what: format!("the token refuses the parameters: {what}") }
        }
        RvError::PinExpired | RvError::PinLocked => Fault::CredentialsRefused { what },
        _ if fate == Fate::BackOff => Fault::Unavailable { what },
        _ => Fault::DeviceError { what },
    };
    BackendError::new(fate, fault)
}

/// What becomes of the session or device. By what was really seen of modules, not by the standard's words alone.
fn fate(profile: Profile, function: Function, error: &RvError) -> Fate {
    use RvError as E;
    match error {
        // The caller's or the configuration's fault.
        E::MechanismInvalid
        | E::MechanismParamInvalid
        | E::CurveNotSupported
        | E::DomainParamsInvalid
        | E::FunctionNotSupported
        | E::KeyFunctionNotPermitted
        | E::KeyTypeInconsistent
        | E::KeySizeRange
        | E::AttributeValueInvalid
        | E::AttributeTypeInvalid
        | E::TemplateInconsistent
        | E::TemplateIncomplete
        | E::DataInvalid
        | E::DataLenRange
        | E::TokenWriteProtected
        | E::SessionReadOnly => Fate::Keep,
        E::ArgumentsBad if function == Function::SignInit => Fate::Keep,
        // More sessions than the token allows; AWS CloudHSM says it in other words.
        E::SessionCount | E::DeviceMemory | E::HostMemory => Fate::BackOff,
        E::ArgumentsBad if function == Function::OpenSession => Fate::BackOff,
        // AWS CloudHSM throttles by this one.
        E::FunctionFailed if profile == Profile::CloudHsm => Fate::BackOff,
        E::TokenNotPresent
        | E::TokenNotRecognized
        | E::SlotIdInvalid
        | E::DeviceRemoved
        | E::CryptokiNotInitialized => Fate::Reinitialize,
        E::UserNotLoggedIn => Fate::LoginAgain,
        E::PinExpired | E::PinLocked | E::PinIncorrect => Fate::Retire,
        // The session, the handle or the operation on it is gone, or is not to be trusted any more.
        _ => Fate::Reopen,
    }
}

/// The name in the standard: `CKR_DEVICE_ERROR` of `DeviceError`.
fn ckr_name(error: &RvError) -> String {
    let mut name = String::from("CKR");
    for c in format!("{error:?}").chars() {
        if c.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptoki_sys as sys;

    fn of(profile: Profile, function: Function, rv: CK_RV) -> (&'static str, Fate) {
        let error = from_rv(profile, function, rv);
        (error.fault.label().as_str(), error.fate)
    }

    #[test]
    fn each_return_value_has_its_fault_and_its_fate() {
        use Function::{OpenSession, Sign, SignInit};
        let table = [
            (SignInit, sys::CKR_SESSION_HANDLE_INVALID, "device_error", Fate::Reopen),
            (Sign, sys::CKR_SESSION_CLOSED, "device_error", Fate::Reopen),
            (Sign, sys::CKR_USER_NOT_LOGGED_IN, "device_error", Fate::LoginAgain),
            (Sign, sys::CKR_DEVICE_REMOVED, "device_error", Fate::Reinitialize),
            (Sign, sys::CKR_TOKEN_NOT_PRESENT, "device_error", Fate::Reinitialize),
            (OpenSession, sys::CKR_SLOT_ID_INVALID, "device_error", Fate::Reinitialize),
            (Sign, sys::CKR_DEVICE_ERROR, "device_error", Fate::Reopen),
            (OpenSession, sys::CKR_SESSION_COUNT, "unavailable", Fate::BackOff),
            (OpenSession, sys::CKR_ARGUMENTS_BAD, "unavailable", Fate::BackOff),
            (SignInit, sys::CKR_ARGUMENTS_BAD, "not_supported", Fate::Keep),
            (Sign, sys::CKR_GENERAL_ERROR, "device_error", Fate::Reopen),
            (Sign, sys::CKR_FUNCTION_FAILED, "device_error", Fate::Reopen),
            (SignInit, sys::CKR_OPERATION_ACTIVE, "device_error", Fate::Reopen),
            (Sign, sys::CKR_OPERATION_NOT_INITIALIZED, "device_error", Fate::Reopen),
            (SignInit, sys::CKR_OBJECT_HANDLE_INVALID, "device_error", Fate::Reopen),
            (SignInit, sys::CKR_KEY_HANDLE_INVALID, "device_error", Fate::Reopen),
            (SignInit, sys::CKR_CRYPTOKI_NOT_INITIALIZED, "device_error", Fate::Reinitialize),
            (SignInit, sys::CKR_MECHANISM_INVALID, "not_supported", Fate::Keep),
            (SignInit, sys::CKR_KEY_TYPE_INCONSISTENT, "not_supported", Fate::Keep),
            (SignInit, sys::CKR_KEY_FUNCTION_NOT_PERMITTED, "not_supported", Fate::Keep),
            (Sign, sys::CKR_DATA_LEN_RANGE, "invalid_request", Fate::Keep),
            (Sign, sys::CKR_FUNCTION_CANCELED, "device_error", Fate::Reopen),
            (Sign, 0x8000_1234, "device_error", Fate::Reopen),
        ];
        for (function, rv, label, fate) in table {
            assert_eq!(of(Profile::Generic, function, rv), (label, fate), "{function:?} {rv:#x}");
        }
        assert_eq!(of(Profile::CloudHsm, Sign, sys::CKR_FUNCTION_FAILED), ("unavailable", Fate::BackOff));
    }

    #[test]
    fn a_refused_pin_is_never_tried_again_and_says_what_to_do() {
        let token =
            DeviceInfo { serial: "42".into(), label: "ca".into(), max_sessions: None, profile: Profile::Generic };
        let error = Error::Pkcs11(RvError::PinIncorrect, NativeFunction::Login);
        let refused = from_login(Profile::Generic, &token, &error);
        assert_eq!((refused.fault.label().as_str(), refused.fate), ("credentials_refused", Fate::Retire));
        assert!(refused.fault.to_string().contains("serial 42"), "{}", refused.fault);
        let error = Error::Pkcs11(RvError::UserPinNotInitialized, NativeFunction::Login);
        let unset = from_login(Profile::Generic, &token, &error);
        assert_eq!((unset.fault.label().as_str(), unset.fate), ("unavailable", Fate::BackOff));
    }

    #[test]
    fn faults_name_the_call_and_the_return_value() {
        let error = from_rv(Profile::Generic, Function::Sign, sys::CKR_DEVICE_ERROR);
        assert_eq!(error.fault, Fault::DeviceError { what: "C_Sign: CKR_DEVICE_ERROR (0x30)".into() });
    }
}
