//! From an operation to a mechanism, its parameter and the bytes it takes.

use std::borrow::Cow;

use cryptoki_sys::{
    CK_GCM_PARAMS, CK_MECHANISM, CK_MECHANISM_TYPE, CK_RSA_PKCS_MGF_TYPE, CK_RSA_PKCS_OAEP_PARAMS,
    CK_RSA_PKCS_PSS_PARAMS, CK_ULONG, CKG_MGF1_SHA1, CKG_MGF1_SHA224, CKG_MGF1_SHA256, CKG_MGF1_SHA384,
    CKG_MGF1_SHA512, CKM_AES_CBC, CKM_AES_CBC_PAD, CKM_AES_ECB, CKM_AES_GCM, CKM_ECDSA, CKM_EDDSA, CKM_ML_DSA,
    CKM_RSA_PKCS, CKM_RSA_PKCS_OAEP, CKM_RSA_PKCS_PSS, CKM_SHA_1, CKM_SHA_1_HMAC, CKM_SHA224, CKM_SHA224_HMAC,
    CKM_SHA256, CKM_SHA256_HMAC, CKM_SHA384, CKM_SHA384_HMAC, CKM_SHA512, CKM_SHA512_HMAC, CKZ_DATA_SPECIFIED,
};

use crate::crypto::digest_info;
use crate::model::{BLOCK_BYTES, Cipher, Fault, GCM_IV_BYTES, GCM_TAG_BYTES, Hash, KeyKind, SignatureScheme};

// PKCS#11 v3.0, 2.30 and 2.1.10: SHA-3 and its mask generation functions.
const CKM_SHA3_256: CK_MECHANISM_TYPE = 0x02b0;
const CKM_SHA3_224: CK_MECHANISM_TYPE = 0x02b5;
const CKM_SHA3_384: CK_MECHANISM_TYPE = 0x02c0;
const CKM_SHA3_512: CK_MECHANISM_TYPE = 0x02d0;
const CKG_MGF1_SHA3_224: CK_RSA_PKCS_MGF_TYPE = 0x06;
const CKG_MGF1_SHA3_256: CK_RSA_PKCS_MGF_TYPE = 0x07;
const CKG_MGF1_SHA3_384: CK_RSA_PKCS_MGF_TYPE = 0x08;
const CKG_MGF1_SHA3_512: CK_RSA_PKCS_MGF_TYPE = 0x09;

/// A mechanism ready for `C_SignInit` or its like, and the data for the call after it.
pub(super) struct Prepared<'d> {
    number: CK_MECHANISM_TYPE,
    parameter: Parameter<'d>,
    data: Cow<'d, [u8]>,
}

enum Parameter<'d> {
    None,
    Pss(CK_RSA_PKCS_PSS_PARAMS),
    Oaep(CK_RSA_PKCS_OAEP_PARAMS),
    Iv([u8; BLOCK_BYTES]),
    Gcm {
        iv: [u8; GCM_IV_BYTES],
        associated_data: &'d [u8],
        /// Points to the two above, once it is lent.
        native: CK_GCM_PARAMS,
    },
}

