//! What every request asks, and whether its answer is good.

use bytes::Bytes;

use super::target::{HASH, Key};
use crate::client::{ClientError, Framed};
use crate::crypto;
use crate::model::{Digest, KeyOperation, PublicKey, SaltLength, SignInput, SignatureScheme};
use crate::wire::proto;

/// What is signed where answers are not checked.
const DIGEST: [u8; 32] = [0x5a; 32];

/// A kind of request.
#[derive(Clone)]
pub(super) enum Work {
    /// Signatures.
    Sign {
        sign: proto::Sign,
        /// Each signature is of a digest of its own, and checked.
        check: Option<Check>,
    },
    /// Certificates for these requests (DER), one after the other, so many in each call.
    Certify { mount: String, role: String, requests: Vec<Bytes>, batch: u16 },
}

/// How a signature is checked.
#[derive(Clone)]
pub(super) struct Check {
    key: PublicKey,
    scheme: SignatureScheme,
    /// Different for every stream: no two ask for the same digest.
    stream: u64,
}

impl Work {
    /// Signatures with a Transit key.
    pub(super) fn sign(key: &Key) -> Work {
        let sign = proto::Sign {
            mount: "transit".into(),
            key: key.name.clone(),
            input: Bytes::from_static(&DIGEST),
            prehashed: true,
            ..proto::Sign::default()
        };
        Work::Sign { sign, check: None }
    }

    /// Signatures that are checked; `None` where the public key is not known.
    pub(super) fn checked(key: &Key, stream: u64) -> Option<Work> {
        let Work::Sign { sign, .. } = Work::sign(key) else { return None };
        let check = Check { key: key.public.clone()?, scheme: key.scheme(), stream };
        Some(Work::Sign { sign, check: Some(check) })
    }

    pub(super) fn certify(mount: String, role: String, requests: Vec<Bytes>) -> Work {
        Work::Certify { mount, role, requests, batch: 1 }
    }

    /// The same with so many in each call, where it is certificates.
    pub(super) fn batched(self, size: u16) -> Work {
        match self {
            Work::Certify { mount, role, requests, .. } => Work::Certify { mount, role, requests, batch: size },
            other => other,
        }
    }

    /// How many things each call is for.
    pub(super) fn each(&self) -> u16 {
        if let Work::Certify { batch, .. } = self { *batch } else { 1 }
    }

    /// Asks for the `number`th; answers whether what came is good.
    pub(super) async fn ask(&self, client: &Framed, number: u64) -> Result<bool, ClientError> {
        match self {
            Work::Sign { sign, check: None } => client.sign(sign.clone()).await.map(|_| true),
            Work::Sign { sign, check: Some(check) } => {
                let digest = check.digest(number);
                let sign = proto::Sign { input: Bytes::copy_from_slice(&digest), ..sign.clone() };
                let answer = client.sign(sign).await?;
                Ok(check.is_good(&digest, &answer.signature))
            }
            Work::Certify { batch: 1, .. } => self.certificate(client, number).await.map(|_| true),
            Work::Certify { mount, role, requests, batch } => {
                let place = usize::try_from(number).unwrap_or(0) % requests.len().max(1);
                let csrs = requests.iter().cycle().skip(place).take(usize::from(*batch)).cloned().collect();
                let (mount, role, data) = (mount.clone(), role.clone(), Bytes::new());
                let answer = client.sign_certificates(proto::SignCertificates { mount, role, csrs, data }).await?;
                let is_certificate = |part: &proto::CertificateResult| {
                    matches!(part.result, Some(proto::certificate_result::Result::Certificate(_)))
                };
                Ok(answer.results.len() == usize::from(*batch) && answer.results.iter().all(is_certificate))
            }
        }
    }

    /// Asks for the `number`th certificate.
    pub(super) async fn certificate(&self, client: &Framed, number: u64) -> Result<proto::Certificate, ClientError> {
        let Work::Certify { mount, role, requests, .. } = self else {
            return Err(ClientError::Broken { what: "certificates are not this work".into() });
        };
        let place = usize::try_from(number).unwrap_or(0) % requests.len().max(1);
        let csr = requests.get(place).cloned().unwrap_or_default();
        let (mount, role, data) = (mount.clone(), role.clone(), Bytes::new());
        client.sign_certificate(proto::SignCertificate { mount, role, csr, data }).await
    }
}

impl Check {
    fn digest(&self, number: u64) -> [u8; 32] {
        let mut digest = DIGEST;
        digest[..8].copy_from_slice(&self.stream.to_be_bytes());
        digest[8..16].copy_from_slice(&number.to_be_bytes());
        digest
    }

    fn is_good(&self, digest: &[u8], signature: &[u8]) -> bool {
        let Some(digest) = Digest::new(digest) else { return false };
        let input = SignInput::Digest(digest);
        crypto::verify(&self.key, self.scheme, SaltLength::Hash, HASH, &input, signature).unwrap_or(false)
    }
}

/// The same signature, asked of the token itself.
pub(super) fn operation(key: &Key) -> Option<KeyOperation> {
    let input = SignInput::Digest(Digest::new(&DIGEST)?);
    Some(KeyOperation::Sign { scheme: key.scheme(), hash: HASH, input })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SoftwareKey;
    use crate::model::{Curve, KeyKind};

    #[test]
    fn only_a_signature_of_its_own_digest_is_good() {
        let key = SoftwareKey::generate(KeyKind::Ec(Curve::P256)).unwrap();
        let check = Check { key: key.public().clone(), scheme: SignatureScheme::Ecdsa, stream: 1 };
        let digest = check.digest(7);
        let input = SignInput::Digest(Digest::new(&digest).unwrap());
        let signature = key.perform(&KeyOperation::Sign { scheme: SignatureScheme::Ecdsa, hash: HASH, input }).unwrap();
        assert!(check.is_good(&digest, &signature));
        assert!(!check.is_good(&check.digest(8), &signature));
        assert!(!check.is_good(&Check { stream: 2, ..check.clone() }.digest(7), &signature));
    }
}
