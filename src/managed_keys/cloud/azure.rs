//! The fields of an `azurekeyvault` managed key.

use super::{
    CloudCredentials, CloudKey, CloudKind, CloudPlace, CloudService, Data, Fault, Fields, KeyKind, KeyUsages, REDACTED,
    curve_name, endpoint, kind, required, secret,
};

/// The clouds, by Vault's names for them, and the domains of their vaults and managed HSMs.
const ENVIRONMENTS: [(&str, [&str; 2]); 3] = [
    ("AZUREPUBLICCLOUD", ["vault.azure.net", "managedhsm.azure.net"]),
    ("AZUREUSGOVERNMENTCLOUD", ["vault.usgovcloudapi.net", "managedhsm.usgovcloudapi.net"]),
    ("AZURECHINACLOUD", ["vault.azure.cn", "managedhsm.azure.cn"]),
];
const NAME_LETTERS: usize = 127;

/// What ends the types of keys that are in HSMs.
const HSM: &str = "-HSM";

pub(super) fn read(
    fields: &mut Fields<'_>,
    old: Option<&CloudKey>,
    usages: Option<KeyUsages>,
) -> Result<(CloudKey, &'static CloudKind), Fault> {
    let name = named(fields, "key_name")?;
    let vault = named(fields, "vault_name")?;
    let domain = domain(fields)?;
    let version = fields.filled("key_version")?;
    if let Some(version) = version.as_ref().filter(|version| !version.chars().all(|c| c.is_ascii_alphanumeric())) {
        return Err(Fault::invalid(format!("key_version {version:?} is none of Azure's: letters and digits alone")));
    }
    let kind = kind(fields, CloudService::AzureKeyVault, usages)?;
    if kind.key_type == "OCT-HSM" && !domain.starts_with("managedhsm.") {
        return Err(Fault::invalid(format!(
            "key_type oct-HSM is there in managed HSMs alone: let resource be {:?}",
            domain.replacen("vault.", "managedhsm.", 1)
        )));
    }
    if !kind.key_type.ends_with(HSM) && domain.starts_with("managedhsm.") {
        let there = format!("{}{HSM}", kind.key_type);
        return Err(Fault::invalid(format!("key_type {} is in no managed HSM: there it is {there:?}", kind.key_type)));
    }
    let old_secret = match old.map(|old| &old.credentials) {
        Some(CloudCredentials::Azure { client_secret, .. }) => client_secret.as_ref(),
        _ => None,
    };
    let tenant_id = fields.filled("tenant_id")?.ok_or_else(|| required("tenant_id"))?;
    if !tenant_id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.') {
        return Err(Fault::invalid(format!("tenant_id {tenant_id:?} is no id of a tenant, and no domain of one")));
    }
    let client_id = fields.filled("client_id")?.unwrap_or_default();
    if client_id.len() > NAME_LETTERS || !client_id.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        return Err(Fault::invalid(format!("client_id {client_id:?} is no id of an application")));
    }
    let client_secret = secret(fields, "client_secret", old_secret)?;
    if client_id.is_empty() && client_secret.is_some() {
        return Err(Fault::invalid(
            "client_secret is for a client_id: give both, or neither for the daemon's own identity",
        ));
    }
    let endpoint = endpoint(fields)?;
    if let Some(plain) = endpoint.as_ref().filter(|endpoint| endpoint.starts_with("http://")) {
        return Err(Fault::invalid(format!("endpoint {plain:?} must begin with https://: tokens go over TLS alone")));
    }
    let place = CloudPlace::Azure { vault, domain, version };
    Ok((
        CloudKey {
            name,
            place,
            endpoint,
            replicas: Vec::new(),
            credentials: CloudCredentials::Azure { tenant_id, client_id, client_secret },
        },
        kind,
    ))
}

/// The name of a vault or of a key: letters, digits and dashes.
fn named(fields: &mut Fields<'_>, field: &'static str) -> Result<String, Fault> {
    let name = fields.filled(field)?.ok_or_else(|| required(field))?;
    if name.len() <= NAME_LETTERS && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return Ok(name);
    }
    Err(Fault::invalid(format!(
        "{field} {name:?} is no such name in Azure: letters, digits and dashes, {NAME_LETTERS} at most"
    )))
}

/// The domain of the service, by `resource` and `environment`; either tells it.
fn domain(fields: &mut Fields<'_>) -> Result<String, Fault> {
    let environment = fields.filled("environment")?;
    let known = || ENVIRONMENTS.map(|(name, _)| name).join(", ");
    let of = |name: &str| {
        ENVIRONMENTS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, domains)| *domains)
    };
    let domains =
        match &environment {
            Some(name) => Some(of(name).ok_or_else(|| {
                Fault::invalid(format!("environment {name:?} is not supported: use one of {}", known()))
            })?),
            None => None,
        };
    let Some(resource) = fields.filled("resource")? else {
        return Ok(domains.unwrap_or(ENVIRONMENTS[0].1)[0].to_owned());
    };
    let resource = resource.trim_start_matches("https://").trim_end_matches('/').to_lowercase();
    let fits = |domains: &[&str; 2]| domains.contains(&resource.as_str());
    if domains.as_ref().map_or_else(|| ENVIRONMENTS.iter().any(|(_, domains)| fits(domains)), fits) {
        return Ok(resource);
    }
    let among = domains.map_or_else(
        || ENVIRONMENTS.iter().flat_map(|(_, domains)| *domains).collect::<Vec<_>>().join(", "),
        |domains| domains.join(", "),
    );
    Err(Fault::invalid(format!("resource {resource:?} is not supported: use one of {among}")))
}

/// Which of the clouds a key is in: each has its own operator, who gives out its tokens.
pub(super) fn cloud_of(key: &CloudKey) -> Option<&'static str> {
    let CloudPlace::Azure { domain, .. } = &key.place else { return None };
    let environment = ENVIRONMENTS.iter().find(|(_, domains)| domains.contains(&domain.as_str()));
    environment.map(|(name, _)| *name)
}

pub(super) fn show(key: &CloudKey, kind: &CloudKind, data: &mut Data) {
    let (CloudPlace::Azure { vault, domain, version }, CloudCredentials::Azure { tenant_id, client_id, client_secret }) =
        (&key.place, &key.credentials)
    else {
        return;
    };
    let mut put = |name: &str, value: serde_json::Value| data.insert(name.to_owned(), value);
    put("tenant_id", tenant_id.as_str().into());
    put("client_id", client_id.as_str().into());
    put("client_secret", if client_secret.is_some() { REDACTED } else { "" }.into());
    put("environment", cloud_of(key).unwrap_or_default().into());
    put("resource", domain.as_str().into());
    put("endpoint", key.endpoint.as_deref().unwrap_or_default().into());
    put("vault_name", vault.as_str().into());
    put("key_name", key.name.as_str().into());
    put("key_version", version.as_deref().unwrap_or_default().into());
    put("key_type", kind.key_type.replace("OCT", "oct").into());
    let (bits, curve) = match kind.kind {
        KeyKind::Rsa { bits } | KeyKind::Aes { bits } | KeyKind::Hmac { bits } => (bits, ""),
        KeyKind::Ec(curve) => (0, curve_name(curve)),
        KeyKind::Ed25519 | KeyKind::MlDsa(_) => (0, ""),
    };
    put("key_bits", bits.into());
    put("curve", curve.into());
}
