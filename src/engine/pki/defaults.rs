//! `config/issuers` and `config/keys`: which issuer and which key are meant where a request names none.

use std::sync::Arc;

use serde_json::json;

use super::Pki;
use super::registry::{DEFAULT, IssuersConfig};
use crate::engine::Call;
use crate::model::{Data, Fault, Fields, Response};

impl Pki {
    /// `GET config/issuers`.
    pub(super) fn read_default_issuer(&self) -> Response {
        Response::data(show(&self.authority.load().registry.issuers_config))
    }

    /// `POST config/issuers`.
    pub(super) async fn write_default_issuer(self: Arc<Self>, call: Call, data: Data) -> Result<Response, Fault> {
        let mut fields = Fields::new(&data);
        let reference = fields.filled("default")?.filter(|reference| reference != DEFAULT);
        let reference = reference
            .ok_or_else(|| Fault::invalid("Invalid issuer specification; must be non-empty and can't be 'default'."))?;
        let follows = fields.boolean("default_follows_latest_issuer")?.unwrap_or(false);
        let warnings = fields.warnings();
        self.set_default_issuer(&call, reference, Some(follows), warnings).await
    }

    /// Makes an issuer the default. `follows` says whether later ones take its place; `None` leaves that as it is.
    pub(super) async fn set_default_issuer(
        self: &Arc<Self>,
        call: &Call,
        reference: String,
        follows: Option<bool>,
        mut warnings: Vec<String>,
    ) -> Result<Response, Fault> {
        let (config, has_key) = self
            .edit(call, move |registry| {
                let id = registry.issuer_id(&reference)?.to_owned();
                let has_key = !registry.issuer(&id)?.record.key_id.is_empty();
                registry.issuers_config.default = id;
                if let Some(follows) = follows {
                    registry.issuers_config.default_follows_latest_issuer = follows;
                }
                Ok((registry.issuers_config.clone(), has_key))
            })
            .await?;
        if !has_key {
            warnings.push(
                "This selected default issuer has no key associated with it. Some operations like issuing certificates and \
                 signing CRLs will be unavailable with the requested default issuer until a key is imported or the default \
                 issuer is changed."
                    .into(),
            );
        }
        self.publish_default(call).await;
        Ok(Response::with_warnings(show(&config), warnings))
    }

    /// `GET config/keys`.
    pub(super) fn read_default_key(&self) -> Response {
        Response::data(show_key(&self.authority.load().registry.keys_config.default))
    }

    /// `POST config/keys`.
    pub(super) async fn write_default_key(self: Arc<Self>, call: Call, data: Data) -> Result<Response, Fault> {
        let mut fields = Fields::new(&data);
        let reference = fields.filled("default")?.filter(|reference| reference != DEFAULT);
        let reference = reference
            .ok_or_else(|| Fault::invalid("Invalid key specification; must be non-empty and can't be 'default'."))?;
        let warnings = fields.warnings();
        let set = self.edit(&call, move |registry| {
            let id = registry.key(&reference)?.record.id.clone();
            registry.keys_config.default.clone_from(&id);
            Ok(id)
        });
        Ok(Response::with_warnings(show_key(&set.await?), warnings))
    }
}

fn show(config: &IssuersConfig) -> Data {
    let value = json!({
        "default": config.default,
        "default_follows_latest_issuer": config.default_follows_latest_issuer,
    });
    value.as_object().cloned().unwrap_or_default()
}

fn show_key(default: &str) -> Data {
    json!({ "default": default }).as_object().cloned().unwrap_or_default()
}
