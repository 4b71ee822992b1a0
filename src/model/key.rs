//! What is known of a key outside its backend: its public half and what it may be used for.

use bytes::Bytes;

use super::{CipherScheme, Hash, KeyKind};

/// A public key. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// What key it is.
    pub kind: KeyKind,
    /// DER of its SubjectPublicKeyInfo (RFC 5280, 4.1.2.7).
    pub spki: Bytes,
}

/// What a secret key makes of something that never changes: no other key makes the same of it, and nothing of the key follows
/// from it. That may be a secret that it once sealed, which no other key opens: then it is one of many of that key.
#[derive(Clone, Debug)]
pub struct CheckValue {
    /// What key it is.
    pub kind: KeyKind,
    /// How it was made.
    pub method: CheckMethod,
    /// What the key opens to make it; empty with other methods.
    pub sealed: Bytes,
    /// Of a key that opens, SHA-256 of its lasting name: its service's word, which proves nothing.
    pub name: Option<[u8; 32]>,
    /// SHA-256 of what the key made.
    pub digest: [u8; 32],
}

impl PartialEq for CheckValue {
    /// By the value alone: not every token tells the length of a key.
    fn eq(&self, other: &CheckValue) -> bool {
        (self.method, self.digest) == (other.method, other.digest)
    }
}

impl Eq for CheckValue {}

impl CheckValue {
    /// What all check values of one key have in common.
    pub fn lasting(&self) -> [u8; 32] {
        self.name.unwrap_or(self.digest)
    }
}

/// How a check value is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CheckMethod {
    /// One block, encrypted by AES.
    Block,
    /// An HMAC with this hash.
    Hmac(Hash),
    /// What the key sealed once, opened: of a service that makes no two ciphertexts of one plaintext alike.
    Opened(CipherScheme),
}

/// What a key is known again by: recorded at its first use, and asked of every handle that is said to be the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyIdentity {
    /// A key pair, by its public half.
    Public(PublicKey),
    /// A secret key, by its check value.
    Secret(CheckValue),
}

impl KeyIdentity {
    /// What key it is.
    pub const fn kind(&self) -> KeyKind {
        match self {
            KeyIdentity::Public(public) => public.kind,
            KeyIdentity::Secret(value) => value.kind,
        }
    }

    /// Whether both are of one key by what is said of them. Of keys that open what they sealed that proves nothing: each is
    /// to open what the other sealed.
    pub fn is_said_to_be(&self, other: &KeyIdentity) -> bool {
        match (self, other) {
            (KeyIdentity::Secret(one), KeyIdentity::Secret(other)) => {
                (one.method, one.lasting()) == (other.method, other.lasting())
            }
            (one, other) => one == other,
        }
    }

    /// The public half of a key pair.
    pub const fn public(&self) -> Option<&PublicKey> {
        match self {
            KeyIdentity::Public(public) => Some(public),
            KeyIdentity::Secret(_) => None,
        }
    }
}

impl From<PublicKey> for KeyIdentity {
    fn from(public: PublicKey) -> KeyIdentity {
        KeyIdentity::Public(public)
    }
}

/// One thing a managed key may be allowed to do; Vault's names and numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum KeyUsage {
    /// Encrypt data.
    Encrypt = 1,
    /// Decrypt data.
    Decrypt = 2,
    /// Make signatures.
    Sign = 3,
    /// Check signatures.
    Verify = 4,
    /// Wrap other keys.
    Wrap = 5,
    /// Unwrap other keys.
    Unwrap = 6,
    /// Give random bytes.
    GenerateRandom = 7,
    /// Make MACs.
    Mac = 8,
}

impl KeyUsage {
    /// Every usage, in Vault's order.
    pub const ALL: [KeyUsage; 8] = [
        KeyUsage::Encrypt,
        KeyUsage::Decrypt,
        KeyUsage::Sign,
        KeyUsage::Verify,
        KeyUsage::Wrap,
        KeyUsage::Unwrap,
        KeyUsage::GenerateRandom,
        KeyUsage::Mac,
    ];

    /// Vault's name.
    pub const fn name(self) -> &'static str {
        match self {
            KeyUsage::Encrypt => "encrypt",
            KeyUsage::Decrypt => "decrypt",
            KeyUsage::Sign => "sign",
            KeyUsage::Verify => "verify",
            KeyUsage::Wrap => "wrap",
            KeyUsage::Unwrap => "unwrap",
            KeyUsage::GenerateRandom => "generate_random",
            KeyUsage::Mac => "mac",
        }
    }

    /// The usage Vault calls `name`, if there is one.
    pub fn from_name(name: &str) -> Option<KeyUsage> {
        KeyUsage::ALL.into_iter().find(|usage| usage.name() == name)
    }
}

/// A set of usages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUsages(u8);

impl KeyUsages {
    /// Nothing allowed.
    pub const NONE: KeyUsages = KeyUsages(0);

    /// With `usage` added.
    #[must_use]
    pub const fn with(self, usage: KeyUsage) -> KeyUsages {
        KeyUsages(self.0 | 1 << (usage as u8 - 1))
    }

    /// Whether `usage` is in the set.
    pub const fn allows(self, usage: KeyUsage) -> bool {
        self.0 & 1 << (usage as u8 - 1) != 0
    }

    /// What is in both sets.
    #[must_use]
    pub const fn and(self, other: KeyUsages) -> KeyUsages {
        KeyUsages(self.0 & other.0)
    }

    /// Whether nothing is allowed.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The usages of the set, in Vault's order.
    pub fn iter(self) -> impl Iterator<Item = KeyUsage> {
        KeyUsage::ALL.into_iter().filter(move |usage| self.allows(*usage))
    }
}

impl Default for KeyUsages {
    /// Vault's default: `sign,verify`.
    fn default() -> Self {
        KeyUsages::NONE.with(KeyUsage::Sign).with(KeyUsage::Verify)
    }
}

impl FromIterator<KeyUsage> for KeyUsages {
    fn from_iter<I: IntoIterator<Item = KeyUsage>>(usages: I) -> Self {
        usages.into_iter().fold(KeyUsages::NONE, KeyUsages::with)
    }
}