impl<'d> Prepared<'d> {
    /// For a signature.
    pub(super) fn sign(
        scheme: SignatureScheme,
        hash: Hash,
        kind: KeyKind,
        input: &'d [u8],
    ) -> Result<Prepared<'d>, Fault> {
        let plain = |number, data| Prepared { number, parameter: Parameter::None, data };
        match (scheme, kind) {
            (SignatureScheme::RsaPkcs1, KeyKind::Rsa { .. }) => {
                let prefix = digest_info(hash);
                let data = if prefix.is_empty() { Cow::Borrowed(input) } else { Cow::Owned([prefix, input].concat()) };
                Ok(plain(CKM_RSA_PKCS, data))
            }
            (SignatureScheme::RsaPss { salt }, KeyKind::Rsa { .. }) => {
                let (hash_alg, mgf) = mask(hash, "PSS")?;
                let pss = CK_RSA_PKCS_PSS_PARAMS { hashAlg: hash_alg, mgf, sLen: CK_ULONG::from(salt) };
                let parameter = Parameter::Pss(pss);
                Ok(Prepared { number: CKM_RSA_PKCS_PSS, parameter, data: Cow::Borrowed(input) })
            }
            (SignatureScheme::Ecdsa, KeyKind::Ec(curve)) => {
                // The leftmost bits of a digest longer than the order (FIPS 186-5, 6.4); not every token cuts them itself.
                Ok(plain(CKM_ECDSA, Cow::Borrowed(&input[..input.len().min(curve.field_bytes())])))
            }
            (SignatureScheme::Ed25519, KeyKind::Ed25519) => Ok(plain(CKM_EDDSA, Cow::Borrowed(input))),
            // Without a parameter: no context, and hedged where the token can (PKCS#11 v3.2, 6.67).
            (SignatureScheme::MlDsa, KeyKind::MlDsa(_)) => Ok(plain(CKM_ML_DSA, Cow::Borrowed(input))),
            (_, kind) => Err(Fault::invalid(format!("a key of kind {kind} makes no such signature"))),
        }
    }

    /// For an encryption or a decryption.
    pub(super) fn cipher(cipher: &'d Cipher, data: &'d [u8]) -> Result<Prepared<'d>, Fault> {
        let (number, parameter) = match cipher {
            Cipher::RsaPkcs1 => (CKM_RSA_PKCS, Parameter::None),
            Cipher::RsaOaep { hash } => {
                let (hash_alg, mgf) = mask(*hash, "OAEP")?;
                let oaep = CK_RSA_PKCS_OAEP_PARAMS {
                    hashAlg: hash_alg,
                    mgf,
                    source: CKZ_DATA_SPECIFIED,
                    pSourceData: std::ptr::null_mut(),
                    ulSourceDataLen: 0,
                };
                (CKM_RSA_PKCS_OAEP, Parameter::Oaep(oaep))
            }
            Cipher::AesGcm { iv, associated_data } => {
                (CKM_AES_GCM, Parameter::Gcm { iv: *iv, associated_data, native: CK_GCM_PARAMS::default() })
            }
            Cipher::AesCbc { iv, padded: false } => (CKM_AES_CBC, Parameter::Iv(*iv)),
            Cipher::AesCbc { iv, padded: true } => (CKM_AES_CBC_PAD, Parameter::Iv(*iv)),
            Cipher::AesBlock => (CKM_AES_ECB, Parameter::None),
            Cipher::ServiceAead { .. } => {
                return Err(Fault::NotSupported { what: "a cloud's form of encryption by a token".into() });
            }
        };
        Ok(Prepared { number, parameter, data: Cow::Borrowed(data) })
    }

    /// For an HMAC.
    pub(super) fn mac(hash: Hash, message: &'d [u8]) -> Result<Prepared<'d>, Fault> {
        let number = match hash {
            Hash::Sha1 => CKM_SHA_1_HMAC,
            Hash::Sha2_224 => CKM_SHA224_HMAC,
            Hash::Sha2_256 => CKM_SHA256_HMAC,
            Hash::Sha2_384 => CKM_SHA384_HMAC,
            Hash::Sha2_512 => CKM_SHA512_HMAC,
            other => return Err(Fault::NotSupported { what: format!("an HMAC with {}", other.name()) }),
        };
        Ok(Prepared { number, parameter: Parameter::None, data: Cow::Borrowed(message) })
    }

    /// Leaves the IV of AES-GCM to the token, which writes it where ours was.
    pub(super) fn ask_for_iv(&mut self) {
        if let Parameter::Gcm { iv, .. } = &mut self.parameter {
            *iv = [0; GCM_IV_BYTES];
        }
    }

    /// The IV; after an encryption, the one that was used, for tokens may have put another in its place.
    pub(super) fn iv(&self) -> &[u8] {
        match &self.parameter {
            Parameter::Iv(iv) => iv,
            Parameter::Gcm { iv, .. } => iv,
            Parameter::None | Parameter::Pss(_) | Parameter::Oaep(_) => &[],
        }
    }

    /// Lends the mechanism in C's form. What it points to stays in its place as long as this is neither moved nor dropped,
    /// which a module may count on until the operation has ended.
    pub(super) fn with_native<R>(&mut self, call: impl FnOnce(&mut CK_MECHANISM) -> R) -> R {
        fn place<T>(value: &mut T) -> (*mut std::ffi::c_void, CK_ULONG) {
            (std::ptr::from_mut(value).cast(), size_of::<T>() as CK_ULONG)
        }
        let (parameter, len) = match &mut self.parameter {
            Parameter::None => (std::ptr::null_mut(), 0),
            Parameter::Pss(pss) => place(pss),
            Parameter::Oaep(oaep) => place(oaep),
            Parameter::Iv(iv) => place(iv),
            Parameter::Gcm { iv, associated_data, native } => {
                *native = CK_GCM_PARAMS {
                    pIv: iv.as_mut_ptr(),
                    ulIvLen: GCM_IV_BYTES as CK_ULONG,
                    ulIvBits: GCM_IV_BYTES as CK_ULONG * 8,
                    // Some modules refuse a place of no bytes.
                    pAAD: match associated_data.is_empty() {
                        true => std::ptr::null_mut(),
                        false => associated_data.as_ptr().cast_mut(),
                    },
                    ulAADLen: associated_data.len() as CK_ULONG,
                    ulTagBits: GCM_TAG_BYTES as CK_ULONG * 8,
                };
                place(native)
            }
        };
        call(&mut CK_MECHANISM { mechanism: self.number, pParameter: parameter, ulParameterLen: len })
    }

    pub(super) fn data(&self) -> &[u8] {
        &self.data
    }
}

/// A hash, and the mask generation function with it.
fn mask(hash: Hash, padding: &str) -> Result<(CK_MECHANISM_TYPE, CK_RSA_PKCS_MGF_TYPE), Fault> {
    Ok(match hash {
        Hash::None => return Err(Fault::invalid(format!("{padding} needs a hash algorithm"))),
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
