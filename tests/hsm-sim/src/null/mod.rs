//! Null mode: tokens that are made up.

pub(crate) mod operation;
pub(crate) mod token;

/// A text as PKCS#11 pads it.
pub(crate) fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut padded = [b' '; N];
    padded.iter_mut().zip(text.bytes()).for_each(|(place, byte)| *place = byte);
    padded
}
