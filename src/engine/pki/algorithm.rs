//! Signature algorithms of certificates and CRLs: which one, how X.509 names it, and what goes to the token.

use bytes::Bytes;
use const_oid::db::{rfc5912, rfc8410};
use der::asn1::{AnyRef, ObjectIdentifier};
use serde::{Deserialize, Serialize};
use spki::AlgorithmIdentifierRef;

use super::asn1::{encode, explicit, sequence};
use crate::crypto;
use crate::model::{
    Curve, Fault, Hash, KeyKind, KeyOperation, MlDsa, PublicKey, SaltLength, SignInput, SignatureScheme,
};

/// `ecdsa-with-SHA1` (RFC 3279, 2.2.3).
const ECDSA_WITH_SHA_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.1");

/// Refuses a key of a kind that has no certificates: RFC 5480, 2.1.1.1, has no secp256k1 among its curves, nor do Vault or the
/// clients of certificates know it.
pub(super) fn require_certifiable(kind: KeyKind) -> Result<(), Fault> {
    match kind {
        KeyKind::Ec(Curve::Secp256k1) => Err(Fault::invalid(
            "a key of the curve secp256k1 has no certificates (RFC 5480, 2.1.1.1): use P-256, P-384 or P-521",
        )),
        _ => Ok(()),
    }
}

/// The hashes certificates are signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum CertificateHash {
    Sha256,
    Sha384,
    Sha512,
}

impl CertificateHash {
    fn hash(self) -> Hash {
        match self {
            CertificateHash::Sha256 => Hash::Sha2_256,
            CertificateHash::Sha384 => Hash::Sha2_384,
            CertificateHash::Sha512 => Hash::Sha2_512,
        }
    }

    fn oid(self) -> ObjectIdentifier {
        match self {
            CertificateHash::Sha256 => rfc5912::ID_SHA_256,
            CertificateHash::Sha384 => rfc5912::ID_SHA_384,
            CertificateHash::Sha512 => rfc5912::ID_SHA_512,
        }
    }

    fn bits(self) -> u32 {
        self.hash().digest_bytes() as u32 * 8
    }
}

/// A signature algorithm of X.509.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SignatureAlgorithm {
    /// `shaNNNWithRSAEncryption` (RFC 4055, 5).
    RsaPkcs1(CertificateHash),
    /// `id-RSASSA-PSS` (RFC 4055, 3.1), MGF1 with the same hash and a salt of its length.
    RsaPss(CertificateHash),
    /// `ecdsa-with-SHANNN` (RFC 5758, 3.2).
    Ecdsa(CertificateHash),
    /// `id-Ed25519` (RFC 8410, 3).
    Ed25519,
    /// `id-ml-dsa-NN` (RFC 9881, 3).
    MlDsa(MlDsa),
}

impl SignatureAlgorithm {
    /// The algorithm for a key: RSA with the hash `signature_bits` says (0 is 256) and PSS where asked, ECDSA with the
    /// hash of the curve's size.
    pub(super) fn choose(kind: KeyKind, signature_bits: u32, pss: bool) -> Result<SignatureAlgorithm, Fault> {
        Ok(match kind {
            KeyKind::Rsa { .. } => {
                let hash = match signature_bits {
                    0 | 256 => CertificateHash::Sha256,
                    384 => CertificateHash::Sha384,
                    512 => CertificateHash::Sha512,
                    other => return Err(unsupported_bits(other.into())),
                };
                if pss { SignatureAlgorithm::RsaPss(hash) } else { SignatureAlgorithm::RsaPkcs1(hash) }
            }
            KeyKind::Ec(Curve::P256) => SignatureAlgorithm::Ecdsa(CertificateHash::Sha256),
            KeyKind::Ec(Curve::P384) => SignatureAlgorithm::Ecdsa(CertificateHash::Sha384),
            KeyKind::Ec(Curve::P521) => SignatureAlgorithm::Ecdsa(CertificateHash::Sha512),
            KeyKind::Ed25519 => SignatureAlgorithm::Ed25519,
            KeyKind::MlDsa(set) => SignatureAlgorithm::MlDsa(set),
            KeyKind::Ec(Curve::Secp256k1) | KeyKind::Aes { .. } | KeyKind::Hmac { .. } => {
                return Err(Fault::NotSupported { what: format!("certificates by a key of kind {kind}") });
            }
        })
    }

