//! `keys/:name/csr`: a certificate request (PKCS#10, RFC 2986) for the public key of one version, signed by that version. A
//! request given as a template lends its subject and its attributes.

use std::sync::Arc;

use const_oid::db::{rfc5912, rfc8410};
use der::asn1::{Any, BitString, ObjectIdentifier};
use der::{Decode, Encode};
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::attr::Attributes;
use x509_cert::name::Name;
use x509_cert::request::{CertReq, CertReqInfo, Version};

use super::Transit;
use crate::crypto;
use crate::engine::Call;
use crate::managed_keys::{Handle, KeyRef};
use crate::model::{
    Curve, Data, Fault, Fields, Hash, KeyKind, KeyOperation, KeyUsage, Response, SignInput, SignatureScheme,
};

/// The salt of a PSS signature here, in bytes: as long as SHA-256.
const SALT: u16 = 32;
/// DER of the RSASSA-PSS-params (RFC 4055, 3.1) of SHA-256, MGF1 with it, and that salt.
const PSS_SHA_256: &[u8] = &[
    0x30, 0x34, 0xa0, 0x0f, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00,
    0xa1, 0x1c, 0x30, 0x1a, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08, 0x30, 0x0d, 0x06, 0x09,
    0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0xa2, 0x03, 0x02, 0x01, 0x20,
];
const LABELS: [&str; 2] = ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"];

impl Transit {
    /// `POST keys/:name/csr`.
    pub(super) async fn make_csr(self: Arc<Self>, call: Call, name: String, data: Data) -> Result<Response, Fault> {
        let mut fields = Fields::below(&data, &["name"]);
        let asked = fields.integer("version")?.unwrap_or(0);
        let (subject, attributes) = template(fields.filled("csr")?.as_deref())?;
        let key = self.key(&name);
        let key = key.ok_or_else(|| Fault::invalid(format!("key with provided name '{name}' not found")))?;
        let version = key.version_to_make(asked, "signing")?;
        let handle = self.keys.resolve(&call.mount, KeyRef::Uuid(version.managed_key))?;
        handle.require(KeyUsage::Sign)?;
        let public = version.public_key()?;
        let (scheme, hash, algorithm) = algorithm(scheme(&handle)?, public.kind)?;
        let public_key = SubjectPublicKeyInfoOwned::from_der(&public.spki).map_err(odd)?;
        let info = CertReqInfo { version: Version::V1, subject, public_key, attributes };
        let signed = info.to_der().map_err(odd)?;
        let input = match hash {
            Hash::None => SignInput::Message(signed.into()),
            hash => SignInput::Digest(crypto::digest(hash, &signed)?),
        };
        let signature = handle.submit(KeyOperation::Sign { scheme, hash, input }, call.terms())?.await?;
        let signature = BitString::from_bytes(&signature).map_err(odd)?;
        let request = CertReq { info, algorithm, signature }.to_der().map_err(odd)?;
        let mut shown = Data::new();
        shown.insert("name".into(), name.into());
        shown.insert("type".into(), key.record.type_name().into());
        shown.insert("version".into(), version.number.into());
        shown.insert("csr".into(), crypto::pem(LABELS[0], &request).into());
        Ok(Response::with_warnings(shown, fields.warnings()))
    }
}

/// What cannot be encoded was read a moment ago.
fn odd(error: der::Error) -> Fault {
    Fault::internal(format!("a certificate request cannot be made: {error}"))
}

/// The subject and the attributes of a template; nothing of either without one.
fn template(pem: Option<&str>) -> Result<(Name, Attributes), Fault> {
    let Some(pem) = pem else { return Ok((Name::default(), Attributes::default())) };
    let wrong = |why: String| Fault::invalid(format!("csr is no certificate request in PEM: {why}"));
    let (label, der) = der::pem::decode_vec(pem.trim().as_bytes()).map_err(|error| wrong(error.to_string()))?;
    if !LABELS.contains(&label) {
        return Err(wrong(format!("its label is {label:?}")));
    }
    let request = CertReq::from_der(&der).map_err(|error| wrong(error.to_string()))?;
    Ok((request.info.subject, request.info.attributes))
}

/// PKCS#1 v1.5 where the key makes such signatures, as Vault has it and every CA takes it.
fn scheme(handle: &Handle) -> Result<SignatureScheme, Fault> {
    let pkcs1 = SignatureScheme::RsaPkcs1;
    if handle.require_scheme(pkcs1).is_ok() { Ok(pkcs1) } else { handle.default_scheme(SALT) }
}

/// How a key of this kind signs a request, and how X.509 names that.
fn algorithm(
    scheme: SignatureScheme,
    kind: KeyKind,
) -> Result<(SignatureScheme, Hash, AlgorithmIdentifierOwned), Fault> {
    let named = |oid: ObjectIdentifier, parameters| AlgorithmIdentifierOwned { oid, parameters };
    let (hash, algorithm) = match (scheme, kind) {
        (SignatureScheme::RsaPkcs1, _) => {
            (Hash::Sha2_256, named(rfc5912::SHA_256_WITH_RSA_ENCRYPTION, Some(Any::null())))
        }
        (SignatureScheme::RsaPss { .. }, _) => {
            let parameters = Any::from_der(PSS_SHA_256).map_err(odd)?;
            (Hash::Sha2_256, named(rfc5912::ID_RSASSA_PSS, Some(parameters)))
        }
        (SignatureScheme::Ecdsa, KeyKind::Ec(Curve::P384)) => {
            (Hash::Sha2_384, named(rfc5912::ECDSA_WITH_SHA_384, None))
        }
        (SignatureScheme::Ecdsa, KeyKind::Ec(Curve::P521)) => {
            (Hash::Sha2_512, named(rfc5912::ECDSA_WITH_SHA_512, None))
        }
        (SignatureScheme::Ecdsa, _) => (Hash::Sha2_256, named(rfc5912::ECDSA_WITH_SHA_256, None)),
        (SignatureScheme::Ed25519, _) => (Hash::None, named(rfc8410::ID_ED_25519, None)),
        (SignatureScheme::MlDsa, KeyKind::MlDsa(set)) => (Hash::None, named(crypto::ml_dsa_oid(set), None)),
        (SignatureScheme::MlDsa, kind) => return Err(Fault::internal(format!("a key of kind {kind} makes ML-DSA"))),
    };
    Ok((scheme, hash, algorithm))
}
