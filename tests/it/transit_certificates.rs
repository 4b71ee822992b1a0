//! Certificates of Transit keys: set, shown and exported, as openssl reads them.

use std::path::Path;

use keyway::model::Verb;
use serde_json::{Value, json};

use crate::daemon::{Daemon, Setup};
use crate::openssl::{P256, openssl, request};
use crate::token::{LABEL, Token};

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_certificate_is_set_for_the_version_it_is_of_and_no_other() {
    let token = Token::new();
    let mut daemon = Daemon::new(&token).await;
    let root = daemon.certificate_authority().await;
    let options = json!({"kms_library": "hsm", "token_label": LABEL});
    daemon.write("sys/mounts/transit", json!({"type": "transit", "options": options})).await;
    for (name, kind) in [("rsa", "rsa-2048"), ("ec", "ecdsa-p256"), ("ed", "ed25519"), ("aes", "aes256-gcm96")] {
        daemon.write(&format!("transit/keys/{name}"), json!({"type": kind})).await;
    }
    daemon.write("transit/keys/ec/rotate", json!({})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut leaves = Vec::new();
    for (name, version) in [("rsa", 1), ("ec", 1), ("ec", 2), ("ed", 1)] {
        let asked = daemon.write(&format!("transit/keys/{name}/csr"), json!({"version": version})).await;
        let data = json!({"csr": asked["csr"], "common_name": "a.example.com"});
        let leaf = text(&daemon.write("pki/sign/any", data).await["certificate"]);
        leaves.push((name, version, leaf));
    }
    for (name, version, leaf) in &leaves {
        let path = format!("transit/keys/{name}/set-certificate");
        let chain = format!("{leaf}\n{root}");
        let set = daemon.write(&path, json!({"certificate_chain": chain, "version": version})).await;
        assert_eq!((&set["name"], &set["certificate-chain"]), (&json!(name), &json!(chain)));
    }
    let root_token = daemon.root_token.clone();
    drop(daemon);
    daemon = Daemon::start(&token, Setup::default());
    daemon.root_token = root_token;
    std::fs::write(folder.path().join("root.pem"), &root).unwrap();
    for (name, version, leaf) in &leaves {
        let number = version.to_string();
        let shown = daemon.read(&format!("transit/keys/{name}")).await["keys"][&number]["certificate_chain"].clone();
        let exported = daemon.read(&format!("transit/export/certificate-chain/{name}/{version}")).await;
        assert_eq!(exported["keys"], json!({number: shown}), "{name}");
        assert!(text(&shown).starts_with(leaf.trim()), "{shown}");
        std::fs::write(folder.path().join("chain.pem"), text(&shown)).unwrap();
        openssl(folder.path(), &["verify", "-CAfile", "root.pem", "-untrusted", "chain.pem", "chain.pem"]).unwrap();
    }
    assert_eq!(daemon.read("transit/export/certificate-chain/ec").await["keys"].as_object().unwrap().len(), 2);

    refusals(&daemon, folder.path(), &leaves[0].2, &leaves[1].2, &root).await;
}

/// What is no chain of this key's is refused, and changes nothing. `rsa` and `ec` are of the first versions of those keys.
async fn refusals(daemon: &Daemon, folder: &Path, rsa: &str, ec: &str, root: &str) {
    request(folder, "other", P256, "DNS:other.example.com");
    let csr = std::fs::read_to_string(folder.join("other.csr")).unwrap();
    // One that says of itself that it is no CA's.
    let role = json!({"key_type": "any", "allow_any_name": true, "basic_constraints_valid_for_non_ca": true});
    daemon.write("pki/roles/leaf", role).await;
    let other = text(&daemon.write("pki/sign/leaf", json!({"csr": csr})).await["certificate"]);
    let broken = ec.replacen("MII", "MIJ", 1);
    for (name, data, expected) in [
        ("ec", json!({"certificate_chain": other}), "leaf certificate public key does not match"),
        ("ec", json!({"certificate_chain": ec}), "leaf certificate public key does not match"),
        ("ec", json!({"certificate_chain": ec, "version": 3}), "no such version"),
        ("ec", json!({"certificate_chain": ec, "version": -1}), "no such version"),
        ("ec", json!({"certificate_chain": ec, "version": 0}), "leaf certificate public key does not match"),
        ("ec", json!({"certificate_chain": rsa}), "does not match the transit key type 'ecdsa-p256'"),
        ("ec", json!({"certificate_chain": root}), "first position is not a leaf"),
        ("ec", json!({"certificate_chain": format!("{ec}\n{other}"), "version": 1}), "more than one leaf"),
        ("ec", json!({}), "expected at least one certificate"),
        ("ec", json!({"certificate_chain": "nothing"}), "could not decode a PEM block"),
        ("ec", json!({"certificate_chain": "-----BEGIN CERTIFICATE-----\n"}), "could not decode a PEM block"),
        ("ec", json!({"certificate_chain": csr}), "is no certificate"),
        ("ec", json!({"certificate_chain": broken}), "failed to parse certificate"),
        ("ec", json!({"certificate_chain": format!("{root}\n").repeat(17)}), "at most 16 certificates"),
        ("aes", json!({"certificate_chain": ec}), "does not support signing"),
        ("nobody", json!({"certificate_chain": ec}), "key with provided name 'nobody' not found"),
    ] {
        let (status, told) = daemon.refused(&format!("transit/keys/{name}/set-certificate"), data).await;
        assert!(status == 400 && told.contains(expected), "{expected}: {status} {told}");
    }
    let large = "x".repeat(70_000);
    let data = json!({"certificate_chain": large});
    assert_eq!(daemon.ask(Verb::Write, "transit/keys/ec/set-certificate", data).await.status, 413);
    assert_eq!(daemon.read("transit/export/certificate-chain/ec").await["keys"].as_object().unwrap().len(), 2);
}
