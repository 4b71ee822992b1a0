//! The mechanisms of made-up tokens.

use aws_lc_rs::digest::{Algorithm, Digest, SHA256, SHA384, SHA512, digest};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding,
};
use cryptoki_sys::{
    CK_MECHANISM, CK_MECHANISM_TYPE, CK_RSA_PKCS_PSS_PARAMS, CKM_ECDSA, CKM_ECDSA_SHA256, CKM_RSA_PKCS,
    CKM_RSA_PKCS_PSS, CKM_SHA224_HMAC, CKM_SHA256, CKM_SHA256_HMAC, CKM_SHA256_RSA_PKCS, CKM_SHA384, CKM_SHA384_HMAC,
    CKM_SHA384_RSA_PKCS, CKM_SHA512, CKM_SHA512_HMAC, CKM_SHA512_RSA_PKCS, CKR_DATA_INVALID, CKR_DATA_LEN_RANGE,
    CKR_FUNCTION_FAILED, CKR_KEY_TYPE_INCONSISTENT, CKR_MECHANISM_INVALID, CKR_MECHANISM_PARAM_INVALID,
};

use super::key::Key;
use crate::call::Answer;
use crate::settings::KeyKind;

/// The mechanisms that sign.
pub(super) const MECHANISMS: &[CK_MECHANISM_TYPE] = &[
    CKM_ECDSA,
    CKM_ECDSA_SHA256,
    CKM_RSA_PKCS,
    CKM_RSA_PKCS_PSS,
    CKM_SHA256_RSA_PKCS,
    CKM_SHA384_RSA_PKCS,
    CKM_SHA512_RSA_PKCS,
    CKM_SHA224_HMAC,
    CKM_SHA256_HMAC,
    CKM_SHA384_HMAC,
    CKM_SHA512_HMAC,
];

/// The algorithm of an HMAC.
fn hmac_of(mechanism: CK_MECHANISM_TYPE) -> Option<hmac::Algorithm> {
    match mechanism {
        CKM_SHA224_HMAC => Some(hmac::HMAC_SHA224),
        CKM_SHA256_HMAC => Some(hmac::HMAC_SHA256),
        CKM_SHA384_HMAC => Some(hmac::HMAC_SHA384),
        CKM_SHA512_HMAC => Some(hmac::HMAC_SHA512),
        _ => None,
    }
}

/// DER of a DigestInfo up to its hash, with the last two bytes that differ.
const DIGEST_INFO: [u8; 19] =
    [0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20];

/// A hash, and what it is called in each place.
struct Hash {
    algorithm: &'static Algorithm,
    mechanism: CK_MECHANISM_TYPE,
    /// The last number of its object identifier.
    arc: u8,
    bytes: u8,
    pkcs1: &'static dyn RsaEncoding,
    pss: &'static dyn RsaEncoding,
}

static HASHES: [Hash; 3] = [
    Hash {
        algorithm: &SHA256,
        mechanism: CKM_SHA256,
        arc: 1,
        bytes: 32,
        pkcs1: &RSA_PKCS1_SHA256,
        pss: &RSA_PSS_SHA256,
    },
    Hash {
        algorithm: &SHA384,
        mechanism: CKM_SHA384,
        arc: 2,
        bytes: 48,
        pkcs1: &RSA_PKCS1_SHA384,
        pss: &RSA_PSS_SHA384,
    },
    Hash {
        algorithm: &SHA512,
        mechanism: CKM_SHA512,
        arc: 3,
        bytes: 64,
        pkcs1: &RSA_PKCS1_SHA512,
        pss: &RSA_PSS_SHA512,
    },
];

/// A mechanism with its parameter understood.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scheme {
    mechanism: CK_MECHANISM_TYPE,
    /// Of PSS: the hash's place in the table.
    pss: Option<usize>,
}

