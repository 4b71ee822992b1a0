//! What is done with vaults and keys: the operations of Azure's REST API.

use std::sync::Arc;

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE_NO_PAD};
use hyper::Method;
use serde_json::{Value, json};

use super::Azure;
use super::algorithm::{self, Ciphering, Signing};
use super::error::Error;
use super::kind::{self, Kty};
use super::place::{Of, Vault as Address};
use super::token::form_field;
use super::vault::{Attributes, Page, Version};
use crate::control::{Control, KeyState};
use crate::keys::{self, Gcm, Key, Kind};
use crate::server::{Orders, Request};

/// Versions of the API that are spoken.
const API_VERSIONS: [&str; 9] = ["2016-10-01", "7.0", "7.1", "7.2", "7.3", "7.4", "7.5", "7.6", "2025-07-01"];
/// Items of a page, if nobody says, and at most.
const PAGE: usize = 25;
/// The most random bytes at once.
const RANDOM: u64 = 128;

/// Padding may be there or not.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

pub(super) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Does what a request to a vault asks. None is an answer without a body.
pub(super) async fn operate(
    azure: &Azure,
    address: &Address,
    request: &Request,
    orders: Orders,
    control: &Control,
) -> Result<Option<Value>, Error> {
    let asked = Asked::new(request, address, orders, control)?;
    let method = request.method();
    match &address.of {
        Of::Use { name, version, operation } if method == Method::POST => {
            asked.use_key(azure, name, version.as_deref(), operation).map(Some)
        }
        Of::Act { name, act } if method == Method::POST => asked.act(azure, name, act).await.map(Some),
        Of::Key { name, version } => asked.key(azure, method, name, version.as_deref()).map(Some),
        Of::Keys | Of::DeletedKeys | Of::Versions(_) if method == Method::GET => Ok(Some(asked.list(azure))),
        Of::Deleted(name) if method == Method::GET => asked.deleted(azure, name).map(Some),
        Of::Deleted(name) if method == Method::DELETE => azure.with(address, |vault| vault.purge(name)).map(|()| None),
        Of::Random if method == Method::POST && address.hsm => asked.random().map(Some),
        _ => Err(Error::new(400, "BadParameter", format!("Method {method} does not allow operation at this path."))),
    }
}

/// A request to a vault, understood.
struct Asked<'a> {
    address: &'a Address,
    query: &'a [u8],
    body: Value,
    orders: Orders,
    control: &'a Control,
    /// The service's time in seconds of Unix time.
    now: i64,
}

