//! The fields of a managed key in a cloud: reading them from a request, showing them again. Each service's are in a file of its own.

mod aws;
mod azure;
mod google;

use crate::config::KmsService;
use crate::model::{
    ARN, CipherScheme, CloudCredentials, CloudKey, CloudKind, CloudPlace, CloudService, CloudUse, Curve, Data, Fault,
    Fields, KeyKind, KeyUsage, KeyUsages, Namespace, Secret, aws_region, each_once,
};

use super::pkcs11::{curve, curve_name, oaep_hash_name};
use super::settings::{REDACTED, required};

/// How a plaintext is encrypted: with the key itself, or in an envelope.
const RAW: &str = "raw";
const ENVELOPE: &str = "envelope";
/// Which of several ways of encryption is meant.
const OAEP_HASH: &str = "rsa_oaep_hash";
const CIPHER_MODE: &str = "cipher_mode";

/// What a registration says of a key in a cloud, beside its place: what it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cloud {
    /// What it is, and what for.
    pub(super) kind: &'static CloudKind,
    /// Whether what is encrypted for it goes into an envelope.
    pub(super) envelope: bool,
    /// Which of its ways of encryption is the usual one, where that is not the table's first.
    pub(super) cipher: Option<CipherScheme>,
}

impl Cloud {
    /// Reads a create or update request of `namespace`. `old` lends its secrets where the request leaves them out or sends them back
    /// redacted. `usages` says what a key is for that may be for several things.
    pub(super) fn read(
        namespace: &Namespace,
        service: &KmsService,
        fields: &mut Fields<'_>,
        old: Option<&CloudKey>,
        usages: Option<KeyUsages>,
    ) -> Result<(CloudKey, Cloud), Fault> {
        let (key, kind) = match service.service {
            CloudService::AwsKms => aws::read(fields, old, usages)?,
            CloudService::AzureKeyVault => azure::read(fields, old, usages)?,
            CloudService::GcpCkms => google::read(fields, old, usages)?,
        };
        if let Some(old) = old {
            check_kept_secret(service.service, fields, old, &key)?;
        }
        let names_others = match &key.credentials {
            CloudCredentials::GoogleJson(json) => google::is_more_than_a_key(json),
            CloudCredentials::GoogleFile(_) => true,
            _ => false,
        };
        if names_others && !namespace.is_root() {
            return Err(Fault::invalid(
                "credentials must be the contents of a service account's file outside the root namespace: paths, and files that name \
                 other files, commands or addresses, would have the daemon read what is not the namespace's",
            ));
        }
        let own = names_others || key.credentials.are_the_daemons();
        if own && !service.lends_credentials_to(namespace) {
            return Err(Fault::invalid(format!(
                "namespace {namespace} may not use the daemon's own credentials of {}: give the key credentials of its own, or have the \
                 operator name the namespace in own_credentials of kms_service {:?}",
                service.service.title(),
                service.service.name()
            )));
        }
        let elsewhere = key.is_elsewhere();
        if elsewhere && !service.lets_name_endpoints(namespace) {
            return Err(Fault::invalid(format!(
                "namespace {namespace} may not name an endpoint: leave it out, or have the operator name the namespace in endpoints of \
                 kms_service {:?}",
                service.service.name()
            )));
        }
        if own && elsewhere && !namespace.is_root() {
            return Err(Fault::invalid(
                "an endpoint cannot be given for a key that is used by the daemon's own credentials, which it would see: give the key \
                 credentials of its own, or leave endpoint out",
            ));
        }
        Ok((key, Cloud { kind, envelope: envelope(fields, kind)?, cipher: cipher(fields, kind)? }))
    }

