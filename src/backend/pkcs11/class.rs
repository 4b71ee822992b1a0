//! What a return value means, as one table: by the function that gave it and the vendor's profile. By what was really
//! seen of modules, not by the standard's words alone.

use cryptoki_sys::*;

use crate::backend::Fate;
use crate::config::Profile::{self, CloudHsm, Kryoptic, Luna, NShield, YubiHsm};

/// The calls whose errors are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
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
}

impl Function {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Function::Initialize => "C_Initialize",
            Function::GetSlotList => "C_GetSlotList",
            Function::GetTokenInfo => "C_GetTokenInfo",
            Function::OpenSession => "C_OpenSession",
            Function::GetSessionInfo => "C_GetSessionInfo",
            Function::Login => "C_Login",
            Function::FindObjects => "C_FindObjects",
            Function::GetAttributeValue => "C_GetAttributeValue",
            Function::GenerateKey => "C_GenerateKey",
            Function::GenerateKeyPair => "C_GenerateKeyPair",
            Function::SignInit => "C_SignInit",
            Function::Sign => "C_Sign",
            Function::VerifyInit => "C_VerifyInit",
            Function::Verify => "C_Verify",
            Function::EncryptInit => "C_EncryptInit",
            Function::Encrypt => "C_Encrypt",
            Function::DecryptInit => "C_DecryptInit",
            Function::Decrypt => "C_Decrypt",
        }
    }
}

/// What is wrong, and so what becomes of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// The caller's input, or the normal "no" to it: the session is healthy.
    Input,
    /// Neither this key nor this token does it: the session is healthy.
    NotSupported,
    /// The session, or the operation on it, is gone or not to be trusted.
    Session,
    /// The key's handle is gone.
    Key,
    /// The login is gone.
    Login,
    /// The module's state is gone, or no longer tells what is so.
    Module,
    /// Throttled, full, or not there yet. Never counted as a failure of what answers so.
    Busy,
    /// It does not come so far, and does not say why. A module may have lost its way to the device, and find it by another
    /// initialisation only.
    Unexplained,
    /// The PIN was refused.
    Refused,
}

impl Class {
    pub(super) const fn fate(self) -> Fate {
        match self {
            Class::Input | Class::NotSupported => Fate::Keep,
            Class::Session => Fate::Reopen,
            Class::Key => Fate::FindAgain,
            Class::Login => Fate::LoginAgain,
            Class::Module => Fate::Reinitialize,
            Class::Busy | Class::Unexplained => Fate::BackOff,
            Class::Refused => Fate::Retire,
        }
    }

    /// Whether another initialisation may help, once nothing of the module is in use.
    pub(super) const fn outdates(self) -> bool {
        matches!(self, Class::Module | Class::Unexplained)
    }
}

