//! From an operation to a mechanism, its parameter and the bytes it takes.

use std::borrow::Cow;

use cryptoki_sys::{
    CK_MECHANISM, CK_MECHANISM_TYPE, CK_RSA_PKCS_MGF_TYPE, CK_RSA_PKCS_PSS_PARAMS, CK_ULONG, CKG_MGF1_SHA1,
    CKG_MGF1_SHA224, CKG_MGF1_SHA256, CKG_MGF1_SHA384, CKG_MGF1_SHA512, CKM_ECDSA, CKM_EDDSA, CKM_RSA_PKCS,
    CKM_RSA_PKCS_PSS, CKM_SHA_1, CKM_SHA224, CKM_SHA256, CKM_SHA384, CKM_SHA512,
};

use crate::crypto::digest_info;
use crate::model::{Fault, Hash, KeyKind, SignatureScheme};

// PKCS#11 v3.0, 2.30 and 2.1.10: SHA-3 and its mask generation functions.
const CKM_SHA3_256: CK_MECHANISM_TYPE = 0x02b0;
const CKM_SHA3_224: CK_MECHANISM_TYPE = 0x02b5;
const CKM_SHA3_384: CK_MECHANISM_TYPE = 0x02c0;
const CKM_SHA3_512: CK_MECHANISM_TYPE = 0x02d0;
const CKG_MGF1_SHA3_224: CK_RSA_PKCS_MGF_TYPE = 0x06;
const CKG_MGF1_SHA3_256: CK_RSA_PKCS_MGF_TYPE = 0x07;
const CKG_MGF1_SHA3_384: CK_RSA_PKCS_MGF_TYPE = 0x08;
const CKG_MGF1_SHA3_512: CK_RSA_PKCS_MGF_TYPE = 0x09;

/// A mechanism ready for `C_SignInit`, and the data for `C_Sign`.
pub(super) struct Prepared<'d> {
    number: CK_MECHANISM_TYPE,
    pss: Option<CK_RSA_PKCS_PSS_PARAMS>,
    data: Cow<'d, [u8]>,
}

impl<'d> Prepared<'d> {
    pub(super) fn new(
        scheme: SignatureScheme,
        hash: Hash,
        kind: KeyKind,
        input: &'d [u8],
    ) -> Result<Prepared<'d>, Fault> {
        let plain = |number, data| Prepared { number, pss: None, data };
        match (scheme, kind) {
            (SignatureScheme::RsaPkcs1, KeyKind::Rsa { .. }) => {
                let prefix = digest_info(hash);
                let data = if prefix.is_empty() { Cow::Borrowed(input) } else { Cow::Owned([prefix, input].concat()) };
                Ok(plain(CKM_RSA_PKCS, data))
            }
            (SignatureScheme::RsaPss { salt }, KeyKind::Rsa { .. }) => {
                let (hash_alg, mgf) = pss_hash(hash)?;
                let pss = CK_RSA_PKCS_PSS_PARAMS { hashAlg: hash_alg, mgf, sLen: CK_ULONG::from(salt) };
                Ok(Prepared { number: CKM_RSA_PKCS_PSS, pss: Some(pss), data: Cow::Borrowed(input) })
            }
            (SignatureScheme::Ecdsa, KeyKind::Ec(curve)) => {
                // The leftmost bits of a digest longer than the order (FIPS 186-5, 6.4); not every token cuts them itself.
                Ok(plain(CKM_ECDSA, Cow::Borrowed(&input[..input.len().min(curve.field_bytes())])))
            }
            (SignatureScheme::Ed25519, KeyKind::Ed25519) => Ok(plain(CKM_EDDSA, Cow::Borrowed(input))),
            (_, kind) => Err(Fault::invalid(format!("a key of kind {kind} makes no such signature"))),
        }
    }

    /// Lends the mechanism in C's form, for one call.
    pub(super) fn with_native<R>(&mut self, call: impl FnOnce(&mut CK_MECHANISM) -> R) -> R {
        let (parameter, len) = match &mut self.pss {
            Some(pss) => (std::ptr::from_mut(pss).cast(), size_of::<CK_RSA_PKCS_PSS_PARAMS>() as CK_ULONG),
            None => (std::ptr::null_mut(), 0),
        };
        call(&mut CK_MECHANISM { mechanism: self.number, pParameter: parameter, ulParameterLen: len })
    }

    pub(super) fn data(&self) -> &[u8] {
        &self.data
    }
}

fn pss_hash(hash: Hash) -> Result<(CK_MECHANISM_TYPE, CK_RSA_PKCS_MGF_TYPE), Fault> {
    Ok(match hash {
        Hash::None => return Err(Fault::invalid("PSS needs a hash algorithm")),
        Hash::Sha1 => (CKM_SHA_1, CKG_MGF1_SHA1),
        Hash::Sha2_224 => (CKM_SHA224, CKG_MGF1_SHA224),
        Hash::Sha2_256 => (CKM_SHA256, CKG_MGF1_SHA256),
        Hash::Sha2_384 => (CKM_SHA384, CKG_MGF1_SHA384),
        Hash::Sha2_512 => (CKM_SHA512, CKG_MGF1_SHA512),
        Hash::Sha3_224 => (CKM_SHA3_224, CKG_MGF1_SHA3_224),
        Hash::Sha3_256 => (CKM_SHA3_256, CKG_MGF1_SHA3_256),
        Hash::Sha3_384 => (CKM_SHA3_384, CKG_MGF1_SHA3_384),
        Hash::Sha3_512 => (CKM_SHA3_512, CKG_MGF1_SHA3_512),
    })
}
