//! Digests (FIPS 180-4, FIPS 202).

use aws_lc_rs::digest as lc;
use sha3::Digest as _;

use crate::model::{Digest, Fault, Hash};

/// A digest being made in steps.
pub struct Hasher(Inner);

enum Inner {
    Lc(Box<lc::Context>),
    /// The one SHA-3 the main library lacks.
    Sha3_224(sha3::Sha3_224),
}

impl Hasher {
    /// Starts a digest by `hash`.
    pub fn new(hash: Hash) -> Result<Hasher, Fault> {
        Ok(Hasher(match algorithm(hash)? {
            Some(algorithm) => Inner::Lc(Box::new(lc::Context::new(algorithm))),
            None => Inner::Sha3_224(sha3::Sha3_224::new()),
        }))
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Inner::Lc(context) => context.update(bytes),
            Inner::Sha3_224(hasher) => sha3::Digest::update(hasher, bytes),
        }
    }

    /// The digest of all that was added.
    pub fn finish(self) -> Result<Digest, Fault> {
        let made = match self.0 {
            Inner::Lc(context) => Digest::new(context.finish().as_ref()),
            Inner::Sha3_224(hasher) => Digest::new(&hasher.finalize()),
        };
        made.ok_or_else(too_long)
    }
}

/// The digest of `data`.
pub fn digest(hash: Hash, data: &[u8]) -> Result<Digest, Fault> {
    let made = match algorithm(hash)? {
        Some(algorithm) => Digest::new(lc::digest(algorithm, data).as_ref()),
        None => Digest::new(&sha3::Sha3_224::digest(data)),
    };
    made.ok_or_else(too_long)
}

/// How the main library makes digests by `hash`; `None` for SHA3-224, which it lacks.
fn algorithm(hash: Hash) -> Result<Option<&'static lc::Algorithm>, Fault> {
    Ok(Some(match hash {
        Hash::None => return Err(Fault::invalid("no hash algorithm to make a digest with")),
        Hash::Sha1 => &lc::SHA1_FOR_LEGACY_USE_ONLY,
        Hash::Sha2_224 => &lc::SHA224,
        Hash::Sha2_256 => &lc::SHA256,
        Hash::Sha2_384 => &lc::SHA384,
        Hash::Sha2_512 => &lc::SHA512,
        Hash::Sha3_224 => return Ok(None),
        Hash::Sha3_256 => &lc::SHA3_256,
        Hash::Sha3_384 => &lc::SHA3_384,
        Hash::Sha3_512 => &lc::SHA3_512,
    }))
}

fn too_long() -> Fault {
    Fault::internal("a digest is longer than 64 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_have_their_known_values_and_lengths() {
        let sha256 = digest(Hash::Sha2_256, b"abc").unwrap();
        assert_eq!(hex::encode(sha256.as_bytes()), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let sha3 = digest(Hash::Sha3_224, b"abc").unwrap();
        assert_eq!(hex::encode(sha3.as_bytes()), "e642824c3f8cf24ad09234ee7d3c766fc9a3a5168d0c94ad73b46fdf");
        for hash in Hash::ALL.into_iter().skip(1) {
            assert_eq!(digest(hash, b"").unwrap().as_bytes().len(), hash.digest_bytes(), "{hash:?}");
        }
        assert!(digest(Hash::None, b"").is_err());
    }
}
