//! `auth/token/*`: tokens are made, looked up, renewed and revoked.
//!
//! A token is named by itself or by its accessor, and must belong to the namespace addressed or to one below it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Call, System};
use crate::apart;
use crate::identity::{Token, Wish};
use crate::model::{Auth, Data, Fault, Fields, Response, Secret, TokenId};

/// Accessors in one list.
const ACCESSORS_MAX: usize = 100_000;
/// Vault's words on tokens that are not there.
const BAD_TOKEN: Fault = Fault::TokenRefused { reason: Cow::Borrowed("bad token") };
const INVALID_ACCESSOR: Fault = Fault::TokenRefused { reason: Cow::Borrowed("invalid accessor") };

impl System {
    /// `create`, `create-orphan` and `create/:role_name`.
    pub(super) async fn create_token(
        &self,
        call: &Call,
        role: Option<&str>,
        orphan: bool,
        data: &Data,
    ) -> Result<Response, Fault> {
        let mut fields = Fields::below(data, if role.is_some() { &["role_name"] } else { &[] });
        if let Some(kind) = fields.filled("type")?
            && kind != "service"
        {
            return Err(Fault::invalid(format!("type {kind:?}: expected service, as no batch tokens are made here")));
        }
        fields.refuse(&["entity_alias"])?;
        let num_uses = fields.integer("num_uses")?.unwrap_or_default();
        let wish = Wish {
            id: fields.filled("id")?.map(|id| Secret::from(id.as_str())),
            role: role.map(str::to_owned),
            policies: fields.list("policies")?.unwrap_or_default(),
            no_default_policy: fields.boolean("no_default_policy")?.unwrap_or_default(),
            meta: notes(fields.object("meta")?.or(fields.object("metadata")?))?,
            orphan,
            no_parent: fields.boolean("no_parent")?.unwrap_or_default(),
            not_renewable: !fields.boolean("renewable")?.unwrap_or(true),
            ttl: fields.duration("ttl")?.or(fields.duration("lease")?).unwrap_or_default().as_secs(),
            explicit_max_ttl: fields.duration("explicit_max_ttl")?.unwrap_or_default().as_secs(),
            period: fields.duration("period")?.unwrap_or_default().as_secs(),
            num_uses: num_uses.try_into().map_err(|_| Fault::invalid("number of uses cannot be negative"))?,
            display_name: fields.text("display_name")?.unwrap_or_default(),
        };
        let mut told = fields.warnings();
        let (auth, warnings) = self.identity.create(&call.caller, &call.namespace, wish).await?;
        told.extend(warnings);
        Ok(Response::Auth { auth, warnings: told })
    }

    /// What is known of the caller's token.
    pub(super) fn lookup_self(&self, call: &Call) -> Result<Response, Fault> {
        self.identity.token(&call.caller, &call.namespace).map(|token| self.shown(&token))
    }

    /// `lookup`: of the token that the data names; the caller's, if it names none.
    pub(super) fn lookup_token(&self, call: &Call, data: &Data) -> Result<Response, Fault> {
        match Fields::new(data).filled("token")? {
            None => self.lookup_self(call),
            Some(token) => {
                let found = self.identity.named(&Secret::from(token.as_str()), &call.namespace).ok_or(BAD_TOKEN)?;
                Ok(self.shown(&found.1))
            }
        }
    }

    /// `lookup-accessor`.
    pub(super) fn lookup_accessor(&self, call: &Call, data: &Data) -> Result<Response, Fault> {
        self.by_accessor(call, &mut Fields::new(data)).map(|(_, token)| self.shown(&token))
    }

    /// `accessors`: of all tokens of the namespace.
    pub(super) async fn list_accessors(&self, call: &Call) -> Result<Response, Fault> {
        if !self.identity.may_sudo(&call.caller, &call.namespace, "auth/token/accessors/") {
            return Err(Fault::PermissionDenied);
        }
        let (identity, namespace) = (self.identity.clone(), call.namespace.clone());
        let mut keys = apart::run(&call.namespace, move || identity.accessors(&namespace, ACCESSORS_MAX + 1)).await?;
        if keys.is_empty() {
            return Err(Fault::absent());
        }
        let is_cut = keys.len() > ACCESSORS_MAX;
        keys.truncate(ACCESSORS_MAX);
        let warnings = is_cut.then(|| format!("there are more than the {ACCESSORS_MAX} accessors listed"));
        let data = Data::from_iter([("keys".to_owned(), Value::from(keys))]);
        Ok(Response::with_warnings(data, warnings.into_iter().collect()))
    }

    /// `renew`: the token that the data names; the caller's, if it names none.
    pub(super) async fn renew_token(&self, call: &Call, data: &Data) -> Result<Response, Fault> {
        let mut fields = Fields::new(data);
        let Some(token) = fields.filled("token")?.map(|token| Secret::from(token.as_str())) else {
            return self.renew(own(call)?, Secret::default(), fields).await;
        };
        let found = self.identity.named(&token, &call.namespace);
        let (id, _) = found.ok_or_else(|| Fault::invalid("token not found"))?;
        self.renew(id, token, fields).await
    }

    /// `renew-self`.
    pub(super) async fn renew_self(&self, call: &Call, data: &Data) -> Result<Response, Fault> {
        let mut fields = Fields::new(data);
        // Clients send their own; it is the one in the header that counts.
        fields.text("token")?;
        self.renew(own(call)?, Secret::default(), fields).await
    }