    /// How a token makes it.
    pub(super) fn scheme(self) -> SignatureScheme {
        match self {
            SignatureAlgorithm::RsaPkcs1(_) => SignatureScheme::RsaPkcs1,
            SignatureAlgorithm::RsaPss(hash) => SignatureScheme::RsaPss { salt: hash.hash().digest_bytes() as u16 },
            SignatureAlgorithm::Ecdsa(_) => SignatureScheme::Ecdsa,
            SignatureAlgorithm::Ed25519 => SignatureScheme::Ed25519,
            SignatureAlgorithm::MlDsa(_) => SignatureScheme::MlDsa,
        }
    }

    /// The hash of the message that is signed; none where the message is signed whole.
    pub(super) fn hash(self) -> Hash {
        match self {
            SignatureAlgorithm::RsaPkcs1(hash) | SignatureAlgorithm::RsaPss(hash) | SignatureAlgorithm::Ecdsa(hash) => {
                hash.hash()
            }
            SignatureAlgorithm::Ed25519 | SignatureAlgorithm::MlDsa(_) => Hash::None,
        }
    }

    /// What is signed for `message`: its digest, or itself.
    pub(super) fn input(self, message: &Bytes) -> Result<SignInput, Fault> {
        if self.scheme().takes_message() {
            return Ok(SignInput::Message(message.clone()));
        }
        Ok(SignInput::Digest(crypto::digest(self.hash(), message)?))
    }

    /// The job that signs `message`.
    pub(super) fn operation(self, message: &Bytes) -> Result<KeyOperation, Fault> {
        Ok(KeyOperation::Sign { scheme: self.scheme(), hash: self.hash(), input: self.input(message)? })
    }

    /// Whether `signature` is `key`'s on `message`.
    pub(super) fn verify(self, key: &PublicKey, message: &Bytes, signature: &[u8]) -> Result<bool, Fault> {
        self.verify_input(key, &self.input(message)?, signature)
    }

    /// Whether `signature` is `key`'s on what [`SignatureAlgorithm::input`] made of a message.
    pub(super) fn verify_input(self, key: &PublicKey, input: &SignInput, signature: &[u8]) -> Result<bool, Fault> {
        let fits = matches!(
            (self, key.kind),
            (SignatureAlgorithm::RsaPkcs1(_) | SignatureAlgorithm::RsaPss(_), KeyKind::Rsa { .. })
                | (SignatureAlgorithm::Ecdsa(_), KeyKind::Ec(_))
                | (SignatureAlgorithm::Ed25519, KeyKind::Ed25519)
        ) || matches!((self, key.kind), (SignatureAlgorithm::MlDsa(own), KeyKind::MlDsa(set)) if own == set);
        if !fits {
            return Ok(false);
        }
        crypto::verify(key, self.scheme(), SaltLength::Hash, self.hash(), input, signature)
    }

    /// DER of the AlgorithmIdentifier.
    pub(super) fn identifier(self) -> Result<Vec<u8>, Fault> {
        match self {
            SignatureAlgorithm::RsaPkcs1(hash) => {
                let oid = match hash {
                    CertificateHash::Sha256 => rfc5912::SHA_256_WITH_RSA_ENCRYPTION,
                    CertificateHash::Sha384 => rfc5912::SHA_384_WITH_RSA_ENCRYPTION,
                    CertificateHash::Sha512 => rfc5912::SHA_512_WITH_RSA_ENCRYPTION,
                };
                encode(&AlgorithmIdentifierRef { oid, parameters: Some(AnyRef::NULL) })
            }
            SignatureAlgorithm::RsaPss(hash) => {
                sequence(&[&encode(&rfc5912::ID_RSASSA_PSS)?, &pss_parameters(hash, Some(AnyRef::NULL))?])
            }
            SignatureAlgorithm::Ecdsa(hash) => {
                let oid = match hash {
                    CertificateHash::Sha256 => rfc5912::ECDSA_WITH_SHA_256,
                    CertificateHash::Sha384 => rfc5912::ECDSA_WITH_SHA_384,
                    CertificateHash::Sha512 => rfc5912::ECDSA_WITH_SHA_512,
                };
                encode(&AlgorithmIdentifierRef { oid, parameters: None })
            }
            SignatureAlgorithm::Ed25519 => {
                encode(&AlgorithmIdentifierRef { oid: rfc8410::ID_ED_25519, parameters: None })
            }
            SignatureAlgorithm::MlDsa(set) => {
                encode(&AlgorithmIdentifierRef { oid: crypto::ml_dsa_oid(set), parameters: None })
            }
        }
    }

