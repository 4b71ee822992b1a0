//! The calls that lead to a key, from the module's function list: initialisation, slots and tokens, sessions, the login,
//! generation. What a module says of a length counts as far as there is room.

use std::ffi::c_void;

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_BBOOL, CK_C_INITIALIZE_ARGS, CK_FLAGS, CK_FUNCTION_LIST, CK_INFO, CK_MECHANISM, CK_MECHANISM_TYPE,
    CK_NOTIFY, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_SESSION_INFO, CK_SLOT_ID, CK_TOKEN_INFO, CK_TRUE,
    CK_ULONG, CK_USER_TYPE, CKF_OS_LOCKING_OK, CKF_RW_SESSION, CKF_SERIAL_SESSION, CKR_FUNCTION_NOT_SUPPORTED,
    CKU_USER,
};

use super::objects::{self, Template};
use super::table::there;

type Initialize = unsafe extern "C" fn(*mut c_void) -> CK_RV;
type GetInfo = unsafe extern "C" fn(*mut CK_INFO) -> CK_RV;
type GetSlotList = unsafe extern "C" fn(CK_BBOOL, *mut CK_SLOT_ID, *mut CK_ULONG) -> CK_RV;
type GetTokenInfo = unsafe extern "C" fn(CK_SLOT_ID, *mut CK_TOKEN_INFO) -> CK_RV;
type OpenSession = unsafe extern "C" fn(CK_SLOT_ID, CK_FLAGS, *mut c_void, CK_NOTIFY, *mut CK_SESSION_HANDLE) -> CK_RV;
type CloseSession = unsafe extern "C" fn(CK_SESSION_HANDLE) -> CK_RV;
type GetSessionInfo = unsafe extern "C" fn(CK_SESSION_HANDLE, *mut CK_SESSION_INFO) -> CK_RV;
type Login = unsafe extern "C" fn(CK_SESSION_HANDLE, CK_USER_TYPE, *mut u8, CK_ULONG) -> CK_RV;
type GenerateKey = unsafe extern "C" fn(
    CK_SESSION_HANDLE,
    *mut CK_MECHANISM,
    *mut CK_ATTRIBUTE,
    CK_ULONG,
    *mut CK_OBJECT_HANDLE,
) -> CK_RV;
type GenerateKeyPair = unsafe extern "C" fn(
    CK_SESSION_HANDLE,
    *mut CK_MECHANISM,
    *mut CK_ATTRIBUTE,
    CK_ULONG,
    *mut CK_ATTRIBUTE,
    CK_ULONG,
    *mut CK_OBJECT_HANDLE,
    *mut CK_OBJECT_HANDLE,
) -> CK_RV;

/// The functions. Handles and slots are plain numbers that the module checks.
#[derive(Clone)]
pub(super) struct Setup {
    initialize: Initialize,
    /// Takes what `C_Initialize` takes: a place that must be null here.
    finalize: Initialize,
    get_info: GetInfo,
    get_slot_list: GetSlotList,
    get_token_info: GetTokenInfo,
    open_session: OpenSession,
    close_session: CloseSession,
    get_session_info: GetSessionInfo,
    login: Login,
    // Not every module generates keys.
    generate_key: Option<GenerateKey>,
    generate_key_pair: Option<GenerateKeyPair>,
}

impl Setup {
    /// Those of a function list.
    pub(super) fn of(list: &CK_FUNCTION_LIST) -> Result<Setup, String> {
        Ok(Setup {
            initialize: there(list.C_Initialize, "C_Initialize")?,
            finalize: there(list.C_Finalize, "C_Finalize")?,
            get_info: there(list.C_GetInfo, "C_GetInfo")?,
            get_slot_list: there(list.C_GetSlotList, "C_GetSlotList")?,
            get_token_info: there(list.C_GetTokenInfo, "C_GetTokenInfo")?,
            open_session: there(list.C_OpenSession, "C_OpenSession")?,
            close_session: there(list.C_CloseSession, "C_CloseSession")?,
            get_session_info: there(list.C_GetSessionInfo, "C_GetSessionInfo")?,
            login: there(list.C_Login, "C_Login")?,
            generate_key: list.C_GenerateKey,
            generate_key_pair: list.C_GenerateKeyPair,
        })
    }

    /// `C_Initialize`: the module may be called by many threads, and is to use the system's locks.
    pub(super) fn initialize(&self) -> CK_RV {
        let mut arguments = CK_C_INITIALIZE_ARGS { flags: CKF_OS_LOCKING_OK, ..CK_C_INITIALIZE_ARGS::default() };
        // SAFETY: the arguments are valid for the call, with no pointers in them.
        unsafe { (self.initialize)(std::ptr::from_mut(&mut arguments).cast()) }
    }

    /// `C_Finalize`. The caller sees to it that nobody is inside the module.
    pub(super) fn finalize(&self) -> CK_RV {
        // SAFETY: null is the one argument there is. Handles of before mean nothing afterwards, and are checked.
        unsafe { (self.finalize)(std::ptr::null_mut()) }
    }

