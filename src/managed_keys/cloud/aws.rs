//! The fields of an `awskms` managed key.

use super::{
    CloudCredentials, CloudKey, CloudKind, CloudPlace, CloudService, Data, Fault, Fields, KeyKind, KeyUsages, REDACTED,
    Secret, curve_name, endpoint, kind, required, secret,
};

/// What begins the name of an alias: the only name that the service lets anybody choose.
const ALIAS: &str = "alias/";
/// Most bytes of the name of a key: an ARN with an alias.
const NAME_BYTES: usize = 2048;

pub(super) fn read(
    fields: &mut Fields<'_>,
    old: Option<&CloudKey>,
    usages: Option<KeyUsages>,
) -> Result<(CloudKey, &'static CloudKind), Fault> {
    let name = fields.filled("kms_key")?.ok_or_else(|| required("kms_key"))?;
    if name.len() > NAME_BYTES || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_/:.=@".contains(c)) {
        return Err(Fault::invalid(format!(
            "kms_key {name:?} is no id, ARN or alias of AWS KMS: an alias begins with {ALIAS:?}"
        )));
    }
    let kind = kind(fields, CloudService::AwsKms, usages)?;
    let (old_access, old_secret) = match old.map(|old| &old.credentials) {
        Some(CloudCredentials::Aws { access_key, secret_key }) => {
            (Some(Secret::from(access_key.as_str())), Some(secret_key))
        }
        _ => (None, None),
    };
    let access_key = secret(fields, "access_key", old_access.as_ref())?;
    let secret_key = secret(fields, "secret_key", old_secret)?;
    let credentials = match (access_key, secret_key) {
        (Some(access_key), Some(secret_key)) => {
            let text = || Fault::invalid("access_key is no text");
            CloudCredentials::Aws { access_key: access_key.expose_str().ok_or_else(text)?.to_owned(), secret_key }
        }
        (None, None) => CloudCredentials::Own,
        _ => return Err(Fault::invalid("access_key and secret_key belong together: give both, or neither")),
    };
    let region = fields.filled("region")?;
    if let Some(region) =
        region.as_ref().filter(|region| !region.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'))
    {
        return Err(Fault::invalid(format!("region {region:?} is none such as \"eu-central-1\"")));
    }
    Ok((CloudKey { name, place: CloudPlace::Aws { region }, endpoint: endpoint(fields)?, credentials }, kind))
}

/// The service gives ids: only an alias can be looked for before there is a key.
pub(super) fn check_generation(key: &CloudKey) -> Result<(), Fault> {
    if key.name.starts_with(ALIAS) && key.name.len() > ALIAS.len() && !key.name.starts_with("alias/aws/") {
        return Ok(());
    }
    Err(Fault::invalid(format!(
        "kms_key {:?} must be an alias, such as \"alias/my-ca\", where allow_generate_key is set: AWS KMS gives ids itself, and keeps \
         alias/aws/ for its own keys",
        key.name
    )))
}

pub(super) fn show(key: &CloudKey, kind: &CloudKind, data: &mut Data) {
    let CloudPlace::Aws { region } = &key.place else { return };
    let mut put = |name: &str, value: serde_json::Value| data.insert(name.to_owned(), value);
    let given = if matches!(key.credentials, CloudCredentials::Own) { "" } else { REDACTED };
    put("access_key", given.into());
    put("secret_key", given.into());
    put("region", region.as_deref().unwrap_or_default().into());
    put("endpoint", key.endpoint.as_deref().unwrap_or_default().into());
    put("kms_key", key.name.as_str().into());
    put("key_type", kind.key_type.into());
    let (bits, curve) = match kind.kind {
        KeyKind::Rsa { bits } | KeyKind::Aes { bits } | KeyKind::Hmac { bits } => (bits, ""),
        KeyKind::Ec(curve) => (0, curve_name(curve)),
        KeyKind::Ed25519 | KeyKind::MlDsa(_) => (0, ""),
    };
    put("key_bits", bits.into());
    put("curve", curve.into());
}
