//! Keys in Google Cloud KMS, as their users live them: a daemon, an emulated Google that does real cryptography, and openssl as the
//! judge.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyway::model::Verb;
use serde_json::{Value, json};

use crate::clouds::{Cloud, simulator};
use crate::daemon::{Daemon, LIMIT, Setup};
use crate::openssl::{P256, openssl, request};
use crate::rig::sum;
use crate::token::Token;

const MESSAGE: &[u8] = b"We, the undersigned, agree.";
const RING: &str = "projects/keyway-test/locations/europe-west3/keyRings/ca";

/// A daemon, and a Google of its own.
struct Rig {
    daemon: Daemon,
    cloud: Cloud,
    token: Token,
}

/// What the emulator hands out: the credential file of a service account, and that of a federated workload.
fn files(token: &Token) -> [PathBuf; 2] {
    ["account.json", "federated.json"].map(|name| token.folder.path().join(name))
}

fn google(token: &Token, ca: Option<&Path>) -> Cloud {
    let [account, federated] = files(token);
    let arguments = ["google", "--shortest-destruction", "0", "--key-ring", RING, "--service-account"];
    let files = [account.to_str().unwrap(), "--federated", federated.to_str().unwrap()];
    Cloud::start(simulator(), ca, &[&arguments[..], &files].concat())
}

impl Rig {
    async fn new() -> Rig {
        Rig::with("").await
    }

    /// With more of the `kms_service`.
    async fn with(stanza: &str) -> Rig {
        let token = Token::absent();
        let cloud = google(&token, None);
        let daemon = Daemon::with(&token, setup(stanza, &[])).await;
        Rig { daemon, cloud, token }
    }

    /// Ends the daemon and starts another on what it left.
    fn restart(self) -> Rig {
        let Rig { daemon, cloud, token } = self;
        let root_token = daemon.root_token.clone();
        drop(daemon);
        let mut daemon = Daemon::start(&token, setup("", &[]));
        daemon.root_token = root_token;
        Rig { daemon, cloud, token }
    }

    /// The fields of a key, by the service account's credential file.
    fn fields(&self, name: &str, algorithm: &str) -> Value {
        fields(&self.cloud, name, algorithm, Some(&files(&self.token)[0]))
    }

    async fn register(&self, name: &str, algorithm: &str) {
        self.daemon.write(&path(name), self.fields(name, algorithm)).await;
    }

    /// A Transit key on a managed key of its own.
    async fn transit_key(&self, name: &str, algorithm: &str) {
        if self.daemon.ask(Verb::Read, "sys/mounts/transit", json!({})).await.status == 400 {
            self.daemon.write("sys/mounts/transit", json!({"type": "transit"})).await;
        }
        self.register(name, algorithm).await;
        let data = json!({"type": "managed_key", "managed_key_name": name});
        self.daemon.write(&format!("transit/keys/{name}"), data).await;
    }

    /// A signature by a Transit key: its status, and the first error.
    async fn sign(&self, name: &str) -> (u16, String) {
        let asked = json!({"input": STANDARD.encode(MESSAGE)});
        let answer = self.daemon.ask(Verb::Write, &format!("transit/sign/{name}"), asked).await;
        let told = if answer.status < 300 { String::new() } else { answer.json()["errors"][0].to_string() };
        (answer.status, told)
    }

