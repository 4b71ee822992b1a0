//! The function list we hand out: every function of it is ours, whatever is behind.

/// Functions in a session. In real mode they go to the module behind: its session for ours, its objects for those a call
/// `takes`, our handles for those it `gives`. In null mode they do what `null` says, or are not supported. `query` tells
/// whether only a length is asked for; `then` is done after a success in either mode.
macro_rules! forwarded {
    ($($function:ident($($argument:ident: $type:ty),* $(,)?) $(takes($($taken:ident),*))? $(gives($($given:ident),*))?
        $(query($query:expr))? $(null($null:expr))? $(then($then:expr))?;)*) => {
        $(
            #[allow(unused_mut, unused_assignments, clippy::too_many_arguments, reason = "one text for all of them")]
            pub(crate) unsafe extern "C" fn $function<const INSTANCE: usize>(session: CK_SESSION_HANDLE, $($argument: $type),*) -> CK_RV {
                let mut query = false;
                $(query = $query;)?
                in_session::<INSTANCE>(Function::$function, session, query, |call| {
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

/// So many instances of the module can be told apart by their functions; the next is the first again.
const INSTANCES: usize = 3;

static LISTS: [CK_FUNCTION_LIST; INSTANCES] = [Instance::<0>::LIST, Instance::<1>::LIST, Instance::<2>::LIST];

/// The functions of an instance, from 0.
pub(crate) fn instance(number: usize) -> &'static CK_FUNCTION_LIST {
    &LISTS[number % INSTANCES]
}

struct Instance<const INSTANCE: usize>;

impl<const INSTANCE: usize> Instance<INSTANCE> {
    /// PKCS#11 v2.40.
    const LIST: CK_FUNCTION_LIST = CK_FUNCTION_LIST {
        version: CK_VERSION { major: 2, minor: 40 },
        C_Initialize: Some(g::C_Initialize::<INSTANCE>),
        C_Finalize: Some(g::C_Finalize::<INSTANCE>),
        C_GetInfo: Some(g::C_GetInfo::<INSTANCE>),
        C_GetFunctionList: Some(crate::C_GetFunctionList),
        C_GetSlotList: Some(g::C_GetSlotList::<INSTANCE>),
        C_GetSlotInfo: Some(g::C_GetSlotInfo::<INSTANCE>),
        C_GetTokenInfo: Some(g::C_GetTokenInfo::<INSTANCE>),
        C_GetMechanismList: Some(g::C_GetMechanismList::<INSTANCE>),
        C_GetMechanismInfo: Some(g::C_GetMechanismInfo::<INSTANCE>),
        C_InitToken: Some(g::C_InitToken::<INSTANCE>),
        C_InitPIN: Some(s::C_InitPIN::<INSTANCE>),
        C_SetPIN: Some(s::C_SetPIN::<INSTANCE>),
        C_OpenSession: Some(s::C_OpenSession::<INSTANCE>),
        C_CloseSession: Some(s::C_CloseSession::<INSTANCE>),
        C_CloseAllSessions: Some(g::C_CloseAllSessions::<INSTANCE>),
        C_GetSessionInfo: Some(s::C_GetSessionInfo::<INSTANCE>),
        C_GetOperationState: Some(s::C_GetOperationState::<INSTANCE>),
        C_SetOperationState: Some(s::C_SetOperationState::<INSTANCE>),
        C_Login: Some(s::C_Login::<INSTANCE>),
        C_Logout: Some(s::C_Logout::<INSTANCE>),
        C_CreateObject: Some(s::C_CreateObject::<INSTANCE>),
        C_CopyObject: Some(s::C_CopyObject::<INSTANCE>),
        C_DestroyObject: Some(s::C_DestroyObject::<INSTANCE>),
        C_GetObjectSize: Some(s::C_GetObjectSize::<INSTANCE>),
        C_GetAttributeValue: Some(s::C_GetAttributeValue::<INSTANCE>),
        C_SetAttributeValue: Some(s::C_SetAttributeValue::<INSTANCE>),
        C_FindObjectsInit: Some(s::C_FindObjectsInit::<INSTANCE>),
        C_FindObjects: Some(s::C_FindObjects::<INSTANCE>),
        C_FindObjectsFinal: Some(s::C_FindObjectsFinal::<INSTANCE>),
        C_EncryptInit: Some(k::C_EncryptInit::<INSTANCE>),
        C_Encrypt: Some(k::C_Encrypt::<INSTANCE>),
        C_EncryptUpdate: Some(k::C_EncryptUpdate::<INSTANCE>),
        C_EncryptFinal: Some(k::C_EncryptFinal::<INSTANCE>),
        C_DecryptInit: Some(k::C_DecryptInit::<INSTANCE>),
        C_Decrypt: Some(k::C_Decrypt::<INSTANCE>),
        C_DecryptUpdate: Some(k::C_DecryptUpdate::<INSTANCE>),
        C_DecryptFinal: Some(k::C_DecryptFinal::<INSTANCE>),
        C_DigestInit: Some(k::C_DigestInit::<INSTANCE>),
        C_Digest: Some(k::C_Digest::<INSTANCE>),
        C_DigestUpdate: Some(k::C_DigestUpdate::<INSTANCE>),
        C_DigestKey: Some(k::C_DigestKey::<INSTANCE>),
        C_DigestFinal: Some(k::C_DigestFinal::<INSTANCE>),
        C_SignInit: Some(k::C_SignInit::<INSTANCE>),
        C_Sign: Some(k::C_Sign::<INSTANCE>),
        C_SignUpdate: Some(k::C_SignUpdate::<INSTANCE>),
        C_SignFinal: Some(k::C_SignFinal::<INSTANCE>),
        C_SignRecoverInit: Some(k::C_SignRecoverInit::<INSTANCE>),
        C_SignRecover: Some(k::C_SignRecover::<INSTANCE>),
        C_VerifyInit: Some(k::C_VerifyInit::<INSTANCE>),
        C_Verify: Some(k::C_Verify::<INSTANCE>),
        C_VerifyUpdate: Some(k::C_VerifyUpdate::<INSTANCE>),
        C_VerifyFinal: Some(k::C_VerifyFinal::<INSTANCE>),
        C_VerifyRecoverInit: Some(k::C_VerifyRecoverInit::<INSTANCE>),
        C_VerifyRecover: Some(k::C_VerifyRecover::<INSTANCE>),
        C_DigestEncryptUpdate: Some(k::C_DigestEncryptUpdate::<INSTANCE>),
        C_DecryptDigestUpdate: Some(k::C_DecryptDigestUpdate::<INSTANCE>),
        C_SignEncryptUpdate: Some(k::C_SignEncryptUpdate::<INSTANCE>),
        C_DecryptVerifyUpdate: Some(k::C_DecryptVerifyUpdate::<INSTANCE>),
        C_GenerateKey: Some(k::C_GenerateKey::<INSTANCE>),
        C_GenerateKeyPair: Some(k::C_GenerateKeyPair::<INSTANCE>),
        C_WrapKey: Some(k::C_WrapKey::<INSTANCE>),
        C_UnwrapKey: Some(k::C_UnwrapKey::<INSTANCE>),
        C_DeriveKey: Some(k::C_DeriveKey::<INSTANCE>),
        C_SeedRandom: Some(s::C_SeedRandom::<INSTANCE>),
        C_GenerateRandom: Some(s::C_GenerateRandom::<INSTANCE>),
        C_GetFunctionStatus: Some(s::C_GetFunctionStatus::<INSTANCE>),
        C_CancelFunction: Some(s::C_CancelFunction::<INSTANCE>),
        C_WaitForSlotEvent: Some(g::C_WaitForSlotEvent::<INSTANCE>),
    };
}
