//! `datakey/plaintext|wrapped/:name` and `datakeys/…`: random keys for the client's own use, encrypted with a key of ours.

use std::sync::Arc;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::Transit;
use super::batch;
use super::cipher::{self, Extras};
use super::key::TransitKey;
use crate::engine::Call;
use crate::model::{Data, Fault, Fields, Response, RsaPadding, SecretBytes};

/// What is asked of every key of a request.
struct Wish {
    bytes: usize,
    /// Whether the key itself is answered beside its ciphertext.
    shows: bool,
    padding: Option<RsaPadding>,
    extras: Extras,
}

impl Wish {
    fn parse(fields: &mut Fields<'_>, form: &str) -> Result<Wish, Fault> {
        let shows = match form {
            "plaintext" => true,
            "wrapped" => false,
            _ => return Err(Fault::invalid("Invalid path, must be 'plaintext' or 'wrapped'")),
        };
        let bytes = match fields.integer("bits")?.unwrap_or(256) {
            128 => 16,
            256 => 32,
            512 => 64,
            _ => return Err(Fault::invalid("invalid bit length")),
        };
        // Only derived keys have a use for it.
        fields.value("context");
        let padding = cipher::padding(fields, "padding_scheme")?;
        Ok(Wish { bytes, shows, padding, extras: Extras::parse(fields)? })
    }
}

impl Transit {
    /// `POST datakey/:form/:name`.
    pub(super) async fn datakey(
        self: Arc<Self>,
        call: Call,
        form: String,
        name: String,
        data: Data,
    ) -> Result<Response, Fault> {
        let mut fields = Fields::below(&data, &["name", "plaintext"]);
        let wish = Wish::parse(&mut fields, &form)?;
        let key = self.encryption_key(&name)?;
        let made = self.make_datakey(&call, &key, &wish).await?;
        Ok(Response::with_warnings(made, fields.warnings()))
    }

    /// `POST datakeys/:form/:name`.
    pub(super) async fn datakeys(
        self: Arc<Self>,
        mut call: Call,
        form: String,
        name: String,
        data: Data,
    ) -> Result<Response, Fault> {
        let mut fields = Fields::below(&data, &["name", "plaintext"]);
        let wish = Wish::parse(&mut fields, &form)?;
        if wish.extras.iv.is_some() {
            return Err(Fault::invalid("a nonce or iv is for one key: several would be encrypted with the same"));
        }
        let count = match fields.integer("count")?.unwrap_or(1) {
            count if count < 1 => return Err(Fault::invalid("count must be at least 1")),
            count => usize::try_from(count).unwrap_or(usize::MAX),
        };
        if count > self.batch_items {
            let what = format!("count is {count}; at most {} keys are made at once", self.batch_items);
            return Err(Fault::TooLarge { what });
        }
        let key = self.encryption_key(&name)?;
        call.class = batch::class(call.class);
        let (this, call, key, wish) = (&self, &call, &key, &wish);
        let make = |_| this.make_datakey(call, key, wish);
        let pairs = batch::run(count, &self.batch_room, call.deadline, make).await;
        let mut shown = Vec::with_capacity(count);
        let mut key_version = Value::Null;
        for pair in pairs {
            let mut pair = pair?;
            key_version = pair.remove("key_version").unwrap_or_default();
            shown.push(Value::Object(pair));
        }
        let mut data = Data::new();
        data.insert("key_pairs".into(), shown.into());
        data.insert("key_version".into(), key_version);
        Ok(Response::with_warnings(data, fields.warnings()))
    }

    async fn make_datakey(&self, call: &Call, key: &TransitKey, wish: &Wish) -> Result<Data, Fault> {
        let mut made = vec![0; wish.bytes];
        SystemRandom::new().fill(&mut made).map_err(|_| Fault::internal("the system's random generator fails"))?;
        let made = SecretBytes::new(made);
        let mut data = self.encrypt_one(call, key, wish.padding, &wish.extras, made.clone()).await?.show();
        if wish.shows {
            data.insert("plaintext".into(), STANDARD.encode(made.expose()).into());
        }
        Ok(data)
    }
}
