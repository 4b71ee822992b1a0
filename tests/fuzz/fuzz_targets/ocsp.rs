//! OCSP requests, which anyone may send: any bytes are refused or taken, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = keyway::engine::pki::is_ocsp_request(bytes);
});
