//! Keys of emulated clouds: real cryptography, none of it written here.
//!
//! Knows nothing of any cloud: no names of algorithms, no JSON, no state of keys. What a service forbids, it must forbid
//! itself; a key here does whatever its kind can.

mod rsa;
mod secret;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use aws_lc_rs::digest::{self, Digest};
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{self as sig, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use self::rsa::RsaKey;
use self::secret::SecretKey;
pub(crate) use self::secret::{Gcm, Mode};

/// An elliptic curve for ECDSA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
    P521,
    Secp256k1,
}

impl Curve {
    /// The one hash that its signatures are made with here.
    pub(crate) fn hash(self) -> Hash {
        match self {
            Curve::P256 | Curve::Secp256k1 => Hash::Sha256,
            Curve::P384 => Hash::Sha384,
            Curve::P521 => Hash::Sha512,
        }
    }

    /// The forms of signature: DER, and r and s one after the other.
    fn signing(self) -> [&'static sig::EcdsaSigningAlgorithm; 2] {
        match self {
            Curve::P256 => [&sig::ECDSA_P256_SHA256_ASN1_SIGNING, &sig::ECDSA_P256_SHA256_FIXED_SIGNING],
            Curve::P384 => [&sig::ECDSA_P384_SHA384_ASN1_SIGNING, &sig::ECDSA_P384_SHA384_FIXED_SIGNING],
            Curve::P521 => [&sig::ECDSA_P521_SHA512_ASN1_SIGNING, &sig::ECDSA_P521_SHA512_FIXED_SIGNING],
            Curve::Secp256k1 => [&sig::ECDSA_P256K1_SHA256_ASN1_SIGNING, &sig::ECDSA_P256K1_SHA256_FIXED_SIGNING],
        }
    }

    fn verification(self, fixed: bool) -> &'static sig::EcdsaVerificationAlgorithm {
        match (self, fixed) {
            (Curve::P256, false) => &sig::ECDSA_P256_SHA256_ASN1,
            (Curve::P256, true) => &sig::ECDSA_P256_SHA256_FIXED,
            (Curve::P384, false) => &sig::ECDSA_P384_SHA384_ASN1,
            (Curve::P384, true) => &sig::ECDSA_P384_SHA384_FIXED,
            (Curve::P521, false) => &sig::ECDSA_P521_SHA512_ASN1,
            (Curve::P521, true) => &sig::ECDSA_P521_SHA512_FIXED,
            (Curve::Secp256k1, false) => &sig::ECDSA_P256K1_SHA256_ASN1,
            (Curve::Secp256k1, true) => &sig::ECDSA_P256K1_SHA256_FIXED,
        }
    }
}

/// A hash function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            Hash::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Hash::Sha224 => &digest::SHA224,
            Hash::Sha256 => &digest::SHA256,
            Hash::Sha384 => &digest::SHA384,
            Hash::Sha512 => &digest::SHA512,
        }
    }

    /// The length of its digests in bytes.
    pub(crate) fn len(self) -> usize {
        self.algorithm().output_len()
    }

    /// The digest of a message.
    pub(crate) fn digest(self, message: &[u8]) -> Vec<u8> {
        digest::digest(self.algorithm(), message).as_ref().to_vec()
    }

    fn import(self, digest: &[u8]) -> Result<Digest, Error> {
        Digest::import_less_safe(digest, self.algorithm()).map_err(|_| Error::Input("the digest has a wrong length"))
    }
}

/// What a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// RSA of 2048, 3072 or 4096 bits.
    Rsa {
        bits: u32,
    },
    Ec(Curve),
    Ed25519,
    /// AES of 128, 192 or 256 bits.
    Aes {
        bits: u32,
    },
    Hmac(Hash),
}

/// How to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// PKCS#1 v1.5 with the hash's DigestInfo: SHA-256, SHA-384 and SHA-512.
    RsaPkcs1(Hash),
    /// PKCS#1 v1.5 of bytes as they are.
    RsaPkcs1Raw,
    /// PSS, its salt as long as the hash: SHA-256, SHA-384 and SHA-512.
    RsaPss(Hash),
    /// A DER sequence of r and s, with the hash of the curve.
    EcdsaDer,
    /// r and s one after the other, with the hash of the curve.
    EcdsaFixed,
    /// Of the message itself.
    Ed25519,
}

