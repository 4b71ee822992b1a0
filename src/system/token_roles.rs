//! `auth/token/roles`: what tokens made by a role may be.

use serde_json::{Value, json};

use super::{Call, System};
use crate::identity::TokenRole;
use crate::model::{Data, Fault, Fields, Response};

impl System {
    pub(super) async fn list_token_roles(&self, call: &Call) -> Result<Response, Fault> {
        let names = self.identity.roles(&call.namespace)?;
        if names.is_empty() { Err(Fault::absent()) } else { Ok(Response::keys(names)) }
    }

    pub(super) async fn read_token_role(&self, call: &Call, name: &str) -> Result<Response, Fault> {
        let role = self.identity.role(&call.namespace, name)?.ok_or_else(Fault::absent)?;
        Ok(Response::data(shown(name, &role)))
    }

    /// Makes a role, or changes what is said of one.
    pub(super) async fn write_token_role(&self, call: &Call, name: &str, data: &Data) -> Result<Response, Fault> {
        let data = data.clone();
        let edit = move |known: Option<TokenRole>| {
            let known = known.unwrap_or_else(|| TokenRole { renewable: true, ..TokenRole::default() });
            let mut fields = Fields::below(&data, &["role_name"]);
            Ok((changed(known, &mut fields)?, fields.warnings()))
        };
        let warnings = self.identity.edit_role(&call.namespace, name, edit).await?;
        tracing::info!(namespace = %call.namespace, role = name, uid = call.caller.peer.uid, "token role written");
        Ok(if warnings.is_empty() { Response::Empty } else { Response::with_warnings(Data::new(), warnings) })
    }

    pub(super) async fn delete_token_role(&self, call: &Call, name: &str) -> Result<Response, Fault> {
        self.identity.delete_role(&call.namespace, name).await?;
        tracing::info!(namespace = %call.namespace, role = name, uid = call.caller.peer.uid, "token role deleted");
        Ok(Response::Empty)
    }
}

fn changed(known: TokenRole, fields: &mut Fields<'_>) -> Result<TokenRole, Fault> {
    if let Some(kind) = fields.filled("token_type")?
        && !["service", "default-service", "default"].contains(&kind.as_str())
    {
        return Err(Fault::invalid(format!("token_type {kind:?}: expected service, as no batch tokens are made here")));
    }
    fields.refuse(&["token_bound_cidrs", "bound_cidrs", "allowed_entity_aliases"])?;
    // As names of policies are written.
    let lowered = |names: Vec<String>| names.iter().map(|name| name.to_lowercase()).collect();
    let mut list = |name, before| Ok(fields.list(name)?.map_or(before, lowered));
    let allowed_policies = list("allowed_policies", known.allowed_policies)?;
    let disallowed_policies = list("disallowed_policies", known.disallowed_policies)?;
    let allowed_policies_glob = list("allowed_policies_glob", known.allowed_policies_glob)?;
    let disallowed_policies_glob = list("disallowed_policies_glob", known.disallowed_policies_glob)?;
    let period = fields.duration("token_period")?.or(fields.duration("period")?);
    let longest = fields.duration("token_explicit_max_ttl")?.or(fields.duration("explicit_max_ttl")?);
    let uses = fields.integer("token_num_uses")?.map(u64::try_from).transpose();
    Ok(TokenRole {
        allowed_policies,
        disallowed_policies,
        allowed_policies_glob,
        disallowed_policies_glob,
        orphan: fields.boolean("orphan")?.unwrap_or(known.orphan),
        renewable: fields.boolean("renewable")?.unwrap_or(known.renewable),
        path_suffix: suffix(fields.text("path_suffix")?.unwrap_or(known.path_suffix))?,
        period_seconds: period.map_or(known.period_seconds, |period| period.as_secs()),
        explicit_max_ttl_seconds: longest.map_or(known.explicit_max_ttl_seconds, |longest| longest.as_secs()),
        num_uses: uses.map_err(|_| Fault::invalid("number of uses cannot be negative"))?.unwrap_or(known.num_uses),
        no_default_policy: fields.boolean("token_no_default_policy")?.unwrap_or(known.no_default_policy),
    })
}

/// A suffix is part of a path.
fn suffix(text: String) -> Result<String, Fault> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    if text.len() <= 256 && text.chars().all(is_plain) {
        return Ok(text);
    }
    Err(Fault::invalid(format!(
        "path_suffix {text:?}: expected at most 256 letters, digits, hyphens, underscores, periods"
    )))
}

fn shown(name: &str, role: &TokenRole) -> Data {
    let shown = json!({
        "name": name,
        "allowed_entity_aliases": [],
        "allowed_policies": role.allowed_policies,
        "allowed_policies_glob": role.allowed_policies_glob,
        "disallowed_policies": role.disallowed_policies,
        "disallowed_policies_glob": role.disallowed_policies_glob,
        "explicit_max_ttl": role.explicit_max_ttl_seconds,
        "orphan": role.orphan,
        "path_suffix": role.path_suffix,
        "period": role.period_seconds,
        "renewable": role.renewable,
        "token_bound_cidrs": [],
        "token_explicit_max_ttl": role.explicit_max_ttl_seconds,
        "token_no_default_policy": role.no_default_policy,
        "token_num_uses": role.num_uses,
        "token_period": role.period_seconds,
        "token_type": "default-service",
    });
    match shown {
        Value::Object(shown) => shown,
        _ => Data::new(),
    }
}
