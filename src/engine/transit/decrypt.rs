//! `decrypt/:name`: one ciphertext or a batch of them. HTTP's path and the hot operation meet in `cipher.rs`.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::json;

use super::Transit;
use super::batch::{self, Batch, Failures};
use super::cipher::{self, Extras};
use super::text;
use crate::engine::Call;
use crate::model::{Data, Fault, Fields, Response};

impl Transit {
    /// `POST decrypt/:name`.
    pub(super) async fn decrypt_by_path(
        self: Arc<Self>,
        mut call: Call,
        name: String,
        data: Data,
    ) -> Result<Response, Fault> {
        let mut fields = Fields::below(&data, &["name"]);
        let padding = cipher::padding(&mut fields, "padding_scheme")?;
        let failures = Failures::parse(&mut fields)?;
        // Only derived keys have a use for it.
        fields.value("context");
        let batch = Batch::parse(&mut fields, self.batch_items)?;
        let ciphertext = fields.filled("ciphertext")?;
        let extras = Extras::parse(&mut fields);
        let warnings = fields.warnings();
        let Some(batch) = batch else {
            let (version, ciphertext) = text::parse_ciphertext(&ciphertext.ok_or_else(missing)?)?;
            let key = self.encryption_key(&name)?;
            let plaintext = self.decrypt_one(&call, &key, version, padding, &extras?, ciphertext).await?;
            return Ok(Response::with_warnings(show(&plaintext), warnings));
        };
        batch.require("ciphertext", "ciphertext to decrypt")?;
        batch.check_contexts()?;
        let key = self.encryption_key(&name)?;
        call.class = batch::class(call.class);
        let (this, call, key, batch) = (&self, &call, &key, &batch);
        let results = batch
            .run(&self.batch_room, call.deadline, |item| async move {
                let ciphertext = batch.text(item, "ciphertext")?.filter(|text| !text.is_empty()).ok_or_else(missing)?;
                let (version, ciphertext) = text::parse_ciphertext(ciphertext)?;
                let extras = Extras::parse(&mut Fields::inside(batch::FIELD, batch.item(item)?))?;
                this.decrypt_one(call, key, version, padding, &extras, ciphertext).await
            })
            .await;
        let show = |result: Result<Bytes, Fault>| match result {
            Ok(plaintext) => show(&plaintext),
            Err(fault) => batch::failed(&fault, "plaintext", json!("")),
        };
        Ok(batch.response_by(results, &failures, show, warnings))
    }
}

/// A ciphertext that a request lacks.
pub(super) fn missing() -> Fault {
    Fault::invalid("missing ciphertext to decrypt")
}

fn show(plaintext: &[u8]) -> Data {
    let mut data = Data::new();
    data.insert("plaintext".into(), STANDARD.encode(plaintext).into());
    data
}
