//! `export/:type/:name(/:version)`: public keys, and the certificates set for them. Nothing else leaves a token.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Transit;
use super::certificate::chain_text;
use super::key::{TransitKey, Version, public_text};
use crate::crypto;
use crate::model::{Data, Fault, Fields, KeyKind, Response};

/// What Vault exports of keys that it holds itself.
const KINDS: [&str; 4] = ["encryption-key", "signing-key", "hmac-key", "cmac-key"];

impl Transit {
    /// `GET export/:type/:name`, where the type is one of private keys.
    pub(super) fn refuse_export(&self, kind: &str, name: &str) -> Result<Response, Fault> {
        if !KINDS.contains(&kind) {
            return Err(Fault::invalid(format!("invalid export type: {kind}")));
        }
        self.key(name).ok_or_else(Fault::absent)?;
        Err(Fault::invalid("private key material is not exportable"))
    }

    /// `GET export/public-key/:name(/:version)`; no version is every version.
    pub(super) fn export_public(&self, name: &str, version: &str, data: &Data) -> Result<Response, Fault> {
        let mut fields = Fields::below(data, &["name", "type", "version"]);
        let format = fields.filled("format")?.unwrap_or_default();
        if !["", "raw", "der", "pem"].contains(&format.as_str()) {
            return Err(Fault::invalid(format!("invalid format: {format}")));
        }
        let key = self.key(name).ok_or_else(Fault::absent)?;
        let mut keys = Data::new();
        for version in versions(&key, version)? {
            keys.insert(version.number.to_string(), shown(version, &format)?.into());
        }
        Ok(Response::with_warnings(exported(name, &key, keys), fields.warnings()))
    }

    /// `GET export/certificate-chain/:name(/:version)`; no version is every version that has a chain.
    pub(super) fn export_chain(&self, name: &str, version: &str, data: &Data) -> Result<Response, Fault> {
        let fields = Fields::below(data, &["name", "type", "version"]);
        let key = self.key(name).ok_or_else(Fault::absent)?;
        let asked: Vec<u32> = versions(&key, version)?.into_iter().map(|version| version.number).collect();
        let mut keys = Data::new();
        for (number, record) in key.record.numbered() {
            if asked.contains(&number) && !record.certificate_chain.is_empty() {
                keys.insert(number.to_string(), chain_text(&record.certificate_chain)?.into());
            }
        }
        if keys.is_empty() {
            return Err(Fault::invalid("selected key version does not have a certificate chain available"));
        }
        Ok(Response::with_warnings(exported(name, &key, keys), fields.warnings()))
    }
}

fn exported(name: &str, key: &TransitKey, keys: Data) -> Data {
    let mut data = Data::new();
    data.insert("name".into(), name.into());
    data.insert("type".into(), key.record.type_name().into());
    data.insert("keys".into(), keys.into());
    data
}

/// The versions asked for: all that have a public key, or one.
fn versions<'k>(key: &'k TransitKey, asked: &str) -> Result<Vec<Version<'k>>, Fault> {
    let number = match asked {
        "" => {
            let all = key.record.numbered().filter_map(|(number, _)| key.version(number));
            return Ok(all.filter(Version::has_public_key).collect());
        }
        "latest" => key.latest(),
        number => {
            number.strip_prefix('v').unwrap_or(number).parse().map_err(|_| Fault::invalid("invalid key version"))?
        }
    };
    if number < key.record.min_decryption_version {
        return Err(Fault::invalid("version for export is below minimum decryption version"));
    }
    let version = key.version(number);
    version.map(|version| vec![version]).ok_or_else(|| Fault::invalid("version does not exist or cannot be found"))
}

fn shown(version: Version<'_>, format: &str) -> Result<String, Fault> {
    let public = version.public_key()?;
    match (format, public.kind) {
        ("", _) => public_text(public),
        ("der", _) => Ok(STANDARD.encode(&public.spki)),
        ("raw", KeyKind::Ed25519) => public_text(public),
        ("raw", kind) => {
            Err(Fault::invalid(format!("unknown key format for {kind} key; supported values are ``, `der`, or `pem`")))
        }
        _ => Ok(crypto::pem("PUBLIC KEY", &public.spki)),
    }
}
