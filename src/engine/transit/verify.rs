//! `verify/:name`: signatures with the recorded public key, in software; HMACs as `hmac.rs` makes them. HTTP's path and the hot
//! operation meet here.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::Transit;
use super::batch::{self, Batch};
use super::key::TransitKey;
use super::options::{Options, Prepared};
use super::text;
use crate::crypto;
use crate::engine::Call;
use crate::managed_keys::KeyRef;
use crate::model::{Data, Fault, Fields, Hash, KeyKind, KeyUsage, Marshaling, Response, VerifyRequest};

impl Transit {
    /// The hot operation.
    pub(super) async fn verify_typed(&self, call: &Call, request: VerifyRequest) -> Result<bool, Fault> {
        let VerifyRequest { signed, signature } = request;
        let key = self.verification_key(&signed.key)?;
        let options = Options::of(&signed)?;
        self.verify_one(call, &key, signed.key_version, options, signed.input, signature).await
    }

    /// `POST verify/:name(/:hash)`.
    pub(super) async fn verify_by_path(
        self: Arc<Self>,
        call: Call,
        name: String,
        hash: String,
        data: Data,
    ) -> Result<Response, Fault> {
        let mut fields = Fields::below(&data, &["name", "urlalgorithm"]);
        let options = Options::parse(&mut fields, &hash)?;
        let batch = Batch::parse(&mut fields, self.batch_items)?;
        let input = fields.text("input")?;
        let signature = fields.filled("signature")?;
        let hmac = fields.filled("hmac")?;
        let cmac = fields.filled("cmac")?;
        fields.value("key_version");
        fields.value("mac_length");
        let warnings = fields.warnings();
        let Some(batch) = batch else {
            let input = input.unwrap_or_default();
            let valid = match (signature, hmac, cmac) {
                (Some(signature), None, None) => {
                    let key = self.verification_key(&name)?;
                    self.verify_text(&call, &key, options, &input, &signature).await?
                }
                (None, Some(hmac), None) => {
                    let key = self.encryption_key(&name)?;
                    self.verify_hmac(&call, &key, options.named_hash(), &input, &hmac).await?
                }
                (None, None, None) => {
                    return Err(Fault::invalid("neither a 'signature' nor an 'hmac' were given to verify"));
                }
                (None, None, Some(_)) => return Err(no_cmacs()),
                _ => return Err(Fault::invalid("provide one of 'signature' or 'hmac'")),
            };
            return Ok(Response::with_warnings(verdict(valid), warnings));
        };
        let has = |kind: &str| batch.items().iter().filter(|item| item.get(kind).is_some()).count();
        let (signatures, hmacs, cmacs) = (has("signature"), has("hmac"), has("cmac"));
        if cmacs > 0 {
            return Err(no_cmacs());
        }
        if hmacs > 0 && signatures == 0 {
            if hmacs < batch.items().len() {
                return Err(Fault::invalid("elements of batch_input must all provide 'hmac'"));
            }
            return self.verify_hmacs(call, &name, options.named_hash(), &batch, warnings).await;
        }
        if signatures < batch.items().len() || hmacs > 0 {
            return Err(Fault::invalid("elements of batch_input must all provide 'signature'"));
        }
        let key = self.verification_key(&name)?;
        let (this, call, key, batch) = (&self, &call, &key, &batch);
        let results = batch
            .one_by_one(|item| async move {
                // A verification is as long as a worker's task may be.
                tokio::task::yield_now().await;
                let input = batch.text(item, "input")?.ok_or_else(|| Fault::invalid("missing input"))?;
                let signature = batch.text(item, "signature")?.unwrap_or_default();
                this.verify_text(call, key, options, input, signature).await
            })
            .await;
        let show = |result: Result<bool, Fault>| match result {
            Ok(valid) => verdict(valid),
            Err(fault) => batch::failed(&fault, "valid", json!(false)),
        };
        Ok(batch.response(results.into_iter().map(show), warnings))
    }

    async fn verify_hmacs(
        &self,
        mut call: Call,
        name: &str,
        hash: Option<Hash>,
        batch: &Batch,
        warnings: Vec<String>,
    ) -> Result<Response, Fault> {
        let key = self.encryption_key(name)?;
        call.class = batch::class(call.class);
        let (call, key) = (&call, &key);
        let results = batch
            .run(&self.batch_room, call.deadline, |item| async move {
                let input = batch.text(item, "input")?.ok_or_else(|| Fault::invalid("missing input"))?;
                let hmac = batch.text(item, "hmac")?.ok_or_else(|| Fault::invalid("missing hmac"))?;
                self.verify_hmac(call, key, hash, input, hmac).await
            })
            .await;
        let show = |result: Result<bool, Fault>| match result {
            Ok(valid) => verdict(valid),
            Err(fault) => batch::failed(&fault, "valid", json!(false)),
        };
        Ok(batch.response(results.into_iter().map(show), warnings))
    }

    fn verification_key(&self, name: &str) -> Result<Arc<TransitKey>, Fault> {
        self.key(name).ok_or_else(|| Fault::invalid("signature verification key not found"))
    }

    async fn verify_text(
        &self,
        call: &Call,
        key: &TransitKey,
        options: Options,
        input: &str,
        signature: &str,
    ) -> Result<bool, Fault> {
        let input = text::input(input)?;
        let (version, signature) = text::parse_signature(signature, options.marshaling)?;
        self.verify_one(call, key, version, options, input, signature).await
    }

    async fn verify_one(
        &self,
        call: &Call,
        key: &TransitKey,
        version: u32,
        options: Options,
        input: Bytes,
        signature: Bytes,
    ) -> Result<bool, Fault> {
        let version = key.version_to_read(version, "signature")?;
        let handle = self.keys.resolve(&call.mount, KeyRef::Uuid(version.managed_key))?;
        handle.require(KeyUsage::Verify)?;
        let public = version.public_key()?;
        let Prepared { scheme, hash, input } = options.prepare(handle.lent(), public, input).await?;
        let signature = match (public.kind, options.marshaling) {
            // One of another length is no signature of this key's.
            (KeyKind::Ec(curve), Marshaling::Jws) if signature.len() != 2 * curve.field_bytes() => return Ok(false),
            (KeyKind::Ec(_), Marshaling::Jws) => crypto::ecdsa_der_from_raw(&signature)?,
            _ => signature,
        };
        crypto::verify(public, scheme, options.salt(), hash, &input, &signature)
    }
}

fn no_cmacs() -> Fault {
    Fault::invalid("managed keys make no CMACs here: give a 'signature' or an 'hmac' to verify")
}

fn verdict(valid: bool) -> Data {
    let mut data = Data::new();
    data.insert("valid".into(), Value::Bool(valid));
    data
}