    /// The algorithm a request or certificate names. The hashes MD5 and SHA-1 are refused as weak.
    pub(super) fn read(identifier: &AlgorithmIdentifierRef<'_>) -> Result<SignatureAlgorithm, Fault> {
        let bare = identifier.parameters.is_none();
        let null = identifier.parameters.is_none_or(AnyRef::is_null);
        let known = match identifier.oid {
            rfc5912::SHA_256_WITH_RSA_ENCRYPTION if null => SignatureAlgorithm::RsaPkcs1(CertificateHash::Sha256),
            rfc5912::SHA_384_WITH_RSA_ENCRYPTION if null => SignatureAlgorithm::RsaPkcs1(CertificateHash::Sha384),
            rfc5912::SHA_512_WITH_RSA_ENCRYPTION if null => SignatureAlgorithm::RsaPkcs1(CertificateHash::Sha512),
            rfc5912::ECDSA_WITH_SHA_256 if bare => SignatureAlgorithm::Ecdsa(CertificateHash::Sha256),
            rfc5912::ECDSA_WITH_SHA_384 if bare => SignatureAlgorithm::Ecdsa(CertificateHash::Sha384),
            rfc5912::ECDSA_WITH_SHA_512 if bare => SignatureAlgorithm::Ecdsa(CertificateHash::Sha512),
            rfc8410::ID_ED_25519 if bare => SignatureAlgorithm::Ed25519,
            rfc5912::ID_RSASSA_PSS => return read_pss(identifier),
            rfc5912::MD_2_WITH_RSA_ENCRYPTION
            | rfc5912::MD_5_WITH_RSA_ENCRYPTION
            | rfc5912::SHA_1_WITH_RSA_ENCRYPTION
            | ECDSA_WITH_SHA_1 => {
                return Err(Fault::invalid("the signature uses a weak hash (MD5 or SHA-1): use SHA-256 or better"));
            }
            other => {
                let set = MlDsa::ALL.into_iter().find(|set| bare && crypto::ml_dsa_oid(*set) == other);
                let unknown = || Fault::invalid(format!("the signature algorithm {other} is not supported"));
                SignatureAlgorithm::MlDsa(set.ok_or_else(unknown)?)
            }
        };
        Ok(known)
    }

    /// The algorithm that Vault calls `name`, if a key of this kind makes it.
    pub(super) fn for_key(name: &str, kind: KeyKind) -> Result<SignatureAlgorithm, Fault> {
        let own: Vec<SignatureAlgorithm> = match kind {
            KeyKind::Rsa { .. } => [CertificateHash::Sha256, CertificateHash::Sha384, CertificateHash::Sha512]
                .into_iter()
                .flat_map(|hash| [SignatureAlgorithm::RsaPkcs1(hash), SignatureAlgorithm::RsaPss(hash)])
                .collect(),
            _ => vec![SignatureAlgorithm::choose(kind, 0, false)?],
        };
        own.iter().find(|known| known.name().eq_ignore_ascii_case(name)).copied().ok_or_else(|| {
            let names: Vec<String> = own.iter().map(|known| known.name()).collect();
            Fault::invalid(format!(
                "Unknown or unsupported signature algorithm {name:?} for a key of kind {kind}: expected any of {}",
                names.join(", ")
            ))
        })
    }

    /// Vault's name, such as `SHA256WithRSAPSS`.
    pub(super) fn name(self) -> String {
        match self {
            SignatureAlgorithm::RsaPkcs1(hash) => format!("SHA{}WithRSA", hash.bits()),
            SignatureAlgorithm::RsaPss(hash) => format!("SHA{}WithRSAPSS", hash.bits()),
            SignatureAlgorithm::Ecdsa(hash) => format!("ECDSAWithSHA{}", hash.bits()),
            SignatureAlgorithm::Ed25519 => "Ed25519".into(),
            SignatureAlgorithm::MlDsa(set) => format!("ML-DSA-{}", set.number()),
        }
    }
}

/// `RSASSA-PSS-params` (RFC 4055, 3.1), everything stated but the trailer, whose only value is the default.
/// `of_hash` are the parameters of the hash: NULL as we write them, or absent as some others do.
fn pss_parameters(hash: CertificateHash, of_hash: Option<AnyRef<'_>>) -> Result<Vec<u8>, Fault> {
    let hash_identifier = encode(&AlgorithmIdentifierRef { oid: hash.oid(), parameters: of_hash })?;
    let mgf = sequence(&[&encode(&rfc5912::ID_MGF_1)?, &hash_identifier])?;
    let salt = encode(&(hash.hash().digest_bytes() as u16))?;
    sequence(&[&explicit(0, &[&hash_identifier])?, &explicit(1, &[&mgf])?, &explicit(2, &[&salt])?])
}

