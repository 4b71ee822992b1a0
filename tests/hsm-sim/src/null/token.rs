use crate::{call::Answer, settings::NullSlot, slot::Slot};
use cryptoki_sys::*;
use std::path::Path;
pub(crate) struct NullToken {}
impl NullToken {
    pub(crate) fn new(_: &NullSlot, _: &str, _: Option<&Path>) -> Result<NullToken, String> {
        Err("null mode is not there".into())
    }
    pub(crate) fn log_out(&self) {}
    pub(crate) fn info(&self, _: &Slot) -> CK_TOKEN_INFO {
        CK_TOKEN_INFO::default()
    }
    pub(crate) fn session_info(&self, _: CK_FLAGS) -> CK_SESSION_INFO {
        CK_SESSION_INFO::default()
    }
}
pub(crate) fn slot_info(_: &str) -> CK_SLOT_INFO {
    CK_SLOT_INFO::default()
}
pub(crate) unsafe fn mechanism_list(_: *mut CK_MECHANISM_TYPE, _: *mut CK_ULONG) -> Answer {
    Ok(())
}
pub(crate) fn mechanism_info(_: CK_MECHANISM_TYPE) -> Answer<CK_MECHANISM_INFO> {
    Err(CKR_MECHANISM_INVALID)
}
