//! One private-key operation, as a backend sees it.

use bytes::Bytes;

use super::{Class, Deadline, Hash, SignatureScheme};

/// A digest, held inline: up to 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    bytes: [u8; 64],
    len: u8,
}

impl Digest {
    /// A digest of at most 64 bytes; `None` if `bytes` is longer.
    pub fn new(bytes: &[u8]) -> Option<Digest> {
        let mut digest = Digest { bytes: [0; 64], len: bytes.len().try_into().ok()? };
        digest.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(digest)
    }

    /// The digest's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Digest({} bytes)", self.len)
    }
}

/// What is signed: a digest made by us, or the message itself where the algorithm takes it whole (Ed25519), or where
/// the client asked for PKCS#1 v1.5 without a DigestInfo ([`Hash::None`]).
#[derive(Clone, Debug)]
pub enum SignInput {
    /// A digest by the operation's hash.
    Digest(Digest),
    /// The bytes themselves.
    Message(Bytes),
}

impl SignInput {
    /// The bytes handed to the algorithm.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            SignInput::Digest(digest) => digest.as_bytes(),
            SignInput::Message(message) => message,
        }
    }
}

/// What to do with a private key. Safe to run twice: the first answer is then discarded.
#[derive(Clone, Debug)]
pub enum KeyOperation {
    /// Make a signature. ECDSA answers DER, RSA and Ed25519 the raw octets.
    Sign {
        /// How.
        scheme: SignatureScheme,
        /// The hash that made the digest; [`Hash::None`] with a message.
        hash: Hash,
        /// Over what.
        input: SignInput,
    },
}

/// How urgently a job runs. It is counted against the namespace of its key.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Its class.
    pub class: Class,
    /// When its answer stops being of use.
    pub deadline: Deadline,
}
