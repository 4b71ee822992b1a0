//! What stands in a record for a value: its HMAC under the device's own key.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::model::Fault;

/// What begins every such value.
const PREFIX: &[u8] = b"hmac-sha256:";
/// Bytes of a device's key.
const SALT_BYTES: usize = 32;
const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// A device's key, ready for use.
pub(super) struct Hasher(hmac::Key);

impl Hasher {
    /// One with this key.
    pub(super) fn new(salt: &[u8]) -> Hasher {
        Hasher(hmac::Key::new(hmac::HMAC_SHA256, salt))
    }

    /// What stands for `value`: `hmac-sha256:` and hexadecimal digits.
    pub(super) fn hash(&self, value: &[u8]) -> String {
        let mut text = Vec::with_capacity(PREFIX.len() + 64);
        self.write(&mut text, value);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The same, put at the end of a text. Nothing of it needs escaping in JSON.
    pub(super) fn write(&self, out: &mut Vec<u8>, value: &[u8]) {
        let tag = hmac::sign(&self.0, value);
        out.extend_from_slice(PREFIX);
        for byte in tag.as_ref() {
            let digit = |four: u8| DIGITS.get(usize::from(four & 15)).copied().unwrap_or(b'0');
            out.extend_from_slice(&[digit(byte >> 4), digit(*byte)]);
        }
    }
}

/// A key for a new device.
pub(super) fn new_salt() -> Result<Zeroizing<Vec<u8>>, Fault> {
    let mut salt = Zeroizing::new(vec![0; SALT_BYTES]);
    let filled = SystemRandom::new().fill(&mut salt);
    filled.map_err(|_| Fault::internal("the system's random generator fails"))?;
    Ok(salt)
}
