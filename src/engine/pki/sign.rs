//! `sign/:role`: a certificate for a CSR, as a role allows. HTTP's paths and the hot operation meet here.

use std::sync::Arc;

use super::compiled_role::CompiledRole;
use super::csr::{CSR_BYTES_MAX, Csr};
use super::issuer_usage::IssuerUsage;
use super::leaf::{Plan, SignAnswer};
use super::request::SignFields;
use super::{Pki, pem};
use crate::engine::Call;
use crate::model::{Data, Fault, Response};

/// The fields of a request to sign that are read here, or of no account where no private key is made.
pub(super) const ELSEWHERE: [&str; 2] = ["csr", "private_key_format"];

impl Pki {
    /// The role of this name.
    pub(super) fn role(&self, name: &str) -> Result<Arc<CompiledRole>, Fault> {
        let compiled = self.roles.load().get(name).cloned();
        compiled.ok_or_else(|| Fault::invalid(format!("unknown role: {name}")))
    }

    /// Issues a certificate: checks the CSR, judges it by the role, has it signed, stores it. `issuer` is what the path
    /// names; else the role says who signs.
    pub(super) async fn sign_request(
        &self,
        call: &Call,
        issuer: Option<&str>,
        role: &str,
        csr: &[u8],
        fields: SignFields,
    ) -> Result<SignAnswer, Fault> {
        let compiled = self.role(role)?;
        let lease = compiled.lease(call, issuer, "sign", role);
        let authority = self.authority.load_full();
        let issuer = authority.issuer(issuer.unwrap_or(&compiled.role.issuer_ref))?;
        let signatory = self.signatory(&call.mount, issuer, IssuerUsage::IssuingCertificates)?;
        let csr = Csr::parse(csr)?;
        compiled.role.check_key(csr.public_key.kind)?;
        let plan = compiled.plan(Some(&csr), &fields, &call.mount.config, issuer)?;
        let plan = Plan { lease, ..plan };
        let certified = self.certify(call, &signatory, plan, &csr.public_key, role).await?;
        Ok(SignAnswer::new(certified, issuer, fields.format, fields.remove_roots_from_chain))
    }

    /// `POST sign/:role` and `issuer/:ref/sign/:role`.
    pub(super) async fn sign_by_role(
        &self,
        call: &Call,
        issuer: Option<&str>,
        role: &str,
        data: &Data,
    ) -> Result<Response, Fault> {
        let csr = csr_of(data)?;
        self.sign_request(call, issuer, role, &csr, SignFields::parse(data, issuer, &ELSEWHERE)?).await?.response()
    }
}

/// DER of the field `csr`.
pub(super) fn csr_of(data: &Data) -> Result<Vec<u8>, Fault> {
    let text = data.get("csr").and_then(serde_json::Value::as_str).unwrap_or_default();
    if text.is_empty() {
        return Err(Fault::invalid("\"csr\" is empty"));
    }
    // PEM is a third larger than DER, plus line ends and text around it.
    if text.len() > 2 * CSR_BYTES_MAX {
        return Err(Fault::TooLarge { what: format!("the csr has {} bytes of PEM", text.len()) });
    }
    pem::decode(text, &pem::REQUESTS)
        .ok_or_else(|| Fault::invalid("csr contains no data: expected one PEM block \"CERTIFICATE REQUEST\""))
}