/// How to encrypt with RSA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RsaCipher {
    Pkcs1,
    /// MGF1 with the same hash, no label. Not SHA-224.
    Oaep(Hash),
}

/// Why something is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// Keys of this kind don't do that.
    Unsupported,
    /// They do, but not with this input.
    Input(&'static str),
    /// The library failed.
    Internal,
}

impl From<aws_lc_rs::error::Unspecified> for Error {
    fn from(_: aws_lc_rs::error::Unspecified) -> Error {
        Error::Internal
    }
}

impl From<aws_lc_rs::error::KeyRejected> for Error {
    fn from(_: aws_lc_rs::error::KeyRejected) -> Error {
        Error::Internal
    }
}

/// The parts of a public key as a JWK has them: bytes, big end first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Jwk {
    /// Neither with leading zeros.
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// Both as long as the field.
    Ec {
        curve: Curve,
        x: Vec<u8>,
        y: Vec<u8>,
    },
    Ed25519 {
        x: Vec<u8>,
    },
}

/// A key.
pub(crate) struct Key {
    kind: Kind,
    /// Of asymmetric keys.
    spki: Option<Vec<u8>>,
    private: Private,
    /// See [`Key::other`].
    other: OnceLock<Result<Arc<Key>, Error>>,
}

enum Private {
    Rsa(Box<RsaKey>),
    /// The same key for each form of signature.
    Ec {
        der: Box<EcdsaKeyPair>,
        fixed: Box<EcdsaKeyPair>,
        curve: Curve,
    },
    Ed25519(Box<Ed25519KeyPair>),
    Secret(SecretKey),
}

impl Key {
    /// Makes one. An RSA key takes a tenth of a second to many seconds of CPU: see [`Key::generate_aside`].
    pub(crate) fn generate(kind: Kind) -> Result<Key, Error> {
        let (private, spki) = match kind {
            Kind::Rsa { bits } => {
                let key = RsaKey::generate(bits)?;
                let spki = key.spki()?;
                (Private::Rsa(Box::new(key)), Some(spki))
            }
            Kind::Ec(curve) => {
                let [der, fixed] = curve.signing();
                let der = EcdsaKeyPair::generate(der)?;
                let fixed = EcdsaKeyPair::from_pkcs8(fixed, der.to_pkcs8v1()?.as_ref())?;
                let spki = der.public_key().as_der()?.as_ref().to_vec();
                (Private::Ec { der: Box::new(der), fixed: Box::new(fixed), curve }, Some(spki))
            }
            Kind::Ed25519 => {
                let pair = Ed25519KeyPair::generate()?;
                let spki = pair.public_key().as_der()?.as_ref().to_vec();
                (Private::Ed25519(Box::new(pair)), Some(spki))
            }
            Kind::Aes { bits: bits @ (128 | 192 | 256) } => (Private::Secret(SecretKey::generate(bits / 8)?), None),
            Kind::Aes { .. } => return Err(Error::Unsupported),
            Kind::Hmac(hash) => {
                let bytes = u32::try_from(hash.len()).map_err(|_| Error::Internal)?;
                (Private::Secret(SecretKey::generate(bytes)?), None)
            }
        };
        Ok(Key { kind, spki, private, other: OnceLock::new() })
    }

    /// The AES key of this value.
    pub(crate) fn of_aes(value: Vec<u8>) -> Result<Key, Error> {
        let bits = match value.len() {
            16 => 128,
            24 => 192,
            32 => 256,
            _ => return Err(Error::Input("the key has a wrong length")),
        };
        let private = Private::Secret(SecretKey::of(value));
        Ok(Key { kind: Kind::Aes { bits }, spki: None, private, other: OnceLock::new() })
    }

    /// Another key of the same kind, always the same one: what a service takes that is ordered to take the wrong one.
    pub(crate) fn other(&self) -> Result<&Arc<Key>, Error> {
        self.other.get_or_init(|| Key::generate(self.kind).map(Arc::new)).as_ref().map_err(|error| *error)
    }

