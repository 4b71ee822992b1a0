//! Null mode: tokens that are made up, for overhead and scale. Their signatures are genuine all the same.

mod attributes;
mod ciphering;
mod key;
mod memory;
pub(crate) mod operation;
mod signing;
pub(crate) mod token;

/// A text as PKCS#11 pads it.
pub(crate) fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut padded = [b' '; N];
    padded.iter_mut().zip(text.bytes()).for_each(|(place, byte)| *place = byte);
    padded
}
