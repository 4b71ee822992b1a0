//! The hot calls, straight from the module's function list.

use std::path::Path;
use std::sync::Arc;

use cryptoki_sys::{
    CK_FUNCTION_LIST, CK_MECHANISM, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_ULONG, CKR_FUNCTION_NOT_SUPPORTED,
    CKR_OK,
};

type GetFunctionList = unsafe extern "C" fn(*mut *mut CK_FUNCTION_LIST) -> CK_RV;
type SignInit = unsafe extern "C" fn(CK_SESSION_HANDLE, *mut CK_MECHANISM, CK_OBJECT_HANDLE) -> CK_RV;
type Sign = unsafe extern "C" fn(CK_SESSION_HANDLE, *mut u8, CK_ULONG, *mut u8, *mut CK_ULONG) -> CK_RV;

type CloseSession = unsafe extern "C" fn(CK_SESSION_HANDLE) -> CK_RV;

/// The functions, and the library they live in.
#[derive(Clone)]
pub(super) struct Table {
    sign_init: SignInit,
    sign: Sign,
    close_session: CloseSession,
    /// Keeps the code mapped. Loading the same path again gives the same library, so it shares the state `cryptoki` set up.
    _library: Arc<libloading::Library>,
}

impl Table {
    /// Reads the functions of the module at `path`.
    pub(super) fn load(path: &Path) -> Result<Table, String> {
        // SAFETY: loading a library runs its initialisers. The operator names this one in the configuration, and it has
        // been loaded by `cryptoki` just before.
        let library = unsafe { libloading::Library::new(path) }.map_err(|error| error.to_string())?;
        // SAFETY: every PKCS#11 module exports C_GetFunctionList with this signature (PKCS#11 v2.40, 5.4).
        let get =
            unsafe { library.get::<GetFunctionList>(b"C_GetFunctionList\0") }.map_err(|error| error.to_string())?;
        let mut list: *mut CK_FUNCTION_LIST = std::ptr::null_mut();
        // SAFETY: `list` is a valid place for a pointer; the call may come before C_Initialize.
        let rv = unsafe { get(&raw mut list) };
        if rv != CKR_OK || list.is_null() {
            return Err(format!("C_GetFunctionList answers {rv:#x}"));
        }
        // SAFETY: the module says that `list` points to its function list, which lives as long as the library. The fields
        // read are in the list of every version, at the same place.
        let functions = unsafe { ((*list).C_SignInit, (*list).C_Sign, (*list).C_CloseSession) };
        let (Some(sign_init), Some(sign), Some(close_session)) = functions else {
            let lacks = "the module has no C_SignInit, C_Sign or C_CloseSession";
            return Err(format!("{lacks} ({CKR_FUNCTION_NOT_SUPPORTED:#x})"));
        };
        Ok(Table { sign_init, sign, close_session, _library: Arc::new(library) })
    }

    /// `C_CloseSession`.
    pub(super) fn close_session(&self, session: CK_SESSION_HANDLE) -> CK_RV {
        // SAFETY: the handle is a plain number that the module checks.
        unsafe { (self.close_session)(session) }
    }

    /// `C_SignInit`. `mechanism`'s parameter, if it has one, must be valid for the call.
    pub(super) fn sign_init(
        &self,
        session: CK_SESSION_HANDLE,
        mechanism: &mut CK_MECHANISM,
        key: CK_OBJECT_HANDLE,
    ) -> CK_RV {
        // SAFETY: `mechanism` is exclusively ours and valid; handles are plain numbers that the module checks.
        unsafe { (self.sign_init)(session, mechanism, key) }
    }

    /// `C_Sign` into `buffer`; the signature's length, or on `CKR_BUFFER_TOO_SMALL` the length needed, in `len`.
    pub(super) fn sign(&self, session: CK_SESSION_HANDLE, data: &[u8], buffer: &mut [u8], len: &mut CK_ULONG) -> CK_RV {
        *len = buffer.len() as CK_ULONG;
        // SAFETY: the module reads `data.len()` bytes of `data`, which it must not change (the pointer is mutable for the C
        // header's sake only), and writes at most `*len` bytes, the length of `buffer`.
        unsafe {
            (self.sign)(
                session,
                data.as_ptr().cast_mut(),
                data.len() as CK_ULONG,
                buffer.as_mut_ptr(),
                std::ptr::from_mut(len),
            )
        }
    }
}
