use crate::call::{Answer, Call};
use cryptoki_sys::*;
#[derive(Default)]
pub(crate) struct Operations {
    pub(crate) sign: Option<u8>,
}
const N: Answer = Err(CKR_FUNCTION_NOT_SUPPORTED);
pub(crate) unsafe fn login(_: &Call<'_>, _: u64, _: *mut u8, _: u64) -> Answer {
    N
}
pub(crate) unsafe fn find(_: &Call<'_>, _: *mut u64, _: u64, _: *mut u64) -> Answer {
    N
}
pub(crate) fn logout(_: &Call<'_>) -> Answer {
    N
}
pub(crate) unsafe fn attributes(_: &Call<'_>, _: u64, _: *mut CK_ATTRIBUTE, _: u64) -> Answer {
    N
}
pub(crate) unsafe fn find_init(_: &Call<'_>, _: *mut CK_ATTRIBUTE, _: u64) -> Answer {
    N
}
pub(crate) fn find_final(_: &Call<'_>) -> Answer {
    N
}
pub(crate) unsafe fn random(_: *mut u8, _: u64) -> Answer {
    N
}
pub(crate) unsafe fn sign_init(_: &Call<'_>, _: *mut CK_MECHANISM, _: u64) -> Answer {
    N
}
pub(crate) unsafe fn sign(_: &Call<'_>, _: *mut u8, _: u64, _: *mut u8, _: *mut u64) -> Answer {
    N
}
pub(crate) unsafe fn sign_update(_: &Call<'_>, _: *mut u8, _: u64) -> Answer {
    N
}
pub(crate) unsafe fn sign_final(_: &Call<'_>, _: *mut u8, _: *mut u64) -> Answer {
    N
}
pub(crate) unsafe fn generate(
    _: &Call<'_>,
    _: *mut CK_MECHANISM,
    _: ((*mut CK_ATTRIBUTE, u64), (*mut CK_ATTRIBUTE, u64)),
    _: (*mut u64, *mut u64),
) -> Answer {
    N
}
