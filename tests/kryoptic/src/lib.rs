//! The Kryoptic soft token as one PKCS#11 module with its own OpenSSL, so that the tests can ask a second, very different
//! token whatever they ask SoftHSM2. The entry points of PKCS#11 3.2, 5.4; everything else is reached through their tables.

use kryoptic_lib::fns::general::{fn_get_function_list, fn_get_interface, fn_get_interface_list};
use kryoptic_lib::pkcs11::{
    CK_FLAGS, CK_FUNCTION_LIST_PTR_PTR, CK_INTERFACE_PTR, CK_INTERFACE_PTR_PTR, CK_RV, CK_ULONG_PTR, CK_UTF8CHAR_PTR,
    CK_VERSION_PTR,
};

/// The table of PKCS#11 2.40.
// SAFETY: the only symbol of this name in the module.
#[unsafe(no_mangle)]
pub extern "C" fn C_GetFunctionList(list: CK_FUNCTION_LIST_PTR_PTR) -> CK_RV {
    fn_get_function_list(list)
}

/// The names and versions of the tables there are.
// SAFETY: the only symbol of this name in the module.
#[unsafe(no_mangle)]
pub extern "C" fn C_GetInterfaceList(interfaces: CK_INTERFACE_PTR, count: CK_ULONG_PTR) -> CK_RV {
    fn_get_interface_list(interfaces, count)
}

/// One table, by name and version.
// SAFETY: the only symbol of this name in the module.
#[unsafe(no_mangle)]
pub extern "C" fn C_GetInterface(
    name: CK_UTF8CHAR_PTR,
    version: CK_VERSION_PTR,
    interface: CK_INTERFACE_PTR_PTR,
    flags: CK_FLAGS,
) -> CK_RV {
    fn_get_interface(name, version, interface, flags)
}
