//! What is set up in the daemon before anything is measured: mounts, keys, CAs, and requests for certificates.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::Failure;
use super::child::Child;
use super::target::Key;
use super::work::Work;
use crate::model::Verb;

/// Requests certificates are issued for.
const REQUESTS: usize = 20;

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

    /// A managed key and a Transit key of the same name, unless they are there.
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
}

/// A PKCS#10 request (DER), made by openssl.
fn request(home: &Path, number: usize) -> Result<bytes::Bytes, Failure> {
    let (name, out) = (format!("host-{number}.example.com"), home.join("request.der"));
    let made = Command::new("openssl")
        .args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-outform", "DER"])
        .args(["-keyout", "/dev/null", "-subj", &format!("/CN={name}")])
        .args(["-addext", &format!("subjectAltName=DNS:{name}"), "-out"])
        .arg(&out)
        .output()
        .map_err(|error| Failure::new(format!("openssl: {error}; it makes the requests to be signed")))?;
    if !made.status.success() {
        return Err(Failure::new(format!("openssl: {}", String::from_utf8_lossy(&made.stderr).trim())));
    }
    Ok(std::fs::read(out)?.into())
}
