//! What is set up in the daemon before anything is measured: mounts, keys, CAs, and requests for certificates.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::Failure;
use super::child::Child;
use super::over_http::HttpWork;
use super::target::Key;
use super::work::Work;
use crate::model::Verb;
use crate::wire::proto;

/// Requests certificates are issued for.
const REQUESTS: usize = 20;

/// The secret key of the bench's own.
const CIPHER: &str = "keyway-bench-aes256";

/// Whether OCSP requests have a nonce.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Nonce {
    None,
    Each,
}

/// What the keys of one daemon are made with.
pub(super) struct Preparation<'a> {
    pub(super) child: &'a Child,
    /// The KMS library or pool of every managed key.
    library: &'a str,
    token: Option<&'a str>,
    /// What is there already: a namespace, and a mount or a key in it.
    done: HashSet<(String, String)>,
}

impl<'a> Preparation<'a> {
    pub(super) fn new(child: &'a Child, library: &'a str, token: Option<&'a str>) -> Preparation<'a> {
        Preparation { child, library, token, done: HashSet::new() }
    }

    /// A managed key and a Transit key of the same name, unless they are there. A CA may be made on it, too.
    pub(super) async fn key(&mut self, namespace: &str, key: &Key) -> Result<(), Failure> {
        if !self.done.insert((namespace.to_owned(), key.name.clone())) {
            return Ok(());
        }
        if self.done.insert((namespace.to_owned(), "transit/".into())) {
            self.child.ask(namespace, Verb::Write, "sys/mounts/transit", json!({"type": "transit"})).await?;
        }
        let name = &key.name;
        let mut settings = json!({
            "library": self.library, "key_label": key.label, "any_mount": true, "mechanism": key.mechanism(),
            "allow_raw_signing": true,
        });
        if let Some(token) = self.token {
            settings["token_label"] = token.into();
        }
        if key.public.is_none() {
            (settings["allow_generate_key"], settings["curve"]) = (true.into(), "P256".into());
        }
        self.child.ask(namespace, Verb::Write, &format!("sys/managed-keys/pkcs11/{name}"), settings).await?;
        let data = json!({"type": "managed_key", "managed_key_name": name});
        self.child.ask(namespace, Verb::Write, &format!("transit/keys/{name}"), data).await.map(drop)
    }

    /// A CA on the managed key, in a mount of its own, and requests for it to sign. The key must be prepared.
    pub(super) async fn authority(&mut self, namespace: &str, key: &Key, home: &Path) -> Result<Work, Failure> {
        let path = format!("pki-{}", key.name);
        if self.done.insert((namespace.to_owned(), format!("{path}/"))) {
            let ask = async |path: String, data| self.child.ask(namespace, Verb::Write, &path, data).await;
            let mount = json!({"type": "pki", "config": {"max_lease_ttl": "87600h"}});
            ask(format!("sys/mounts/{path}"), mount).await?;
            let root = json!({"managed_key_name": key.name, "common_name": "bench", "ttl": "87600h"});
            ask(format!("{path}/root/generate/kms"), root).await?;
            let role = json!({"key_type": "any", "allow_any_name": true, "ttl": "24h"});
            ask(format!("{path}/roles/bench"), role).await?;
        }
        let requests = (0..REQUESTS).map(|number| request(home, number)).collect::<Result<_, _>>()?;
        Ok(Work::certify(path, "bench".into(), requests))
    }

    /// A CA as [`Preparation::authority`] makes it, with a role for which the daemon makes the keys.
    pub(super) async fn issuing(&mut self, key: &Key, home: &Path) -> Result<HttpWork, Failure> {
        let mount = self.mount_of_authority(key, home).await?;
        let role = json!({"key_type": "ec", "key_bits": 256, "allow_any_name": true, "ttl": "24h"});
        self.child.ask("", Verb::Write, &format!("{mount}/roles/issue"), role).await?;
        Ok(HttpWork::issue(&mount))
    }

    /// A CA as [`Preparation::authority`] makes it, certificates of it, and OCSP requests for these.
    pub(super) async fn ocsp(&mut self, key: &Key, nonce: Nonce, home: &Path) -> Result<HttpWork, Failure> {
        let work = self.authority("", key, home).await?;
        let mount = self.mount_of_authority(key, home).await?;
        let clients = self.child.clients("", proto::Class::Interactive, 1).await?;
        let client = clients.first().ok_or_else(|| Failure::new("there is no connection"))?;
        let (leaf, issuer, out) = (home.join("leaf.der"), home.join("issuer.der"), home.join("ocsp.der"));
        let mut requests = Vec::new();
        for number in 0..REQUESTS {
            let answer = work.certificate(client, number as u64).await?;
            std::fs::write(&leaf, &answer.certificate)?;
            std::fs::write(&issuer, answer.chain.first().cloned().unwrap_or_default())?;
            let nonce = if nonce == Nonce::Each { "-nonce" } else { "-no_nonce" };
            let path = |path: &'_ Path| path.as_os_str().to_owned();
            let (issuer, leaf, out) = (path(&issuer), path(&leaf), path(&out));
            let words = ["ocsp", nonce, "-issuer", "-cert", "-reqout"].map(OsStr::new);
            openssl(&[words[0], words[1], words[2], &issuer, words[3], &leaf, words[4], &out])?;
            requests.push(std::fs::read(&out)?.into());
        }
        Ok(HttpWork::ocsp(&mount, &requests))
    }

    async fn mount_of_authority(&mut self, key: &Key, home: &Path) -> Result<String, Failure> {
        match self.authority("", key, home).await? {
            Work::Certify { mount, .. } => Ok(mount),
            Work::Sign { .. } => Err(Failure::new("a CA that only signs digests")),
        }
    }

    /// A Transit key that encrypts: AES-GCM, made in the token.
    pub(super) async fn cipher(&mut self) -> Result<&'static str, Failure> {
        let mut settings = json!({
            "library": self.library, "key_label": CIPHER, "any_mount": true, "mechanism": "0x1087", "key_bits": 256,
            "usages": "encrypt,decrypt", "allow_generate_key": true,
        });
        if let Some(token) = self.token {
            settings["token_label"] = token.into();
        }
        self.child.ask("", Verb::Write, &format!("sys/managed-keys/pkcs11/{CIPHER}"), settings).await?;
        let data = json!({"type": "managed_key", "managed_key_name": CIPHER});
        self.child.ask("", Verb::Write, &format!("transit/keys/{CIPHER}"), data).await?;
        Ok(CIPHER)
    }
}

/// What `openssl` answers, or why it did not.
fn openssl(arguments: &[&OsStr]) -> Result<(), Failure> {
    let made = Command::new("openssl").args(arguments).output();
    let made = made.map_err(|error| Failure::new(format!("openssl: {error}; it makes the requests of the bench")))?;
    if !made.status.success() {
        return Err(Failure::new(format!("openssl: {}", String::from_utf8_lossy(&made.stderr).trim())));
    }
    Ok(())
}

/// A PKCS#10 request (DER), made by openssl.
fn request(home: &Path, number: usize) -> Result<bytes::Bytes, Failure> {
    let (name, out) = (format!("host-{number}.example.com"), home.join("request.der"));
    let made = ["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-outform", "DER"];
    let (subject, names) = (format!("/CN={name}"), format!("subjectAltName=DNS:{name}"));
    let named = ["-keyout", "/dev/null", "-subj", &subject, "-addext", &names, "-out"];
    let mut arguments: Vec<&OsStr> = made.iter().chain(&named).map(OsStr::new).collect();
    arguments.push(out.as_os_str());
    openssl(&arguments)?;
    Ok(std::fs::read(out)?.into())
}