    /// Shows its fields.
    pub(super) fn show(&self, key: &CloudKey, data: &mut Data) {
        match key.service() {
            CloudService::AwsKms => aws::show(key, self.kind, data),
            CloudService::AzureKeyVault => azure::show(key, self.kind, data),
            CloudService::GcpCkms => google::show(key, self.kind, data),
        }
        for field in [OAEP_HASH, CIPHER_MODE] {
            let ways = self.kind.decrypts.iter().filter(|(scheme, _)| field_of(*scheme) == Some(field));
            let usual = self.cipher.or(self.kind.decrypts.first().map(|(scheme, _)| *scheme));
            if let (true, Some(usual)) = (ways.count() > 1, usual) {
                data.insert(field.to_owned(), cipher_name(usual).into());
            }
        }
        // Vault has it of every key in Azure.
        if self.kind.takes_envelopes() || key.service() == CloudService::AzureKeyVault {
            data.insert("encryption_mode".to_owned(), if self.envelope { ENVELOPE } else { RAW }.into());
        }
    }
}

/// The field that tells which of several such ways is meant.
fn field_of(scheme: CipherScheme) -> Option<&'static str> {
    match scheme {
        CipherScheme::RsaOaep { .. } => Some(OAEP_HASH),
        CipherScheme::AesGcm | CipherScheme::AesCbc { .. } => Some(CIPHER_MODE),
        CipherScheme::RsaPkcs1 | CipherScheme::ServiceAead => None,
    }
}

/// What a way is called in that field, and in records.
pub(super) fn cipher_name(scheme: CipherScheme) -> &'static str {
    match scheme {
        CipherScheme::RsaOaep { hash } => oaep_hash_name(hash),
        CipherScheme::AesGcm => "gcm",
        CipherScheme::AesCbc { padded: true } => "cbc-pad",
        CipherScheme::AesCbc { padded: false } => "cbc",
        CipherScheme::RsaPkcs1 | CipherScheme::ServiceAead => "",
    }
}

/// The usual way of encryption, where a registration says one.
fn cipher(fields: &mut Fields<'_>, kind: &CloudKind) -> Result<Option<CipherScheme>, Fault> {
    let mut usual = None;
    for field in [OAEP_HASH, CIPHER_MODE] {
        let Some(name) = fields.filled(field)? else { continue };
        let ways = kind.decrypts.iter().map(|(scheme, _)| *scheme).filter(|scheme| field_of(*scheme) == Some(field));
        let found = ways.clone().find(|scheme| cipher_name(*scheme) == name);
        usual = Some(found.ok_or_else(|| {
            let known: Vec<&str> = ways.map(cipher_name).collect();
            let advice =
                if known.is_empty() { "leave it out".to_owned() } else { format!("use one of {}", known.join(", ")) };
            Fault::invalid(format!("{field} {name:?} is not supported by keys {kind}: {advice}"))
        })?);
    }
    Ok(usual)
}

/// How a plaintext is encrypted: RSA keys of Azure make envelopes unless told otherwise, as in Vault; others where they are told to.
fn envelope(fields: &mut Fields<'_>, kind: &CloudKind) -> Result<bool, Fault> {
    let mode = fields.filled("encryption_mode")?;
    match mode.as_deref() {
        None => Ok(kind.takes_envelopes() && matches!(kind.kind, KeyKind::Rsa { .. })),
        Some(RAW) => Ok(false),
        Some(ENVELOPE) if kind.takes_envelopes() => Ok(true),
        Some(ENVELOPE) => Err(Fault::invalid(format!(
            "encryption_mode \"envelope\" is for RSA keys of Azure, and for symmetric keys of AWS and Google that are not raw, and this one \
             is {kind}: leave it out"
        ))),
        Some(mode) => {
            Err(Fault::invalid(format!("encryption_mode {mode:?} is not supported: use {ENVELOPE:?} or {RAW:?}")))
        }
    }
}

/// Refuses a key that its service cannot generate by the name it is given.
pub(super) fn check_generation(key: &CloudKey) -> Result<(), Fault> {
    match key.service() {
        CloudService::AwsKms => aws::check_generation(key),
        CloudService::GcpCkms => google::check_generation(key),
        CloudService::AzureKeyVault => Ok(()),
    }
}