    /// `C_GetInfo` into `info`.
    pub(super) fn get_info(&self, info: &mut CK_INFO) -> CK_RV {
        // SAFETY: `info` is exclusively ours and valid, and has no pointers in it.
        unsafe { (self.get_info)(std::ptr::from_mut(info)) }
    }

    /// `C_GetSlotList` of the slots with a token: how many there are, by the module's word. It looks for them anew.
    pub(super) fn count_slots(&self, count: &mut CK_ULONG) -> CK_RV {
        // SAFETY: null asks for the number alone, which is written to a place that is exclusively ours.
        unsafe { (self.get_slot_list)(CK_TRUE, std::ptr::null_mut(), std::ptr::from_mut(count)) }
    }

    /// `C_GetSlotList` of the slots with a token, into `room`; how many there are by the module's word in `count`.
    pub(super) fn get_slot_list(&self, room: &mut [CK_SLOT_ID], count: &mut CK_ULONG) -> CK_RV {
        *count = room.len() as CK_ULONG;
        // SAFETY: the module writes at most `*count` numbers into `room`, which has so many, and their number into `count`.
        unsafe { (self.get_slot_list)(CK_TRUE, room.as_mut_ptr(), std::ptr::from_mut(count)) }
    }

    /// `C_GetTokenInfo` into `info`.
    pub(super) fn get_token_info(&self, slot: CK_SLOT_ID, info: &mut CK_TOKEN_INFO) -> CK_RV {
        // SAFETY: `info` is exclusively ours and valid, and has no pointers in it.
        unsafe { (self.get_token_info)(slot, std::ptr::from_mut(info)) }
    }

    /// `C_OpenSession`: a read/write session, its number into `session`.
    pub(super) fn open_session(&self, slot: CK_SLOT_ID, session: &mut CK_SESSION_HANDLE) -> CK_RV {
        let flags = CKF_SERIAL_SESSION | CKF_RW_SESSION;
        // SAFETY: nothing is to be called back, and so nothing passed to it; `session` is exclusively ours and valid.
        unsafe { (self.open_session)(slot, flags, std::ptr::null_mut(), None, std::ptr::from_mut(session)) }
    }

    /// `C_CloseSession`.
    pub(super) fn close_session(&self, session: CK_SESSION_HANDLE) -> CK_RV {
        // SAFETY: the handle is a plain number that the module checks.
        unsafe { (self.close_session)(session) }
    }

    /// `C_GetSessionInfo` into `info`.
    pub(super) fn get_session_info(&self, session: CK_SESSION_HANDLE, info: &mut CK_SESSION_INFO) -> CK_RV {
        // SAFETY: `info` is exclusively ours and valid, and has no pointers in it.
        unsafe { (self.get_session_info)(session, std::ptr::from_mut(info)) }
    }

    /// `C_Login` of the token's user.
    pub(super) fn login(&self, session: CK_SESSION_HANDLE, pin: &[u8]) -> CK_RV {
        // SAFETY: the module reads `pin.len()` bytes of `pin`, which it must not change (the pointer is mutable for the C
        // header's sake only).
        unsafe { (self.login)(session, CKU_USER, pin.as_ptr().cast_mut(), pin.len() as CK_ULONG) }
    }

    /// `C_GenerateKey` by a mechanism without a parameter; the key's handle into `key`.
    pub(super) fn generate_key(
        &self,
        session: CK_SESSION_HANDLE,
        mechanism: CK_MECHANISM_TYPE,
        template: &Template<'_>,
        key: &mut CK_OBJECT_HANDLE,
    ) -> CK_RV {
        let Some(generate) = self.generate_key else { return CKR_FUNCTION_NOT_SUPPORTED };
        let mut mechanism = CK_MECHANISM { mechanism, ..CK_MECHANISM::default() };
        let mut attributes = objects::native(template);
        let len = attributes.len() as CK_ULONG;
        // SAFETY: so many attributes, each with a value as long as it says, borrowed for the call. The module must not change
        // the values (the pointers are mutable for the C header's sake only). The rest is exclusively ours and valid.
        unsafe { generate(session, &raw mut mechanism, attributes.as_mut_ptr(), len, std::ptr::from_mut(key)) }
    }

    /// `C_GenerateKeyPair` by a mechanism without a parameter; the private key's handle into `key`.
    pub(super) fn generate_key_pair(
        &self,
        session: CK_SESSION_HANDLE,
        mechanism: CK_MECHANISM_TYPE,
        [public, private]: [&Template<'_>; 2],
        key: &mut CK_OBJECT_HANDLE,
    ) -> CK_RV {
        let Some(generate) = self.generate_key_pair else { return CKR_FUNCTION_NOT_SUPPORTED };
        let mut mechanism = CK_MECHANISM { mechanism, ..CK_MECHANISM::default() };
        let [mut public, mut private] = [objects::native(public), objects::native(private)];
        let (public_len, private_len) = (public.len() as CK_ULONG, private.len() as CK_ULONG);
        let mut other = 0;
        // SAFETY: as in `generate_key`, for two templates and two handles.
        unsafe {
            generate(
                session,
                &raw mut mechanism,
                public.as_mut_ptr(),
                public_len,
                private.as_mut_ptr(),
                private_len,
                &raw mut other,
                std::ptr::from_mut(key),
            )
        }
    }
}
