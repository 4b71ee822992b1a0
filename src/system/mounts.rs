//! `sys/mounts`: enable, list, read, tune, disable.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Call, System};
use crate::apart;
use crate::model::{Data, Fault, Fields, IF_MODIFIED_SINCE, LAST_MODIFIED, Listing, Mount, MountConfig, Response};
use crate::namespace::{NewMount, Tune};

/// Settings of Vault's that have no effect here: accepted as they are by default, and named in a warning else.
const WITHOUT_EFFECT: [&str; 2] = ["force_no_cache", "plugin_version"];

/// Names in one list of headers.
const HEADERS_MAX: usize = 64;

impl System {
    pub(super) fn list_mounts(&self, call: &Call) -> Response {
        let mounts = self.namespaces.mounts(&call.namespace);
        mirrored(mounts.iter().map(|mount| (mount.path.clone(), Value::Object(show(mount)))).collect())
    }

    pub(super) fn read_mount(&self, call: &Call, path: &str) -> Result<Response, Fault> {
        let mount = self.namespaces.mount(&call.namespace, path).ok_or_else(|| no_mount(path))?;
        Ok(mirrored(show(&mount)))
    }

    pub(super) async fn enable(&self, call: &Call, path: &str, data: &Data) -> Result<Response, Fault> {
        let mut fields = Fields::below(data, &["path"]);
        let engine =
            fields.filled("type")?.ok_or_else(|| Fault::invalid("backend type must be specified as a string"))?;
        let known: Vec<&str> = self.engines.iter().map(|known| known.name).collect();
        if !known.contains(&engine.as_str()) {
            return Err(Fault::invalid(format!(
                "plugin not found in the catalog: {engine}; there are: {}",
                known.join(", ")
            )));
        }
        let description = fields.text("description")?.unwrap_or_default();
        let options = options(&mut fields)?.unwrap_or_default();
        self.keys.check_options(&call.namespace, &options)?;
        fields.refuse(&["seal_wrap", "external_entropy_access"])?;
        let is_local = fields.boolean("local")?.unwrap_or_default();
        fields.text("plugin_name")?;
        let empty = Data::new();
        let mut config = Fields::inside("config", fields.object("config")?.unwrap_or(&empty));
        let (tune, mut warnings) = tuning(&mut config)?;
        warnings.extend(config.warnings());
        warnings.extend(fields.warnings());
        let new = NewMount {
            path: path.to_owned(),
            engine,
            description,
            options,
            config: MountConfig {
                default_lease_ttl: tune.default_lease_ttl.unwrap_or_default(),
                max_lease_ttl: tune.max_lease_ttl.unwrap_or_default(),
                allowed_managed_keys: tune.allowed_managed_keys.unwrap_or_default(),
                passthrough_request_headers: tune.passthrough_request_headers.unwrap_or_default(),
                allowed_response_headers: tune.allowed_response_headers.unwrap_or_default(),
                audit_non_hmac_request_keys: tune.audit_non_hmac_request_keys.unwrap_or_default(),
                audit_non_hmac_response_keys: tune.audit_non_hmac_response_keys.unwrap_or_default(),
                listing: tune.listing.unwrap_or_default(),
                is_local,
            },
        };
        let mount = self.namespaces.enable(&call.namespace, new).await?;
        tracing::info!(namespace = %mount.namespace, path = mount.path, engine = mount.engine, "engine enabled");
        Ok(done(warnings))
    }

    /// Goes on to its end when its asker leaves: else the mount's own keys and its quotas would stay.
    pub(super) async fn disable(&self, call: &Call, path: &str) -> Result<Response, Fault> {
        let (namespaces, keys, quotas) = (self.namespaces.clone(), self.keys.clone(), self.quotas.clone());
        let (removal, namespace, path) = (Arc::clone(&self.removal), call.namespace.clone(), path.to_owned());
        let disabling = tokio::spawn(async move {
            let Some(mount) = namespaces.disable(&namespace, &path, move |mount| removal(mount)).await? else {
                return Ok(());
            };
            tracing::info!(%namespace, path = mount.path, engine = mount.engine, "engine disabled");
            keys.end_mount(&mount).await;
            if let Err(fault) = quotas.end(&format!("{}{}", namespace.as_str(), mount.path)).await {
                tracing::warn!(%namespace, path = mount.path, %fault, "the quotas of a disabled mount stay: delete them");
            }
            Ok(())
        });
        let going_down = |_| Err(Fault::Unavailable { what: "the daemon is going down; try again".into() });
        disabling.await.unwrap_or_else(going_down).map(|()| Response::Empty)
    }

