//! Certificate requests: any bytes are refused or taken, never a panic; what is taken names a key that reads back.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(key) = keyway::engine::pki::requested_key(bytes) {
        assert_eq!(keyway::crypto::parse_spki(&key.spki).expect("a key taken reads back").kind, key.kind);
    }
});