impl<'a> Asked<'a> {
    fn new(
        request: &'a Request,
        address: &'a Address,
        orders: Orders,
        control: &'a Control,
    ) -> Result<Asked<'a>, Error> {
        let query = request.uri().query().unwrap_or_default().as_bytes();
        match form_field(query, "api-version") {
            None => return Err(Error::bad("api-version must be specified")),
            Some(version) if !API_VERSIONS.contains(&version.as_str()) => {
                let latest = API_VERSIONS[API_VERSIONS.len() - 1];
                return Err(Error::bad(format!(
                    "The specified version ({version}) is not recognized. Consider using the latest supported version \
                     ({latest})."
                )));
            }
            Some(_) => {}
        }
        let body = match request.body() {
            body if body.is_empty() => json!({}),
            body => serde_json::from_slice(body).map_err(|error| Error::bad(format!("Invalid JSON: {error}")))?,
        };
        Ok(Asked { address, query, body, orders, control, now: control.now_ms() / 1000 })
    }

    fn list(&self, azure: &Azure) -> Value {
        let after = form_field(self.query, "$skiptoken");
        let wanted = form_field(self.query, "maxresults").and_then(|most| most.parse().ok());
        let most = wanted.unwrap_or(PAGE).clamp(1, PAGE);
        let page: Page = azure.with(self.address, |vault| match &self.address.of {
            Of::Versions(name) => vault.versions(self.address, name, after.as_deref(), most),
            Of::DeletedKeys => vault.deleted_keys(self.address, after.as_deref(), most),
            _ => vault.list(self.address, after.as_deref(), most),
        });
        let path = match &self.address.of {
            Of::Versions(name) => format!("keys/{name}/versions"),
            Of::DeletedKeys => "deletedkeys".into(),
            _ => "keys".into(),
        };
        let version = form_field(self.query, "api-version").unwrap_or_default();
        let next = page.after.map(|after| {
            format!("{}/{path}?api-version={version}&$skiptoken={after}&maxresults={most}", self.address.base)
        });
        json!({"value": page.items, "nextLink": next})
    }

    /// What is asked of a key by its name alone.
    fn key(&self, azure: &Azure, method: &Method, name: &str, version: Option<&str>) -> Result<Value, Error> {
        let operations = kind::operations(&self.body)?;
        azure.with(self.address, |vault| match *method {
            Method::GET => Ok(self.seen(self.ordered(vault.version(name, version)?.clone())?, name)),
            Method::DELETE => vault.delete(self.address, name, self.now),
            Method::PATCH => {
                let found = vault.version(name, version)?;
                found.attributes = found.attributes.clone().with(&self.body);
                found.attributes.updated = self.now;
                if let Some(operations) = operations {
                    found.operations = operations;
                }
                if self.body["tags"].is_object() {
                    found.tags = self.body["tags"].clone();
                }
                Ok(self.seen(found.clone(), name))
            }
            _ => Err(Error::new(400, "BadParameter", format!("Method {method} does not allow operation on keys."))),
        })
    }

    /// A version, with another key if that was ordered.
    fn ordered(&self, mut version: Version) -> Result<Version, Error> {
        if self.orders.other_key {
            version.key = Arc::clone(version.key.other()?);
        }
        Ok(version)
    }

    /// A version as it is shown, with what the control endpoint says of it.
    fn seen(&self, mut version: Version, name: &str) -> Value {
        version.attributes.disabled |= self.state(name) == KeyState::Disabled;
        version.bundle(self.address, name)
    }

    fn state(&self, name: &str) -> KeyState {
        self.control.key_state(&format!("{}/{name}", self.address.name))
    }

    /// A key that was deleted, here or by order.
    fn deleted(&self, azure: &Azure, name: &str) -> Result<Value, Error> {
        azure.with(self.address, |vault| match self.state(name) {
            KeyState::PendingDeletion => vault.as_deleted(self.address, name, self.now),
            _ => vault.deleted(self.address, name),
        })
    }

    async fn act(&self, azure: &Azure, name: &str, act: &str) -> Result<Value, Error> {
        match act {
            "create" => {
                let (kty, kind) = kind::wanted(&self.body, self.address.hsm)?;
                let operations = kind::operations(&self.body)?;
                let usual = || kty.usual_operations().iter().map(|name| (*name).to_owned()).collect();
                let attributes = Attributes::default().with(&self.body);
                self.made(azure, name, kty, kind, operations.unwrap_or_else(usual), attributes).await
            }
            "rotate" => {
                let latest = azure.with(self.address, |vault| vault.version(name, None).cloned())?;
                let (kind, attributes) = (latest.key.kind(), latest.attributes);
                self.made(azure, name, latest.kty, kind, latest.operations, attributes).await
            }
            "recover" => azure.with(self.address, |vault| vault.recover(self.address, name)),
            _ => Err(Error::new(501, "NotImplemented", format!("{act} is not done here."))),
        }
    }

    /// A new version of a key.
    async fn made(
        &self,
        azure: &Azure,
        name: &str,
        kty: Kty,
        kind: Kind,
        operations: Vec<String>,
        attributes: Attributes,
    ) -> Result<Value, Error> {
        azure.with(self.address, |vault| vault.free(name))?;
        let key = Arc::new(Key::generate_aside(kind).await?);
        let id = keys::random(16)?.iter().map(|byte| format!("{byte:02x}")).collect();
        let attributes = Attributes { created: self.now, updated: self.now, ..attributes };
        let tags = self.body["tags"].clone();
        let version = Version { id, kty, key, operations, attributes, tags };
        let bundle = version.bundle(self.address, name);
        azure.with(self.address, |vault| vault.add(name, version))?;
        Ok(bundle)
    }

    fn random(&self) -> Result<Value, Error> {
        match self.body["count"].as_u64() {
            Some(count @ 1..=RANDOM) => {
                let bytes = keys::random(usize::try_from(count).unwrap_or_default())?;
                Ok(json!({"value": encode(&bytes)}))
            }
            _ => Err(Error::bad(format!("count must be between 1 and {RANDOM}"))),
        }
    }

    fn use_key(&self, azure: &Azure, name: &str, version: Option<&str>, operation: &str) -> Result<Value, Error> {
        let found = azure.with(self.address, |vault| vault.version(name, version).cloned())?;
        let mut found = self.ordered(found)?;
        found.attributes.disabled |= self.state(name) == KeyState::Disabled;
        found.attributes.allow(operation, self.now)?;
        if !found.operations.iter().any(|allowed| allowed.eq_ignore_ascii_case(operation)) {
            return Err(Error::not_permitted(operation));
        }
        let kid = self.address.kid(name, Some(&found.id));
        let mut answer = match operation {
            "sign" => json!({"value": encode(&self.signed(&found, &kid)?)}),
            "verify" => return Ok(json!({"value": self.verified(&found, &kid)?})),
            _ => self.ciphered(&found, &kid, operation)?,
        };
        if self.orders.wrong_signature {
            spoil(&mut answer);
        }
        answer["kid"] = kid.into();
        Ok(answer)
    }

    fn algorithm(&self) -> Result<&str, Error> {
        self.body["alg"].as_str().ok_or_else(|| Error::bad("Property alg is required"))
    }

    /// Bytes of the body, none if they are not there.
    fn optional(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        match &self.body[name] {
            Value::Null => Ok(None),
            Value::String(text) => match LENIENT.decode(text) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(_) => Err(Error::bad(format!("Property  has invalid value\r\n'{name}' is not base64url"))),
            },
            _ => Err(Error::bad(format!("Property  has invalid value\r\n'{name}' is not a string"))),
        }
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>, Error> {
        self.optional(name)?.ok_or_else(|| Error::bad(format!("Property {name} is required")))
    }

    fn signed(&self, version: &Version, kid: &str) -> Result<Vec<u8>, Error> {
        let name = self.algorithm()?;
        let value = self.bytes("value")?;
        match algorithm::signing(name, version.kty, version.key.kind(), kid)? {
            Signing::Digest(scheme, length) => {
                right_length("value", name, &value, length)?;
                Ok(version.key.sign_digest(scheme, &value)?)
            }
            Signing::Raw => Ok(version.key.sign_digest(keys::Scheme::RsaPkcs1Raw, &value)?),
            Signing::Mac(hash) => Ok(version.key.mac_with(hash, &value)?),
        }
    }

    fn verified(&self, version: &Version, kid: &str) -> Result<bool, Error> {
        let name = self.algorithm()?;
        let (digest, signature) = (self.bytes("digest")?, self.bytes("value")?);
        match algorithm::signing(name, version.kty, version.key.kind(), kid)? {
            Signing::Digest(scheme, length) => {
                right_length("digest", name, &digest, length)?;
                Ok(version.key.verify_digest(scheme, &digest, &signature)?)
            }
            Signing::Raw => Ok(version.key.verify_digest(keys::Scheme::RsaPkcs1Raw, &digest, &signature)?),
            Signing::Mac(hash) => Ok(version.key.mac_with(hash, &digest)? == signature),
        }
    }

    fn ciphered(&self, version: &Version, kid: &str, operation: &str) -> Result<Value, Error> {
        let key = &version.key;
        let value = self.bytes("value")?;
        let (iv, aad, tag) = (self.optional("iv")?, self.optional("aad")?, self.optional("tag")?);
        let wrap = matches!(operation, "wrapkey" | "unwrapkey");
        let forward = matches!(operation, "encrypt" | "wrapkey");
        let ciphering = algorithm::ciphering(self.algorithm()?, wrap, version.kty, key.kind(), kid)?;
        let needed = |bytes: Option<Vec<u8>>, name: &str| {
            bytes.ok_or_else(|| Error::bad(format!("Property {name} is required for this algorithm")))
        };
        let made = match (ciphering, forward) {
            (Ciphering::Rsa(cipher), true) => key.rsa_encrypt(cipher, &value)?,
            (Ciphering::Rsa(cipher), false) => key.rsa_decrypt(cipher, &value)?,
            (Ciphering::Wrap, true) => key.wrap(&value)?,
            (Ciphering::Wrap, false) => key.unwrap(&value)?,
            (Ciphering::Block(mode), true) => {
                let iv = needed(iv, "iv")?;
                let made = key.block_encrypt(mode, &iv, &value)?;
                return Ok(json!({"value": encode(&made), "iv": encode(&iv)}));
            }
            (Ciphering::Block(mode), false) => key.block_decrypt(mode, &needed(iv, "iv")?, &value)?,
            (Ciphering::Gcm, true) => return sealed(key, iv.as_deref(), aad.as_deref(), &value),
            (Ciphering::Gcm, false) => {
                let sealed = Gcm { ciphertext: value, tag: needed(tag, "tag")? };
                key.gcm_decrypt(&needed(iv, "iv")?, &aad.unwrap_or_default(), &sealed)?
            }
        };
        Ok(json!({"value": encode(&made)}))
    }
}

/// With AES-GCM the service chooses the nonce.
fn sealed(key: &Key, iv: Option<&[u8]>, aad: Option<&[u8]>, value: &[u8]) -> Result<Value, Error> {
    if iv.is_some() {
        return Err(Error::bad("Property iv must not be given for this algorithm"));
    }
    let iv = keys::random(12)?;
    let sealed = key.gcm_encrypt(&iv, aad.unwrap_or_default(), value)?;
    let mut answer = json!({"value": encode(&sealed.ciphertext), "iv": encode(&iv), "tag": encode(&sealed.tag)});
    if let Some(aad) = aad {
        answer["aad"] = encode(aad).into();
    }
    Ok(answer)
}

fn right_length(field: &str, algorithm: &str, bytes: &[u8], wanted: usize) -> Result<(), Error> {
    if bytes.len() == wanted {
        return Ok(());
    }
    Err(Error::bad(format!(
        "Invalid length of '{field}': {} bytes. {algorithm} requires {wanted} bytes, encoded with base64url.",
        bytes.len()
    )))
}

/// Turns over the last bit of what was made.
fn spoil(answer: &mut Value) {
    let mut bytes = answer["value"].as_str().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()).unwrap_or_default();
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    answer["value"] = encode(&bytes).into();
}
