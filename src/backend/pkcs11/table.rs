//! A module's function list, and the calls of a key at work from it: what a module says of a length counts as far as there
//! is room. It is asked for once. Some modules (p11-kit's) give another instance each time, each with a state of its own.

use std::path::Path;
use std::sync::Arc;

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_FUNCTION_LIST, CK_MECHANISM, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_ULONG,
    CKR_FUNCTION_NOT_SUPPORTED, CKR_OK,
};

use super::class::Function;
use super::objects::{self, Template, Wanted};
use super::setup::Setup;

type GetFunctionList = unsafe extern "C" fn(*mut *mut CK_FUNCTION_LIST) -> CK_RV;
/// `C_SignInit`, `C_EncryptInit` and `C_DecryptInit` look alike, and so do the calls that follow them.
type Begin = unsafe extern "C" fn(CK_SESSION_HANDLE, *mut CK_MECHANISM, CK_OBJECT_HANDLE) -> CK_RV;
type Finish = unsafe extern "C" fn(CK_SESSION_HANDLE, *mut u8, CK_ULONG, *mut u8, *mut CK_ULONG) -> CK_RV;

type FindObjectsInit = unsafe extern "C" fn(CK_SESSION_HANDLE, *mut CK_ATTRIBUTE, CK_ULONG) -> CK_RV;
type FindObjects = unsafe extern "C" fn(CK_SESSION_HANDLE, *mut CK_OBJECT_HANDLE, CK_ULONG, *mut CK_ULONG) -> CK_RV;
type FindObjectsFinal = unsafe extern "C" fn(CK_SESSION_HANDLE) -> CK_RV;
type GetAttributeValue =
    unsafe extern "C" fn(CK_SESSION_HANDLE, CK_OBJECT_HANDLE, *mut CK_ATTRIBUTE, CK_ULONG) -> CK_RV;

/// What a key does, in two calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// A signature, or a MAC.
    Sign,
    Encrypt,
    Decrypt,
}

impl Deed {
    /// The two calls, as their errors are told apart.
    pub(super) const fn functions(self) -> (Function, Function) {
        match self {
            Deed::Sign => (Function::SignInit, Function::Sign),
            Deed::Encrypt => (Function::EncryptInit, Function::Encrypt),
            Deed::Decrypt => (Function::DecryptInit, Function::Decrypt),
        }
    }
}

/// The functions, and the library they live in.
#[derive(Clone)]
pub(super) struct Table {
    pub(super) setup: Setup,
    sign: (Begin, Finish),
    // Not every module encrypts.
    encrypt: Option<(Begin, Finish)>,
    decrypt: Option<(Begin, Finish)>,
    find_objects_init: FindObjectsInit,
    find_objects: FindObjects,
    find_objects_final: FindObjectsFinal,
    get_attribute_value: GetAttributeValue,
    /// Keeps the code mapped.
    _library: Arc<libloading::Library>,
}

impl Table {
    /// Reads the functions of the module at `path`.
    pub(super) fn load(path: &Path) -> Result<Table, String> {
        // SAFETY: loading a library runs its initialisers. The operator names this one in the configuration.
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
        // SAFETY: the module says that `list` points to its function list, of which every version begins as this one does;
        // it lives as long as the library, and the copy beside it.
        let list = unsafe { list.read_unaligned() };
        Ok(Table {
            setup: Setup::of(&list)?,
            sign: (there(list.C_SignInit, "C_SignInit")?, there(list.C_Sign, "C_Sign")?),
            encrypt: list.C_EncryptInit.zip(list.C_Encrypt),
            decrypt: list.C_DecryptInit.zip(list.C_Decrypt),
            find_objects_init: there(list.C_FindObjectsInit, "C_FindObjectsInit")?,
            find_objects: there(list.C_FindObjects, "C_FindObjects")?,
            find_objects_final: there(list.C_FindObjectsFinal, "C_FindObjectsFinal")?,
            get_attribute_value: there(list.C_GetAttributeValue, "C_GetAttributeValue")?,
            _library: Arc::new(library),
        })
    }

