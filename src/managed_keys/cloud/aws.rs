//! The fields of an `awskms` managed key.

use serde_json::{Value, json};

use super::{
    ARN, CloudCredentials, CloudKey, CloudKind, CloudPlace, CloudService, Data, Fault, Fields, KeyKind, KeyUsages,
    REDACTED, Secret, aws_region, curve_name, endpoint, kind, required, secret,
};

/// What begins the name of an alias: the only name that the service lets anybody choose.
const ALIAS: &str = "alias/";
/// Most bytes of the name of a key: an ARN with an alias.
const NAME_BYTES: usize = 2048;
/// Copies of one key beside it.
const REPLICAS_MAX: usize = 8;

pub(super) fn read(
    fields: &mut Fields<'_>,
    old: Option<&CloudKey>,
    usages: Option<KeyUsages>,
) -> Result<(CloudKey, &'static CloudKind), Fault> {
    let name = checked(fields.filled("kms_key")?.ok_or_else(|| required("kms_key"))?, "kms_key")?;
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
    let region = region(fields)?;
    check_region(&name, region.as_deref())?;
    let (place, endpoint) = (CloudPlace::Aws { region }, endpoint(fields)?);
    let mut key = CloudKey { name, place, endpoint, credentials, replicas: Vec::new() };
    key.replicas = replicas(fields, &key)?;
    Ok((key, kind))
}

fn region(fields: &mut Fields<'_>) -> Result<Option<String>, Fault> {
    let region = fields.filled("region")?;
    let plain = |region: &String| region.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    match region {
        Some(region) if !plain(&region) => {
            Err(Fault::invalid(format!("region {region:?} is none such as \"eu-central-1\"")))
        }
        region => Ok(region),
    }
}

/// The same key in other regions: each says its own region, and what else differs.
fn replicas(fields: &mut Fields<'_>, key: &CloudKey) -> Result<Vec<CloudKey>, Fault> {
    let list = match fields.value("replicas") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) if list.len() <= REPLICAS_MAX => list,
        Some(_) => {
            return Err(Fault::invalid(format!(
                "replicas: expected a list of at most {REPLICAS_MAX} objects, such as {{\"region\": \"eu-west-1\"}}"
            )));
        }
    };
    let read = |replica: &Value| {
        let data = replica.as_object().ok_or_else(|| Fault::invalid("replicas: expected objects"))?;
        let mut fields = Fields::inside("replicas", data);
        let region = region(&mut fields)?;
        let name = fields
            .filled("kms_key")?
            .map_or_else(|| Ok(key.name.clone()), |name| checked(name, "kms_key of a replica"))?;
        check_region(&name, region.as_deref())?;
        let endpoint = endpoint(&mut fields)?;
        let copy = CloudKey { name, place: CloudPlace::Aws { region }, endpoint, ..key.clone() };
        if let Some(unknown) = fields.unknown().first() {
            let what = format!("replicas: {unknown:?} is no field of a replica: use region, kms_key and endpoint");
            return Err(Fault::invalid(what));
        }
        Ok(copy)
    };
    let read: Vec<CloudKey> = list.iter().map(read).collect::<Result<_, Fault>>()?;
    for (place, copy) in read.iter().enumerate() {
        if copy.is_named_as(key) || read[..place].iter().any(|other| other.is_named_as(copy)) {
            return Err(Fault::invalid(format!("replicas: {copy} is named twice: each is in a region of its own")));
        }
    }
    Ok(read)
}

/// Refuses an ARN of another region than the one that is given.
fn check_region(name: &str, region: Option<&str>) -> Result<(), Fault> {
    match aws_region(name).zip(region) {
        Some((own, given)) if own != given => Err(Fault::invalid(format!(
            "kms_key {name:?} is in region {own:?}, and region is {given:?}: leave region out, or correct it"
        ))),
        _ => Ok(()),
    }
}

fn checked(name: String, what: &str) -> Result<String, Fault> {
    let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "-_/:.=@".contains(c));
    if name.len() <= NAME_BYTES && is_plain && (!name.starts_with(ARN) || aws_region(&name).is_some()) {
        return Ok(name);
    }
    Err(Fault::invalid(format!("{what} {name:?} is no id, ARN or alias of AWS KMS: an alias begins with {ALIAS:?}")))
}

/// The service gives ids: only an alias can be looked for before there is a key.
pub(super) fn check_generation(key: &CloudKey) -> Result<(), Fault> {
    if !key.replicas.is_empty() {
        return Err(Fault::invalid(
            "allow_generate_key cannot be set with replicas: make a multi-Region key in AWS KMS, and replicate it there",
        ));
    }
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
    if !key.replicas.is_empty() {
        let shown = key.replicas.iter().map(|copy| {
            let CloudPlace::Aws { region } = &copy.place else { return Value::Null };
            json!({"region": region, "kms_key": copy.name, "endpoint": copy.endpoint})
        });
        put("replicas", shown.collect::<Vec<_>>().into());
    }
}
