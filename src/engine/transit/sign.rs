//! `sign/:name`: one input or a batch of them. HTTP's path and the hot operation meet here.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use serde_json::{Value, json};

use super::Transit;
use super::batch::{self, Batch};
use super::key::{TransitKey, Version};
use super::options::{Options, Prepared};
use super::text;
use crate::crypto;
use crate::engine::Call;
use crate::managed_keys::{KeyRef, Lent, Pending};
use crate::model::{
    Curve, Data, Fault, Fields, KeyKind, KeyOperation, KeyUsage, Marshaling, Mount, Response, SignInput, SignRequest,
    Terms,
};

/// A signature made.
pub(super) struct Signed {
    /// As the options have it written.
    pub(super) signature: Bytes,
    pub(super) key_version: u32,
}

/// A signature that its key was asked for.
pub(super) struct Signing {
    pending: Pending,
    /// The curve of an ECDSA signature that is written raw.
    raw: Option<Curve>,
    key_version: u32,
}

impl Transit {
    /// The hot operation, of what is hashed by steps.
    pub(super) async fn sign_typed(&self, call: &Call, request: SignRequest) -> Result<Signed, Fault> {
        let key = self.signing_key(&request.key)?;
        let options = Options::of(&request)?;
        self.sign_one(call, &key, i64::from(request.key_version), options, request.input).await
    }

    /// The hot operation as it mostly is: what it is asked about is lent to it for that long, and none of it is held until the
    /// signature is made.
    pub(super) fn begin_signing(&self, mount: &Mount, terms: Terms, request: SignRequest) -> Result<Signing, Fault> {
        let table = self.table.load();
        let key = table.get(&request.key).ok_or_else(no_key)?;
        let options = Options::of(&request)?;
        let version = key.version_to_make(i64::from(request.key_version), "signing")?;
        let begin = |lent: Lent<'_>| Signing::begin(lent, &version, terms, options, request.input).now_or_never();
        let begun = self.keys.lend(mount, KeyRef::Uuid(version.managed_key), begin)?;
        begun.ok_or_else(|| Fault::internal("a short input took long to hash"))?
    }

    /// `POST sign/:name(/:hash)`.
    pub(super) async fn sign_by_path(
        self: Arc<Self>,
        mut call: Call,
        name: String,
        hash: String,
        data: Data,
    ) -> Result<Response, Fault> {
        let key = self.signing_key(&name)?;
        let mut fields = Fields::below(&data, &["name", "urlalgorithm"]);
        let version = fields.integer("key_version")?.unwrap_or(0);
        let options = Options::parse(&mut fields, &hash)?;
        let batch = Batch::parse(&mut fields, self.batch_items)?;
        let single = fields.text("input")?;
        let warnings = fields.warnings();
        let Some(batch) = batch else {
            let input = text::input(&single.unwrap_or_default())?;
            let signed = self.sign_one(&call, &key, version, options, input).await?;
            return Ok(Response::with_warnings(signed.show(options.marshaling), warnings));
        };
        call.class = batch::class(call.class);
        let (this, call, key, batch) = (&self, &call, &key, &batch);
        let results = batch
            .run(&self.batch_room, call.deadline, |item| async move {
                let input = text::input(batch.text(item, "input")?.ok_or_else(|| Fault::invalid("missing input"))?)?;
                this.sign_one(call, key, version, options, input).await
            })
            .await;
        let show = |result: Result<Signed, Fault>| match result {
            Ok(signed) => signed.show(options.marshaling),
            Err(fault) => batch::failed(&fault, "key_version", json!(0)),
        };
        Ok(batch.response(results.into_iter().map(show), warnings))
    }

    fn signing_key(&self, name: &str) -> Result<Arc<TransitKey>, Fault> {
        self.key(name).ok_or_else(no_key)
    }

    async fn sign_one(
        &self,
        call: &Call,
        key: &TransitKey,
        version: i64,
        options: Options,
        input: Bytes,
    ) -> Result<Signed, Fault> {
        let version = key.version_to_make(version, "signing")?;
        let handle = self.keys.resolve(&call.mount, KeyRef::Uuid(version.managed_key))?;
        Signing::begin(handle.lent(), &version, call.terms(), options, input).await?.made().await
    }
}

impl Signing {
    /// Asks the key. It waits for nothing, but that the hashing of a long input lets others go first.
    async fn begin(
        key: Lent<'_>,
        version: &Version<'_>,
        terms: Terms,
        options: Options,
        input: Bytes,
    ) -> Result<Signing, Fault> {
        key.require(KeyUsage::Sign)?;
        let public = version.public_key()?;
        let Prepared { scheme, hash, input } = options.prepare(key, public, input).await?;
        let operation = KeyOperation::Sign { scheme, hash, input: alone(input) };
        let raw = match (public.kind, options.marshaling) {
            (KeyKind::Ec(curve), Marshaling::Jws) => Some(curve),
            _ => None,
        };
        Ok(Signing { pending: key.submit(operation, terms)?, raw, key_version: version.number })
    }

    /// The signature, once it is made.
    pub(super) async fn made(self) -> Result<Signed, Fault> {
        let signature = self.pending.await?;
        let signature = match self.raw {
            Some(curve) => crypto::ecdsa_raw_from_der(&signature, curve)?,
            None => signature,
        };
        Ok(Signed { signature, key_version: self.key_version })
    }
}

fn no_key() -> Fault {
    Fault::invalid("signing key not found")
}

/// The input in memory of its own. A message waits in a lane, whose bounds count its bytes: it is to keep no more than
/// those, and not all that was read with it.
fn alone(input: SignInput) -> SignInput {
    match input {
        SignInput::Message(message) => SignInput::Message(Bytes::copy_from_slice(&message)),
        digest @ SignInput::Digest(_) => digest,
    }
}

impl Signed {
    fn show(&self, marshaling: Marshaling) -> Data {
        let mut data = Data::new();
        let text = text::signature(self.key_version, &self.signature, marshaling);
        data.insert("signature".into(), Value::String(text));
        data.insert("key_version".into(), self.key_version.into());
        data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_keeps_nothing_of_what_was_read_with_it() {
        let frame = Bytes::from(vec![7; 1 << 20]);
        let input = alone(SignInput::Message(frame.slice(100..132)));
        assert_eq!(input.as_bytes(), &frame[100..132]);
        assert!(frame.is_unique(), "nobody else holds the frame");
    }
}
