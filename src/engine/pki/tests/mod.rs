//! The engine as a whole, on keys in memory, judged by openssl.

mod batching;
mod chaining;
mod combining;
mod deltas;
mod described;
mod hostile;
mod importing;
mod intermediates;
mod issuers;
mod issuing;
mod issuing_keys;
mod leasing;
mod loading;
mod ocsp;
mod revoking;
mod roots;
mod signing_cas;
mod tidying;
mod unfinished;
mod upgrading;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::Pki;
use super::crls::{SignerCrl, Whole};
use super::paths::TABLE;
use super::signing_key::KeySource;
use super::software::Keyring;
use crate::config::{Limits, Storage};
use crate::engine::{BatchRooms, Call, CpuPool, Engine, table};
use crate::model::recorder::{self, Reading};
use crate::model::{
    Caller, Class, Curve, Deadline, Fault, KeyKind, Mount, MountConfig, Namespace, Outcome, PeerCredentials, Request,
    Response, Verb, Wire,
};
use crate::store::{Ephemeral, Store};
use crate::telemetry::Telemetry;

const P256: KeyKind = KeyKind::Ec(Curve::P256);

/// One mount, and a folder for openssl.
struct Desk {
    pki: Arc<Pki>,
    mount: Arc<Mount>,
    keys: Arc<Keyring>,
    store: Store,
    folder: tempfile::TempDir,
    /// Every field that a handler read, with the verb and the pattern it answered.
    readings: Mutex<Vec<(Verb, &'static str, Reading)>>,
}

fn mount() -> Mount {
    Mount {
        namespace: Namespace::root(),
        path: "pki/".into(),
        engine: "pki".into(),
        uuid: "11111111-2222-3333-4444-555555555555".into(),
        accessor: "pki_1".into(),
        description: String::new(),
        options: Default::default(),
        config: MountConfig { max_lease_ttl: Duration::from_secs(10 * 365 * 86400), ..MountConfig::default() },
    }
}

impl Desk {
    /// A mount that may use keys of these kinds, named by the first column.
    fn new(kinds: &[(&str, KeyKind)]) -> Desk {
        let store = Store::open(&Storage::Memory, Box::new(Ephemeral::new().unwrap())).unwrap();
        store.initialize().unwrap();
        Desk::over(store, Arc::new(Keyring::new(kinds)))
    }

    /// A mount with the store and the keys of an earlier one: a restart.
    fn over(store: Store, keys: Arc<Keyring>) -> Desk {
        let desk = Desk::unread(store, keys);
        desk.pki.crls.begin();
        desk
    }

    /// The same, before its revocations are read.
    fn unread(store: Store, keys: Arc<Keyring>) -> Desk {
        let folder = tempfile::tempdir().unwrap();
        let (mount, source) = (mount(), KeySource::Software(Arc::clone(&keys)));
        let published = Some(folder.path().join("published"));
        let limits = Limits::default();
        let shared = (CpuPool::new(1), BatchRooms::new(&limits).of(&Namespace::root()));
        let pki = Pki::load(&mount, source, store.clone(), Telemetry::new(), shared, published, &limits).unwrap();
        Desk { pki, mount: Arc::new(mount), keys, store, folder, readings: Mutex::default() }
    }

    fn restarted(&self) -> Desk {
        Desk::over(self.store.clone(), Arc::clone(&self.keys))
    }

    /// A desk with a P-256 root called `ca`, and a role `any` that allows any key and any name.
    async fn with_root() -> Desk {
        let desk = Desk::new(&[("ca", P256)]);
        desk.write("root/generate/kms", json!({"common_name": "Test Root", "managed_key_name": "ca", "ttl": "87600h"}))
            .await
            .unwrap();
        let role = json!({"allow_any_name": true, "key_type": "any", "allowed_uri_sans": "*", "max_ttl": "720h",
            "allowed_other_sans": "*"});
        desk.write("roles/any", role).await.unwrap();
        desk
    }

    fn call(&self) -> Call {
        let peer = PeerCredentials { uid: 1000, gid: 1000, pid: Some(7) };
        Call {
            mount: Arc::clone(&self.mount),
            caller: Caller::new(peer, Wire::Http),
            deadline: Deadline::after(Duration::from_secs(30)),
            class: Class::Interactive,
        }
    }

    async fn send(&self, verb: Verb, path: &str, body: Value) -> Result<Response, Fault> {
        let mut data = body.as_object().cloned().unwrap_or_default();
        let endpoint = table::endpoint(TABLE, verb, path);
        let mark = endpoint.map(|endpoint| recorder::mark(&endpoint, &mut data));
        let request = Request { verb, path: path.into(), data, raw: Default::default(), if_modified_since: None };
        let answer = Arc::clone(&self.pki).handle(self.call(), request).await;
        if let (Some(endpoint), Some(mark)) = (endpoint, mark) {
            self.readings.lock().extend(recorder::judged(&endpoint, mark));
        }
        match answer? {
            Outcome::Response(response) => Ok(response),
            other => panic!("not a response: {other:?}"),
        }
    }

    async fn write(&self, path: &str, body: Value) -> Result<Value, Fault> {
        self.send(Verb::Write, path, body).await.map(data)
    }

    async fn read(&self, path: &str) -> Result<Value, Fault> {
        self.send(Verb::Read, path, json!({})).await.map(data)
    }

    async fn raw(&self, path: &str) -> (&'static str, Vec<u8>) {
        match self.send(Verb::Read, path, json!({})).await.unwrap() {
            Response::Raw { content_type, body } => (content_type, body.to_vec()),
            other => panic!("not raw: {other:?}"),
        }
    }