    pub(super) fn read_tuning(&self, call: &Call, path: &str) -> Result<Response, Fault> {
        let mount = self.namespaces.mount(&call.namespace, path).ok_or_else(|| no_mount(path))?;
        let mut data = config(&mount);
        data.insert("default_lease_ttl".into(), mount.config.effective_default_ttl().as_secs().into());
        data.insert("max_lease_ttl".into(), mount.config.effective_max_ttl().as_secs().into());
        data.insert("description".into(), mount.description.as_str().into());
        if !mount.options.is_empty() {
            data.insert("options".into(), json!(mount.options));
        }
        Ok(mirrored(data))
    }

    pub(super) async fn tune(&self, call: &Call, path: &str, data: &Data) -> Result<Response, Fault> {
        let mut fields = Fields::below(data, &["path"]);
        let (mut tune, mut warnings) = tuning(&mut fields)?;
        tune.description = fields.text("description")?;
        tune.options = options(&mut fields)?;
        if let Some(options) = &tune.options {
            self.keys.check_options(&call.namespace, options)?;
        }
        // Said of auth mounts only; clients send it empty for others.
        fields.refuse(&["token_type"])?;
        warnings.extend(fields.warnings());
        let mount = self.namespaces.tune(&call.namespace, path, tune).await?;
        tracing::info!(namespace = %mount.namespace, path = mount.path, engine = mount.engine, "engine tuned");
        Ok(done(warnings))
    }

    pub(super) async fn ui_mounts(&self, call: &Call) -> Result<Response, Fault> {
        // Without a token only mounts that ask for it are listed, and little is told of them.
        let is_stranger = self.identity.valid(&call.caller, &call.namespace).is_err();
        let is_open = self.namespaces.check_unlocked(&call.namespace).is_ok();
        let token = self.identity.token(&call.caller, &call.namespace);
        let mut mounts = if is_open { self.namespaces.mounts(&call.namespace) } else { Vec::new() };
        if !token.is_ok_and(|token| token.reaches(&call.namespace)) {
            mounts.retain(|mount| mount.config.listing == Listing::Anyone);
        }
        let (identity, caller, namespace) = (self.identity.clone(), call.caller.clone(), call.namespace.clone());
        // Many mounts and many rules are not for a thread that others wait for.
        if !is_stranger {
            let judged = apart::run(&call.namespace, move || {
                mounts.retain(|mount| {
                    mount.config.listing == Listing::Anyone || identity.reaches(&caller, &namespace, &mount.path)
                });
                mounts
            });
            mounts = judged.await?;
        }
        let shown = |mount: &Mount| match is_stranger {
            true => json!({"type": mount.engine, "description": mount.description, "options": null}),
            false => Value::Object(show(mount)),
        };
        let secret: Data = mounts.iter().map(|mount| (mount.path.clone(), shown(mount))).collect();
        let mut data = Data::new();
        data.insert("auth".into(), json!({}));
        data.insert("secret".into(), secret.into());
        Ok(Response::data(data))
    }

    /// Any path below a mount leads to its mount. An unknown one is refused as a forbidden one is, so that mounts cannot
    /// be guessed.
    pub(super) fn ui_mount(&self, call: &Call, path: &str) -> Result<Response, Fault> {
        let with_slash = format!("{path}/");
        let found = self
            .namespaces
            .route(&call.namespace, path)
            .or_else(|| self.namespaces.route(&call.namespace, &with_slash));
        let seen = found.filter(|(mount, _)| self.identity.reaches(&call.caller, &call.namespace, &mount.path));
        let (mount, _) = seen.ok_or_else(|| Fault::TokenRefused {
            reason: Cow::Owned(format!(
                "preflight capability check returned 403, please ensure client's policies grant access to path {with_slash:?}"
            )),
        })?;
        let mut data = show(&mount);
        data.insert("path".into(), mount.path.as_str().into());
        Ok(Response::data(data))
    }
}

fn no_mount(path: &str) -> Fault {
    Fault::invalid(format!("No secret engine mount at {}/", path.trim_matches('/')))
}

/// Vault repeats the data of `sys/mounts` and all below it at the top level.
fn mirrored(data: Data) -> Response {
    Response::Data { data, warnings: Vec::new(), mirrored: true }
}

fn done(warnings: Vec<String>) -> Response {
    if warnings.is_empty() { Response::Empty } else { Response::with_warnings(Data::new(), warnings) }
}

