//! The module behind, in real mode.

use std::collections::BTreeMap;
use std::path::Path;
use std::ptr;

use cryptoki_sys::{
    CK_FUNCTION_LIST, CK_RV, CK_SESSION_HANDLE, CK_SLOT_ID, CK_TOKEN_INFO, CKR_BUFFER_TOO_SMALL, CKR_OK,
};

use crate::call::{Answer, answer};
use crate::module::module;
use crate::settings;
use crate::slot::Names;

type GetFunctionList = unsafe extern "C" fn(*mut *mut CK_FUNCTION_LIST) -> CK_RV;

/// A loaded module.
pub(crate) struct Real {
    pub(crate) list: CK_FUNCTION_LIST,
    /// Keeps the functions in place.
    _library: libloading::Library,
}

/// Calls a function of the module behind.
macro_rules! real {
    ($real:expr, $function:ident($($argument:expr),* $(,)?)) => {
        match $real.list.$function {
            // SAFETY: the arguments are those of our own caller, who keeps the promises PKCS#11 asks for, or are as valid.
            Some(function) => $crate::call::answer(unsafe { function($($argument),*) }),
            None => Err(cryptoki_sys::CKR_FUNCTION_NOT_SUPPORTED),
        }
    };
}
pub(crate) use real;

impl Real {
    pub(crate) fn load(settings: &settings::Real) -> Result<Real, String> {
        set_environment(&settings.environment);
        Real::open(&settings.module).map_err(|error| format!("{}: {error}", settings.module.display()))
    }

    fn open(path: &Path) -> Result<Real, String> {
        // SAFETY: loading a library runs its initialisers; whoever writes the settings names a PKCS#11 module.
        let library = unsafe { libloading::Library::new(path) }.map_err(|error| error.to_string())?;
        // SAFETY: every PKCS#11 module exports C_GetFunctionList with this signature.
        let get =
            unsafe { library.get::<GetFunctionList>(b"C_GetFunctionList\0") }.map_err(|error| error.to_string())?;
        let mut list = ptr::null_mut();
        // SAFETY: `list` is a valid place for a pointer.
        let rv = unsafe { get(&raw mut list) };
        if rv != CKR_OK || list.is_null() {
            return Err(format!("C_GetFunctionList answers {rv:#x}"));
        }
        // SAFETY: the module says that `list` points to its function list; the copy holds plain pointers into the library,
        // which stays loaded beside it.
        let list = unsafe { ptr::read(list) };
        Ok(Real { list, _library: library })
    }

    /// The slots of the module, with and without a token, or only those with one.
    pub(crate) fn slots(&self, present: bool) -> Answer<Vec<CK_SLOT_ID>> {
        loop {
            let mut len = 0;
            real!(self, C_GetSlotList(u8::from(present), ptr::null_mut(), &raw mut len))?;
            let mut slots = vec![0; usize::try_from(len).unwrap_or(0)];
            if slots.is_empty() {
                return Ok(slots);
            }
            match real!(self, C_GetSlotList(u8::from(present), slots.as_mut_ptr(), &raw mut len)) {
                // More have come in between.
                Err(CKR_BUFFER_TOO_SMALL) => {}
                Err(rv) => return Err(rv),
                Ok(()) => {
                    slots.truncate(usize::try_from(len).unwrap_or(0));
                    return Ok(slots);
                }
            }
        }
    }

    /// The names of the token in a slot; none, if it has no token.
    pub(crate) fn names(&self, slot: CK_SLOT_ID) -> Names {
        let mut info = CK_TOKEN_INFO::default();
        match real!(self, C_GetTokenInfo(slot, &raw mut info)) {
            Ok(()) => Names { label: text(&info.label), serial: text(&info.serialNumber) },
            Err(_) => Names::default(),
        }
    }
}

/// A padded text of PKCS#11.
fn text(padded: &[u8]) -> String {
    String::from_utf8_lossy(padded).trim_end_matches([' ', '\0']).to_owned()
}

fn set_environment(variables: &BTreeMap<String, String>) {
    for (name, value) in variables {
        // SAFETY: it is for the settings' author to have no thread read the environment while the module is loaded; the
        // module behind can be told where its token is in no other way.
        unsafe { std::env::set_var(name, value) };
    }
}

/// A session of the module behind, closed when dropped.
pub(crate) struct RealSession {
    pub(crate) handle: CK_SESSION_HANDLE,
    /// The initialisation it is of. In a later one its handle may be another's.
    pub(crate) life: u64,
}

impl Drop for RealSession {
    fn drop(&mut self) {
        let Some(module) = module() else { return };
        if let Some(real) = module.real()
            && module.life() == self.life
            && let Some(close) = real.list.C_CloseSession
        {
            // Gone already, for all we care.
            // SAFETY: takes a number.
            let _ = answer(unsafe { close(self.handle) });
        }
    }
}