/// Vault's words for a type that a server was built without.
pub(super) fn unsupported(key_type: &str) -> Fault {
    Fault::invalid(format!("unsupported managed key type {key_type:?}"))
}

/// The kind of key that `key_type`, `key_bits` and `curve` name, for what `usages` say.
fn kind(
    fields: &mut Fields<'_>,
    service: CloudService,
    usages: Option<KeyUsages>,
) -> Result<&'static CloudKind, Fault> {
    let name = fields.filled("key_type")?.ok_or_else(|| required("key_type"))?;
    let upper = name.to_uppercase();
    let of_type: Vec<_> = service.kinds().iter().filter(|kind| kind.key_type == upper).collect();
    if of_type.is_empty() {
        let known = each_once(service.kinds().iter().map(|kind| kind.key_type));
        return Err(Fault::invalid(format!("key_type {name:?} is not supported: use one of {}", known.join(", "))));
    }
    let (bits, curve) = (fields.integer("key_bits")?.unwrap_or(0), curve(fields)?);
    let fits = |kind: &&&CloudKind| match kind.kind {
        KeyKind::Ec(known) => curve == Some(known),
        // Of symmetric keys of AWS there is one size.
        KeyKind::Aes { .. } if of_type.len() == 1 && bits == 0 => true,
        KeyKind::Rsa { bits: known } | KeyKind::Aes { bits: known } | KeyKind::Hmac { bits: known } => {
            bits == i64::from(known)
        }
        KeyKind::Ed25519 | KeyKind::MlDsa(_) => true,
    };
    let mut fitting = of_type.iter().filter(fits).peekable();
    if fitting.peek().is_none() {
        return Err(which(&upper, bits, curve, &of_type));
    }
    let wanted = usages.map_or(KeyUsages::NONE, |usages| usages.and(all_usages()));
    let found = fitting.clone().find(|kind| kind.does.usages().and(wanted) == wanted);
    found.copied().ok_or_else(|| {
        let names = |kind: &&CloudKind| kind.does.usages().iter().map(KeyUsage::name).collect::<Vec<_>>().join(", ");
        let does: Vec<String> = fitting.map(names).collect();
        Fault::invalid(match &does[..] {
            [does] => {
                let sized = if bits == 0 { String::new() } else { format!(" with key_bits {bits}") };
                format!("usages: a key of key_type {upper:?}{sized} does {does}")
            }
            _ => format!(
                "usages: a key of key_type {upper:?} of this service is for {}, and not for both: register two",
                does.join(" or for ")
            ),
        })
    })
}

/// All that keys in clouds are for.
fn all_usages() -> KeyUsages {
    let uses = [CloudUse::SignOrDecrypt, CloudUse::Mac];
    uses.into_iter().flat_map(|does| does.usages().iter().collect::<Vec<_>>()).collect()
}

fn which(key_type: &str, bits: i64, curve: Option<Curve>, of_type: &[&CloudKind]) -> Fault {
    let known = each_once(of_type.iter().map(|kind| match kind.kind {
        KeyKind::Ec(curve) => curve_name(curve).to_owned(),
        KeyKind::Rsa { bits } | KeyKind::Aes { bits } | KeyKind::Hmac { bits } => bits.to_string(),
        KeyKind::Ed25519 | KeyKind::MlDsa(_) => String::new(),
    }));
    let is_ec = matches!(of_type.first().map(|kind| kind.kind), Some(KeyKind::Ec(_)));
    let (field, given) = match (is_ec, curve) {
        (true, None) => ("curve", None),
        (true, Some(curve)) => ("curve", Some(curve_name(curve).to_owned())),
        (false, _) => ("key_bits", (bits != 0).then(|| bits.to_string())),
    };
    let known = known.join(", ");
    Fault::invalid(match given {
        None => format!("{field} is required with key_type {key_type}: one of {known}"),
        Some(given) => format!("{field} {given} is not supported with key_type {key_type}: use one of {known}"),
    })
}