    /// Makes one on a thread that no request waits for.
    pub(crate) async fn generate_aside(kind: Kind) -> Result<Key, Error> {
        tokio::task::spawn_blocking(move || Key::generate(kind)).await.map_err(|_| Error::Internal)?
    }

    /// What it is.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The DER of the public key, of asymmetric keys.
    pub(crate) fn spki(&self) -> Option<&[u8]> {
        self.spki.as_deref()
    }

    /// The DER of the private key as PKCS#8, of RSA keys.
    pub(crate) fn pkcs8(&self) -> Result<Vec<u8>, Error> {
        let Private::Rsa(key) = &self.private else { return Err(Error::Unsupported) };
        key.pkcs8()
    }

    /// The parts of the public key, of asymmetric keys.
    pub(crate) fn jwk(&self) -> Option<Jwk> {
        match &self.private {
            Private::Rsa(key) => {
                let (n, e) = key.parts();
                Some(Jwk::Rsa { n, e })
            }
            Private::Ec { der, curve, .. } => {
                let (_, point) = der.public_key().as_ref().split_first()?;
                let (x, y) = point.split_at(point.len() / 2);
                Some(Jwk::Ec { curve: *curve, x: x.to_vec(), y: y.to_vec() })
            }
            Private::Ed25519(pair) => Some(Jwk::Ed25519 { x: pair.public_key().as_ref().to_vec() }),
            Private::Secret(_) => None,
        }
    }

    /// Signs a digest, or with [`Scheme::RsaPkcs1Raw`] any bytes that fit. Ed25519 signs no digests.
    pub(crate) fn sign_digest(&self, scheme: Scheme, digest: &[u8]) -> Result<Vec<u8>, Error> {
        match (&self.private, scheme) {
            (Private::Rsa(key), _) => key.sign(scheme, digest),
            (Private::Ec { der, curve, .. }, Scheme::EcdsaDer) => {
                Ok(der.sign_digest(&curve.hash().import(digest)?)?.as_ref().to_vec())
            }
            (Private::Ec { fixed, curve, .. }, Scheme::EcdsaFixed) => {
                Ok(fixed.sign_digest(&curve.hash().import(digest)?)?.as_ref().to_vec())
            }
            _ => Err(Error::Unsupported),
        }
    }