    /// `renew-accessor`.
    pub(super) async fn renew_accessor(&self, call: &Call, data: &Data) -> Result<Response, Fault> {
        let mut fields = Fields::new(data);
        let (id, _) = self.by_accessor(call, &mut fields)?;
        self.renew(id, Secret::default(), fields).await
    }

    async fn renew(&self, id: TokenId, token: Secret, mut fields: Fields<'_>) -> Result<Response, Fault> {
        let increment = fields.duration("increment")?.unwrap_or_default().as_secs();
        let mut told = fields.warnings();
        let (auth, warnings) = self.identity.renew(id, increment).await?;
        told.extend(warnings);
        Ok(Response::Auth { auth: Auth { client_token: token, ..auth }, warnings: told })
    }

    /// `revoke`: the token that the data names, and all below it. One that is not there has ended already.
    pub(super) async fn revoke_token(&self, call: &Call, data: &Data) -> Result<Response, Fault> {
        match self.identity.named(&token_in(data)?, &call.namespace) {
            Some((id, token)) => self.revoke(call, id, &token).await,
            None => Ok(Response::Empty),
        }
    }

    /// `revoke-self`.
    pub(super) async fn revoke_self(&self, call: &Call) -> Result<Response, Fault> {
        let token = self.identity.token(&call.caller, &call.namespace)?;
        self.revoke(call, own(call)?, &token).await
    }

    /// `revoke-accessor`.
    pub(super) async fn revoke_accessor(&self, call: &Call, data: &Data) -> Result<Response, Fault> {
        let (id, token) = self.by_accessor(call, &mut Fields::new(data))?;
        self.revoke(call, id, &token).await
    }

    /// `revoke-orphan`: the token that the data names; those it made go on.
    pub(super) async fn revoke_orphan(&self, call: &Call, data: &Data) -> Result<Response, Fault> {
        if !self.identity.may_sudo(&call.caller, &call.namespace, "auth/token/revoke-orphan") {
            return Err(Fault::invalid("root or sudo privileges required to revoke and orphan"));
        }
        if let Some((id, token)) = self.identity.named(&token_in(data)?, &call.namespace) {
            self.identity.revoke_orphan(id).await?;
            note(call, &token);
        }
        Ok(Response::Empty)
    }

    async fn revoke(&self, call: &Call, id: TokenId, token: &Token) -> Result<Response, Fault> {
        self.identity.revoke(id).await?;
        note(call, token);
        Ok(Response::Empty)
    }

    fn by_accessor(&self, call: &Call, fields: &mut Fields<'_>) -> Result<(TokenId, Arc<Token>), Fault> {
        let accessor = fields.filled("accessor")?.ok_or_else(|| Fault::invalid("missing accessor"))?;
        self.identity.by_accessor(&accessor, &call.namespace).ok_or(INVALID_ACCESSOR)
    }

    /// What is known of a token. `id` is the accessor: the token itself is kept nowhere, and its bearer has it.
    /// `namespace_path` is that of the token, not of the request.
    fn shown(&self, token: &Token) -> Response {
        let mut data = json!({
            "id": token.accessor,
            "accessor": token.accessor,
            "policies": token.policies,
            "path": token.path,
            "meta": if token.meta.is_empty() { Value::Null } else { json!(token.meta) },
            "display_name": token.display_name,
            "num_uses": token.uses().unwrap_or_default(),
            "orphan": token.is_orphan(),
            "creation_time": token.creation_time,
            "creation_ttl": token.creation_ttl,
            "expire_time": token.ends().map(super::time_text),
            "explicit_max_ttl": token.explicit_max_ttl,
            "ttl": self.identity.left(token),
            "renewable": token.renewable,
            "entity_id": "",
            "type": if token.is_implicit() { "implicit" } else { "service" },
            "namespace_path": token.namespace.as_str(),
        });
        if token.ends().is_some() {
            data["issue_time"] = super::time_text(token.creation_time).into();
        }
        if token.period > 0 {
            data["period"] = token.period.into();
        }
        if !token.role.is_empty() {
            data["role"] = token.role.as_str().into();
        }
        if let Some(renewed) = token.renewed() {
            data["last_renewal_time"] = renewed.into();
            data["last_renewal"] = super::time_text(renewed).into();
        }
        let data = match data {
            Value::Object(data) => data,
            _ => Data::new(),
        };
        Response::data(data)
    }
}

/// The id of the caller's own token.
fn own(call: &Call) -> Result<TokenId, Fault> {
    call.caller.token.ok_or_else(|| {
        Fault::invalid(
            "there is no token of the caller's: roles of auth/unix let it in without; log in at auth/unix/login",
        )
    })
}

/// The token that the data names.
fn token_in(data: &Data) -> Result<Secret, Fault> {
    let token = Fields::new(data).filled("token")?.ok_or_else(|| Fault::invalid("missing token ID"))?;
    Ok(Secret::from(token.as_str()))
}

/// A token's notes, which are texts.
fn notes(data: Option<&Data>) -> Result<BTreeMap<String, String>, Fault> {
    let note = |(name, value): (&String, &Value)| match value {
        Value::String(text) => Ok((name.clone(), text.clone())),
        Value::Number(_) | Value::Bool(_) => Ok((name.clone(), value.to_string())),
        _ => Err(Fault::invalid(format!("field \"meta\": expected a text for {name:?}"))),
    };
    data.into_iter().flatten().map(note).collect()
}

fn note(call: &Call, token: &Token) {
    tracing::info!(namespace = %call.namespace, accessor = token.accessor, uid = call.caller.peer.uid, "token revoked");
}
