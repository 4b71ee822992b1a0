//! Intermediates: certificate requests for another CA to sign. `intermediate/generate/:type` and
//! `intermediate/cross-sign`; what comes back goes to `intermediate/set-signed`.

use std::sync::Arc;

use const_oid::db::rfc5912::ID_EXTENSION_REQ;
use der::{Tag, TagNumber};
use serde_json::json;
use x509_cert::ext::pkix::KeyUsages;

use super::asn1::{bit_string, encode, sequence, tlv};
use super::ca_fields;
use super::ca_key::{CaKey, CaKeyChoice};
use super::certificate::wrong_signature;
use super::format::Format;
use super::san::AlternativeNames;
use super::{Pki, extensions, subject, usage};
use crate::engine::Call;
use crate::model::{Data, Fault, Fields, Response, Terms};

/// A request for a certificate request, read and checked as far as that goes without its key.
struct IntermediateRequest {
    key: CaKeyChoice,
    key_name: String,
    subject: Vec<u8>,
    names: AlternativeNames,
    /// Encoded; empty if none is asked for.
    key_usage: Vec<u8>,
    /// Encoded; empty if none are asked for.
    basic_constraints: Vec<u8>,
    signature_bits: u32,
    use_pss: bool,
    format: Format,
    warnings: Vec<String>,
}

impl IntermediateRequest {
    fn parse(kind: &str, data: &Data) -> Result<IntermediateRequest, Fault> {
        let mut fields = Fields::below(data, &["exported"]);
        let key = CaKeyChoice::parse(kind, &mut fields)?;
        // No private key is ever answered, so its format is of no account.
        fields.value("private_key_format");
        let mut warnings = Vec::new();
        let (subject, names) = ca_fields::subject_and_names(&mut fields, &mut warnings)?;
        let basic_constraints = match fields.boolean("add_basic_constraints")?.unwrap_or(false) {
            true => extensions::basic_constraints(true, None)?,
            false => Vec::new(),
        };
        let usages = usage::key_usages(&fields.list("key_usage")?.unwrap_or_default())?;
        if !(KeyUsages::KeyCertSign | KeyUsages::CRLSign | KeyUsages::DigitalSignature).contains(usages) {
            return Err(Fault::invalid("key_usage: a CA asks for CertSign, CRLSign and DigitalSignature at most"));
        }
        let request = IntermediateRequest {
            key,
            key_name: fields.filled("key_name")?.unwrap_or_default(),
            subject,
            names,
            key_usage: extensions::key_usage(usages)?,
            basic_constraints,
            signature_bits: ca_fields::signature_bits(&mut fields)?,
            use_pss: fields.boolean("use_pss")?.unwrap_or(false),
            format: Format::parse(&mut fields)?,
            warnings,
        };
        let ignored = fields.warnings();
        Ok(IntermediateRequest { warnings: request.warnings.into_iter().chain(ignored).collect(), ..request })
    }

    /// DER of the CertificationRequestInfo (RFC 2986, 4.1).
    fn info(&self, key: &CaKey) -> Result<Vec<u8>, Fault> {
        let names = self.names.extension(subject::is_empty(&self.subject))?.unwrap_or_default();
        let wanted = [&self.basic_constraints[..], &self.key_usage, &names].concat();
        let attributes = match wanted.is_empty() {
            true => Vec::new(),
            // extensionRequest (RFC 2985, 5.4.2), the one attribute.
            false => sequence(&[&encode(&ID_EXTENSION_REQ)?, &tlv(Tag::Set, &[&sequence(&[&wanted])?])?])?,
        };
        let attributes = tlv(Tag::ContextSpecific { constructed: true, number: TagNumber(0) }, &[&attributes])?;
        sequence(&[&[0x02, 0x01, 0x00], &self.subject, &key.public_key.spki, &attributes])
    }

    /// DER of the request, signed by the key it is for.
    async fn sign(&self, key: &CaKey, terms: Terms) -> Result<Vec<u8>, Fault> {
        let algorithm = key.key.algorithm(key.public_key.kind, self.signature_bits, self.use_pss)?;
        let info = self.info(key)?.into();
        let signature = key.key.sign(algorithm.operation(&info)?, terms).await?;
        if !algorithm.verify(&key.public_key, &info, &signature)? {
            return Err(wrong_signature(key.key.name(), "the certificate request"));
        }
        sequence(&[&info, &algorithm.identifier()?, &bit_string(&signature)?])
    }
}

impl Pki {
    /// `POST intermediate/generate/:type`, `issuers/generate/intermediate/:type` and `intermediate/cross-sign`, whose type is
    /// `existing`. No issuer comes of it: the key is a key of the mount from now on.
    pub(super) async fn generate_intermediate(
        self: Arc<Self>,
        call: Call,
        kind: &str,
        data: &Data,
    ) -> Result<Response, Fault> {
        let request = IntermediateRequest::parse(kind, data)?;
        request.key.check_algorithm(request.signature_bits, request.use_pss)?;
        let key = self.ca_key(&call, &request.key, request.key_name.clone()).await?;
        let csr = request.sign(&key, call.terms()).await?;
        let managed_key = key.key.name().to_owned();
        // The key comes back, so that one just made is held until it is stored.
        let add = self.edit(&call, move |registry| Ok((key.add_to(registry)?.id().to_owned(), key)));
        let (id, _) = add.await?;
        tracing::info!(
            key_id = id, key = managed_key, mount = %call.mount.path, namespace = %call.mount.namespace,
            uid = call.caller.peer.uid, pid = call.caller.peer.pid, "certificate request made"
        );
        let csr = request.format.request(&csr)?;
        let value = json!({ "csr": csr, "key_id": id });
        Ok(Response::with_warnings(value.as_object().cloned().unwrap_or_default(), request.warnings))
    }
}
