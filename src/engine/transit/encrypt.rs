//! `encrypt/:name`: one plaintext or a batch of them. HTTP's path and the hot operation meet in `cipher.rs`.

use std::sync::Arc;

use super::Transit;
use super::batch::{self, Batch, Failures};
use super::cipher::{self, Encrypted, Extras};
use super::key::TransitKey;
use super::own_type::OwnType;
use super::text;
use crate::engine::Call;
use crate::model::{Data, Fault, Fields, Response};

impl Transit {
    /// `POST encrypt/:name`.
    pub(super) async fn encrypt_by_path(
        self: Arc<Self>,
        mut call: Call,
        name: String,
        data: Data,
    ) -> Result<Response, Fault> {
        let mut fields = Fields::below(&data, &["name"]);
        let padding = cipher::padding(&mut fields, "padding_scheme")?;
        let failures = Failures::parse(&mut fields)?;
        let kind = fields.filled("type")?;
        // For derived keys, of which there are none here.
        for ignored in ["convergent_encryption", "context"] {
            fields.value(ignored);
        }
        let batch = Batch::parse(&mut fields, self.batch_items)?;
        let plaintext = fields.text("plaintext")?;
        let extras = Extras::parse(&mut fields);
        let warnings = fields.warnings();
        let Some(batch) = batch else {
            let plaintext = plaintext.ok_or_else(|| Fault::invalid("missing plaintext to encrypt"))?;
            let plaintext = text::plaintext(&plaintext)?;
            let (key, made) = self.key_or_new(&call, &name, kind).await?;
            let encrypted = self.encrypt_one(&call, &key, padding, &extras?, plaintext).await?;
            return Ok(Response::with_warnings(encrypted.show(), [warnings, made].concat()));
        };
        batch.require("plaintext", "plaintext to encrypt")?;
        batch.check_contexts()?;
        let (key, made) = self.key_or_new(&call, &name, kind).await?;
        let warnings = [warnings, made].concat();
        call.class = batch::class(call.class);
        let (this, call, key, batch) = (&self, &call, &key, &batch);
        let results = batch
            .run(&self.batch_room, call.deadline, |item| async move {
                let plaintext = text::plaintext(batch.text(item, "plaintext")?.unwrap_or_default())?;
                let extras = Extras::parse(&mut Fields::inside(batch::FIELD, batch.item(item)?))?;
                this.encrypt_one(call, key, padding, &extras, plaintext).await
            })
            .await;
        Ok(batch.response_by(results, &failures, show, warnings))
    }

    /// The key to encrypt with. Where there is none, the mount makes one, as Vault does, if it has a token for it and
    /// `config/keys` does not forbid it; then with what is to be said of it.
    pub(super) async fn key_or_new(
        self: &Arc<Self>,
        call: &Call,
        name: &str,
        kind: Option<String>,
    ) -> Result<(Arc<TransitKey>, Vec<String>), Fault> {
        let found = self.encryption_key(name).map(|key| (key, Vec::new()));
        if found.is_ok() || !self.keys.makes_keys_for(&call.mount) {
            return found;
        }
        // In a box of its own: what few requests need makes the future of every other no larger.
        Box::pin(async {
            if Arc::clone(self).upsert_disabled().await? {
                return found;
            }
            self.new_key(call, name, kind).await
        })
        .await
    }

    async fn new_key(
        self: &Arc<Self>,
        call: &Call,
        name: &str,
        kind: Option<String>,
    ) -> Result<(Arc<TransitKey>, Vec<String>), Fault> {
        let own = OwnType::parse(kind, &mut Fields::new(&Data::new()))?;
        if !own.supports().0 {
            return Err(Fault::invalid(format!(
                "no key of type {} encrypts: create the key first, or name another type",
                own.name()
            )));
        }
        let mut data = Data::new();
        data.insert("type".into(), own.name().into());
        let made = Arc::clone(self).create_key(call.clone(), name.to_owned(), data).await?;
        let warnings = match made {
            Response::Data { warnings, .. } => warnings,
            _ => Vec::new(),
        };
        self.encryption_key(name).map(|key| (key, warnings))
    }
}

/// An item's result.
pub(super) fn show(result: Result<Encrypted, Fault>) -> Data {
    match result {
        Ok(encrypted) => encrypted.show(),
        Err(fault) => batch::error(&fault),
    }
}

impl Encrypted {
    pub(super) fn show(&self) -> Data {
        let mut data = Data::new();
        data.insert("ciphertext".into(), text::sealed(self.key_version, &self.ciphertext).into());
        data.insert("key_version".into(), self.key_version.into());
        data
    }
}