    /// Signs until it goes well.
    async fn until_signed(&self, name: &str) {
        let begun = Instant::now();
        loop {
            let (status, told) = self.sign(name).await;
            if status == 200 {
                return;
            }
            assert!(begun.elapsed() < LIMIT, "{status} {told}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Signs until that is refused with this in the error; answers the status.
    async fn until_refused(&self, name: &str, with: &str) -> u16 {
        let begun = Instant::now();
        loop {
            let (status, told) = self.sign(name).await;
            if told.contains(with) {
                return status;
            }
            assert!(begun.elapsed() < LIMIT, "{status} {told}, and not {with}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        sum(&crate::daemon::scrape(&self.daemon.folder.join("metrics.sock")), name, labels)
    }

    /// Says something to the service itself, by a token of its metadata server.
    fn google(&self, method: &str, path: &str, body: &Value) {
        let ask = |method: &str, path: &str, header: (&str, &str), body: &str| {
            let (status, answer) =
                crate::clouds::client::ask(self.cloud.address(), method, path, &[header], body).unwrap();
            assert_eq!(status, 200, "{method} {path}: {answer}");
            serde_json::from_str::<Value>(&answer).unwrap()
        };
        let of_metadata = "/computeMetadata/v1/instance/service-accounts/default/token";
        let token = ask("GET", of_metadata, ("Metadata-Flavor", "Google"), "");
        let header = format!("Bearer {}", token["access_token"].as_str().unwrap());
        ask(method, &format!("/v1/{path}"), ("Authorization", &header), &body.to_string());
    }
}

fn fields(cloud: &Cloud, name: &str, algorithm: &str, credentials: Option<&Path>) -> Value {
    json!({
        "project": "keyway-test", "region": "europe-west3", "key_ring": "ca", "crypto_key": name,
        "algorithm": algorithm, "endpoint": cloud.url, "credentials": credentials,
        "allow_generate_key": true, "any_mount": true,
    })
}

fn setup(stanza: &str, environment: &[(&'static str, String)]) -> Setup {
    let more = format!(
        "kms_service \"gcpckms\" {{\n max_sessions = 4\n call = \"2s\"\n {stanza}\n}}\n\
         limits {{\n probe_min = \"10ms\"\n probe_max = \"50ms\"\n}}\n"
    );
    let all: Vec<_> = environment.iter().map(|(name, value)| (*name, &*value.clone().leak())).collect();
    Setup { more: more.leak(), environment: all.leak(), ..Setup::default() }
}

fn path(name: &str) -> String {
    format!("sys/managed-keys/gcpckms/{name}")
}

fn raw(made: &Value, member: &str) -> Vec<u8> {
    STANDARD.decode(made[member].as_str().unwrap().strip_prefix("vault:v1:").unwrap()).unwrap()
}

/// Each with Vault's name of its hash, and openssl's flag.
const ALGORITHMS: [(&str, &str, &str, &str); 8] = [
    ("p256", "EC_SIGN_P256_SHA256", "sha2-256", "-sha256"),
    ("p384", "ec_sign_p384_sha384", "sha2-384", "-sha384"),
    ("pss", "rsa_sign_pss_2048_sha256", "sha2-256", "-sha256"),
    ("pss512", "RSA_SIGN_PSS_4096_SHA512", "sha2-512", "-sha512"),
    ("pkcs1", "RSA_SIGN_PKCS1_3072_SHA256", "sha2-256", "-sha256"),
    ("raw", "RSA_SIGN_RAW_PKCS1_2048", "sha2-384", "-sha384"),
    ("secp256k1", "EC_SIGN_SECP256K1_SHA256", "sha2-256", "-sha256"),
    ("ed25519", "EC_SIGN_ED25519", "none", ""),
];

#[tokio::test]
async fn openssl_accepts_the_signatures_of_every_kind_of_key() {
    let rig = Rig::new().await;
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("message", MESSAGE);
    for (name, algorithm, hash, flag) in ALGORITHMS {
        rig.transit_key(name, algorithm).await;
        let shown = rig.daemon.read(&path(name)).await;
        assert_eq!(shown["algorithm"], algorithm.to_lowercase());
        assert_eq!((&shown["credentials"], &shown["crypto_key_version"]), (&json!("redacted"), &json!("1")));
        let pss = !flag.is_empty() && name.starts_with("pss");
        let asked = json!({"hash_algorithm": if flag.is_empty() { "sha2-256" } else { hash }, "use_pss": pss});
        rig.daemon.write(&format!("{}/test/sign", path(name)), asked).await;
        let document = rig.daemon.read(&format!("transit/keys/{name}")).await;
        let public = document["keys"]["1"]["public_key"].as_str().unwrap();
        write("key.pub", public.as_bytes());
        let asked = if flag.is_empty() {
            json!({"input": STANDARD.encode(MESSAGE)})
        } else {
            let padding = if pss { "pss" } else { "pkcs1v15" };
            json!({"input": STANDARD.encode(MESSAGE), "hash_algorithm": hash, "salt_length": "hash",
                "signature_algorithm": padding})
        };
        let signed = rig.daemon.write(&format!("transit/sign/{name}"), asked).await;
        write("signature", &raw(&signed, "signature"));
        let mut check = vec!["dgst", flag, "-verify", "key.pub", "-signature", "signature"];
        if pss {
            check.extend(["-sigopt", "rsa_padding_mode:pss"]);
        }
        check.push("message");
        if flag.is_empty() {
            // Vault's form is the key's bytes alone; openssl wants what it is before them (RFC 8410, 4).
            let front = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
            write("key.der", &[&front[..], &STANDARD.decode(public).unwrap()].concat());
            check = vec!["pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", "key.der", "-rawin"];
            check.extend(["-in", "message"]);
            check.extend(["-sigfile", "signature"]);
        }
        let said = openssl(folder.path(), &check).unwrap();
        assert!(said.contains("Verified"), "{name}: {said}");
    }
    assert_eq!(rig.cloud.asked("createCryptoKey"), ALGORITHMS.len() as u64);
    // A curve signs every hash, though the algorithm names one, and padding that is made here takes every hash, too.
    for (name, hash) in [("p256", "sha2-512"), ("p384", "sha2-256"), ("raw", "sha3-256")] {
        rig.daemon.write(&format!("{}/test/sign", path(name)), json!({ "hash_algorithm": hash })).await;
    }
    // A key is asked for what it is not for, in words of what it is.
    for (name, asked) in [("pkcs1", json!({"hash_algorithm": "sha2-512"})), ("pkcs1", json!({"use_pss": true}))] {
        let (status, found) = rig.daemon.refused(&format!("{}/test/sign", path(name)), asked).await;
        assert!(status == 400 && found.contains("RSA_SIGN_PKCS1_3072_SHA256"), "{status} {found}");
    }
    // Another name for the key that is there, by the wrong algorithm.
    let mut wrong = rig.fields("pkcs1", "RSA_SIGN_PSS_3072_SHA256");
    wrong["allow_generate_key"] = false.into();
    rig.daemon.write(&path("wrong"), wrong).await;
    let (_, found) = rig.daemon.refused(&format!("{}/test/sign", path("wrong")), json!({})).await;
    assert!(found.contains("it is RSA_SIGN_PKCS1_3072_SHA256 and registered as RSA_SIGN_PSS_3072_SHA256"), "{found}");
    // It serves what it served, with the same keys, after a restart.
    let created = rig.cloud.asked("createCryptoKey");
    let rig = rig.restart();
    for name in ["p256", "pss", "ed25519"] {
        rig.until_signed(name).await;
    }
    assert_eq!(rig.cloud.asked("createCryptoKey"), created);
}

#[tokio::test]
async fn keys_decrypt_and_make_macs() {
    let rig = Rig::new().await;
    let plaintext = STANDARD.encode(MESSAGE);
    for (name, algorithm) in [("d256", "RSA_DECRYPT_OAEP_2048_SHA256"), ("d1", "RSA_DECRYPT_OAEP_2048_SHA1")] {
        rig.transit_key(name, algorithm).await;
        let made = rig.daemon.write(&format!("transit/encrypt/{name}"), json!({ "plaintext": plaintext })).await;
        let asked = json!({"ciphertext": made["ciphertext"]});
        assert_eq!(rig.daemon.write(&format!("transit/decrypt/{name}"), asked).await["plaintext"], plaintext);
        let changed = made["ciphertext"].as_str().unwrap().replacen("vault:v1:", "vault:v1:AAAA", 1);
        let (status, _) = rig.daemon.refused(&format!("transit/decrypt/{name}"), json!({"ciphertext": changed})).await;
        assert_eq!(status, 400);
    }
    // With associated data, by an IV of the service's own: as much as an HSM takes.
    let aad = STANDARD.encode("whose it is");
    for (name, algorithm) in
        [("symmetric", "GOOGLE_SYMMETRIC_ENCRYPTION"), ("g128", "AES_128_GCM"), ("g256", "aes_256_gcm")]
    {
        rig.transit_key(name, algorithm).await;
        for plaintext in [&plaintext, &STANDARD.encode(vec![7; 8192 - 11])] {
            let asked = json!({"plaintext": plaintext, "associated_data": aad});
            let made = rig.daemon.write(&format!("transit/encrypt/{name}"), asked).await;
            let mut asked = json!({"ciphertext": made["ciphertext"], "associated_data": aad});
            let opened = rig.daemon.write(&format!("transit/decrypt/{name}"), asked.clone()).await;
            assert_eq!(opened["plaintext"], *plaintext, "{name}");
            asked["associated_data"] = "".into();
            assert_eq!(rig.daemon.refused(&format!("transit/decrypt/{name}"), asked).await.0, 400, "{name}");
        }
        let asked = json!({"plaintext": STANDARD.encode(vec![7; 8192]), "associated_data": aad});
        let (status, told) = rig.daemon.refused(&format!("transit/encrypt/{name}"), asked).await;
        assert!(status == 413 && told.contains("at most 8192 bytes with its associated data"), "{status} {told}");
    }
    // In envelopes, of any length.
    let mut fields = rig.fields("symmetric", "google_symmetric_encryption");
    fields["encryption_mode"] = "envelope".into();
    rig.daemon.write(&path("symmetric"), fields).await;
    let long = STANDARD.encode(vec![7; 100_000]);
    let made = rig.daemon.write("transit/encrypt/symmetric", json!({ "plaintext": long })).await;
    let asked = json!({"ciphertext": made["ciphertext"]});
    assert_eq!(rig.daemon.write("transit/decrypt/symmetric", asked).await["plaintext"], long);
    let mut fields = rig.fields("g256", "AES_256_GCM");
    fields["encryption_mode"] = "envelope".into();
    let (status, told) = rig.daemon.refused(&path("g256"), fields).await;
    assert!(status == 400 && told.contains("encryption_mode"), "{status} {told}");
    // Blocks of AES, as many as there are.
    let blocks = STANDARD.encode([7; 48]);
    for (name, algorithm) in [("a128", "AES_128_CBC"), ("a256", "aes_256_cbc")] {
        rig.transit_key(name, algorithm).await;
        let made = rig.daemon.write(&format!("transit/encrypt/{name}"), json!({ "plaintext": blocks })).await;
        let asked = json!({"ciphertext": made["ciphertext"]});
        assert_eq!(rig.daemon.write(&format!("transit/decrypt/{name}"), asked).await["plaintext"], blocks);
        let (status, _) = rig.daemon.refused(&format!("transit/encrypt/{name}"), json!({"plaintext": plaintext})).await;
        assert_eq!(status, 400);
    }
    for (name, algorithm, hash, bytes) in [
        ("mac256", "HMAC_SHA256", "sha2-256", 32),
        ("mac1", "HMAC_SHA1", "sha1", 20),
        ("mac512", "HMAC_SHA512", "sha2-512", 64),
    ] {
        rig.transit_key(name, algorithm).await;
        let asked = json!({"input": plaintext});
        let made = rig.daemon.write(&format!("transit/hmac/{name}/{hash}"), asked).await;
        assert_eq!(raw(&made, "hmac").len(), bytes);
        let asked = json!({"input": plaintext, "hmac": made["hmac"]});
        assert_eq!(rig.daemon.write(&format!("transit/verify/{name}/{hash}"), asked).await["valid"], true);
    }
}

#[tokio::test]
async fn keys_whose_ciphertexts_never_repeat_are_known_by_what_they_open() {
    let rig = Rig::new().await;
    let mut made = Vec::new();
    for (name, algorithm) in [("symmetric", "GOOGLE_SYMMETRIC_ENCRYPTION"), ("gcm", "AES_256_GCM")] {
        rig.transit_key(name, algorithm).await;
        let sealed = rig.daemon.write(&format!("transit/encrypt/{name}"), json!({"plaintext": "c2VjcmV0"})).await;
        made.push((name, json!({"ciphertext": sealed["ciphertext"]})));
    }
    // A version that comes after is not the one that encrypts, and what is made later is opened by the same.
    rig.google("POST", &format!("{RING}/cryptoKeys/symmetric/cryptoKeyVersions"), &json!({}));
    let opened_before = [rig.cloud.asked("decrypt"), rig.cloud.asked("rawDecrypt")];
    let rig = rig.restart();
    for (name, asked) in &made {
        let begun = Instant::now();
        loop {
            let answer = rig.daemon.ask(Verb::Write, &format!("transit/decrypt/{name}"), asked.clone()).await;
            if answer.status == 200 {
                assert_eq!(answer.json()["data"]["plaintext"], "c2VjcmV0");
                break;
            }
            assert!(begun.elapsed() < LIMIT, "{name}: {}", answer.json());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    // The proof, and what was asked.
    let opened = [rig.cloud.asked("decrypt"), rig.cloud.asked("rawDecrypt")];
    assert!(opened[0] >= opened_before[0] + 2 && opened[1] >= opened_before[1] + 2, "{opened_before:?} {opened:?}");
}

#[tokio::test]
async fn openssl_accepts_a_root_and_what_it_issues() {
    let rig = Rig::new().await;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (mount, algorithm) in
        [("ec", "EC_SIGN_P384_SHA384"), ("pkcs1", "RSA_SIGN_PKCS1_2048_SHA256"), ("pss", "RSA_SIGN_PSS_2048_SHA256")]
    {
        rig.register(mount, algorithm).await;
        let settings = json!({"type": "pki", "config": {"max_lease_ttl": "87600h"}});
        rig.daemon.write(&format!("sys/mounts/{mount}"), settings).await;
        let pss = mount == "pss";
        let root = json!({"managed_key_name": mount, "common_name": "Root", "ttl": "80000h", "use_pss": pss});
        let root = rig.daemon.write(&format!("{mount}/root/generate/kms"), root).await;
        let role = json!({"key_type": "ec", "key_bits": 256, "allow_any_name": true, "ttl": "72h", "use_pss": pss});
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
    rig.transit_key("ill", "EC_SIGN_P256_SHA256").await;
    rig.transit_key("well", "EC_SIGN_P256_SHA256").await;
    let version = format!("{RING}/cryptoKeys/ill/cryptoKeyVersions/1");
    let state = format!("{version}?updateMask=state");
    rig.google("PATCH", &state, &json!({"state": "DISABLED"}));
    rig.until_refused("ill", "it is disabled: enable it").await;
    assert_eq!(rig.sign("well").await.0, 200);
    rig.google("PATCH", &state, &json!({"state": "ENABLED"}));
    rig.until_signed("ill").await;
    for (state, told) in [
        ("pending-deletion", "it is to be destroyed"),
        ("deleted", "it is destroyed for good"),
        ("revoked", "cloudkms.cryptoKeyVersions"),
    ] {
        let key = format!("/keys/{RING}/cryptoKeys/ill");
        rig.cloud.steer("PUT", &key, &json!({"state": state}));
        let status = rig.until_refused("ill", told).await;
        assert!([400, 403, 500, 503].contains(&status), "{state}: {status}");
        assert_eq!(rig.sign("well").await.0, 200, "{state}");
        rig.cloud.steer("PUT", &key, &json!({"state": "enabled"}));
        rig.until_signed("ill").await;
    }
    // By the service's own word, which says when; a restored version is disabled.
    rig.google("POST", &format!("{version}:destroy"), &json!({}));
    rig.until_refused("ill", "it is to be destroyed at 2").await;
    assert_eq!(rig.sign("well").await.0, 200);
    rig.google("POST", &format!("{version}:restore"), &json!({}));
    rig.google("PATCH", &state, &json!({"state": "ENABLED"}));
    rig.until_signed("ill").await;
    let log = rig.daemon.log();
    let told = log.lines().filter(|line| line.contains("A KEY IN A CLOUD IS OUT OF USE"));
    assert_eq!(told.filter(|line| line.contains("it is to be destroyed")).count(), 2, "{log}");
}

#[tokio::test]
async fn what_a_bad_moment_breaks_is_tried_again() {
    let rig = Rig::with("verify_after_sign = \"always\"").await;
    rig.transit_key("doc", "EC_SIGN_P256_SHA256").await;
    for trouble in [
        json!({"kind": "status", "status": 500}),
        json!({"kind": "status", "status": 503, "retry_after_ms": 1000}),
        json!({"kind": "status", "status": 504}),
        json!({"kind": "throttle", "retry_after_ms": 1000}),
        json!({"kind": "wrong-checksum"}),
        json!({"kind": "reset"}),
        json!({"kind": "reset-after"}),
    ] {
        let before = rig.cloud.asked("asymmetricSign");
        rig.cloud.fault(&json!({"trouble": trouble, "which": {"next": 1}, "operation": "asymmetricSign"}));
        rig.until_signed("doc").await;
        assert!(rig.cloud.asked("asymmetricSign") > before + 1, "{trouble}");
        rig.cloud.reset();
    }
    // A checksum that stays wrong is told as such, and nothing that it is of.
    rig.cloud.fault(&json!({"trouble": {"kind": "wrong-checksum"}, "operation": "asymmetricSign"}));
    assert_eq!(rig.until_refused("doc", "checksum").await, 503);
    rig.cloud.reset();
    rig.until_signed("doc").await;
    // A permission that is gone for a moment.
    rig.cloud.fault(&json!({"trouble": {"kind": "status", "status": 403}, "operation": "asymmetricSign"}));
    rig.until_refused("doc", "PERMISSION_DENIED").await;
    rig.cloud.reset();
    rig.until_signed("doc").await;
    rig.cloud.fault(&json!({"trouble": {"kind": "refuse"}}));
    rig.cloud.steer("POST", "/connections/drop", &Value::Null);
    assert_eq!(rig.until_refused("doc", "cannot be reached").await, 503);
    rig.cloud.reset();
    rig.until_signed("doc").await;
}

#[tokio::test]
async fn a_wrong_signature_is_given_to_nobody() {
    let rig = Rig::with("verify_after_sign = \"always\"").await;
    rig.transit_key("doc", "EC_SIGN_P256_SHA256").await;
    rig.until_signed("doc").await;
    rig.cloud.fault(&json!({"trouble": {"kind": "wrong-signature"}, "operation": "asymmetricSign"}));
    rig.until_refused("doc", "does not verify").await;
    assert!(rig.metric("keyway_wrong_signatures_total", &[]) >= 1.0);
}

#[tokio::test]
async fn credentials_are_refused_and_lent_as_is_right() {
    let rig = Rig::new().await;
    let contents = std::fs::read_to_string(&files(&rig.token)[0]).unwrap();
    let mut given = rig.fields("doc", "EC_SIGN_P256_SHA256");
    given["credentials"] = contents.as_str().into();
    rig.daemon.write("sys/mounts/transit", json!({"type": "transit"})).await;
    rig.daemon.write(&path("doc"), given.clone()).await;
    let data = json!({"type": "managed_key", "managed_key_name": "doc"});
    rig.daemon.write("transit/keys/doc", data).await;
    rig.until_signed("doc").await;
    // A token that the account's own key signs says when it ends.
    let labels = [("service", "gcpckms"), ("owner", "managed_key")];
    assert!(rig.metric("keyway_service_credentials_left_seconds", &labels) > 0.0);
    // Left out or sent back redacted, credentials stay; so does the key.
    for credentials in [json!("redacted"), Value::Null] {
        let mut fields = given.clone();
        match credentials {
            Value::Null => drop(fields.as_object_mut().unwrap().remove("credentials")),
            credentials => fields["credentials"] = credentials,
        }
        rig.daemon.write(&path("doc"), fields).await;
        rig.until_signed("doc").await;
    }
    // Nothing of the private key is told, whatever is asked for or goes wrong.
    let inner = serde_json::from_str::<Value>(&contents).unwrap()["private_key"].as_str().unwrap()[40..80].to_owned();
    assert!(!rig.daemon.read(&path("doc")).await.to_string().contains(&inner));
    rig.cloud.steer("PUT", "/tokens", &json!({"refuse": true}));
    let status = rig.until_refused("doc", "UNAUTHENTICATED").await;
    assert!([403, 500, 503].contains(&status), "{status}");
    assert!(!rig.daemon.log().contains(&inner));
    rig.cloud.reset();
    rig.until_signed("doc").await;
    // A tenant has neither the daemon's identity, nor files of its host, nor an endpoint of its choice.
    rig.daemon.write("sys/namespaces/team", json!({})).await;
    let mut http = rig.daemon.http();
    http.namespace = Some("team".to_owned());
    let mut ask = async |change: Value| {
        let mut fields = given.clone();
        fields.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let answer = http.request(Verb::Write, &path("doc"), fields.as_object().unwrap()).await.unwrap();
        (answer.status, answer.json()["errors"][0].to_string())
    };
    let (status, told) = ask(json!({})).await;
    assert!(status == 400 && told.contains("may not name an endpoint"), "{status} {told}");
    let [account, federated] = files(&rig.token);
    let service_account = "must be the contents of a service account's file";
    for (credentials, expected) in [
        ("".to_owned(), "may not use the daemon's own credentials"),
        (account.to_str().unwrap().to_owned(), service_account),
        (std::fs::read_to_string(federated).unwrap(), service_account),
    ] {
        let (status, told) = ask(json!({"endpoint": "", "credentials": credentials})).await;
        assert!(status == 400 && told.contains(expected), "{status} {told}");
    }
}

#[tokio::test]
async fn the_daemons_own_identity_is_that_of_its_environment() {
    let token = Token::absent();
    let cloud = google(&token, None);
    let [account, federated] = files(&token).map(|file| file.to_str().unwrap().to_owned());
    for environment in [
        vec![("GOOGLE_CREDENTIALS", std::fs::read_to_string(&account).unwrap())],
        vec![("GOOGLE_APPLICATION_CREDENTIALS", account)],
        vec![("GOOGLE_CREDENTIALS", federated.clone())],
        vec![("GOOGLE_APPLICATION_CREDENTIALS", federated)],
        vec![("GCE_METADATA_HOST", cloud.address().to_owned()), ("HOME", "/nowhere".to_owned())],
    ] {
        let token = Token::absent();
        let daemon = Daemon::with(&token, setup("", &environment)).await;
        let mut asked = fields(&cloud, "own", "EC_SIGN_P256_SHA256", None);
        asked.as_object_mut().unwrap().remove("credentials");
        daemon.write(&path("own"), asked).await;
        daemon.write(&format!("{}/test/sign", path("own")), json!({})).await;
        assert_eq!(daemon.read(&path("own")).await["credentials"], "", "{environment:?}");
        // A token that the service no longer takes is replaced, and nobody notices.
        cloud.steer("POST", "/tokens/expire", &Value::Null);
        let begun = Instant::now();
        let again = async || {
            let answer = daemon.ask(Verb::Write, &format!("{}/test/sign", path("own")), json!({})).await;
            answer.status < 300
        };
        while !again().await {
            assert!(begun.elapsed() < LIMIT, "{environment:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert!(cloud.asked("exchangeToken") >= 2);
    assert!(cloud.asked("metadataToken") >= 1);
}

#[tokio::test]
async fn a_stranger_on_the_way_is_no_service() {
    let token = Token::absent();
    let ca = token.folder.path().join("google.pem");
    let cloud = google(&token, Some(&ca));
    let trusted = [("SSL_CERT_FILE", ca.to_str().unwrap().to_owned())];
    let daemon = Daemon::with(&token, setup("", &trusted)).await;
    let [account, _] = files(&token);
    daemon.write(&path("doc"), fields(&cloud, "doc", "EC_SIGN_P256_SHA256", Some(&account))).await;
    let sign = format!("{}/test/sign", path("doc"));
    daemon.write(&sign, json!({})).await;
    for kind in ["tls-stranger", "tls-abort"] {
        cloud.fault(&json!({"trouble": {"kind": kind}}));
        cloud.steer("POST", "/connections/drop", &Value::Null);
        let begun = Instant::now();
        loop {
            let answer = daemon.ask(Verb::Write, &sign, json!({})).await;
            if answer.status == 503 && answer.json()["errors"][0].to_string().contains("cannot be reached") {
                break;
            }
            assert!(begun.elapsed() < LIMIT, "{kind}: {}", answer.status);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        cloud.reset();
        let begun = Instant::now();
        while daemon.ask(Verb::Write, &sign, json!({})).await.status >= 300 {
            assert!(begun.elapsed() < LIMIT, "{kind}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn fields_are_checked_when_they_are_written() {
    let rig = Rig::new().await;
    for (change, told) in [
        (json!({"algorithm": "EC_SIGN_P257_SHA256"}), "invalid signature algorithm"),
        (json!({"algorithm": "ec_sign_secp256k1_sha256"}), "invalid signature algorithm"),
        (json!({"algorithm": ""}), "algorithm"),
        (json!({"project": ""}), "project"),
        (json!({"project": "../other"}), "project"),
        (json!({"project": ".."}), "project"),
        (json!({"region": "a/b"}), "region"),
        (json!({"key_ring": ""}), "key_ring"),
        (json!({"key_ring": "a/cryptoKeys/b"}), "key_ring"),
        (json!({"crypto_key": "a:b"}), "crypto_key"),
        (json!({"crypto_key_version": "one"}), "crypto_key_version"),
        (json!({"crypto_key_version": "2"}), "must be \"1\" where allow_generate_key is set"),
        (json!({"credentials": "account.json"}), "neither the contents of a credential file nor its whole path"),
        (json!({"credentials": "{\"type\": \"hidden\"}"}), "no type that is known"),
        (json!({"credentials": "{\"private_key\": \"hidden\""}), "no JSON of a credential file"),
        (json!({"endpoint": "ftp://127.0.0.1"}), "endpoint"),
        (json!({"usages": "mac"}), "usages"),
    ] {
        let mut fields = rig.fields("doc", "EC_SIGN_P256_SHA256");
        fields.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let (status, found) = rig.daemon.refused(&path("doc"), fields).await;
        assert!(status == 400 && found.contains(told) && !found.contains("hidden"), "{change}: {status} {found}");
    }
}
