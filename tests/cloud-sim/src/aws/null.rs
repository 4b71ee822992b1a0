//! Keys of our own, for measuring: as little as a client needs to find a key and sign with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::call::{Call, short};
use super::error::{Error, hex};
use crate::keys::{self, Curve, Hash, Key, Kind, Scheme};
use crate::server::Orders;

const ACCOUNT: &str = "000000000000";
const KEYS_MAX: usize = 10_000;

/// What is stored.
#[derive(Default)]
pub(super) struct Null {
    stored: Mutex<Stored>,
    /// Each key has one signature, made once: right for the first message alone.
    fixed: bool,
}

#[derive(Default)]
struct Stored {
    by_id: BTreeMap<String, Arc<Entry>>,
    /// Ids by `alias/<name>`.
    aliases: BTreeMap<String, String>,
}

struct Entry {
    id: String,
    region: String,
    spec: &'static Spec,
    key: Key,
    signatures: Mutex<BTreeMap<String, Vec<u8>>>,
}

/// A kind of key.
struct Spec {
    name: &'static str,
    kind: Kind,
    algorithms: &'static [&'static str],
}

const RSA: &[&str] = &[
    "RSASSA_PKCS1_V1_5_SHA_256",
    "RSASSA_PKCS1_V1_5_SHA_384",
    "RSASSA_PKCS1_V1_5_SHA_512",
    "RSASSA_PSS_SHA_256",
    "RSASSA_PSS_SHA_384",
    "RSASSA_PSS_SHA_512",
];
const SPECS: &[Spec] = &[
    Spec { name: "RSA_2048", kind: Kind::Rsa { bits: 2048 }, algorithms: RSA },
    Spec { name: "RSA_3072", kind: Kind::Rsa { bits: 3072 }, algorithms: RSA },
    Spec { name: "RSA_4096", kind: Kind::Rsa { bits: 4096 }, algorithms: RSA },
    Spec { name: "ECC_NIST_P256", kind: Kind::Ec(Curve::P256), algorithms: &["ECDSA_SHA_256"] },
    Spec { name: "ECC_NIST_P384", kind: Kind::Ec(Curve::P384), algorithms: &["ECDSA_SHA_384"] },
    Spec { name: "ECC_NIST_P521", kind: Kind::Ec(Curve::P521), algorithms: &["ECDSA_SHA_512"] },
    Spec { name: "ECC_SECG_P256K1", kind: Kind::Ec(Curve::Secp256k1), algorithms: &["ECDSA_SHA_256"] },
    Spec { name: "ECC_NIST_EDWARDS25519", kind: Kind::Ed25519, algorithms: &["ED25519_SHA_512"] },
];

impl Null {
    pub(super) fn new(fixed: bool) -> Null {
        Null { stored: Mutex::default(), fixed }
    }

    pub(super) async fn answer(&self, call: &Call, region: &str, orders: Orders) -> Result<Value, Error> {
        match call.operation.as_str() {
            "CreateKey" => self.create(call, region).await,
            "CreateAlias" => self.alias(call),
            "DescribeKey" => Ok(json!({"KeyMetadata": self.entry(call)?.metadata()})),
            "GetPublicKey" => self.entry(call)?.public(orders),
            "Sign" => self.sign(call, orders),
            other => Err(Error::bad("UnsupportedOperationException", format!("{other} is not done here"))),
        }
    }

