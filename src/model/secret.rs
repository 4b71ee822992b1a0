//! A value that must not leave the process.

use std::io::Write;

use bytes::Bytes;
use zeroize::Zeroizing;

/// PINs, tokens and keys: wiped when dropped, never shown by `Debug`, compared only in constant time.
#[derive(Clone, Default)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes ownership of the bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Secret {
        Secret(Zeroizing::new(bytes.into()))
    }

    /// The bytes, for the one call that needs them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as text, if they are UTF-8.
    pub fn expose_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// Takes the same time wherever the two differ.
impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        let (left, right) = (self.expose(), other.expose());
        let differing = left.iter().zip(right).fold(0, |sum, (left, right)| sum | (left ^ right));
        left.len() == right.len() && std::hint::black_box(differing) == 0
    }
}

impl Eq for Secret {}

impl From<&str> for Secret {
    fn from(text: &str) -> Secret {
        Secret::new(text.as_bytes())
    }
}

/// A client's secret data: plaintexts and what MACs are made of. Cheap to clone; wiped when the last clone is dropped, never
/// shown by `Debug`.
#[derive(Clone, Default)]
pub struct SecretBytes(Bytes);

impl SecretBytes {
    /// Takes ownership of the bytes.
    pub fn new(bytes: Vec<u8>) -> SecretBytes {
        SecretBytes(wiped(bytes))
    }

    /// Bytes of somebody else's, who wipes them or does not.
    pub fn lent(bytes: Bytes) -> SecretBytes {
        SecretBytes(bytes)
    }

    /// The bytes, for the one call that needs them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, for who hands them on.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl std::fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretBytes({} bytes)", self.0.len())
    }
}

/// Bytes that are wiped when the last that holds them lets them go.
pub fn wiped(bytes: Vec<u8>) -> Bytes {
    Bytes::from_owner(Zeroizing::new(bytes))
}

/// Takes in what is written piece by piece, and leaves no copy of it behind as it grows.
#[derive(Default)]
pub struct WipedBuffer(Zeroizing<Vec<u8>>);

impl WipedBuffer {
    /// What was written: wiped, too, as [`wiped()`].
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self.0)
    }
}

impl Write for WipedBuffer {
    fn write(&mut self, piece: &[u8]) -> std::io::Result<usize> {
        let length = self.0.len() + piece.len();
        if length > self.0.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity((2 * length).max(256)));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_that_is_wiped_never_grows_in_place() {
        let mut buffer = WipedBuffer::default();
        let mut expected = Vec::new();
        for length in [0, 1, 200, 56, 3000, 7] {
            let before = (buffer.0.as_ptr(), buffer.0.capacity());
            buffer.write_all(&vec![u8::try_from(length % 251).unwrap(); length]).unwrap();
            expected.resize(expected.len() + length, u8::try_from(length % 251).unwrap());
            let is_same = before == (buffer.0.as_ptr(), buffer.0.capacity());
            // A vector that grew by itself would have let go of what it held.
            assert_eq!(is_same, expected.len() <= before.1);
        }
        assert_eq!(buffer.into_bytes(), expected);
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(format!("{:?}", SecretBytes::new(b"1234".to_vec())), "SecretBytes(4 bytes)");
        assert_eq!(format!("{:?}", Secret::from("1234")), "Secret(redacted)");
    }
}