impl Scheme {
    /// Reads a mechanism for a key.
    ///
    /// # Safety
    ///
    /// The mechanism's parameter must be null or as long as it says.
    pub(super) unsafe fn read(mechanism: &CK_MECHANISM, key: &Key) -> Answer<Scheme> {
        let number = mechanism.mechanism;
        if !MECHANISMS.contains(&number) {
            return Err(CKR_MECHANISM_INVALID);
        }
        let wanted = match number {
            CKM_ECDSA | CKM_ECDSA_SHA256 => KeyKind::P256,
            number if hmac_of(number).is_some() => KeyKind::Hmac512,
            _ => KeyKind::Rsa2048,
        };
        if wanted != key.kind {
            return Err(CKR_KEY_TYPE_INCONSISTENT);
        }
        if number != CKM_RSA_PKCS_PSS {
            return Ok(Scheme { mechanism: number, pss: None });
        }
        let parameter = mechanism.pParameter.cast::<CK_RSA_PKCS_PSS_PARAMS>();
        if parameter.is_null() || mechanism.ulParameterLen != size_of::<CK_RSA_PKCS_PSS_PARAMS>() as u64 {
            return Err(CKR_MECHANISM_PARAM_INVALID);
        }
        // SAFETY: not null, and as long as this structure.
        let parameter = unsafe { parameter.read_unaligned() };
        let hash = HASHES.iter().position(|hash| hash.mechanism == parameter.hashAlg);
        // Only the salt that everybody uses: as long as the hash.
        match hash.filter(|hash| u64::from(HASHES[*hash].bytes) == parameter.sLen) {
            Some(hash) => Ok(Scheme { mechanism: number, pss: Some(hash) }),
            None => Err(CKR_MECHANISM_PARAM_INVALID),
        }
    }

    /// Bytes of the signature, or the MAC.
    pub(super) fn bytes(self, key: &Key) -> usize {
        hmac_of(self.mechanism).map_or_else(|| key.signature_bytes(), |algorithm| algorithm.tag_len())
    }

    /// Signs, or makes a MAC.
    pub(super) fn make(self, key: &Key, input: &[u8]) -> Answer<Vec<u8>> {
        if let (Some(algorithm), Some(value)) = (hmac_of(self.mechanism), key.secret()) {
            return Ok(hmac::sign(&hmac::Key::new(algorithm, &value), input).as_ref().to_vec());
        }
        let material = key.material().ok_or(CKR_FUNCTION_FAILED)?;
        let signed = match self.mechanism {
            CKM_ECDSA => material.ecdsa(&shortened(input)?),
            CKM_ECDSA_SHA256 => material.ecdsa(&digest(&SHA256, input)),
            CKM_RSA_PKCS_PSS => {
                let hash = &HASHES[self.pss.ok_or(CKR_MECHANISM_PARAM_INVALID)?];
                let given = Digest::import_less_safe(input, hash.algorithm).map_err(|_| CKR_DATA_LEN_RANGE)?;
                material.rsa(hash.pss, &given)
            }
            CKM_RSA_PKCS => {
                let (hash, given) = digest_info(input)?;
                material.rsa(hash.pkcs1, &given)
            }
            hashed => {
                let hash = &HASHES[usize::try_from(hashed - CKM_SHA256_RSA_PKCS).unwrap_or(0) % HASHES.len()];
                material.rsa(hash.pkcs1, &digest(hash.algorithm, input))
            }
        };
        signed.ok_or(CKR_FUNCTION_FAILED)
    }
}

/// The number ECDSA signs: the leftmost 32 bytes of a longer hash; a shorter one is the same number with zeroes before it.
fn shortened(hash: &[u8]) -> Answer<Digest> {
    let mut bytes = [0; 32];
    let taken = hash.len().min(32);
    bytes[32 - taken..].copy_from_slice(&hash[..taken]);
    Digest::import_less_safe(&bytes, &SHA256).map_err(|_| CKR_DATA_LEN_RANGE)
}

/// The hash in a DigestInfo.
fn digest_info(input: &[u8]) -> Answer<(&'static Hash, Digest)> {
    for hash in &HASHES {
        let mut prefix = DIGEST_INFO;
        prefix[1] = 17 + hash.bytes;
        prefix[14] = hash.arc;
        prefix[18] = hash.bytes;
        if let Some(given) = input.strip_prefix(&prefix) {
            return Ok((hash, Digest::import_less_safe(given, hash.algorithm).map_err(|_| CKR_DATA_LEN_RANGE)?));
        }
    }
    Err(CKR_DATA_INVALID)
}
