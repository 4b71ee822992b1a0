//! hsm-sim: a PKCS#11 module in front of a real one, or in front of nothing, whose faults and times are steered while it
//! runs. README.md says how to use it.
//!
//! A C call goes through `entry` (the function list we hand out) into `call`, where it is counted, delayed, judged by the
//! `rules` and served by the slot's `device`; between the two it is done, by the module behind (`real`) or by `null`.
//! `control` hears commands (`command`), `steering` does them.

#![allow(non_snake_case, reason = "PKCS#11 names its functions so")]

mod call;
mod ckr;
#[allow(dead_code, reason = "tests take it as it is, and more of it")]
mod client;
mod clock;
mod command;
mod control;
mod counts;
mod device;
mod entry;
mod function;
mod log;
mod module;
mod null;
mod real;
mod report;
mod rules;
mod session;
mod settings;
mod shared;
mod slot;
mod slots;
mod steering;
mod swap;

use cryptoki_sys::{CK_FUNCTION_LIST, CK_RV, CKR_ARGUMENTS_BAD, CKR_GENERAL_ERROR, CKR_OK};

/// PKCS#11's entry point.
///
/// # Safety
///
/// `list` must be null or a valid place for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    // SAFETY: as the caller says.
    let Some(list) = (unsafe { list.as_mut() }) else { return CKR_ARGUMENTS_BAD };
    let Some(module) = module::module() else { return CKR_GENERAL_ERROR };
    if let Err(error) = control::begin(module) {
        eprintln!("hsm-sim: {error}");
        return CKR_GENERAL_ERROR;
    }
    // It lives as long as the process, and PKCS#11 forbids callers to change it.
    *list = std::ptr::from_ref(entry::instance(module.next_instance())).cast_mut();
    CKR_OK
}