/// A secret that is sent, or kept where it is left out or sent back redacted. An empty one takes it away.
fn secret(fields: &mut Fields<'_>, name: &'static str, old: Option<&Secret>) -> Result<Option<Secret>, Fault> {
    match fields.text(name)? {
        None => Ok(old.cloned()),
        Some(text) if text.is_empty() => Ok(None),
        Some(text) if text == REDACTED => old.cloned().map(Some).ok_or_else(|| {
            Fault::invalid(format!(
                "{name} {REDACTED:?} keeps a secret, but this key has none yet: send the secret itself"
            ))
        }),
        Some(text) => Ok(Some(Secret::new(text.into_bytes()))),
    }
}

/// Refuses to send a kept secret, or what it proves, where it was not given for: whoever changes that need not know it, and the
/// other end would learn it, or be taken for its holder. Every region, vault and project of a service's own is as good as
/// another: there is the same service at the other end.
fn check_kept_secret(
    service: CloudService,
    fields: &mut Fields<'_>,
    old: &CloudKey,
    new: &CloudKey,
) -> Result<(), Fault> {
    let name = match service {
        CloudService::AwsKms => "secret_key",
        CloudService::AzureKeyVault => "client_secret",
        CloudService::GcpCkms => "credentials",
    };
    let is_kept = fields.text(name)?.is_none_or(|text| text == REDACTED);
    let endpoints = |key: &CloudKey| key.copies().filter_map(|copy| copy.endpoint).collect::<Vec<_>>();
    let known = endpoints(old);
    let changed = match (&old.credentials, &new.credentials) {
        (_, CloudCredentials::Own | CloudCredentials::Azure { client_secret: None, .. }) => None,
        _ if endpoints(new).iter().any(|endpoint| !known.contains(endpoint)) => Some("endpoint"),
        (CloudCredentials::Aws { access_key: old, .. }, CloudCredentials::Aws { access_key: new, .. }) => {
            (old != new).then_some("access_key")
        }
        (
            CloudCredentials::Azure { tenant_id, client_id, .. },
            CloudCredentials::Azure { tenant_id: new_tenant, client_id: new_client, .. },
        ) => {
            let is_elsewhere = azure::cloud_of(old) != azure::cloud_of(new);
            let changed = [
                (tenant_id != new_tenant, "tenant_id"),
                (client_id != new_client, "client_id"),
                (is_elsewhere, "environment"),
            ];
            changed.into_iter().find_map(|(changed, field)| changed.then_some(field))
        }
        _ => None,
    };
    match changed {
        Some(field) if is_kept => Err(Fault::invalid(format!(
            "{field} cannot change while {name} is kept, which was given for another: send {name} itself with it"
        ))),
        _ => Ok(()),
    }
}

/// The URL of a service.
fn endpoint(fields: &mut Fields<'_>) -> Result<Option<String>, Fault> {
    let Some(endpoint) = fields.filled("endpoint")? else { return Ok(None) };
    let rest = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '@' | '#' | '?' | '"' | '\\');
    if rest.is_some_and(|rest| rest.chars().all(plain)) && names_host(&endpoint) {
        return Ok(Some(endpoint.trim_end_matches('/').to_owned()));
    }
    Err(Fault::invalid(format!(
        "endpoint {endpoint:?} is no URL such as https://kms.example.com, without a user or a query"
    )))
}

/// Whether a URL names a host, and a port that there is or none.
fn names_host(url: &str) -> bool {
    let Ok(url) = url.parse::<hyper::Uri>() else { return false };
    let Some(authority) = url.authority() else { return false };
    let port = authority.as_str().strip_prefix(authority.host());
    let is_port =
        |port: &str| port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    !authority.host().is_empty() && port.is_some_and(|port| port.is_empty() || is_port(port))
}

#[cfg(test)]
#[path = "cloud_tests.rs"]
mod tests;
