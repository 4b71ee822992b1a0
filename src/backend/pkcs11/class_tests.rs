//! What return values mean: what was seen in the field, row by row, and what holds for all of them.

use cryptoki_sys::*;
use proptest::prelude::*;

use super::class::{Function, TABLE, is_module_lost, is_session_gone, is_success, row_of};
use super::fault::{at, check as succeeded, from_rv};
use super::return_value;
use crate::backend::{BackendError, Fate};
use crate::config::Profile;
use crate::model::{Fault, FaultLabel};

use Function::*;
use Profile::*;

const FUNCTIONS: [Function; 18] = [
    Initialize,
    GetSlotList,
    GetTokenInfo,
    OpenSession,
    GetSessionInfo,
    Login,
    FindObjects,
    GetAttributeValue,
    GenerateKey,
    GenerateKeyPair,
    SignInit,
    Sign,
    VerifyInit,
    Verify,
    EncryptInit,
    Encrypt,
    DecryptInit,
    Decrypt,
];

fn profiles() -> impl Iterator<Item = Profile> {
    Profile::ALL.into_iter().chain([Fake])
}

fn of(profile: Profile, function: Function, rv: CK_RV) -> BackendError {
    from_rv(profile, function, rv).error
}

fn everything() -> impl Iterator<Item = (Profile, Function, CK_RV)> {
    let known = || return_value::ALL.iter().copied().chain([0x1ff, CKR_VENDOR_DEFINED, 0x8000_1234, CK_RV::MAX]);
    profiles().flat_map(move |profile| {
        FUNCTIONS.into_iter().flat_map(move |function| known().map(move |rv| (profile, function, rv)))
    })
}

/// One line of what was seen in the field: the profile, the calls, the return values, and what they come to.
type Seen<'a> = (Profile, &'a [Function], &'a [CK_RV], FaultLabel, Fate);