/// The settings a request names, and what its sender should know.
fn tuning(fields: &mut Fields<'_>) -> Result<(Tune, Vec<String>), Fault> {
    fields.refuse(&["delegated_auth_accessors", "identity_token_key", "user_lockout_config"])?;
    let idle: Vec<&str> = WITHOUT_EFFECT.into_iter().filter(|name| fields.refuse(&[*name]).is_err()).collect();
    let warning = (!idle.is_empty()).then(|| format!("These parameters have no effect here: [{}]", idle.join(" ")));
    let tune = Tune {
        description: None,
        options: None,
        default_lease_ttl: fields.duration("default_lease_ttl")?,
        max_lease_ttl: fields.duration("max_lease_ttl")?,
        allowed_managed_keys: fields.list("allowed_managed_keys")?,
        passthrough_request_headers: headers(fields, "passthrough_request_headers")?,
        allowed_response_headers: headers(fields, "allowed_response_headers")?,
        audit_non_hmac_request_keys: fields.list("audit_non_hmac_request_keys")?,
        audit_non_hmac_response_keys: fields.list("audit_non_hmac_response_keys")?,
        listing: fields.text("listing_visibility")?.map(|name| listing(&name)).transpose()?,
    };
    let unread = other_headers(tune.passthrough_request_headers.as_deref(), IF_MODIFIED_SINCE);
    let unread = unread.map(|names| format!("No engine reads these request headers: [{names}]"));
    let unsent = other_headers(tune.allowed_response_headers.as_deref(), LAST_MODIFIED);
    let unsent = unsent.map(|names| format!("No engine answers with these headers: [{names}]"));
    Ok((tune, warning.into_iter().chain(unread).chain(unsent).collect()))
}

fn listing(name: &str) -> Result<Listing, Fault> {
    Listing::from_name(name).ok_or_else(|| {
        Fault::invalid(format!("invalid listing_visibility {name:?}: expected unauth, hidden, or the empty string"))
    })
}

/// A list of headers, which is gone through at each request.
fn headers(fields: &mut Fields<'_>, name: &'static str) -> Result<Option<Vec<String>>, Fault> {
    let listed = fields.list(name)?;
    if listed.as_ref().is_some_and(|listed| listed.len() > HEADERS_MAX) {
        return Err(Fault::invalid(format!("{name} has more than {HEADERS_MAX} headers")));
    }
    Ok(listed)
}

/// Those of a list of headers that are not the one with a meaning.
fn other_headers(listed: Option<&[String]>, known: &str) -> Option<String> {
    let others: Vec<&str> =
        listed?.iter().map(String::as_str).filter(|name| !name.eq_ignore_ascii_case(known)).collect();
    (!others.is_empty()).then(|| others.join(" "))
}

fn options(fields: &mut Fields<'_>) -> Result<Option<BTreeMap<String, String>>, Fault> {
    let Some(options) = fields.object("options")? else { return Ok(None) };
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Ok(Some(options.iter().map(|(name, value)| (name.clone(), text(value))).collect()))
}

fn config(mount: &Mount) -> Data {
    let mut data = Data::new();
    data.insert("default_lease_ttl".into(), mount.config.default_lease_ttl.as_secs().into());
    data.insert("max_lease_ttl".into(), mount.config.max_lease_ttl.as_secs().into());
    data.insert("force_no_cache".into(), false.into());
    if mount.config.listing != Listing::Unsaid {
        data.insert("listing_visibility".into(), mount.config.listing.name().into());
    }
    if !mount.config.allowed_managed_keys.is_empty() {
        data.insert("allowed_managed_keys".into(), json!(mount.config.allowed_managed_keys));
    }
    let lists = [
        ("passthrough_request_headers", &mount.config.passthrough_request_headers),
        ("allowed_response_headers", &mount.config.allowed_response_headers),
        ("audit_non_hmac_request_keys", &mount.config.audit_non_hmac_request_keys),
        ("audit_non_hmac_response_keys", &mount.config.audit_non_hmac_response_keys),
    ];
    for (name, listed) in lists.into_iter().filter(|(_, listed)| !listed.is_empty()) {
        data.insert(name.into(), json!(listed));
    }
    data
}

fn show(mount: &Mount) -> Data {
    let shown = json!({
        "type": mount.engine,
        "description": mount.description,
        "accessor": mount.accessor,
        "uuid": mount.uuid,
        "config": config(mount),
        "options": if mount.options.is_empty() { Value::Null } else { json!(mount.options) },
        "local": mount.config.is_local,
        "seal_wrap": false,
        "external_entropy_access": false,
        "plugin_version": "",
        "running_plugin_version": "",
        "running_sha256": "",
        "deprecation_status": "supported",
    });
    shown.as_object().cloned().unwrap_or_default()
}
