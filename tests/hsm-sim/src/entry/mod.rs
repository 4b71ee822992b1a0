//! The function list we hand out: every function of it is ours, whatever is behind.

/// Functions in a session. In real mode they go to the module behind: its session for ours, its objects for those a call
/// `takes`, our handles for those it `gives`. In null mode they do what `null` says, or are not supported. `query` tells
/// whether only a length is asked for; `then` is done after a success in either mode.
macro_rules! forwarded {
    ($($function:ident($($argument:ident: $type:ty),* $(,)?) $(takes($($taken:ident),*))? $(gives($($given:ident),*))?
        $(query($query:expr))? $(null($null:expr))? $(then($then:expr))?;)*) => {
        $(
            #[allow(unused_mut, unused_assignments, clippy::too_many_arguments, reason = "one text for all of them")]
            pub(crate) unsafe extern "C" fn $function(session: CK_SESSION_HANDLE, $($argument: $type),*) -> CK_RV {
                let mut query = false;
                $(query = $query;)?
                in_session(Function::$function, session, query, |call| {
                    $($(let $taken = call.object($taken)?;)*)?
                    match call.real() {
                        Some((real, session)) => real!(real, $function(session, $($argument),*))?,
                        None => forwarded!(@null call $(, $null)?)?,
                    }
                    // SAFETY: the call has succeeded, so these are valid places.
                    $($(unsafe { call.hand_out($given) };)*)?
                    $($crate::entry::after(call, $then);)?
                    Ok(())
                })
            }
        )*
    };
    (@null $call:ident) => { Err(cryptoki_sys::CKR_FUNCTION_NOT_SUPPORTED) };
    (@null $call:ident, $null:expr) => { $crate::entry::by_itself($call, $null) };
}
mod general;
mod keys;
mod sessions;

use cryptoki_sys::{CK_FUNCTION_LIST, CK_VERSION};

use crate::call::{Answer, Call};

use general as g;
use keys as k;
use sessions as s;

fn by_itself(call: &Call<'_>, body: impl FnOnce(&Call<'_>) -> Answer) -> Answer {
    body(call)
}

fn after(call: &Call<'_>, body: impl FnOnce(&Call<'_>)) {
    body(call);
}

/// PKCS#11 v2.40.
pub(crate) static LIST: CK_FUNCTION_LIST = CK_FUNCTION_LIST {
    version: CK_VERSION { major: 2, minor: 40 },
    C_Initialize: Some(g::C_Initialize),
    C_Finalize: Some(g::C_Finalize),
    C_GetInfo: Some(g::C_GetInfo),
    C_GetFunctionList: Some(crate::C_GetFunctionList),
    C_GetSlotList: Some(g::C_GetSlotList),
    C_GetSlotInfo: Some(g::C_GetSlotInfo),
    C_GetTokenInfo: Some(g::C_GetTokenInfo),
    C_GetMechanismList: Some(g::C_GetMechanismList),
    C_GetMechanismInfo: Some(g::C_GetMechanismInfo),
    C_InitToken: Some(g::C_InitToken),
    C_InitPIN: Some(s::C_InitPIN),
    C_SetPIN: Some(s::C_SetPIN),
    C_OpenSession: Some(s::C_OpenSession),
    C_CloseSession: Some(s::C_CloseSession),
    C_CloseAllSessions: Some(g::C_CloseAllSessions),
    C_GetSessionInfo: Some(s::C_GetSessionInfo),
    C_GetOperationState: Some(s::C_GetOperationState),
    C_SetOperationState: Some(s::C_SetOperationState),
    C_Login: Some(s::C_Login),
    C_Logout: Some(s::C_Logout),
    C_CreateObject: Some(s::C_CreateObject),
    C_CopyObject: Some(s::C_CopyObject),
    C_DestroyObject: Some(s::C_DestroyObject),
    C_GetObjectSize: Some(s::C_GetObjectSize),
    C_GetAttributeValue: Some(s::C_GetAttributeValue),
    C_SetAttributeValue: Some(s::C_SetAttributeValue),
    C_FindObjectsInit: Some(s::C_FindObjectsInit),
    C_FindObjects: Some(s::C_FindObjects),
    C_FindObjectsFinal: Some(s::C_FindObjectsFinal),
    C_EncryptInit: Some(k::C_EncryptInit),
    C_Encrypt: Some(k::C_Encrypt),
    C_EncryptUpdate: Some(k::C_EncryptUpdate),
    C_EncryptFinal: Some(k::C_EncryptFinal),
    C_DecryptInit: Some(k::C_DecryptInit),
    C_Decrypt: Some(k::C_Decrypt),
    C_DecryptUpdate: Some(k::C_DecryptUpdate),
    C_DecryptFinal: Some(k::C_DecryptFinal),
    C_DigestInit: Some(k::C_DigestInit),
    C_Digest: Some(k::C_Digest),
    C_DigestUpdate: Some(k::C_DigestUpdate),
    C_DigestKey: Some(k::C_DigestKey),
    C_DigestFinal: Some(k::C_DigestFinal),
    C_SignInit: Some(k::C_SignInit),
    C_Sign: Some(k::C_Sign),
    C_SignUpdate: Some(k::C_SignUpdate),
    C_SignFinal: Some(k::C_SignFinal),
    C_SignRecoverInit: Some(k::C_SignRecoverInit),
    C_SignRecover: Some(k::C_SignRecover),
    C_VerifyInit: Some(k::C_VerifyInit),
    C_Verify: Some(k::C_Verify),
    C_VerifyUpdate: Some(k::C_VerifyUpdate),
    C_VerifyFinal: Some(k::C_VerifyFinal),
    C_VerifyRecoverInit: Some(k::C_VerifyRecoverInit),
    C_VerifyRecover: Some(k::C_VerifyRecover),
    C_DigestEncryptUpdate: Some(k::C_DigestEncryptUpdate),
    C_DecryptDigestUpdate: Some(k::C_DecryptDigestUpdate),
    C_SignEncryptUpdate: Some(k::C_SignEncryptUpdate),
    C_DecryptVerifyUpdate: Some(k::C_DecryptVerifyUpdate),
    C_GenerateKey: Some(k::C_GenerateKey),
    C_GenerateKeyPair: Some(k::C_GenerateKeyPair),
    C_WrapKey: Some(k::C_WrapKey),
    C_UnwrapKey: Some(k::C_UnwrapKey),
    C_DeriveKey: Some(k::C_DeriveKey),
    C_SeedRandom: Some(s::C_SeedRandom),
    C_GenerateRandom: Some(s::C_GenerateRandom),
    C_GetFunctionStatus: Some(s::C_GetFunctionStatus),
    C_CancelFunction: Some(s::C_CancelFunction),
    C_WaitForSlotEvent: Some(g::C_WaitForSlotEvent),
};
