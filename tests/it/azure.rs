//! Keys in Azure Key Vault and Managed HSM, as their users live them: a daemon, an emulated Azure that does real cryptography, and
//! openssl as the judge.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyway::model::Verb;
use serde_json::{Value, json};

use crate::clouds::{Cloud, simulator};
use crate::daemon::{Daemon, Setup};
use crate::openssl::{P256, openssl, request};
use crate::rig::sum;
use crate::token::Token;

const MESSAGE: &[u8] = b"We, the undersigned, agree.";
const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
const SECRET: &str = "an application's secret";

/// A daemon, and an Azure of its own.
struct Rig {
    daemon: Daemon,
    cloud: Cloud,
    token: Token,
}

impl Rig {
    async fn new() -> Rig {
        Rig::with("", &[]).await
    }

    /// With more of the `kms_service`, and of the environment.
    async fn with(stanza: &str, environment: &[(&'static str, String)]) -> Rig {
        let token = Token::absent();
        let ca = token.folder.path().join("azure.pem");
        let clients = ["app", "app2", "app3"].map(|client| format!("--client={client}:{SECRET}"));
        let [one, other, third] = clients.each_ref().map(String::as_str);
        let cloud = Cloud::start(simulator(), Some(&ca), &["azure", one, other, third]);
        let service = format!("ca_file = \"{}\"\n {stanza}", ca.display());
        let daemon = Daemon::with(&token, setup(&cloud, &service, environment)).await;
        Rig { daemon, cloud, token }
    }

    /// Ends the daemon and starts another on what it left.
    fn restart(self) -> Rig {
        let Rig { daemon, cloud, token } = self;
        let root_token = daemon.root_token.clone();
        drop(daemon);
        let service = format!("ca_file = \"{}\"", token.folder.path().join("azure.pem").display());
        let mut daemon = Daemon::start(&token, setup(&cloud, &service, &[]));
        daemon.root_token = root_token;
        Rig { daemon, cloud, token }
    }

    /// The fields of a key in the vault `one`, or of the managed HSM `one` for symmetric ones.
    fn fields(&self, name: &str, more: &Value) -> Value {
        let managed = more["key_type"] == "oct-HSM";
        let place = if managed { "managedhsm" } else { "vault" };
        let mut fields = json!({
            "tenant_id": TENANT, "client_id": "app", "client_secret": SECRET, "vault_name": "one", "key_name": name,
            "resource": format!("{place}.azure.net"), "endpoint": format!("{}/{place}/one", self.cloud.url),
            "allow_generate_key": true, "any_mount": true,
        });
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        fields
    }

    async fn register(&self, name: &str, more: Value) {
        self.daemon.write(&path(name), self.fields(name, &more)).await;
    }

    /// A Transit key on a managed key of its own.
    async fn transit_key(&self, name: &str, more: Value) {
        if self.daemon.ask(Verb::Read, "sys/mounts/transit", json!({})).await.status == 400 {
            self.daemon.write("sys/mounts/transit", json!({"type": "transit"})).await;
        }
        self.register(name, more).await;
        let data = json!({"type": "managed_key", "managed_key_name": name});
        self.daemon.write(&format!("transit/keys/{name}"), data).await;
    }

    /// A signature by a Transit key: its status, and the first error.
    async fn sign(&self, name: &str) -> (u16, String) {
        let answer = self
            .daemon
            .ask(Verb::Write, &format!("transit/sign/{name}"), json!({"input": STANDARD.encode(MESSAGE)}))
            .await;
        let told = if answer.status < 300 { String::new() } else { answer.json()["errors"][0].to_string() };
        (answer.status, told)
    }

    /// Signs until it goes well.
    async fn until_signed(&self, name: &str) {
        let begun = std::time::Instant::now();
        loop {
            let (status, told) = self.sign(name).await;
            if status == 200 {
                return;
            }
            assert!(begun.elapsed() < crate::daemon::LIMIT, "{status} {told}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Signs until that is refused with this in the error; answers the status.
    async fn until_refused(&self, name: &str, with: &str) -> u16 {
        let begun = std::time::Instant::now();
        loop {
            let (status, told) = self.sign(name).await;
            if told.contains(with) {
                return status;
            }
            assert!(begun.elapsed() < crate::daemon::LIMIT, "{status} {told}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        sum(&crate::daemon::scrape(&self.daemon.folder.join("metrics.sock")), name, labels)
    }
}

fn setup(cloud: &Cloud, service: &str, environment: &[(&'static str, String)]) -> Setup {
    let more = format!(
        "kms_service \"azurekeyvault\" {{\n max_sessions = 4\n call = \"2s\"\n {service}\n}}\n\
         limits {{\n probe_min = \"10ms\"\n probe_max = \"50ms\"\n}}\n"
    );
    let mut all = vec![("AZURE_AUTHORITY_HOST", &*cloud.url.clone().leak())];
    all.extend(environment.iter().map(|(name, value)| (*name, &*value.clone().leak())));
    Setup { more: more.leak(), environment: all.leak(), ..Setup::default() }
}

fn path(name: &str) -> String {
    format!("sys/managed-keys/azurekeyvault/{name}")
}

fn raw(made: &Value, member: &str) -> Vec<u8> {
    STANDARD.decode(made[member].as_str().unwrap().strip_prefix("vault:v1:").unwrap()).unwrap()
}

/// Each with its bits; of secp256k1, which has as many as P-256, none.
const KINDS: [(&str, &str, u32); 9] = [
    ("rsa-hsm", "RSA-HSM", 2048),
    ("rsa", "RSA", 3072),
    ("ec256", "EC-HSM", 256),
    ("ec384", "EC-HSM", 384),
    ("ec521", "EC-HSM", 521),
    ("soft256", "EC", 256),
    ("soft521", "EC", 521),
    ("secp256k1", "EC-HSM", 0),
    ("softsecp256k1", "EC", 0),
];

fn kind(key_type: &str, bits: u32) -> Value {
    if bits == 0 {
        json!({"key_type": key_type, "curve": "secp256k1"})
    } else if key_type.starts_with("EC") {
        json!({"key_type": key_type, "curve": format!("P{bits}")})
    } else {
        json!({"key_type": key_type, "key_bits": bits})
    }
}

#[tokio::test]
async fn openssl_accepts_the_signatures_of_every_kind_of_key() {
    let rig = Rig::new().await;
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("message", MESSAGE);
    for (name, key_type, bits) in KINDS {
        rig.transit_key(name, kind(key_type, bits)).await;
        let shown = rig.daemon.read(&path(name)).await;
        assert_eq!((&shown["key_type"], &shown["client_secret"]), (&json!(key_type), &json!("redacted")));
        assert_eq!((&shown["environment"], &shown["vault_name"]), (&json!("AZUREPUBLICCLOUD"), &json!("one")));
        assert!(!shown.to_string().contains(SECRET), "{shown}");
        rig.daemon.write(&format!("{}/test/sign", path(name)), json!({"hash_algorithm": hash_of(bits).0})).await;
        let document = rig.daemon.read(&format!("transit/keys/{name}")).await;
        write("key.pub", document["keys"]["1"]["public_key"].as_str().unwrap().as_bytes());
        let algorithms = if key_type.starts_with("RSA") { &["pss", "pkcs1v15"][..] } else { &[""] };
        for algorithm in algorithms {
            let (hash, flag) = hash_of(bits);
            let asked = json!({"input": STANDARD.encode(MESSAGE), "hash_algorithm": hash,
                "signature_algorithm": algorithm, "salt_length": "hash"});
            let signed = rig.daemon.write(&format!("transit/sign/{name}"), asked).await;
            write("signature", &raw(&signed, "signature"));
            let mut check = vec!["dgst", flag, "-verify", "key.pub", "-signature", "signature"];
            if *algorithm == "pss" {
                check.extend(["-sigopt", "rsa_padding_mode:pss"]);
            }
            check.push("message");
            assert!(openssl(folder.path(), &check).unwrap().contains("Verified OK"), "{name} {algorithm}");
        }
    }
    assert_eq!(rig.cloud.asked("create"), KINDS.len() as u64);
    // A curve signs every hash, though the service knows one for each.
    for (name, hash) in [("ec256", "sha2-512"), ("ec384", "sha2-256"), ("soft521", "sha3-384")] {
        rig.daemon.write(&format!("{}/test/sign", path(name)), json!({ "hash_algorithm": hash })).await;
    }
    // A key is asked for what it is not for, in words of what it is.
    for (name, asked, told) in [
        ("rsa-hsm", json!({"hash_algorithm": "sha1"}), "sha1"),
        ("rsa", json!({"hash_algorithm": "sha3-256"}), "sha3-256"),
    ] {
        let (status, found) = rig.daemon.refused(&format!("{}/test/sign", path(name)), asked).await;
        assert!(status == 400 && found.contains(told), "{status} {found}");
    }
    // It serves what it served, with the same keys, after a restart.
    let created = rig.cloud.asked("create");
    let rig = rig.restart();
    for (name, ..) in KINDS {
        rig.until_signed(name).await;
    }
    assert_eq!(rig.cloud.asked("create"), created);
}

fn hash_of(bits: u32) -> (&'static str, &'static str) {
    match bits {
        384 => ("sha2-384", "-sha384"),
        521 => ("sha2-512", "-sha512"),
        _ => ("sha2-256", "-sha256"),
    }
}

#[tokio::test]
async fn keys_encrypt_decrypt_and_make_macs() {
    let rig = Rig::new().await;
    let plaintext = STANDARD.encode(MESSAGE);
    let read = async |name: &str, made: &Value| {
        let asked = json!({"ciphertext": made["ciphertext"], "associated_data": made["aad"]});
        let read = rig.daemon.write(&format!("transit/decrypt/{name}"), asked).await;
        assert_eq!(read["plaintext"], plaintext, "{name}");
    };
    let usages = "sign,verify,encrypt,decrypt";
    rig.transit_key("both", json!({"key_type": "RSA-HSM", "key_bits": 2048, "usages": usages})).await;
    for padding in ["oaep", "pkcs1v15"] {
        let asked = json!({"plaintext": plaintext, "padding_scheme": padding});
        let made = rig.daemon.write("transit/encrypt/both", asked).await;
        let asked = json!({"ciphertext": made["ciphertext"], "padding_scheme": padding});
        assert_eq!(rig.daemon.write("transit/decrypt/both", asked).await["plaintext"], plaintext, "{padding}");
    }
    rig.until_signed("both").await;
    // In envelopes, unless told otherwise: of any length, and with associated data.
    assert_eq!(rig.daemon.read(&path("both")).await["encryption_mode"], "envelope");
    let (long, aad) = (STANDARD.encode(vec![7; 100_000]), STANDARD.encode("aad"));
    let asked = json!({"plaintext": long, "associated_data": aad});
    let made = rig.daemon.write("transit/encrypt/both", asked).await;
    let mut asked = json!({"ciphertext": made["ciphertext"], "associated_data": aad});
    assert_eq!(rig.daemon.write("transit/decrypt/both", asked.clone()).await["plaintext"], long);
    asked["associated_data"] = STANDARD.encode("other").into();
    assert_eq!(rig.daemon.refused("transit/decrypt/both", asked.clone()).await.0, 400);
    // With the key itself, if told so; and what is in envelopes is opened all the same.
    rig.register("both", json!({"key_type": "RSA-HSM", "key_bits": 2048, "usages": usages, "encryption_mode": "raw"}))
        .await;
    let raw_made = rig.daemon.write("transit/encrypt/both", json!({"plaintext": plaintext})).await;
    assert_eq!(raw(&raw_made, "ciphertext").len(), 256);
    read("both", &raw_made).await;
    asked["associated_data"] = aad.into();
    assert_eq!(rig.daemon.write("transit/decrypt/both", asked).await["plaintext"], long);
    for bits in [128, 192, 256] {
        let name = format!("aes{bits}");
        let fields = json!({"key_type": "oct-HSM", "key_bits": bits, "usages": "encrypt,decrypt"});
        rig.transit_key(&name, fields).await;
        let aad = STANDARD.encode("aad");
        let asked = json!({"plaintext": plaintext, "associated_data": aad});
        let mut made = rig.daemon.write(&format!("transit/encrypt/{name}"), asked).await;
        made["aad"] = aad.into();
        read(&name, &made).await;
        let asked = json!({"ciphertext": made["ciphertext"]});
        assert_eq!(rig.daemon.refused(&format!("transit/decrypt/{name}"), asked).await.0, 400);
    }
    rig.transit_key("mac", json!({"key_type": "oct-HSM", "usages": "mac"})).await;
    let asked = json!({"input": plaintext});
    let made = rig.daemon.write("transit/hmac/mac/sha2-384", asked).await;
    assert_eq!(raw(&made, "hmac").len(), 48);
    let asked = json!({"input": plaintext, "hmac": made["hmac"]});
    assert_eq!(rig.daemon.write("transit/verify/mac/sha2-384", asked).await["valid"], true);
}

#[tokio::test]
async fn openssl_accepts_a_root_and_what_it_issues() {
    let rig = Rig::new().await;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (mount, key_type, bits) in [("rsa", "RSA-HSM", 2048), ("ec", "EC-HSM", 384)] {
        rig.register(mount, kind(key_type, bits)).await;
        let settings = json!({"type": "pki", "config": {"max_lease_ttl": "87600h"}});
        rig.daemon.write(&format!("sys/mounts/{mount}"), settings).await;
        let root = json!({"managed_key_name": mount, "common_name": "Root", "ttl": "80000h"});
        let root = rig.daemon.write(&format!("{mount}/root/generate/kms"), root).await;
        let role = json!({"key_type": "ec", "key_bits": 256, "allow_any_name": true, "ttl": "72h"});
        rig.daemon.write(&format!("{mount}/roles/any"), role).await;
        request(folder, "www", P256, "DNS:www.example.com");
        let csr = std::fs::read_to_string(folder.join("www.csr")).unwrap();
        let leaf = rig.daemon.write(&format!("{mount}/sign/any"), json!({ "csr": csr })).await;
        let revoked = rig.daemon.write(&format!("{mount}/issue/any"), json!({"common_name": "b.example.com"})).await;
        rig.daemon.write(&format!("{mount}/revoke"), json!({"serial_number": revoked["serial_number"]})).await;
        let crl =
            rig.daemon.http().request(Verb::Read, &format!("{mount}/crl/pem"), &Default::default()).await.unwrap();
        std::fs::write(folder.join("ca.crl"), &crl.body).unwrap();
        for (name, value) in [("root", &root), ("leaf", &leaf), ("revoked", &revoked)] {
            let pem = value["certificate"].as_str().unwrap();
            std::fs::write(folder.join(format!("{name}.pem")), format!("{pem}\n")).unwrap();
        }
        let verify = ["verify", "-x509_strict", "-CAfile", "root.pem", "-crl_check", "-CRLfile", "ca.crl"];
        openssl(folder, &[&verify[..], &["leaf.pem"]].concat()).unwrap();
        let refused = openssl(folder, &[&verify[..], &["revoked.pem"]].concat()).unwrap_err();
        assert!(refused.contains("revoked"), "{refused}");
    }
}

#[tokio::test]
async fn a_key_that_cannot_be_used_says_why_once_and_others_go_on() {
    let rig = Rig::new().await;
    rig.transit_key("ill", kind("EC-HSM", 256)).await;
    rig.transit_key("well", kind("EC-HSM", 256)).await;
    for (state, told) in [
        ("disabled", "it is disabled: enable it"),
        ("deleted", "the key is gone"),
        ("revoked", "ForbiddenByRbac"),
        ("pending-deletion", "it is deleted, and can be recovered until"),
    ] {
        rig.cloud.steer("PUT", "/keys/one/ill", &json!({"state": state}));
        let status = rig.until_refused("ill", told).await;
        assert!([400, 403, 500, 503].contains(&status), "{state}: {status}");
        assert_eq!(rig.sign("well").await.0, 200, "{state}");
        rig.cloud.steer("PUT", "/keys/one/ill", &json!({"state": "enabled"}));
        rig.until_signed("ill").await;
    }
}

#[tokio::test]
async fn what_a_bad_moment_breaks_is_tried_again() {
    let rig = Rig::with("verify_after_sign = \"always\"", &[]).await;
    rig.transit_key("doc", kind("EC-HSM", 256)).await;
    for trouble in [
        json!({"kind": "status", "status": 500}),
        json!({"kind": "status", "status": 503, "retry_after_ms": 1000}),
        json!({"kind": "throttle", "retry_after_ms": 1000}),
        json!({"kind": "reset"}),
        json!({"kind": "reset-after"}),
    ] {
        let before = rig.cloud.asked("sign");
        rig.cloud.fault(&json!({"trouble": trouble, "which": {"next": 1}, "operation": "sign"}));
        rig.until_signed("doc").await;
        assert!(rig.cloud.asked("sign") > before + 1, "{trouble}");
        rig.cloud.reset();
    }
    for kind in ["tls-abort", "tls-stranger", "refuse"] {
        rig.cloud.fault(&json!({"trouble": {"kind": kind}}));
        rig.cloud.steer("POST", "/connections/drop", &Value::Null);
        let status = rig.until_refused("doc", "cannot be reached").await;
        assert_eq!(status, 503, "{kind}");
        rig.cloud.reset();
        rig.until_signed("doc").await;
    }
}

#[tokio::test]
async fn a_wrong_signature_is_given_to_nobody() {
    let rig = Rig::with("verify_after_sign = \"always\"", &[]).await;
    rig.transit_key("doc", kind("EC-HSM", 256)).await;
    rig.until_signed("doc").await;
    rig.cloud.fault(&json!({"trouble": {"kind": "wrong-signature"}, "operation": "sign"}));
    rig.until_refused("doc", "does not verify").await;
    assert!(rig.metric("keyway_wrong_signatures_total", &[]) >= 1.0);
}

#[tokio::test]
async fn credentials_are_renewed_refused_and_lent_as_is_right() {
    let rig = Rig::new().await;
    rig.transit_key("doc", kind("EC-HSM", 256)).await;
    // A token that the service no longer takes is replaced, and nobody notices.
    rig.cloud.steer("POST", "/tokens/expire", &Value::Null);
    assert_eq!(rig.sign("doc").await.0, 200);
    // A wrong secret is told as such, and no secret is in the log.
    let wrong = rig.fields("other", &json!({"key_type": "EC", "curve": "P256", "client_secret": "not right"}));
    rig.daemon.write(&path("wrong"), wrong).await;
    let (status, told) = rig.daemon.refused(&format!("{}/test/sign", path("wrong")), json!({})).await;
    assert!(told.contains("AADSTS7000215"), "{status} {told}");
    let log = rig.daemon.log();
    assert!(!log.contains("not right") && !log.contains(SECRET), "{log}");
    // Left out or sent back redacted, a secret stays; so does the key.
    for secret in [json!("redacted"), Value::Null] {
        let mut fields = rig.fields("doc", &kind("EC-HSM", 256));
        match secret {
            Value::Null => drop(fields.as_object_mut().unwrap().remove("client_secret")),
            secret => fields["client_secret"] = secret,
        }
        rig.daemon.write(&path("doc"), fields).await;
        rig.until_signed("doc").await;
    }
    // A kept one goes nowhere that it was not given for.
    for (field, other) in [("endpoint", "https://elsewhere.example"), ("tenant_id", "other"), ("client_id", "other")] {
        let mut fields = rig.fields("doc", &kind("EC-HSM", 256));
        fields["client_secret"] = "redacted".into();
        fields[field] = other.into();
        let (status, told) = rig.daemon.refused(&path("doc"), fields).await;
        let expected = format!("{field} cannot change while client_secret is kept");
        assert!(status == 400 && told.contains(&expected), "{field}: {status} {told}");
    }
    // How long its tokens are good is seen, by no secret.
    let identity = format!("app of {TENANT}");
    let labels = [("service", "azurekeyvault"), ("owner", "managed_key"), ("identity", &*identity)];
    assert!(rig.metric("keyway_service_credentials_left_seconds", &labels) > 0.0);
    // A tenant has neither the daemon's identity nor an endpoint of its choice.
    rig.daemon.write("sys/namespaces/team", json!({})).await;
    let mut http = rig.daemon.http();
    http.namespace = Some("team".to_owned());
    let mut fields = rig.fields("doc", &kind("EC-HSM", 256));
    let mut ask = async |fields: &Value| {
        let answer = http.request(Verb::Write, &path("doc"), fields.as_object().unwrap()).await.unwrap();
        (answer.status, answer.json()["errors"][0].to_string())
    };
    let (status, told) = ask(&fields).await;
    assert!(status == 400 && told.contains("may not name an endpoint"), "{status} {told}");
    fields["endpoint"] = "".into();
    fields["client_secret"] = "".into();
    let (status, told) = ask(&fields).await;
    assert!(status == 400 && told.contains("may not use the daemon's own credentials"), "{status} {told}");
}

/// Of the same name, an HSM's key and a software key are two kinds.
#[tokio::test]
async fn a_key_is_what_it_is_registered_as() {
    let rig = Rig::new().await;
    for (made, other) in [("RSA", "RSA-HSM"), ("EC-HSM", "EC")] {
        let key = made.to_lowercase();
        rig.register(&key, kind(made, if made == "RSA" { 2048 } else { 256 })).await;
        rig.daemon.write(&format!("{}/test/sign", path(&key)), json!({})).await;
        let wrong = format!("not-{key}");
        let fields = rig.fields(&key, &kind(other, if made == "RSA" { 2048 } else { 256 }));
        rig.daemon.write(&path(&wrong), fields).await;
        let (status, told) = rig.daemon.refused(&format!("{}/test/sign", path(&wrong)), json!({})).await;
        let both = told.contains(&format!("it is {made}-")) && told.contains(&format!("registered as {other}-"));
        assert!(status == 400 && both, "{status} {told}");
    }
}

/// By different identities, and by names that are the same to the service.
#[tokio::test]
async fn first_uses_at_once_make_one_version() {
    let rig = Rig::new().await;
    for (managed, name, client) in [("one", "shared", "app"), ("other", "Shared", "app2"), ("third", "shared", "app3")]
    {
        let more = json!({"key_type": "EC", "curve": "P256", "client_id": client});
        rig.daemon.write(&path(managed), rig.fields(name, &more)).await;
    }
    rig.cloud.steer("PUT", "/service", &json!({"ms": 300, "operation": "create"}));
    let paths = ["one", "other", "third"].map(|managed| format!("{}/test/sign", path(managed)));
    let [one, other, third] = paths.each_ref().map(|path| rig.daemon.write(path, json!({})));
    tokio::join!(one, other, third);
    assert_eq!(rig.cloud.asked("create"), 1);
}

#[tokio::test]
async fn the_daemons_own_identity_is_that_of_its_environment() {
    let token = Token::absent();
    let assertion = token.folder.path().join("assertion");
    std::fs::write(&assertion, "an assertion").unwrap();
    let ca = token.folder.path().join("azure.pem");
    let arguments = ["azure", "--client", &format!("app:{SECRET}"), "--assertion", "an assertion"];
    let cloud = Cloud::start(simulator(), Some(&ca), &arguments);
    for environment in [
        vec![("AZURE_CLIENT_ID", "app".to_owned()), ("AZURE_CLIENT_SECRET", SECRET.to_owned())],
        vec![
            ("AZURE_CLIENT_ID", "app".to_owned()),
            ("AZURE_FEDERATED_TOKEN_FILE", assertion.to_str().unwrap().to_owned()),
        ],
        vec![("IDENTITY_ENDPOINT", format!("{}/msi/token", cloud.url)), ("IDENTITY_HEADER", "any".to_owned())],
    ] {
        let token = Token::absent();
        let service = format!("ca_file = \"{}\"", ca.display());
        let daemon = Daemon::with(&token, setup(&cloud, &service, &environment)).await;
        let fields = json!({
            "tenant_id": TENANT, "vault_name": "one", "key_name": "own", "key_type": "EC", "curve": "P256",
            "endpoint": format!("{}/vault/one", cloud.url), "allow_generate_key": true,
        });
        daemon.write(&path("own"), fields).await;
        daemon.write(&format!("{}/test/sign", path("own")), json!({})).await;
        assert_eq!(daemon.read(&path("own")).await["client_secret"], "", "{environment:?}");
    }
}

#[tokio::test]
async fn fields_are_checked_when_they_are_written() {
    let rig = Rig::new().await;
    let base = kind("RSA-HSM", 2048);
    for (change, told) in [
        (json!({"tenant_id": ""}), "tenant_id"),
        (json!({"tenant_id": "a/b"}), "tenant_id"),
        (json!({"vault_name": "a.b"}), "vault_name"),
        (json!({"key_name": "a_b"}), "key_name"),
        (json!({"key_version": "../x"}), "key_version"),
        (json!({"key_type": "RSA-OAEP"}), "key_type"),
        (json!({"key_bits": 1024}), "key_bits 1024 is not supported"),
        (json!({"key_bits": 0}), "key_bits is required"),
        (json!({"key_type": "EC"}), "curve is required"),
        (json!({"key_type": "oct-HSM", "key_bits": 256, "resource": "vault.azure.net"}), "managed HSMs alone"),
        (json!({"resource": "management.azure.com"}), "resource"),
        (json!({"environment": "AZURECHINACLOUD"}), "vault.azure.cn"),
        (json!({"environment": "AZURE"}), "environment"),
        (json!({"encryption_mode": "paper"}), "encryption_mode"),
        (json!({"key_type": "EC", "curve": "P256", "encryption_mode": "envelope"}), "for RSA keys"),
        (json!({"endpoint": "http://127.0.0.1/vault/one"}), "https"),
        (json!({"client_id": ""}), "client_secret is for a client_id"),
        (json!({"client_id": "a\nb"}), "client_id"),
        (json!({"usages": "sign,mac"}), "usages"),
    ] {
        let mut fields = rig.fields("doc", &base);
        fields.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let (status, found) = rig.daemon.refused(&path("doc"), fields).await;
        assert!(status == 400 && found.contains(told), "{change}: {status} {found}");
    }
}