    /// Signs a message: hashes it first, but for Ed25519 and [`Scheme::RsaPkcs1Raw`].
    pub(crate) fn sign_message(&self, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>, Error> {
        match (&self.private, scheme) {
            (Private::Ed25519(pair), Scheme::Ed25519) => Ok(pair.try_sign(message)?.as_ref().to_vec()),
            _ => self.sign_digest(scheme, &self.hashed(scheme, message)?),
        }
    }

    /// Whether a signature of a digest is right.
    pub(crate) fn verify_digest(&self, scheme: Scheme, digest: &[u8], signature: &[u8]) -> Result<bool, Error> {
        let ecdsa = |pair: &EcdsaKeyPair, curve: Curve, fixed: bool| {
            let key = UnparsedPublicKey::new(curve.verification(fixed), pair.public_key().as_ref());
            Ok(key.verify_digest(&curve.hash().import(digest)?, signature).is_ok())
        };
        match (&self.private, scheme) {
            (Private::Rsa(key), _) => key.verify(scheme, digest, signature),
            (Private::Ec { der, curve, .. }, Scheme::EcdsaDer) => ecdsa(der, *curve, false),
            (Private::Ec { fixed, curve, .. }, Scheme::EcdsaFixed) => ecdsa(fixed, *curve, true),
            _ => Err(Error::Unsupported),
        }
    }

    /// Whether a signature of a message is right.
    pub(crate) fn verify_message(&self, scheme: Scheme, message: &[u8], signature: &[u8]) -> Result<bool, Error> {
        match (&self.private, scheme) {
            (Private::Ed25519(pair), Scheme::Ed25519) => {
                let key = UnparsedPublicKey::new(&sig::ED25519, pair.public_key().as_ref());
                Ok(key.verify(message, signature).is_ok())
            }
            _ => self.verify_digest(scheme, &self.hashed(scheme, message)?, signature),
        }
    }

    fn hashed(&self, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>, Error> {
        match (scheme, self.kind) {
            (Scheme::RsaPkcs1(hash) | Scheme::RsaPss(hash), _) => Ok(hash.digest(message)),
            (Scheme::RsaPkcs1Raw, _) => Ok(message.to_vec()),
            (Scheme::EcdsaDer | Scheme::EcdsaFixed, Kind::Ec(curve)) => Ok(curve.hash().digest(message)),
            _ => Err(Error::Unsupported),
        }
    }

    /// Encrypts with the public key.
    pub(crate) fn rsa_encrypt(&self, cipher: RsaCipher, plaintext: &[u8]) -> Result<Vec<u8>, Error> {
        let Private::Rsa(key) = &self.private else { return Err(Error::Unsupported) };
        key.encrypt(cipher, plaintext)
    }

    /// Decrypts with the private key.
    pub(crate) fn rsa_decrypt(&self, cipher: RsaCipher, ciphertext: &[u8]) -> Result<Vec<u8>, Error> {
        let Private::Rsa(key) = &self.private else { return Err(Error::Unsupported) };
        key.decrypt(cipher, ciphertext)
    }

    fn aes(&self) -> Result<&SecretKey, Error> {
        match (&self.private, self.kind) {
            (Private::Secret(key), Kind::Aes { .. }) => Ok(key),
            _ => Err(Error::Unsupported),
        }
    }

    /// AES-GCM with a nonce of 12 bytes.
    pub(crate) fn gcm_encrypt(&self, nonce: &[u8], aad: &[u8], plaintext: &[u8]) -> Result<Gcm, Error> {
        self.aes()?.gcm_encrypt(nonce, aad, plaintext)
    }

    /// AES-GCM with a nonce of 12 bytes and a tag of 16.
    pub(crate) fn gcm_decrypt(&self, nonce: &[u8], aad: &[u8], sealed: &Gcm) -> Result<Vec<u8>, Error> {
        self.aes()?.gcm_decrypt(nonce, aad, sealed)
    }

    /// AES in a mode without authentication, with an IV of 16 bytes.
    pub(crate) fn block_encrypt(&self, mode: Mode, iv: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, Error> {
        self.aes()?.block_encrypt(mode, iv, plaintext)
    }

    /// The way back from [`Key::block_encrypt`].
    pub(crate) fn block_decrypt(&self, mode: Mode, iv: &[u8], ciphertext: &[u8]) -> Result<Vec<u8>, Error> {
        self.aes()?.block_decrypt(mode, iv, ciphertext)
    }

    /// AES key wrap (RFC 3394) with 128 or 256 bits.
    pub(crate) fn wrap(&self, plaintext: &[u8]) -> Result<Vec<u8>, Error> {
        self.aes()?.wrap(plaintext)
    }

    /// The way back from [`Key::wrap`].
    pub(crate) fn unwrap(&self, wrapped: &[u8]) -> Result<Vec<u8>, Error> {
        self.aes()?.unwrap(wrapped)
    }

    /// The HMAC of a message.
    pub(crate) fn mac(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        match (&self.private, self.kind) {
            (Private::Secret(key), Kind::Hmac(hash)) => key.mac(hash, message),
            _ => Err(Error::Unsupported),
        }
    }

    /// The HMAC of a message with any hash, with the bytes of a key of AES as well: HSMs don't tell them apart.
    pub(crate) fn mac_with(&self, hash: Hash, message: &[u8]) -> Result<Vec<u8>, Error> {
        let Private::Secret(key) = &self.private else { return Err(Error::Unsupported) };
        key.mac(hash, message)
    }

    /// Whether an HMAC is right.
    pub(crate) fn verify_mac(&self, message: &[u8], mac: &[u8]) -> Result<bool, Error> {
        match (&self.private, self.kind) {
            (Private::Secret(key), Kind::Hmac(hash)) => key.verify_mac(hash, message, mac),
            _ => Err(Error::Unsupported),
        }
    }
}

/// Random bytes.
pub(crate) fn random(len: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; len];
    aws_lc_rs::rand::fill(&mut bytes)?;
    Ok(bytes)
}
