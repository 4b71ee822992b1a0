//! The calls of one key.

use std::future::Future;
use std::sync::Arc;

use azure_core::http::RequestContent;
use azure_core::http::Response;
use azure_security_keyvault_keys::KeyClient;
use azure_security_keyvault_keys::models::{
    CreateKeyParameters, CurveName, EncryptionAlgorithm, Key, KeyClientEncryptOptions, KeyClientGetKeyOptions,
    KeyClientSignOptions, KeyOperation as Permission, KeyOperationParameters, KeyOperationResult, KeyType,
    SignParameters,
};
use bytes::Bytes;

use super::find::{self, Answered, version_of};
use super::mechanism::{Request, request};
use super::{Vault, fault};
use crate::backend::cloud::pace::{self, Domain, Gate, Quota};
use crate::backend::cloud::{self, Call, Found, Service, row_of};
use crate::backend::{BackendError, KeyTemplate};
use crate::crypto;
use crate::model::{
    BLOCK_BYTES, Cipher, CloudKey, CloudKind, CloudPlace, CloudService, CloudUse, Curve, Fault, GCM_IV_BYTES,
    GCM_TAG_BYTES, KeyKind, KeyOperation, SignatureScheme, wiped,
};

/// A key in Azure Key Vault or Managed HSM.
pub(super) struct AzureKey {
    name: String,
    /// The version that a registration names; else the newest.
    version: Option<String>,
    /// What it is called in messages.
    title: String,
    vault: Arc<Vault>,
    service: Arc<Service>,
    /// What the service counts together: the vault.
    domain: String,
    /// Whether it is in a managed HSM.
    managed: bool,
}

impl AzureKey {
    pub(super) fn new(key: &CloudKey, vault: Arc<Vault>, service: Arc<Service>) -> AzureKey {
        let (version, domain, managed) = match &key.place {
            CloudPlace::Azure { vault, domain, version } => {
                let endpoint = key.endpoint.as_deref().unwrap_or_default();
                (version.clone(), format!("{vault}.{domain} {endpoint}"), domain.starts_with("managedhsm."))
            }
            _ => (None, String::new(), false),
        };
        let (name, title) = (key.name.clone(), format!("Azure Key Vault key {key}"));
        AzureKey { name, version, title, vault, service, domain: domain.trim_end().to_owned(), managed }
    }

    fn client(&self) -> &KeyClient {
        &self.vault.client
    }

    /// Makes a call. A token that the service refuses is renewed, once.
    async fn call<'a, T, F>(&'a self, name: &'static str, call: impl Fn() -> F) -> Result<T, BackendError>
    where
        F: Future<Output = azure_core::Result<Response<T>>> + 'a,
        T: serde::de::DeserializeOwned,
    {
        let identity = &self.vault.identity;
        let generation = identity.generation();
        let mut answer = call().await;
        if answer.as_ref().is_err_and(fault::is_token_refused) && identity.renew(generation).await {
            answer = call().await;
        }
        let answer = answer.map_err(|error| fault::of(name, &self.title, &error))?;
        answer.into_model().map_err(|error| fault::of(name, &self.title, &error))
    }

    async fn look_up(&self) -> Result<Option<Found>, BackendError> {
        let get = || {
            let options =
                KeyClientGetKeyOptions { key_version: self.version.clone(), ..KeyClientGetKeyOptions::default() };
            self.client().get_key(&self.name, Some(options))
        };
        let answer: Key = match self.call("get", get).await {
            Ok(answer) => answer,
            Err(error) if fault::is_absent(&error) => return self.look_among_deleted().await,
            Err(error) => return Err(error),
        };
        match find::read(&self.title, answer)? {
            Answered::Pair(found) => Ok(Some(found)),
            Answered::Symmetric { id, macs: true } => {
                let kind = find::symmetric(true).next();
                Ok(kind.map(|kind| Found::new(id, kind, None)))
            }
            Answered::Symmetric { id, macs: false } => self.measure(id).await.map(Some),
        }
    }

    /// A key that was deleted and can be recovered is not one that never was: its name cannot be given to another.
    async fn look_among_deleted(&self) -> Result<Option<Found>, BackendError> {
        match self.call("get deleted", || self.client().get_deleted_key(&self.name, None)).await {
            Ok(key) => Err(find::deleted(&self.title, &key)),
            // Not everybody may ask for those.
            Err(_) => Ok(None),
        }
    }

