//! `rewrap/:name`: a ciphertext, decrypted and encrypted anew with a later version. Nobody sees the plaintext.

use std::sync::Arc;

use super::Transit;
use super::batch::{self, Batch};
use super::cipher::{self, Encrypted, Extras};
use super::decrypt::missing;
use super::key::TransitKey;
use super::{encrypt, text};
use crate::engine::Call;
use crate::model::{Data, Fault, Fields, Response, RsaPadding, SecretBytes};

/// The paddings of the old ciphertext and of the new one.
#[derive(Clone, Copy)]
struct Paddings {
    decrypt: Option<RsaPadding>,
    encrypt: Option<RsaPadding>,
}

impl Transit {
    /// `POST rewrap/:name`. In a batch, the faults of an item stand in its result; one that is nobody's ends it all, as in Vault.
    pub(super) async fn rewrap_by_path(
        self: Arc<Self>,
        mut call: Call,
        name: String,
        data: Data,
    ) -> Result<Response, Fault> {
        let mut fields = Fields::below(&data, &["name"]);
        let paddings = Paddings {
            decrypt: cipher::padding(&mut fields, "decrypt_padding_scheme")?,
            encrypt: cipher::padding(&mut fields, "encrypt_padding_scheme")?,
        };
        // Only derived keys have a use for it.
        fields.value("context");
        let batch = Batch::parse(&mut fields, self.batch_items)?;
        let ciphertext = fields.filled("ciphertext")?;
        let extras = Extras::parse(&mut fields);
        let warnings = fields.warnings();
        let Some(batch) = batch else {
            let ciphertext = ciphertext.ok_or_else(missing)?;
            let key = self.encryption_key(&name)?;
            let encrypted = self.rewrap_one(&call, &key, paddings, extras?, &ciphertext).await?;
            return Ok(Response::with_warnings(encrypted.show(), warnings));
        };
        batch.check_contexts()?;
        let key = self.encryption_key(&name)?;
        call.class = batch::class(call.class);
        let (this, call, key, batch) = (&self, &call, &key, &batch);
        let results = batch
            .run(&self.batch_room, call.deadline, |item| async move {
                let ciphertext = batch.text(item, "ciphertext")?.filter(|text| !text.is_empty()).ok_or_else(missing)?;
                let extras = Extras::parse(&mut Fields::inside(batch::FIELD, batch.item(item)?))?;
                this.rewrap_one(call, key, paddings, extras, ciphertext).await
            })
            .await;
        let results = results.into_iter().map(|result| match result {
            Err(fault) if !batch::is_users(&fault) => Err(fault),
            result => Ok(encrypt::show(result)),
        });
        Ok(batch.response(results.collect::<Result<Vec<Data>, Fault>>()?.into_iter(), warnings))
    }

    async fn rewrap_one(
        &self,
        call: &Call,
        key: &TransitKey,
        paddings: Paddings,
        extras: Extras,
        ciphertext: &str,
    ) -> Result<Encrypted, Fault> {
        extras.check_iv(key)?;
        let (version, ciphertext) = text::parse_ciphertext(ciphertext)?;
        let plaintext = self.decrypt_one(call, key, version, paddings.decrypt, &extras, ciphertext).await?;
        // The IV that the old ciphertext was made with is not used again; what it attests still is.
        let extras = Extras { iv: None, ..extras };
        self.encrypt_one(call, key, paddings.encrypt, &extras, SecretBytes::lent(plaintext)).await
    }
}
