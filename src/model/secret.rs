//! A value that must not leave the process.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(format!("{:?}", SecretBytes::new(b"1234".to_vec())), "SecretBytes(4 bytes)");
        assert_eq!(format!("{:?}", Secret::from("1234")), "Secret(redacted)");
    }
}