    /// A CSR by openssl: `key` are the arguments of `-newkey`, `sans` is the value of subjectAltName.
    fn csr(&self, key: &[&str], subject: &str, sans: &str) -> String {
        let mut arguments = vec!["req", "-new", "-nodes", "-keyout", "key.pem", "-subj", subject, "-newkey"];
        arguments.extend(key);
        let names = format!("subjectAltName={sans}");
        if !sans.is_empty() {
            arguments.extend(["-addext", &names]);
        }
        self.openssl(&arguments)
    }

    /// A P-256 CSR.
    fn p256_csr(&self, subject: &str, sans: &str) -> String {
        self.csr(&["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], subject, sans)
    }

    /// A P-256 CSR that asks for these extensions, a line each.
    fn csr_with(&self, subject: &str, extensions: &str) -> String {
        self.put("req.cnf", &format!("[req]\ndistinguished_name=dn\nreq_extensions=ext\n[dn]\n[ext]\n{extensions}"));
        let key =
            ["req", "-new", "-nodes", "-keyout", "key.pem", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
        self.openssl(&[&key[..], &["-subj", subject, "-config", "req.cnf"]].concat())
    }

    fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, format!("{text}\n")).unwrap();
        path
    }

    /// Runs openssl in the folder; what it prints if it succeeds.
    fn try_openssl(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new("openssl").args(arguments).current_dir(self.folder.path()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(text) } else { Err(format!("{text}{error}")) }
    }

    fn openssl(&self, arguments: &[&str]) -> String {
        self.try_openssl(arguments).unwrap_or_else(|error| panic!("openssl {arguments:?}: {error}"))
    }

    /// Has openssl verify a certificate strictly against the root.
    async fn verify(&self, certificate: &str) -> Result<String, String> {
        let (_, root) = self.raw("ca/pem").await;
        self.put("root.pem", &String::from_utf8(root).unwrap());
        self.put("leaf.pem", certificate);
        self.try_openssl(&["verify", "-x509_strict", "-CAfile", "root.pem", "leaf.pem"])
    }

    /// Has openssl sign a request for a CA as a root of its own; answers both certificates, which are `root.pem` and
    /// `below.pem` too.
    fn openssl_signs(&self, csr: &str) -> (String, String) {
        self.openssl_signs_with(csr, "keyCertSign,cRLSign")
    }

    /// The same, for a CA whose key may be used so.
    fn openssl_signs_with(&self, csr: &str, key_usage: &str) -> (String, String) {
        let root =
            ["req", "-x509", "-new", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-days", "3650"];
        let own = [
            "-keyout",
            "root.key",
            "-subj",
            "/CN=Outer Root",
            "-out",
            "root.pem",
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign",
        ];
        self.openssl(&[&root[..], &own].concat());
        let extensions =
            ["basicConstraints=critical,CA:TRUE", "subjectKeyIdentifier=hash", "authorityKeyIdentifier=keyid"];
        self.put("ca.ext", &format!("{}\nkeyUsage=critical,{key_usage}", extensions.join("\n")));
        let sign = ["x509", "-req", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial", "-days", "3000"];
        self.openssl(&[&sign[..], &["-in", csr, "-extfile", "ca.ext", "-out", "below.pem"]].concat());
        let read = |name| std::fs::read_to_string(self.folder.path().join(name)).unwrap();
        (read("root.pem"), read("below.pem"))
    }

    /// A root and a CA below it, both of openssl's.
    fn openssl_chain(&self) -> (String, String) {
        let csr = self.p256_csr("/CN=Middle CA", "");
        self.put("middle.csr", &csr);
        self.openssl_signs("middle.csr")
    }

    /// Has openssl verify a certificate strictly, by way of a CA below a root.
    fn verify_chain(&self, root: &str, below: &str, leaf: &str, more: &[&str]) -> Result<String, String> {
        self.put("root.pem", root);
        self.put("below.pem", below);
        self.put("leaf.pem", leaf);
        let verify = ["verify", "-x509_strict", "-CAfile", "root.pem", "-untrusted", "below.pem"];
        self.try_openssl(&[&verify[..], more, &["leaf.pem"]].concat())
    }

    /// What openssl reads in a certificate.
    fn text(&self, certificate: &str) -> String {
        self.put("shown.pem", certificate);
        self.openssl(&["x509", "-in", "shown.pem", "-noout", "-text"])
    }

    /// A certificate for `name` of the role `any`, and its serial number.
    async fn leaf(&self, name: &str) -> (String, String) {
        let csr = self.p256_csr(&format!("/CN={name}"), "");
        let answer = self.write("sign/any", json!({ "csr": csr })).await.unwrap();
        (text(&answer["certificate"]), text(&answer["serial_number"]))
    }

    /// The revocations and the CRL of the default issuer.
    fn crl(&self) -> Arc<SignerCrl> {
        self.pki.crls.of(self.pki.authority.load().default_issuer().unwrap().signer())
    }

    /// That revocations are read.
    fn whole(&self) -> Whole {
        self.pki.crls.whole().unwrap()
    }

    fn published(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.folder.path().join("published/root/pki").join(name)).unwrap()
    }
}

/// The data and, under `"warnings"`, the warnings of a response.
fn data(response: Response) -> Value {
    match response {
        Response::Data { data, warnings, .. } => {
            let mut value = Value::Object(data);
            value["warnings"] = warnings.into();
            value
        }
        Response::Empty => Value::Null,
        other => panic!("no data: {other:?}"),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

fn message<T: std::fmt::Debug>(outcome: Result<T, Fault>) -> String {
    outcome.expect_err("ought to be refused").to_string()
}

fn exists(path: &Path) -> bool {
    path.exists()
}