    fn deed(&self, deed: Deed) -> Option<(Begin, Finish)> {
        match deed {
            Deed::Sign => Some(self.sign),
            Deed::Encrypt => self.encrypt,
            Deed::Decrypt => self.decrypt,
        }
    }

    /// `C_SignInit` or its like. `mechanism`'s parameter, if it has one, must be valid for the call, and for the one that
    /// ends what begins here.
    pub(super) fn begin(
        &self,
        deed: Deed,
        session: CK_SESSION_HANDLE,
        mechanism: &mut CK_MECHANISM,
        key: CK_OBJECT_HANDLE,
    ) -> CK_RV {
        let Some((begin, _)) = self.deed(deed) else { return CKR_FUNCTION_NOT_SUPPORTED };
        // SAFETY: `mechanism` is exclusively ours and valid; handles are plain numbers that the module checks.
        unsafe { begin(session, mechanism, key) }
    }

    /// `C_Sign` or its like into `buffer`; the answer's length, or on `CKR_BUFFER_TOO_SMALL` the length needed, in `len`.
    pub(super) fn finish(
        &self,
        deed: Deed,
        session: CK_SESSION_HANDLE,
        data: &[u8],
        buffer: &mut [u8],
        len: &mut CK_ULONG,
    ) -> CK_RV {
        let Some((_, finish)) = self.deed(deed) else { return CKR_FUNCTION_NOT_SUPPORTED };
        *len = buffer.len() as CK_ULONG;
        // SAFETY: the module reads `data.len()` bytes of `data`, which it must not change (the pointer is mutable for the C
        // header's sake only), and writes at most `*len` bytes, the length of `buffer`.
        unsafe {
            finish(
                session,
                data.as_ptr().cast_mut(),
                data.len() as CK_ULONG,
                buffer.as_mut_ptr(),
                std::ptr::from_mut(len),
            )
        }
    }

    /// `C_FindObjectsInit`: objects with all of these values.
    pub(super) fn find_objects_init(&self, session: CK_SESSION_HANDLE, template: &Template<'_>) -> CK_RV {
        let mut attributes = objects::native(template);
        // SAFETY: so many attributes, each with a value as long as it says, borrowed for the call. The module must not change
        // the values (the pointers are mutable for the C header's sake only).
        unsafe { (self.find_objects_init)(session, attributes.as_mut_ptr(), attributes.len() as CK_ULONG) }
    }

    /// `C_FindObjects` into `room`; how many there are by the module's word in `count`.
    pub(super) fn find_objects(
        &self,
        session: CK_SESSION_HANDLE,
        room: &mut [CK_OBJECT_HANDLE],
        count: &mut CK_ULONG,
    ) -> CK_RV {
        // SAFETY: the module writes at most `room.len()` handles into `room`, and their number into `count`.
        unsafe { (self.find_objects)(session, room.as_mut_ptr(), room.len() as CK_ULONG, std::ptr::from_mut(count)) }
    }

    /// `C_FindObjectsFinal`.
    pub(super) fn find_objects_final(&self, session: CK_SESSION_HANDLE) -> CK_RV {
        // SAFETY: the handle is a plain number that the module checks.
        unsafe { (self.find_objects_final)(session) }
    }

    /// `C_GetAttributeValue`: what the module says of each attribute, and its value where there is room.
    pub(super) fn get_attribute_value(
        &self,
        session: CK_SESSION_HANDLE,
        object: CK_OBJECT_HANDLE,
        wanted: &mut [&mut Wanted],
    ) -> CK_RV {
        let mut attributes: Vec<CK_ATTRIBUTE> = wanted.iter_mut().map(|one| one.native()).collect();
        // SAFETY: so many attributes, each null or with as much room as it says, which are exclusively ours for the call. The
        // module writes at most that, and lengths into `attributes`.
        let rv = unsafe {
            (self.get_attribute_value)(session, object, attributes.as_mut_ptr(), attributes.len() as CK_ULONG)
        };
        wanted.iter_mut().zip(&attributes).for_each(|(one, attribute)| one.told(attribute));
        rv
    }
}

pub(super) fn there<F>(function: Option<F>, name: &str) -> Result<F, String> {
    function.ok_or_else(|| format!("the module has no {name} ({CKR_FUNCTION_NOT_SUPPORTED:#x})"))
}
