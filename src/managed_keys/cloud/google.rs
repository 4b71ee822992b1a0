//! The fields of a `gcpckms` managed key.

use std::path::PathBuf;

use super::{
    CloudCredentials, CloudKey, CloudKind, CloudPlace, CloudService, Data, Fault, Fields, KeyUsages, REDACTED, Secret,
    endpoint, required, secret,
};

/// The version of a key that has but one.
const FIRST_VERSION: &str = "1";
/// Most bytes of an identifier there.
const ID_BYTES: usize = 63;
/// Most bytes of a project's id, with the domain that it may begin with.
const PROJECT_BYTES: usize = 128;
/// Most bytes of a credential file.
const CREDENTIALS_MAX: usize = 64 * 1024;
/// The credentials that are a key, and nothing that names files or addresses.
const SERVICE_ACCOUNT: &str = "service_account";
/// What credential files may be.
const TYPES: &[&str] = &[SERVICE_ACCOUNT, "external_account", "authorized_user", "impersonated_service_account"];

pub(super) fn read(
    fields: &mut Fields<'_>,
    old: Option<&CloudKey>,
    usages: Option<KeyUsages>,
) -> Result<(CloudKey, &'static CloudKind), Fault> {
    let name = id(fields, "crypto_key", ID_BYTES, "-_")?.ok_or_else(|| required("crypto_key"))?;
    let of_daemon = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let project = id(fields, "project", PROJECT_BYTES, "-.:")?.or_else(|| of_daemon("GOOGLE_PROJECT"));
    let region = id(fields, "region", ID_BYTES, "-")?.or_else(|| of_daemon("GOOGLE_REGION"));
    let key_ring = id(fields, "key_ring", ID_BYTES, "-_")?.ok_or_else(|| required("key_ring"))?;
    let version = id(fields, "crypto_key_version", 20, "")?.unwrap_or_else(|| FIRST_VERSION.to_owned());
    if !version.parse::<u64>().is_ok_and(|number| number > 0) {
        return Err(Fault::invalid(format!("crypto_key_version {version:?} is no number of a version, such as \"1\"")));
    }
    let kind = algorithm(fields, usages)?;
    let place = CloudPlace::Google {
        project: project.ok_or_else(|| required("project"))?,
        region: region.ok_or_else(|| required("region"))?,
        key_ring,
        version,
        algorithm: kind.native,
    };
    let credentials = credentials(fields, old)?;
    Ok((CloudKey { name, place, endpoint: endpoint(fields)?, credentials, replicas: Vec::new() }, kind))
}

/// An identifier, which is to be a part of a path.
fn id(fields: &mut Fields<'_>, name: &'static str, most: usize, beside: &str) -> Result<Option<String>, Fault> {
    let Some(id) = fields.filled(name)? else { return Ok(None) };
    let begins = id.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    if begins && id.len() <= most && id.chars().all(|c| c.is_ascii_alphanumeric() || beside.contains(c)) {
        return Ok(Some(id));
    }
    Err(Fault::invalid(format!("{name} {id:?} is none of Google Cloud's: give its id alone, and not a path")))
}

/// The algorithm, in lower or upper case.
fn algorithm(fields: &mut Fields<'_>, usages: Option<KeyUsages>) -> Result<&'static CloudKind, Fault> {
    let name = fields.filled("algorithm")?.ok_or_else(|| required("algorithm"))?;
    let upper = name.to_uppercase();
    let kinds = CloudService::GcpCkms.kinds();
    let kind = kinds.iter().find(|kind| kind.native == upper).ok_or_else(|| {
        let known: Vec<&str> = kinds.iter().map(|kind| kind.native).collect();
        // Vault's words, which its clients look for.
        Fault::invalid(format!("invalid signature algorithm {name:?}: use one of {}", known.join(", ")))
    })?;
    let does = kind.does.usages();
    if usages.is_some_and(|usages| usages.and(does).is_empty()) {
        let does: Vec<&str> = does.iter().map(super::KeyUsage::name).collect();
        return Err(Fault::invalid(format!("usages: a key of algorithm {upper} does {}", does.join(", "))));
    }
    Ok(kind)
}

/// The path of a credential file, or its contents.
fn credentials(fields: &mut Fields<'_>, old: Option<&CloudKey>) -> Result<CloudCredentials, Fault> {
    let old = match old.map(|old| &old.credentials) {
        Some(CloudCredentials::GoogleJson(json)) => Some(json.clone()),
        Some(CloudCredentials::GoogleFile(path)) => Some(Secret::new(path.to_string_lossy().into_owned().into_bytes())),
        _ => None,
    };
    let Some(given) = secret(fields, "credentials", old.as_ref())? else { return Ok(CloudCredentials::Own) };
    let text = given.expose_str().ok_or_else(|| Fault::invalid("credentials are no text"))?;
    if !text.trim_start().starts_with('{') {
        let path = PathBuf::from(text);
        if !path.is_absolute() {
            return Err(Fault::invalid("credentials are neither the contents of a credential file nor its whole path"));
        }
        return Ok(CloudCredentials::GoogleFile(path));
    }
    if text.len() > CREDENTIALS_MAX {
        return Err(Fault::invalid(format!("credentials have more than {CREDENTIALS_MAX} bytes")));
    }
    match type_of(&given) {
        Some(known) if TYPES.contains(&known.as_str()) => Ok(CloudCredentials::GoogleJson(given)),
        Some(_) => Err(Fault::invalid(format!("credentials are of no type that is known: {}", TYPES.join(", ")))),
        None => Err(Fault::invalid("credentials are no JSON of a credential file: it has a \"type\"")),
    }
}

fn type_of(json: &Secret) -> Option<String> {
    let parsed: serde_json::Value = serde_json::from_slice(json.expose()).ok()?;
    parsed.get("type")?.as_str().map(str::to_owned)
}

/// Whether these credentials would have the daemon read files of this host, or ask addresses of theirs: only whoever may use
/// the daemon's own may have it do that.
pub(super) fn is_more_than_a_key(json: &Secret) -> bool {
    type_of(json).is_none_or(|known| known != SERVICE_ACCOUNT)
}

/// A key that is made has one version.
pub(super) fn check_generation(key: &CloudKey) -> Result<(), Fault> {
    match &key.place {
        CloudPlace::Google { version, .. } if version != FIRST_VERSION => Err(Fault::invalid(format!(
            "crypto_key_version {version:?} must be {FIRST_VERSION:?} where allow_generate_key is set: a new key has no other"
        ))),
        _ => Ok(()),
    }
}

pub(super) fn show(key: &CloudKey, kind: &CloudKind, data: &mut Data) {
    let CloudPlace::Google { project, region, key_ring, version, .. } = &key.place else { return };
    let mut put = |name: &str, value: &str| data.insert(name.to_owned(), value.into());
    put("credentials", if matches!(key.credentials, CloudCredentials::Own) { "" } else { REDACTED });
    put("project", project);
    put("region", region);
    put("key_ring", key_ring);
    put("crypto_key", &key.name);
    put("crypto_key_version", version);
    put("algorithm", &kind.native.to_lowercase());
    put("endpoint", key.endpoint.as_deref().unwrap_or_default());
}