    /// How long an AES key is: the service tells it only by which algorithms it takes.
    async fn measure(&self, id: String) -> Result<Found, BackendError> {
        let mut refused = None;
        for kind in find::symmetric(false) {
            let cipher = Cipher::AesCbc { iv: [0; BLOCK_BYTES], padded: false };
            let native = cipher.scheme().and_then(|scheme| kind.decryption(scheme));
            let algorithm = native.and_then(|native| native.parse::<EncryptionAlgorithm>().ok());
            let value = Some(vec![0; BLOCK_BYTES]);
            let iv = value.clone();
            let asked = KeyOperationParameters { algorithm, value, iv, ..KeyOperationParameters::default() };
            match self.encrypt(version_of(&id), &asked).await {
                Ok(_) => return Ok(Found::new(id, kind, None)),
                Err(error) if fault::is_input(&error) => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(refused.unwrap_or_else(|| cloud::unknown_kind(&id, "oct-HSM")))
    }

    /// Makes the key: protected by an HSM where its type says so, by software else.
    async fn make(&self, template: &KeyTemplate) -> Result<Found, BackendError> {
        let row = match template.cloud {
            Some(row) => row,
            None => row_of(CloudService::AzureKeyVault.kinds(), template)?,
        };
        if self.version.is_some() {
            let why = "a key is generated without key_version, since the service gives versions: leave it out";
            return Err(BackendError::keep(Fault::invalid(format!("{}: {why}", self.title))));
        }
        let parameters = creation(row);
        let make = || async { self.client().create_key(&self.name, content(&parameters)?, None).await };
        let made: Key = self.call("create", make).await?;
        match find::read(&self.title, made)? {
            Answered::Pair(found) => Ok(found),
            Answered::Symmetric { id, .. } => Ok(Found::new(id, row, None)),
        }
    }

    async fn work(&self, found: &Found, operation: &KeyOperation) -> Result<Bytes, BackendError> {
        let version = version_of(&found.id);
        match request(found, operation)? {
            Request::Sign(asked) => {
                let made = self.sign(version, &asked).await?;
                self.signature(found, operation, made)
            }
            Request::Encrypt(asked) => {
                let made = self.encrypt(version, &asked).await?;
                self.sealed(operation, made)
            }
            Request::Decrypt(asked) => {
                let decrypt = || async { self.client().decrypt(&self.name, version, content(&asked)?, None).await };
                let made: KeyOperationResult = self.call(fault::DECRYPT, decrypt).await?;
                made.result.map(wiped).ok_or_else(|| self.no_answer(fault::DECRYPT))
            }
        }
    }

    async fn sign(&self, version: &str, asked: &SignParameters) -> Result<KeyOperationResult, BackendError> {
        let sign = || async {
            let options =
                KeyClientSignOptions { key_version: Some(version.to_owned()), ..KeyClientSignOptions::default() };
            self.client().sign(&self.name, content(asked)?, Some(options)).await
        };
        self.call("sign", sign).await
    }

    async fn encrypt(&self, version: &str, asked: &KeyOperationParameters) -> Result<KeyOperationResult, BackendError> {
        let encrypt = || async {
            let options =
                KeyClientEncryptOptions { key_version: Some(version.to_owned()), ..KeyClientEncryptOptions::default() };
            self.client().encrypt(&self.name, content(asked)?, Some(options)).await
        };
        self.call("encrypt", encrypt).await
    }

    /// ECDSA signatures come as r and s one after the other.
    fn signature(
        &self,
        found: &Found,
        operation: &KeyOperation,
        made: KeyOperationResult,
    ) -> Result<Bytes, BackendError> {
        let made = made.result.ok_or_else(|| self.no_answer("sign"))?;
        match (operation, found.kind.kind) {
            (KeyOperation::Sign { scheme: SignatureScheme::Ecdsa, .. }, KeyKind::Ec(curve)) => {
                if made.len() != 2 * curve.field_bytes() {
                    return Err(self.no_answer("sign"));
                }
                crypto::ecdsa_der_from_raw(&made).map_err(BackendError::keep)
            }
            _ => Ok(Bytes::from(made)),
        }
    }

    /// The IV, the ciphertext, and of GCM the tag behind it.
    fn sealed(&self, operation: &KeyOperation, made: KeyOperationResult) -> Result<Bytes, BackendError> {
        let ciphertext = made.result.ok_or_else(|| self.no_answer("encrypt"))?;
        let parts = match operation {
            KeyOperation::Encrypt { cipher: Cipher::AesCbc { iv, .. }, .. } => [iv.to_vec(), ciphertext, Vec::new()],
            _ => {
                let (iv, tag) = (made.iv.unwrap_or_default(), made.authentication_tag.unwrap_or_default());
                if iv.len() != GCM_IV_BYTES || tag.len() != GCM_TAG_BYTES {
                    return Err(self.no_answer("encrypt"));
                }
                [iv, ciphertext, tag]
            }
        };
        Ok(parts.concat().into())
    }

    fn no_answer(&self, call: &str) -> BackendError {
        cloud::ill("unreadable_answer", format!("{}: {call}: an answer without a proper result", self.title))
    }
}

/// A body of JSON.
fn content<T: serde::Serialize>(model: &T) -> azure_core::Result<RequestContent<T>> {
    Ok(RequestContent::from(azure_core::json::to_json(model)?.to_vec()))
}

/// What the service is asked to make.
fn creation(row: &CloudKind) -> CreateKeyParameters {
    let (key_size, curve) = match row.kind {
        KeyKind::Rsa { bits } | KeyKind::Aes { bits } => (i32::try_from(bits).ok(), None),
        KeyKind::Hmac { .. } => (Some(256), None),
        KeyKind::Ec(Curve::P256) => (None, Some(CurveName::P256)),
        KeyKind::Ec(Curve::P384) => (None, Some(CurveName::P384)),
        KeyKind::Ec(Curve::P521) => (None, Some(CurveName::P521)),
        KeyKind::Ec(Curve::Secp256k1) => (None, Some(CurveName::P256K)),
        KeyKind::Ed25519 | KeyKind::MlDsa(_) => (None, None),
    };
    let kty = match row.key_type {
        "RSA" => KeyType::Rsa,
        "RSA-HSM" => KeyType::RsaHsm,
        "EC" => KeyType::Ec,
        "EC-HSM" => KeyType::EcHsm,
        _ => KeyType::OctHsm,
    };
    let permissions = match row.does {
        CloudUse::Sign | CloudUse::Mac => vec![Permission::Sign, Permission::Verify],
        CloudUse::Decrypt => vec![Permission::Encrypt, Permission::Decrypt],
        CloudUse::SignOrDecrypt => {
            vec![Permission::Sign, Permission::Verify, Permission::Encrypt, Permission::Decrypt]
        }
    };
    let key_ops = Some(permissions);
    CreateKeyParameters { kty: Some(kty), key_size, curve, key_ops, ..CreateKeyParameters::default() }
}

/// What flow control calls such keys, by what they cost.
fn family(kind: &CloudKind, managed: bool) -> String {
    let hsm = if kind.key_type.ends_with("-HSM") { "-hsm" } else { "" };
    match (kind.kind, managed) {
        (KeyKind::Rsa { bits }, true) => format!("managed rsa-{bits}"),
        (KeyKind::Ec(curve), true) => format!("managed p-{}", curve.bits()),
        (KeyKind::Rsa { bits }, false) => format!("rsa-{bits}{hsm}"),
        (KeyKind::Ec(_), false) => format!("ec{hsm}"),
        _ => "managed oct".to_owned(),
    }
}

impl AzureKey {
    /// The vault's domain, and what a request of this family costs there.
    fn vault(&self, family: &str) -> (Arc<Domain>, u32) {
        let (quota, cost) = pace::azure(family).unwrap_or((Quota::per_second(200.0), 1));
        let quota = self.service.quota(if self.managed { "managed HSM" } else { "vault" }, quota);
        (self.service.domains.domain(&self.domain, quota), cost)
    }
}

impl cloud::Client for AzureKey {
    /// By vault.
    fn gate(&self, found: &Found) -> Arc<Gate> {
        let (domain, cost) = self.vault(&family(found.kind, self.managed));
        domain.gate(cost)
    }

    /// A transaction of the vault like any other.
    fn looks(&self) -> Arc<Gate> {
        let (domain, cost) = self.vault(if self.managed { "managed look-up" } else { "look-up" });
        domain.side_gate(cost)
    }

    fn makes(&self) -> Arc<Gate> {
        let (quota, cost) = pace::azure("creation").unwrap_or((Quota::per_second(1.0), 1));
        let name = format!("{} creation", self.domain);
        self.service.domains.domain(&name, self.service.quota("creation", quota)).side_gate(cost)
    }

    fn find(&self) -> Call<'_, Option<Found>> {
        Box::pin(self.look_up())
    }

    fn generate<'a>(&'a self, template: &'a KeyTemplate) -> Call<'a, Found> {
        Box::pin(self.make(template))
    }

    fn check(&self, found: &Found, operation: &KeyOperation) -> Result<(), BackendError> {
        request(found, operation).map(drop)
    }

    fn perform<'a>(&'a self, found: &'a Found, operation: &'a KeyOperation) -> Call<'a, Bytes> {
        Box::pin(self.work(found, operation))
    }
}
