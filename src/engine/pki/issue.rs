//! `issue/:role`: a key pair made here, and a certificate for it. The private key is answered once and kept nowhere.

use super::issuer_usage::IssuerUsage;
use super::leaf::{Plan, SignAnswer};
use super::private_key::PrivateKeyFormat;
use super::request::SignFields;
use super::{Pki, extensions};
use crate::crypto::GeneratedKey;
use crate::engine::Call;
use crate::model::{Data, Fault, Response};

impl Pki {
    /// `POST issue/:role` and `issuer/:ref/issue/:role`.
    pub(super) async fn issue_by_role(
        &self,
        call: &Call,
        issuer: Option<&str>,
        role: &str,
        data: &Data,
    ) -> Result<Response, Fault> {
        let fields = SignFields::parse(data, issuer, &["private_key_format"])?;
        let key_format = PrivateKeyFormat::parse(data)?;
        let compiled = self.role(role)?;
        let kind = compiled.role.generated_kind()?;
        let lease = compiled.lease(call, issuer, "issue", role);
        let authority = self.authority.load_full();
        let issuer = authority.issuer(issuer.unwrap_or(&compiled.role.issuer_ref))?;
        let signatory = self.signatory(&call.mount, issuer, IssuerUsage::IssuingCertificates)?;
        // Judged before a key is made, which takes long.
        let plan = compiled.plan(None, &fields, &call.mount.config, issuer)?;
        let plan = Plan { lease, ..plan };
        extensions::leaf_key_usage(plan.key_usages, kind)?;
        let key = self.cpu.run(&call.mount.namespace, move || GeneratedKey::generate(kind)).await?;
        let certified = self.certify(call, &signatory, plan, &key.public, role).await?;
        let answer = SignAnswer::new(certified, issuer, fields.format, fields.remove_roots_from_chain);
        answer.with_key(&key, key_format)
    }
}