    async fn create(&self, call: &Call, region: &str) -> Result<Value, Error> {
        let name = call.text("KeySpec").unwrap_or("SYMMETRIC_DEFAULT");
        let spec = SPECS.iter().find(|spec| spec.name == name);
        let spec =
            spec.ok_or_else(|| Error::bad("UnsupportedOperationException", format!("{name} is not made here")))?;
        if call.text("KeyUsage") != Some("SIGN_VERIFY") {
            return Err(Error::validation("KeyUsage must be SIGN_VERIFY"));
        }
        let random = hex(&keys::random(16)?);
        let part = |from: usize, to: usize| random.get(from..to).unwrap_or_default();
        let id = [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-");
        let key = Key::generate_aside(spec.kind).await?;
        let (region, signatures) = (region.to_owned(), Mutex::default());
        let entry = Arc::new(Entry { id: id.clone(), region, spec, key, signatures });
        let metadata = entry.metadata();
        let mut stored = self.stored.lock();
        if stored.by_id.len() >= KEYS_MAX {
            return Err(Error::bad("LimitExceededException", "there are too many keys"));
        }
        stored.by_id.insert(id, entry);
        Ok(json!({"KeyMetadata": metadata}))
    }

    fn alias(&self, call: &Call) -> Result<Value, Error> {
        let (name, target) = (call.text("AliasName").unwrap_or_default(), call.text("TargetKeyId").unwrap_or_default());
        let (target, mut stored) = (short(target), self.stored.lock());
        if !name.starts_with("alias/") {
            return Err(Error::validation("an alias begins with alias/"));
        }
        if !stored.by_id.contains_key(&target) {
            return Err(Error::not_found(&target));
        }
        stored.aliases.insert(name.to_owned(), target);
        Ok(Value::Null)
    }

    fn entry(&self, call: &Call) -> Result<Arc<Entry>, Error> {
        let name = call.key().unwrap_or_default();
        let stored = self.stored.lock();
        let id = stored.aliases.get(&name).unwrap_or(&name);
        stored.by_id.get(id).cloned().ok_or_else(|| Error::not_found(&name))
    }

    fn sign(&self, call: &Call, orders: Orders) -> Result<Value, Error> {
        let entry = self.entry(call)?;
        let algorithm = call.text("SigningAlgorithm").unwrap_or_default();
        if !entry.spec.algorithms.contains(&algorithm) {
            let what = format!("Algorithm {algorithm} is incompatible with key spec {}.", entry.spec.name);
            return Err(Error::bad("InvalidKeyUsageException", what));
        }
        let message = call.text("Message").and_then(|text| STANDARD.decode(text).ok());
        let message = message.ok_or_else(|| Error::validation("Message must be in Base64"))?;
        let digest = call.text("MessageType") == Some("DIGEST");
        let key = entry.key(orders)?;
        let signature = if self.fixed {
            entry.fixed(key, algorithm, digest, &message)
        } else {
            signed(key, algorithm, digest, &message)
        };
        Ok(json!({"KeyId": entry.arn(), "Signature": STANDARD.encode(signature?), "SigningAlgorithm": algorithm}))
    }
}

impl Entry {
    fn arn(&self) -> String {
        format!("arn:aws:kms:{}:{ACCOUNT}:key/{}", self.region, self.id)
    }

    fn metadata(&self) -> Value {
        json!({
            "AWSAccountId": ACCOUNT, "KeyId": self.id, "Arn": self.arn(), "CreationDate": 1.7e9, "Enabled": true,
            "Description": "", "KeyUsage": "SIGN_VERIFY", "KeyState": "Enabled", "Origin": "AWS_KMS",
            "KeyManager": "CUSTOMER", "CustomerMasterKeySpec": self.spec.name, "KeySpec": self.spec.name,
            "SigningAlgorithms": self.spec.algorithms, "MultiRegion": false,
        })
    }

    /// Its key, or another if that was ordered.
    fn key(&self, orders: Orders) -> Result<&Key, Error> {
        Ok(if orders.other_key { self.key.other()? } else { &self.key })
    }

    fn public(&self, orders: Orders) -> Result<Value, Error> {
        let public = STANDARD.encode(self.key(orders)?.spki().unwrap_or_default());
        Ok(json!({
            "KeyId": self.arn(), "PublicKey": public, "CustomerMasterKeySpec": self.spec.name,
            "KeySpec": self.spec.name, "KeyUsage": "SIGN_VERIFY", "SigningAlgorithms": self.spec.algorithms,
        }))
    }

    /// The first signature of each algorithm, again and again.
    fn fixed(&self, key: &Key, algorithm: &str, digest: bool, message: &[u8]) -> Result<Vec<u8>, Error> {
        if let Some(made) = self.signatures.lock().get(algorithm) {
            return Ok(made.clone());
        }
        let made = signed(key, algorithm, digest, message)?;
        self.signatures.lock().insert(algorithm.to_owned(), made.clone());
        Ok(made)
    }
}

fn signed(key: &Key, algorithm: &str, digest: bool, message: &[u8]) -> Result<Vec<u8>, Error> {
    let hash = match algorithm.rsplit_once('_').map(|(_, bits)| bits) {
        Some("256") => Hash::Sha256,
        Some("384") => Hash::Sha384,
        _ => Hash::Sha512,
    };
    let scheme = match algorithm.split_once('_').map(|(family, rest)| (family, rest.starts_with("PSS"))) {
        Some(("RSASSA", true)) => Scheme::RsaPss(hash),
        Some(("RSASSA", false)) => Scheme::RsaPkcs1(hash),
        Some(("ED25519", _)) => Scheme::Ed25519,
        _ => Scheme::EcdsaDer,
    };
    if digest && message.len() != hash.len() {
        return Err(Error::validation(format!("Digest is invalid length for algorithm {algorithm}.")));
    }
    Ok(if digest { key.sign_digest(scheme, message) } else { key.sign_message(scheme, message) }?)
}
