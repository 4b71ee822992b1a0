//! One private-key operation, as a backend sees it.

use bytes::Bytes;

use super::{CipherScheme, Class, Deadline, Hash, SecretBytes, SignatureScheme};

/// Bytes of the IV of AES-GCM.
pub const GCM_IV_BYTES: usize = 12;
/// Bytes of the tag of AES-GCM.
pub const GCM_TAG_BYTES: usize = 16;
/// Bytes of an AES block, and of the IV of AES-CBC.
pub const BLOCK_BYTES: usize = 16;

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

/// The associated data of what a key encrypts to be known again by.
pub const CHECK_ASSOCIATED_DATA: &[u8] = b"keyway managed key check value v1";
/// The associated data of the key of an envelope, where a service's key encrypts it.
pub const ENVELOPE_ASSOCIATED_DATA: &[u8] = b"keyway envelope key v1";

/// Whether associated data is of what Keyway has keys encrypt for itself. No client may give it: neither is ever taken for the other.
pub fn is_own_associated_data(associated_data: &[u8]) -> bool {
    [CHECK_ASSOCIATED_DATA, ENVELOPE_ASSOCIATED_DATA].contains(&associated_data)
}

/// How one message is encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// RSAES-PKCS1-v1_5. For decryption only: whoever has the public key encrypts.
    RsaPkcs1,
    /// RSAES-OAEP. For decryption only.
    RsaOaep {
        /// The hash, for MGF1 too.
        hash: Hash,
    },
    /// AES-GCM.
    AesGcm {
        /// Never the same twice under one key.
        iv: [u8; GCM_IV_BYTES],
        /// What is not encrypted, and attested all the same.
        associated_data: Bytes,
    },
    /// AES-CBC.
    AesCbc {
        /// Not to be foreseen.
        iv: [u8; BLOCK_BYTES],
        /// Whether it is padded as PKCS#7 has it.
        padded: bool,
    },
    /// As a cloud's service has it, which makes the IV itself.
    ServiceAead {
        /// What is not encrypted, and attested all the same.
        associated_data: Bytes,
    },
    /// Single blocks by themselves (ECB). For check values only.
    AesBlock,
}

impl Cipher {
    /// The scheme, which has nothing of one message; `None` for what no client can ask for.
    pub const fn scheme(&self) -> Option<CipherScheme> {
        match self {
            Cipher::RsaPkcs1 => Some(CipherScheme::RsaPkcs1),
            Cipher::RsaOaep { hash } => Some(CipherScheme::RsaOaep { hash: *hash }),
            Cipher::AesGcm { .. } => Some(CipherScheme::AesGcm),
            Cipher::AesCbc { padded, .. } => Some(CipherScheme::AesCbc { padded: *padded }),
            Cipher::ServiceAead { .. } => Some(CipherScheme::ServiceAead),
            Cipher::AesBlock => None,
        }
    }

    /// What is not encrypted, and attested all the same; of most, nothing.
    pub fn associated_data(&self) -> &[u8] {
        match self {
            Cipher::AesGcm { associated_data, .. } | Cipher::ServiceAead { associated_data } => associated_data,
            Cipher::RsaPkcs1 | Cipher::RsaOaep { .. } | Cipher::AesCbc { .. } | Cipher::AesBlock => &[],
        }
    }
}

/// What to do with a private or secret key. Safe to run twice: the first answer is then discarded.
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
    /// Encrypt with a secret key. Answers the IV, the ciphertext, and of GCM the tag behind it; of a service's own form, that.
    Encrypt {
        /// How.
        cipher: Cipher,
        /// What.
        plaintext: SecretBytes,
    },
    /// Decrypt with a secret key, or a private RSA key. The answer is wiped when the last that holds it lets it go.
    Decrypt {
        /// How, with the IV that stood in front of the ciphertext.
        cipher: Cipher,
        /// What, of GCM with the tag behind it.
        ciphertext: Bytes,
    },
    /// Make an HMAC with a secret key.
    Mac {
        /// The hash.
        hash: Hash,
        /// Over what.
        message: SecretBytes,
    },
}

impl KeyOperation {
    /// So many kinds of operation there are.
    pub const KINDS: usize = 4;

    /// Which kind it is, below [`KeyOperation::KINDS`].
    pub const fn index(&self) -> usize {
        match self {
            KeyOperation::Sign { .. } => 0,
            KeyOperation::Encrypt { .. } => 1,
            KeyOperation::Decrypt { .. } => 2,
            KeyOperation::Mac { .. } => 3,
        }
    }

    /// The bytes it carries beside itself: a digest lies in it, and is bounded with it.
    pub fn bytes(&self) -> usize {
        match self {
            KeyOperation::Sign { input: SignInput::Digest(_), .. } => 0,
            _ => self.size(),
        }
    }

    /// The bytes handed to the key.
    pub fn input(&self) -> &[u8] {
        match self {
            KeyOperation::Sign { input, .. } => input.as_bytes(),
            KeyOperation::Encrypt { plaintext, .. } => plaintext.expose(),
            KeyOperation::Decrypt { ciphertext, .. } => ciphertext,
            KeyOperation::Mac { message, .. } => message.expose(),
        }
    }

    /// How many bytes it carries in all: its input, and what goes with that.
    pub fn size(&self) -> usize {
        let with = match self {
            KeyOperation::Encrypt { cipher, .. } | KeyOperation::Decrypt { cipher, .. } => {
                cipher.associated_data().len()
            }
            KeyOperation::Sign { .. } | KeyOperation::Mac { .. } => 0,
        };
        self.input().len() + with
    }
}

/// How urgently a job runs. It is counted against the namespace of its key.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Its class.
    pub class: Class,
    /// When its answer stops being of use.
    pub deadline: Deadline,
}