fn check(seen: &[Seen<'_>]) {
    for (profile, functions, values, label, fate) in seen {
        for (function, rv) in functions.iter().flat_map(|function| values.iter().map(move |rv| (*function, *rv))) {
            let error = of(*profile, function, rv);
            assert_eq!((error.fault.label(), error.fate), (*label, *fate), "{profile:?} {function:?} {rv:#x}");
            assert_eq!(error.cause, return_value::name(rv));
        }
    }
}

#[test]
fn sessions_logins_and_operations_that_are_gone() {
    use FaultLabel::*;
    check(&[
        // HSM or proxy restart, idle time-out, somebody closed all sessions.
        (Generic, &[SignInit, Sign], &[CKR_SESSION_HANDLE_INVALID, CKR_SESSION_CLOSED], DeviceError, Fate::Reopen),
        // Idle for 30 s: only another initialisation helps.
        (YubiHsm, &[SignInit, Sign], &[CKR_SESSION_CLOSED], DeviceError, Fate::Reinitialize),
        // The link was renewed, another process logged out.
        (Generic, &[FindObjects, SignInit, Sign], &[CKR_USER_NOT_LOGGED_IN], DeviceError, Fate::LoginAgain),
        // A high-availability group lost all its members.
        (Luna, &[SignInit, Sign], &[CKR_USER_NOT_LOGGED_IN], DeviceError, Fate::Reinitialize),
        (Generic, &[SignInit], &[CKR_USER_ALREADY_LOGGED_IN], DeviceError, Fate::Reopen),
        // Somebody left an operation open; or a busy cluster.
        (Generic, &[SignInit, FindObjects], &[CKR_OPERATION_ACTIVE], DeviceError, Fate::Reopen),
        (CloudHsm, &[SignInit, Sign], &[CKR_OPERATION_ACTIVE], Unavailable, Fate::BackOff),
        // Reset between init and sign.
        (Generic, &[Sign], &[CKR_OPERATION_NOT_INITIALIZED], DeviceError, Fate::Reopen),
        // No room even when asked again with what it named.
        (Generic, &[Sign], &[CKR_BUFFER_TOO_SMALL], DeviceError, Fate::Reopen),
        // Shutdown, PIN pad time-out.
        (Generic, &[Sign], &[CKR_FUNCTION_CANCELED, CKR_CANCEL], DeviceError, Fate::Reopen),
        // Anything.
        (Generic, &[SignInit, Sign], &[CKR_DEVICE_ERROR], DeviceError, Fate::Reopen),
        // Threads, for a signature; bad bytes, for what judges bytes.
        (SoftHsm, &[SignInit, Sign, DecryptInit], &[CKR_GENERAL_ERROR], DeviceError, Fate::Reopen),
        (SoftHsm, &[Decrypt, Verify], &[CKR_GENERAL_ERROR], InvalidRequest, Fate::Keep),
        // A stale handle, in Kryoptic's words.
        (Kryoptic, &[SignInit], &[CKR_GENERAL_ERROR], DeviceError, Fate::Reopen),
        // One return value, four meanings.
        (Generic, &[Sign, Decrypt], &[CKR_FUNCTION_FAILED], DeviceError, Fate::Reopen),
        (CloudHsm, &[SignInit, Sign, Decrypt, GenerateKeyPair], &[CKR_FUNCTION_FAILED], Unavailable, Fate::BackOff),
        (NShield, &[Decrypt, Verify], &[CKR_FUNCTION_FAILED], InvalidRequest, Fate::Keep),
        (NShield, &[SignInit, Sign], &[CKR_FUNCTION_FAILED], DeviceError, Fate::Reopen),
        (Kryoptic, &[Decrypt, Verify], &[CKR_DEVICE_ERROR], InvalidRequest, Fate::Keep),
        (Kryoptic, &[DecryptInit, Encrypt, Sign], &[CKR_DEVICE_ERROR], DeviceError, Fate::Reopen),
        (YubiHsm, &[SignInit, Sign], &[CKR_FUNCTION_FAILED], DeviceError, Fate::Reinitialize),
        (YubiHsm, &[GetAttributeValue], &[CKR_FUNCTION_FAILED], DeviceError, Fate::Reopen),
        // Its secure channel is out of step.
        (YubiHsm, &[Sign], &[CKR_ENCRYPTED_DATA_INVALID], DeviceError, Fate::Reinitialize),
        // Words nobody knows.
        (Generic, &[SignInit, Sign], &[0x8000_1234, 0x1ff], DeviceError, Fate::Reopen),
    ]);
}

#[test]
fn modules_tokens_and_keys_that_are_gone() {
    use FaultLabel::*;
    check(&[
        // Unplugged, network HSM gone, another client of a proxy finalised; slots numbered anew.
        (
            Generic,
            &FUNCTIONS,
            &[CKR_DEVICE_REMOVED, CKR_TOKEN_NOT_PRESENT, CKR_TOKEN_NOT_RECOGNIZED, CKR_SLOT_ID_INVALID],
            DeviceError,
            Fate::Reinitialize,
        ),
        // Other code finalised; fork; idle.
        (Generic, &FUNCTIONS, &[CKR_CRYPTOKI_NOT_INITIALIZED], DeviceError, Fate::Reinitialize),
        // Reconnected, deleted or rotated.
        (
            Generic,
            &[SignInit, Sign, DecryptInit, Decrypt],
            &[CKR_OBJECT_HANDLE_INVALID, CKR_KEY_HANDLE_INVALID],
            DeviceError,
            Fate::FindAgain,
        ),
        (Generic, &[GetAttributeValue], &[CKR_OBJECT_HANDLE_INVALID], DeviceError, Fate::FindAgain),
    ]);
}

#[test]
fn full_busy_and_not_there_yet() {
    use FaultLabel::*;
    check(&[
        (Generic, &[OpenSession, SignInit], &[CKR_SESSION_COUNT], Unavailable, Fate::BackOff),
        (CloudHsm, &[OpenSession], &[CKR_ARGUMENTS_BAD], Unavailable, Fate::BackOff),
        (Generic, &[OpenSession], &[CKR_ARGUMENTS_BAD, CKR_DEVICE_ERROR], Unavailable, Fate::BackOff),
        (Generic, &[OpenSession, Sign], &[CKR_DEVICE_MEMORY, CKR_HOST_MEMORY], Unavailable, Fate::BackOff),
        (Generic, &[Initialize], &[CKR_GENERAL_ERROR, CKR_CANT_LOCK, 0x8000_0001], Unavailable, Fate::BackOff),
        (Generic, &[Login], &[CKR_USER_PIN_NOT_INITIALIZED], Unavailable, Fate::BackOff),
        // It may mean the PIN or the link. The token's flags keep the last try from being used up.
        (Luna, &[Login], &[0x8000_0042, CKR_DEVICE_ERROR], Unavailable, Fate::BackOff),
    ]);
    let full = of(CloudHsm, OpenSession, CKR_ARGUMENTS_BAD).fault.to_string();
    assert!(full.contains("C_OpenSession") && full.contains("lower max_sessions"), "{full}");
}

#[test]
fn what_the_caller_or_the_configuration_asked_wrongly() {
    use FaultLabel::*;
    check(&[
        (
            Generic,
            &[SignInit, Sign, GenerateKeyPair],
            &[
                CKR_MECHANISM_INVALID,
                CKR_MECHANISM_PARAM_INVALID,
                CKR_KEY_TYPE_INCONSISTENT,
                CKR_KEY_FUNCTION_NOT_PERMITTED,
                CKR_KEY_SIZE_RANGE,
                CKR_TEMPLATE_INCONSISTENT,
                CKR_ARGUMENTS_BAD,
            ],
            NotSupported,
            Fate::Keep,
        ),
        (Generic, &[SignInit, Sign], &[CKR_DATA_LEN_RANGE, CKR_DATA_INVALID], InvalidRequest, Fate::Keep),
        // A normal "no".
        (Generic, &[Verify], &[CKR_SIGNATURE_INVALID, CKR_SIGNATURE_LEN_RANGE], InvalidRequest, Fate::Keep),
        (Generic, &[Decrypt], &[CKR_ENCRYPTED_DATA_INVALID, CKR_ENCRYPTED_DATA_LEN_RANGE], InvalidRequest, Fate::Keep),
    ]);
}

#[test]
fn caller_faults_never_touch_the_session_in_any_profile() {
    let theirs = [CKR_MECHANISM_INVALID, CKR_KEY_TYPE_INCONSISTENT, CKR_KEY_FUNCTION_NOT_PERMITTED, CKR_DATA_LEN_RANGE];
    for (profile, function, rv) in everything().filter(|(_, function, rv)| *function != Login && theirs.contains(rv)) {
        assert_eq!(of(profile, function, rv).fate, Fate::Keep, "{profile:?} {function:?} {rv:#x}");
    }
}

#[test]
fn a_refused_pin_is_final_in_every_profile_and_function() {
    let refused = [CKR_PIN_INCORRECT, CKR_PIN_INVALID, CKR_PIN_LEN_RANGE, CKR_PIN_LOCKED, CKR_PIN_TOO_WEAK];
    for (profile, function, rv) in everything().filter(|(_, _, rv)| refused.contains(rv)) {
        let error = of(profile, function, rv);
        assert_eq!((error.fault.label(), error.fate), (FaultLabel::CredentialsRefused, Fate::Retire), "{rv:#x}");
        assert!(error.fault.to_string().contains("PIN"), "{}", error.fault);
    }
    // A wrong password, in the words of one vendor; a PIN of a form that the token does not take; one that has expired, of which
    // other calls only tell.
    check(&[
        (Generic, &[Login], &[CKR_PIN_EXPIRED, CKR_NEW_PIN_MODE], FaultLabel::CredentialsRefused, Fate::Retire),
        (
            Generic,
            &[SignInit, Decrypt, OpenSession, FindObjects],
            &[CKR_PIN_EXPIRED, CKR_NEW_PIN_MODE],
            FaultLabel::DeviceError,
            Fate::LoginAgain,
        ),
        (YubiHsm, &[Login], &[CKR_ENCRYPTED_DATA_INVALID], FaultLabel::CredentialsRefused, Fate::Retire),
        (Generic, &[Login], &[CKR_ARGUMENTS_BAD], FaultLabel::CredentialsRefused, Fate::Retire),
    ]);
}

#[test]
fn what_is_done_already_is_success() {
    let done = |function, rv| succeeded(Generic, function, rv).is_ok();
    assert!(done(Login, CKR_USER_ALREADY_LOGGED_IN));
    assert!(done(Initialize, CKR_CRYPTOKI_ALREADY_INITIALIZED));
    assert!(!done(Login, CKR_USER_NOT_LOGGED_IN) && !done(Initialize, CKR_USER_ALREADY_LOGGED_IN));
    assert!(!is_success(Sign, CKR_USER_ALREADY_LOGGED_IN) && is_success(Sign, CKR_OK));
}

/// A PIN that was refused, a device that is full or throttles: the module knows what it says.
#[test]
fn another_initialisation_may_help_where_a_module_does_not_say_why_it_comes_no_further() {
    let outdates = |function, rv| from_rv(Generic, function, rv).outdates;
    for rv in [CKR_DEVICE_ERROR, CKR_GENERAL_ERROR, CKR_FUNCTION_FAILED, 0x8000_0001] {
        assert!([GetSlotList, GetTokenInfo, OpenSession, Login].iter().all(|function| outdates(*function, rv)));
        assert!(!outdates(Sign, rv) && !outdates(FindObjects, rv), "{rv:#x}");
    }
    assert!([CKR_CRYPTOKI_NOT_INITIALIZED, CKR_DEVICE_REMOVED].iter().all(|rv| outdates(Sign, *rv)));
    assert!(![CKR_PIN_INCORRECT, CKR_PIN_LOCKED, CKR_SESSION_COUNT].iter().any(|rv| outdates(Login, *rv)));
    assert!(!from_rv(CloudHsm, Login, CKR_FUNCTION_FAILED).outdates);
}

#[test]
fn a_session_that_the_module_dropped_is_known_as_such() {
    for rv in [CKR_SESSION_HANDLE_INVALID, CKR_SESSION_CLOSED, CKR_DEVICE_REMOVED, CKR_CRYPTOKI_NOT_INITIALIZED] {
        assert!(is_session_gone(rv), "{rv:#x}");
        // Whoever is told so does not go on with it.
        assert!(matches!(of(Generic, Sign, rv).fate, Fate::Reopen | Fate::Reinitialize));
    }
    assert!(!is_session_gone(CKR_DEVICE_ERROR) && !is_session_gone(CKR_OPERATION_ACTIVE));
    assert!(is_module_lost(CKR_CRYPTOKI_NOT_INITIALIZED) && !is_module_lost(CKR_DEVICE_REMOVED));
}

#[test]
fn a_vendors_rows_come_before_those_of_everyone() {
    let vendors: Vec<bool> = TABLE.iter().map(|row| !row.profiles.is_empty()).collect();
    assert!(vendors.is_sorted_by(|one, next| one >= next), "{vendors:?}");
}

#[test]
fn every_row_decides_something() {
    let decided: Vec<_> = everything().map(|(profile, function, rv)| row_of(profile, function, rv)).collect();
    for (number, row) in TABLE.iter().enumerate() {
        assert!(decided.iter().any(|decided| std::ptr::eq(*decided, row)), "row {number} is never reached");
    }
}

#[test]
fn faults_name_the_call_and_the_return_value_and_the_place() {
    let error = of(Generic, Sign, CKR_DEVICE_ERROR);
    assert_eq!(error.fault, Fault::DeviceError { what: "C_Sign: CKR_DEVICE_ERROR (0x30)".into() });
    let vendors = of(Generic, Sign, 0x8000_1234);
    assert_eq!(vendors.cause, "CKR_VENDOR_DEFINED");
    assert!(vendors.fault.to_string().contains("0x80001234"), "{}", vendors.fault);
    let refused = at("token \"ca\" (slot 3, serial 42)", of(Generic, Login, CKR_PIN_INCORRECT));
    let what = "token \"ca\" (slot 3, serial 42): C_Login: CKR_PIN_INCORRECT (0xa0): correct the PIN";
    assert_eq!(refused.fault, Fault::CredentialsRefused { what: what.into() });
}

fn known_cause(cause: &str) -> bool {
    [return_value::UNKNOWN, return_value::VENDOR_DEFINED, "CKR_OK"].contains(&cause)
        || return_value::ALL.iter().any(|rv| return_value::name(*rv) == cause)
}

proptest! {
    /// Fault and fate fit each other, whatever a module comes up with.
    #[test]
    fn every_number_has_a_class(
        profile in proptest::sample::select(profiles().collect::<Vec<_>>()),
        function in proptest::sample::select(FUNCTIONS.to_vec()),
        rv in prop_oneof![proptest::sample::select(return_value::ALL.to_vec()), 0..0x400_u64, any::<u64>()],
    ) {
        let error = of(profile, function, rv);
        let fits = match error.fault.label() {
            FaultLabel::InvalidRequest | FaultLabel::NotSupported => error.fate == Fate::Keep,
            FaultLabel::Unavailable => error.fate == Fate::BackOff,
            FaultLabel::CredentialsRefused => error.fate == Fate::Retire,
            FaultLabel::DeviceError => ![Fate::Keep, Fate::BackOff, Fate::Retire].contains(&error.fate),
            _ => false,
        };
        prop_assert!(fits, "{:?}", error);
        prop_assert!(known_cause(error.cause), "{:?}", error);
    }
}
