//! hsm-sim: a PKCS#11 module that forwards every call to a real module and counts those named below.
//!
//! - `HSM_SIM_MODULE` names the real module.
//! - `HSM_SIM_CALLS` names a folder, if calls are to be counted: each call of a function adds one byte to the file of its
//!   name there, so counts outlive the process and add up over several.
//!
//! It is a module like any other: it owns nothing but the function list it hands out. Functions that are not named below
//! are the real module's own.

#![allow(non_snake_case, reason = "PKCS#11 names its functions so")]

use std::io::Write;
use std::path::PathBuf;
use std::ptr;
use std::sync::OnceLock;

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_BYTE, CK_FLAGS, CK_FUNCTION_LIST, CK_MECHANISM, CK_NOTIFY, CK_OBJECT_HANDLE, CK_RV,
    CK_SESSION_HANDLE, CK_SLOT_ID, CK_TOKEN_INFO, CK_ULONG, CK_USER_TYPE, CKR_ARGUMENTS_BAD,
    CKR_FUNCTION_NOT_SUPPORTED, CKR_GENERAL_ERROR, CKR_OK,
};

type GetFunctionList = unsafe extern "C" fn(*mut *mut CK_FUNCTION_LIST) -> CK_RV;

/// The real module, and the list handed out in its place.
struct Sim {
    real: CK_FUNCTION_LIST,
    handed_out: CK_FUNCTION_LIST,
    calls: Option<PathBuf>,
    _library: libloading::Library,
}

static SIM: OnceLock<Option<Sim>> = OnceLock::new();

fn sim() -> Option<&'static Sim> {
    SIM.get_or_init(load).as_ref()
}

fn load() -> Option<Sim> {
    let path = std::env::var_os("HSM_SIM_MODULE")?;
    // SAFETY: loading a library runs its initialisers; whoever runs the tests names a PKCS#11 module.
    let library = unsafe { libloading::Library::new(path) }.ok()?;
    // SAFETY: every PKCS#11 module exports C_GetFunctionList with this signature.
    let get = unsafe { library.get::<GetFunctionList>(b"C_GetFunctionList\0") }.ok()?;
    let mut list = ptr::null_mut();
    // SAFETY: `list` is a valid place for a pointer.
    if unsafe { get(&raw mut list) } != CKR_OK || list.is_null() {
        return None;
    }
    // SAFETY: the module says that `list` points to its function list; the copy holds plain pointers into the library,
    // which stays loaded beside it.
    let real = unsafe { ptr::read(list) };
    let mut handed_out = real;
    install(&mut handed_out);
    Some(Sim { real, handed_out, calls: std::env::var_os("HSM_SIM_CALLS").map(PathBuf::from), _library: library })
}

fn count(function: &str) {
    let Some(folder) = sim().and_then(|sim| sim.calls.as_ref()) else { return };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(folder.join(function));
    // Losing a count would make a test pass or fail for no reason: better to end the process.
    if file.and_then(|mut file| file.write_all(b".")).is_err() {
        eprintln!("hsm-sim: cannot count {function} in {}", folder.display());
        std::process::abort();
    }
}

/// Wraps functions: each is counted, then handed to the real module.
macro_rules! counted {
    ($($function:ident($($argument:ident: $type:ty),*);)*) => {
        $(
            unsafe extern "C" fn $function($($argument: $type),*) -> CK_RV {
                count(stringify!($function));
                match sim().and_then(|sim| sim.real.$function) {
                    // SAFETY: the caller keeps the promises PKCS#11 asks of it; the arguments go on as they came.
                    Some(real) => unsafe { real($($argument),*) },
                    None => CKR_FUNCTION_NOT_SUPPORTED,
                }
            }
        )*

        fn install(list: &mut CK_FUNCTION_LIST) {
            $(list.$function = Some($function);)*
        }
    };
}

counted! {
    C_Initialize(arguments: *mut std::ffi::c_void);
    C_Finalize(reserved: *mut std::ffi::c_void);
    C_GetSlotList(present: CK_BYTE, slots: *mut CK_SLOT_ID, count: *mut CK_ULONG);
    C_GetTokenInfo(slot: CK_SLOT_ID, info: *mut CK_TOKEN_INFO);
    C_OpenSession(
        slot: CK_SLOT_ID, flags: CK_FLAGS, application: *mut std::ffi::c_void, notify: CK_NOTIFY,
        session: *mut CK_SESSION_HANDLE
    );
    C_CloseSession(session: CK_SESSION_HANDLE);
    C_Login(session: CK_SESSION_HANDLE, user: CK_USER_TYPE, pin: *mut CK_BYTE, len: CK_ULONG);
    C_Logout(session: CK_SESSION_HANDLE);
    C_FindObjectsInit(session: CK_SESSION_HANDLE, template: *mut CK_ATTRIBUTE, len: CK_ULONG);
    C_FindObjects(session: CK_SESSION_HANDLE, found: *mut CK_OBJECT_HANDLE, most: CK_ULONG, len: *mut CK_ULONG);
    C_FindObjectsFinal(session: CK_SESSION_HANDLE);
    C_GetAttributeValue(
        session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE, template: *mut CK_ATTRIBUTE, len: CK_ULONG
    );
    C_GenerateKeyPair(
        session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, public: *mut CK_ATTRIBUTE, public_len: CK_ULONG,
        private: *mut CK_ATTRIBUTE, private_len: CK_ULONG, public_key: *mut CK_OBJECT_HANDLE,
        private_key: *mut CK_OBJECT_HANDLE
    );
    C_SignInit(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE);
    C_Sign(
        session: CK_SESSION_HANDLE, data: *mut CK_BYTE, data_len: CK_ULONG, signature: *mut CK_BYTE, len: *mut CK_ULONG
    );
    C_SignUpdate(session: CK_SESSION_HANDLE, part: *mut CK_BYTE, len: CK_ULONG);
    C_SignFinal(session: CK_SESSION_HANDLE, signature: *mut CK_BYTE, len: *mut CK_ULONG);
}

/// PKCS#11's entry point.
///
/// # Safety
///
/// `list` must be null or a valid place for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    if list.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    match sim() {
        // SAFETY: checked not to be null; the caller says it is valid. The list lives as long as the process, and PKCS#11
        // forbids callers to change it.
        Some(sim) => unsafe { *list = ptr::from_ref(&sim.handed_out).cast_mut() },
        None => return CKR_GENERAL_ERROR,
    }
    CKR_OK
}