/// Which return values a row is about.
pub(super) enum Values {
    These(&'static [CK_RV]),
    /// `CKR_VENDOR_DEFINED` and above.
    Vendors,
    Any,
}

/// One row. Without profiles, or without functions, it is about all of them.
pub(super) struct Row {
    pub(super) profiles: &'static [Profile],
    functions: &'static [Function],
    values: Values,
    pub(super) class: Class,
    /// What the operator can do; empty where the daemon helps itself.
    pub(super) advice: &'static str,
}

impl Row {
    fn covers(&self, profile: Profile, function: Function, rv: CK_RV) -> bool {
        (self.profiles.is_empty() || self.profiles.contains(&profile))
            && (self.functions.is_empty() || self.functions.contains(&function))
            && match self.values {
                Values::These(values) => values.contains(&rv),
                Values::Vendors => rv >= CKR_VENDOR_DEFINED,
                Values::Any => true,
            }
    }
}

const fn row(
    profiles: &'static [Profile],
    functions: &'static [Function],
    values: Values,
    class: Class,
    advice: &'static str,
) -> Row {
    Row { profiles, functions, values, class, advice }
}

const ALL: &[Profile] = &[];
const ANY: &[Function] = &[];
/// A key at work.
const USE: &[Function] = &[
    Function::SignInit,
    Function::Sign,
    Function::VerifyInit,
    Function::Verify,
    Function::EncryptInit,
    Function::Encrypt,
    Function::DecryptInit,
    Function::Decrypt,
];
/// Calls that judge bytes somebody else made.
const JUDGE: &[Function] = &[Function::Verify, Function::Decrypt];
/// Calls that are given no bytes somebody else encrypted.
const NO_CIPHERTEXT: &[Function] = &[Function::SignInit, Function::Sign, Function::EncryptInit, Function::Encrypt];
/// Calls that come before there is a session that is logged in.
const BEFORE: &[Function] =
    &[Function::Initialize, Function::GetSlotList, Function::GetTokenInfo, Function::OpenSession, Function::Login];

const PIN_REFUSED: &[CK_RV] = &[CKR_PIN_INCORRECT, CKR_PIN_INVALID, CKR_PIN_LEN_RANGE, CKR_PIN_TOO_WEAK];
const PIN_EXPIRED: &[CK_RV] = &[CKR_PIN_EXPIRED, CKR_NEW_PIN_MODE];
const EXPIRED: &str = "the PIN has expired: set a new one with the vendor's tool";
const CORRECT_THE_PIN: &str = "correct the PIN";
const FEWER_SESSIONS: &str = "the token has no room for one more; lower max_sessions of its kms_library or pool member, \
                              or close what other programs keep open on it";

use Values::{Any, These, Vendors};

/// The table. The first row that fits counts; rows of a vendor come before those of everyone.
pub(super) static TABLE: &[Row] = &[
    // === what one vendor means by it ===
    //
    // Busy HSMs of a cluster: Client SDK 5 says the first, SDK 3 the second. More retries would feed the storm.
    row(
        &[CloudHsm],
        ANY,
        These(&[CKR_FUNCTION_FAILED, CKR_OPERATION_ACTIVE]),
        Class::Busy,
        "the HSMs may be throttling; if it lasts, lower max_sessions or add HSMs to the cluster",
    ),
    // Its word for more sessions than there may be.
    row(&[CloudHsm], &[Function::OpenSession], These(&[CKR_ARGUMENTS_BAD]), Class::Busy, FEWER_SESSIONS),
    // Their words for bytes that do not decrypt.
    row(&[NShield], JUDGE, These(&[CKR_FUNCTION_FAILED]), Class::Input, ""),
    row(&[Kryoptic], JUDGE, These(&[CKR_DEVICE_ERROR]), Class::Input, ""),
    // A high-availability group that lost all its members: only a new initialisation brings the login back.
    row(&[Luna], ANY, These(&[CKR_USER_NOT_LOGGED_IN]), Class::Module, ""),
    // One secure channel for all sessions of a slot. It dies when idle, and opening sessions does not renew it.
    row(&[YubiHsm], ANY, These(&[CKR_SESSION_CLOSED]), Class::Module, ""),
    // The connector is not reached any more.
    row(
        &[YubiHsm],
        USE,
        These(&[CKR_FUNCTION_FAILED]),
        Class::Module,
        "see that yubihsm-connector runs and reaches the device",
    ),
    // A cryptogram of that channel does not fit: at the login by a wrong password, later by a channel that is out of step.
    row(&[YubiHsm], &[Function::Login], These(&[CKR_ENCRYPTED_DATA_INVALID]), Class::Refused, CORRECT_THE_PIN),
    row(&[YubiHsm], NO_CIPHERTEXT, These(&[CKR_ENCRYPTED_DATA_INVALID]), Class::Module, ""),
    // Its audit log is full, and it does nothing before somebody has read it.
    row(
        &[YubiHsm],
        ANY,
        These(&[CKR_DEVICE_MEMORY]),
        Class::Busy,
        "its audit log or its storage may be full; fetch the log and acknowledge it",
    ),
    // === the PIN ===
    //
    // Three tries lock most tokens: never again before an operator acts, whichever call says so.
    row(ALL, ANY, These(PIN_REFUSED), Class::Refused, CORRECT_THE_PIN),
    row(ALL, ANY, These(&[CKR_PIN_LOCKED]), Class::Refused, "the PIN is locked: have the security officer reset it"),
    row(ALL, &[Function::Login], These(PIN_EXPIRED), Class::Refused, EXPIRED),
    // A login tells whether it is so. The PIN is the right one, so that no try is lost by it.
    row(ALL, ANY, These(PIN_EXPIRED), Class::Login, EXPIRED),
    // All we say at a login is the PIN.
    row(
        ALL,
        &[Function::Login],
        These(&[CKR_ARGUMENTS_BAD, CKR_DATA_INVALID, CKR_DATA_LEN_RANGE]),
        Class::Refused,
        "the token takes no PIN of this form; correct the PIN",
    ),
    // None was tried, and it may be set at any time.
    row(
        ALL,
        ANY,
        These(&[CKR_USER_PIN_NOT_INITIALIZED]),
        Class::Busy,
        "its user PIN is not set: have the security officer set it",
    ),
    row(
        ALL,
        ANY,
        These(&[CKR_USER_ANOTHER_ALREADY_LOGGED_IN, CKR_USER_TOO_MANY_TYPES]),
        Class::Busy,
        "another user of the token is logged in; log it out",
    ),
    // === the login ===
    //
    // The link was renewed, or another party logged out.
    row(ALL, ANY, These(&[CKR_USER_NOT_LOGGED_IN]), Class::Login, ""),
    // At a login this is success (`SUCCESSES`). Elsewhere it is a state that somebody left behind.
    row(ALL, ANY, These(&[CKR_USER_ALREADY_LOGGED_IN]), Class::Session, ""),
    // === the module and the token ===
    //
    // Another party finalised it, or it did so itself after a long pause.
    row(ALL, ANY, These(&[CKR_CRYPTOKI_NOT_INITIALIZED]), Class::Module, ""),
    // At the initialisation this is success (`SUCCESSES`).
    row(ALL, ANY, These(&[CKR_CRYPTOKI_ALREADY_INITIALIZED]), Class::Module, ""),
    // Gone, or the link to it. Modules read their tokens once, so that only a new initialisation sees it come back.
    row(ALL, ANY, These(&[CKR_DEVICE_REMOVED, CKR_TOKEN_NOT_PRESENT]), Class::Module, ""),
    // Slots were numbered anew.
    row(ALL, ANY, These(&[CKR_TOKEN_NOT_RECOGNIZED, CKR_SLOT_ID_INVALID]), Class::Module, ""),
    // A module in its error state leaves it by an initialisation only.
    row(ALL, ANY, These(&[CKR_FIPS_SELF_TEST_FAILED]), Class::Module, "the module fails its self-tests"),
    row(
        ALL,
        ANY,
        These(&[CKR_LIBRARY_LOAD_FAILED]),
        Class::Busy,
        "the module cannot load a library it needs; install it",
    ),
    row(ALL, ANY, These(&[CKR_TOKEN_NOT_INITIALIZED]), Class::Busy, "initialise the token"),
    // === room ===
    //
    // Requests go on with the sessions there are.
    row(ALL, ANY, These(&[CKR_SESSION_COUNT]), Class::Busy, FEWER_SESSIONS),
    row(
        ALL,
        ANY,
        These(&[CKR_DEVICE_MEMORY, CKR_HOST_MEMORY, CKR_TOKEN_RESOURCE_EXCEEDED]),
        Class::Busy,
        "out of memory there; lower max_sessions, or remove what other programs left on it",
    ),
    // We open read/write sessions: keys are generated in them, and some HSMs have no others.
    row(
        ALL,
        &[Function::OpenSession],
        These(&[CKR_TOKEN_WRITE_PROTECTED, CKR_SESSION_READ_WRITE_SO_EXISTS]),
        Class::Busy,
        "read/write sessions are needed; remove the write protection, or log the security officer out",
    ),
    // === the session and the operation on it ===
    //
    // The HSM or a proxy restarted, it was idle for too long, or somebody closed all sessions.
    row(ALL, ANY, These(&[CKR_SESSION_HANDLE_INVALID, CKR_SESSION_CLOSED]), Class::Session, ""),
    // Somebody left a search or a signature open on it.
    row(ALL, ANY, These(&[CKR_OPERATION_ACTIVE, CKR_OPERATION_CANCEL_FAILED]), Class::Session, ""),
    // It was reset between C_SignInit and C_Sign.
    row(ALL, ANY, These(&[CKR_OPERATION_NOT_INITIALIZED]), Class::Session, ""),
    // Asked again with the room it named, it still has none: the operation stays active.
    row(ALL, ANY, These(&[CKR_BUFFER_TOO_SMALL]), Class::Session, ""),
    // The library shuts down, or nobody answered at the PIN pad.
    row(ALL, ANY, These(&[CKR_FUNCTION_CANCELED, CKR_CANCEL]), Class::Session, ""),
    // === the key ===
    //
    // Reconnected, deleted or rotated. Sessions are as good as before; the handle may by now be another key's.
    row(ALL, USE, These(&[CKR_OBJECT_HANDLE_INVALID, CKR_KEY_HANDLE_INVALID]), Class::Key, ""),
    // Deleted, or renumbered by a reconnect, between being found and being read: another search tells.
    row(ALL, &[Function::GetAttributeValue], These(&[CKR_OBJECT_HANDLE_INVALID]), Class::Key, ""),
    // === the caller ===
    //
    // "No" is an answer. C_Sign and its kin are never told pointers that depend on anyone, so that theirs is no surprise.
    row(
        ALL,
        ANY,
        These(&[
            CKR_DATA_INVALID,
            CKR_DATA_LEN_RANGE,
            CKR_SIGNATURE_INVALID,
            CKR_SIGNATURE_LEN_RANGE,
            CKR_ENCRYPTED_DATA_INVALID,
            CKR_ENCRYPTED_DATA_LEN_RANGE,
            CKR_AEAD_DECRYPT_FAILED,
            CKR_WRAPPED_KEY_INVALID,
            CKR_WRAPPED_KEY_LEN_RANGE,
        ]),
        Class::Input,
        "",
    ),
    // Soft tokens say it of bytes that do not decrypt. Where there is real trouble, the next signature finds it.
    row(ALL, JUDGE, These(&[CKR_GENERAL_ERROR]), Class::Input, ""),
    // The mechanism, the key's kind or its attributes.
    row(
        ALL,
        ANY,
        These(&[
            CKR_MECHANISM_INVALID,
            CKR_MECHANISM_PARAM_INVALID,
            CKR_CURVE_NOT_SUPPORTED,
            CKR_DOMAIN_PARAMS_INVALID,
            CKR_PARAMETER_SET_NOT_SUPPORTED,
            CKR_FUNCTION_NOT_SUPPORTED,
            CKR_KEY_FUNCTION_NOT_PERMITTED,
            CKR_KEY_TYPE_INCONSISTENT,
            CKR_KEY_SIZE_RANGE,
            CKR_KEY_EXHAUSTED,
            CKR_PUBLIC_KEY_INVALID,
            CKR_ACTION_PROHIBITED,
            CKR_FUNCTION_REJECTED,
            CKR_ATTRIBUTE_READ_ONLY,
            CKR_ATTRIBUTE_SENSITIVE,
            CKR_ATTRIBUTE_TYPE_INVALID,
            CKR_ATTRIBUTE_VALUE_INVALID,
            CKR_TEMPLATE_INCOMPLETE,
            CKR_TEMPLATE_INCONSISTENT,
            CKR_TOKEN_WRITE_PROTECTED,
            CKR_SESSION_READ_ONLY,
        ]),
        Class::NotSupported,
        "",
    ),
    // What is passed to these depends on the mechanism and the input alone.
    row(ALL, USE, These(&[CKR_ARGUMENTS_BAD]), Class::NotSupported, ""),
    row(ALL, &[Function::GenerateKey, Function::GenerateKeyPair], These(&[CKR_ARGUMENTS_BAD]), Class::NotSupported, ""),
    // === the rest ===
    //
    // No session is at fault yet. A code of the vendor's at a login may mean the PIN: the token's flags keep its last try.
    row(ALL, BEFORE, Any, Class::Unexplained, ""),
    // Anything: link loss, busy firmware, threads. One more try on a fresh session tells.
    row(ALL, ANY, These(&[CKR_DEVICE_ERROR, CKR_GENERAL_ERROR, CKR_FUNCTION_FAILED]), Class::Session, ""),
    // Unknown words: the session is not trusted, nothing else is touched.
    row(ALL, ANY, Vendors, Class::Session, "see the vendor's manual for the number"),
    row(ALL, ANY, Any, Class::Session, ""),
];

/// Answers that are as good as `CKR_OK`: a login and an initialisation that somebody has done already.
const SUCCESSES: &[(Function, CK_RV)] =
    &[(Function::Login, CKR_USER_ALREADY_LOGGED_IN), (Function::Initialize, CKR_CRYPTOKI_ALREADY_INITIALIZED)];

/// Whether `rv` is success. That a login has really taken is shown by the keys proven after it.
pub(super) fn is_success(function: Function, rv: CK_RV) -> bool {
    rv == CKR_OK || SUCCESSES.contains(&(function, rv))
}

/// The row that counts. The last one is about everything, so that there always is one.
pub(super) fn row_of(profile: Profile, function: Function, rv: CK_RV) -> &'static Row {
    static LAST: Row = row(ALL, ANY, Any, Class::Session, "");
    TABLE.iter().find(|row| row.covers(profile, function, rv)).unwrap_or(&LAST)
}

/// Whether a session that was told this is no longer known to the module. Its number may be another session's by now, so
/// that it must not be closed.
pub(super) fn is_session_gone(rv: CK_RV) -> bool {
    [CKR_SESSION_HANDLE_INVALID, CKR_SESSION_CLOSED, CKR_DEVICE_REMOVED, CKR_TOKEN_NOT_PRESENT].contains(&rv)
        || is_module_lost(rv)
}

/// Whether the module is not initialised any more, though we did not finalise it.
pub(super) fn is_module_lost(rv: CK_RV) -> bool {
    rv == CKR_CRYPTOKI_NOT_INITIALIZED
}