/// PSS parameters are read by comparison: one way to write each that we take, with NULL or no parameters of the hash.
fn read_pss(identifier: &AlgorithmIdentifierRef<'_>) -> Result<SignatureAlgorithm, Fault> {
    let refuse = || {
        Fault::invalid(
            "the PSS parameters are not supported: use SHA-256, 384 or 512, MGF1 with the same hash, and a salt as long \
             as the digest",
        )
    };
    let parameters = identifier.parameters.ok_or_else(refuse)?;
    let written = encode(&parameters)?;
    for hash in [CertificateHash::Sha256, CertificateHash::Sha384, CertificateHash::Sha512] {
        if [Some(AnyRef::NULL), None]
            .into_iter()
            .any(|of_hash| pss_parameters(hash, of_hash).is_ok_and(|der| der == written))
        {
            return Ok(SignatureAlgorithm::RsaPss(hash));
        }
    }
    Err(refuse())
}

/// `signature_bits` other than 0, 256, 384 or 512.
pub(super) fn unsupported_bits(bits: i64) -> Fault {
    Fault::invalid(format!("unsupported signature signature_bits: {bits}; expected 0, 256, 384 or 512"))
}

#[cfg(test)]
mod tests {
    use der::Decode;

    use super::*;

    const ALL: [SignatureAlgorithm; 10] = [
        SignatureAlgorithm::RsaPkcs1(CertificateHash::Sha256),
        SignatureAlgorithm::RsaPkcs1(CertificateHash::Sha512),
        SignatureAlgorithm::RsaPss(CertificateHash::Sha256),
        SignatureAlgorithm::RsaPss(CertificateHash::Sha384),
        SignatureAlgorithm::Ecdsa(CertificateHash::Sha256),
        SignatureAlgorithm::Ecdsa(CertificateHash::Sha512),
        SignatureAlgorithm::Ed25519,
        SignatureAlgorithm::MlDsa(MlDsa::MlDsa44),
        SignatureAlgorithm::MlDsa(MlDsa::MlDsa65),
        SignatureAlgorithm::MlDsa(MlDsa::MlDsa87),
    ];

    #[test]
    fn an_identifier_reads_back() {
        for algorithm in ALL {
            let der = algorithm.identifier().unwrap();
            let read = AlgorithmIdentifierRef::from_der(&der).unwrap();
            assert_eq!(SignatureAlgorithm::read(&read).unwrap(), algorithm);
        }
    }

    #[test]
    fn weak_and_unknown_algorithms_are_refused() {
        for oid in [rfc5912::SHA_1_WITH_RSA_ENCRYPTION, rfc5912::MD_5_WITH_RSA_ENCRYPTION, ECDSA_WITH_SHA_1] {
            let fault = SignatureAlgorithm::read(&AlgorithmIdentifierRef { oid, parameters: None }).unwrap_err();
            assert!(fault.to_string().contains("weak hash"), "{fault}");
        }
        let unknown = AlgorithmIdentifierRef { oid: rfc5912::ID_SHA_256, parameters: None };
        assert!(SignatureAlgorithm::read(&unknown).is_err());
        let pss = AlgorithmIdentifierRef { oid: rfc5912::ID_RSASSA_PSS, parameters: Some(AnyRef::NULL) };
        assert!(SignatureAlgorithm::read(&pss).is_err());
    }

    #[test]
    fn the_hash_follows_the_bits_or_the_curve() {
        let rsa = KeyKind::Rsa { bits: 2048 };
        assert_eq!(SignatureAlgorithm::choose(rsa, 0, false).unwrap().name(), "SHA256WithRSA");
        assert_eq!(SignatureAlgorithm::choose(rsa, 384, true).unwrap().name(), "SHA384WithRSAPSS");
        assert!(SignatureAlgorithm::choose(rsa, 224, false).is_err());
        assert_eq!(SignatureAlgorithm::choose(KeyKind::Ec(Curve::P384), 256, true).unwrap().name(), "ECDSAWithSHA384");
        let none = KeyKind::Ec(Curve::Secp256k1);
        assert!(SignatureAlgorithm::choose(none, 256, false).is_err() && require_certifiable(none).is_err());
    }
}
