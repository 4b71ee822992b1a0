//! Mounts that make keys of their own: requests of clients that never heard of managed keys, on a real token.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyway::model::Verb;
use serde_json::{Value, json};

use crate::daemon::{Daemon, Setup};
use crate::openssl::openssl;
use crate::rig::Rig;
use crate::token::{LABEL, Token};

fn options() -> Value {
    json!({"kms_library": "hsm", "token_label": LABEL})
}

async fn registered(daemon: &Daemon) -> Vec<Value> {
    let answer = daemon.ask(Verb::List, "sys/managed-keys/pkcs11", json!({})).await;
    answer.json()["data"]["keys"].as_array().cloned().unwrap_or_default()
}

/// The object of this label among those that the token lists.
fn object<'l>(listed: &'l str, label: &str) -> &'l str {
    let found = listed.split("Object;").find(|object| object.contains(label));
    found.unwrap_or_else(|| panic!("no {label} in {listed}"))
}

#[tokio::test]
async fn transits_own_types_live_in_the_token() {
    let token = Token::new();
    let mut daemon = Daemon::new(&token).await;
    daemon.write("sys/mounts/transit", json!({"type": "transit"})).await;
    let (status, told) = daemon.refused("transit/keys/doc", json!({"type": "ecdsa-p256"})).await;
    assert!(
        status == 400 && told.contains("kms_library") && told.contains("sys/mounts/transit/tune"),
        "{status} {told}"
    );
    for wrong in [json!({"kms_library": "hsm"}), json!({"kms_library": "nobody", "token_label": LABEL})] {
        assert_eq!(daemon.refused("sys/mounts/transit/tune", json!({"options": wrong})).await.0, 400);
        assert_eq!(daemon.refused("sys/mounts/other", json!({"type": "transit", "options": wrong})).await.0, 400);
    }
    daemon.write("sys/mounts/transit/tune", json!({"options": options()})).await;
    let input = STANDARD.encode("a contract");
    for (name, asked) in [
        ("p256", json!({"type": "ecdsa-p256"})),
        ("p384", json!({"type": "ecdsa-p384"})),
        ("ed", json!({"type": "ed25519"})),
        ("aes", json!({})),
        ("mac", json!({"type": "hmac"})),
    ] {
        daemon.write(&format!("transit/keys/{name}"), asked).await;
    }
    for name in ["p256", "p384", "ed"] {
        let signed = daemon.write(&format!("transit/sign/{name}"), json!({"input": input})).await;
        let asked = json!({"input": input, "signature": signed["signature"]});
        assert_eq!(daemon.write(&format!("transit/verify/{name}"), asked).await["valid"], true, "{name}");
    }
    daemon.write("transit/hmac/mac", json!({"input": input})).await;
    let old = daemon.write("transit/encrypt/aes", json!({"plaintext": input})).await;
    assert_eq!(daemon.write("transit/keys/aes/rotate", json!({})).await["latest_version"], 2);
    let new = daemon.write("transit/encrypt/aes", json!({"plaintext": input})).await;
    assert!(new["ciphertext"].as_str().unwrap().starts_with("vault:v2:"), "{new}");

    // Each of them is an object of the token's, which never shows its value.
    let names = registered(&daemon).await;
    assert_eq!(names.len(), 6);
    let (private, secret) = (token.listed("privkey"), token.listed("secrkey"));
    let listed = [private, secret].join("");
    for name in &names {
        let object = object(&listed, name.as_str().unwrap());
        assert!(object.contains("sensitive") && object.contains("never extractable"), "{object}");
    }

    // All is there after a restart, and goes with the keys that use it.
    let root_token = daemon.root_token.clone();
    drop(daemon);
    daemon = Daemon::start(&token, Setup::default());
    daemon.root_token = root_token;
    for sealed in [&old, &new] {
        let read = daemon.write("transit/decrypt/aes", json!({"ciphertext": sealed["ciphertext"]})).await;
        assert_eq!(read["plaintext"], *input);
    }
    assert_eq!(registered(&daemon).await, names);
    let path = format!("sys/managed-keys/pkcs11/{}", names[0].as_str().unwrap());
    let shown = daemon.read(&path).await;
    assert_eq!(shown["owner"], daemon.read("sys/mounts/transit").await["uuid"]);
    assert_eq!(daemon.ask(Verb::Delete, &path, json!({})).await.status, 400);
    daemon.write("transit/keys/aes/config", json!({"deletion_allowed": true})).await;
    assert_eq!(daemon.ask(Verb::Delete, "transit/keys/aes", json!({})).await.status, 204);
    assert_eq!(registered(&daemon).await.len(), 4);
    assert_eq!(daemon.ask(Verb::Delete, "sys/mounts/transit", json!({})).await.status, 204);
    assert_eq!(registered(&daemon).await, Vec::<Value>::new());
    assert_eq!(token.listed("secrkey").matches("Secret Key Object").count(), 3, "the keys themselves stay");
}

#[tokio::test]
async fn authorities_of_type_internal_have_their_keys_in_the_token() {
    let token = Token::new();
    let daemon = Daemon::new(&token).await;
    let mount = json!({"type": "pki", "options": options(), "config": {"max_lease_ttl": "87600h"}});
    for path in ["upper", "lower"] {
        daemon.write(&format!("sys/mounts/{path}"), mount.clone()).await;
    }
    for (asked, expected) in [
        (json!({"key_type": "ec", "key_bits": 224}), "use 256, 384 or 521"),
        (json!({"key_type": "dsa"}), "unknown key_type"),
        (json!({"use_pss": true}), "use_pss is not possible with type internal"),
    ] {
        let mut data = json!({"common_name": "Nobody"});
        data.as_object_mut().unwrap().extend(asked.as_object().unwrap().clone());
        let (status, told) = daemon.refused("upper/root/generate/internal", data).await;
        assert!(status == 400 && told.contains(expected), "{status} {told}");
    }
    assert_eq!(daemon.refused("upper/root/generate/exported", json!({"common_name": "x"})).await.0, 400);
    assert!(
        registered(&daemon).await.is_empty() && token.listed("privkey").is_empty(),
        "refused before a key was made"
    );

    let root = json!({"common_name": "Root", "ttl": "80000h", "key_type": "ec", "key_bits": 384});
    let root = daemon.write("upper/root/generate/internal", root).await;
    assert!(root.get("private_key").is_none(), "{root}");
    let asked = daemon.write("lower/intermediate/generate/internal", json!({"common_name": "Lower"})).await;
    let below = json!({"csr": asked["csr"], "common_name": "Lower", "ttl": "70000h"});
    let below = daemon.write("upper/root/sign-intermediate", below).await;
    daemon.write("lower/intermediate/set-signed", json!({"certificate": below["certificate"]})).await;
    let folder = tempfile::tempdir().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    std::fs::write(folder.path().join("root.pem"), text(&root["certificate"])).unwrap();
    std::fs::write(folder.path().join("lower.pem"), text(&below["certificate"])).unwrap();
    openssl(folder.path(), &["verify", "-CAfile", "root.pem", "lower.pem"]).unwrap();
    let shown = openssl(folder.path(), &["x509", "-in", "lower.pem", "-noout", "-text"]).unwrap();
    assert!(shown.contains("Public-Key: (2048 bit)"), "{shown}");

    let next = json!({"common_name": "Next", "ttl": "80000h", "key_type": "ec"});
    daemon.write("upper/root/rotate/internal", next).await;
    let made = daemon.write("upper/keys/generate/internal", json!({"key_type": "ed25519", "key_name": "spare"})).await;
    assert_eq!(made["key_type"], "ed25519");
    let names = registered(&daemon).await;
    assert_eq!(names.len(), 4);
    let listed = token.listed("privkey");
    for name in &names {
        assert!(object(&listed, name.as_str().unwrap()).contains("never extractable"));
    }
    assert!(daemon.ask(Verb::Delete, "upper/key/spare", json!({})).await.status < 300);
    assert_eq!(registered(&daemon).await.len(), 3);
    assert!(daemon.ask(Verb::Delete, "lower/root", json!({})).await.status < 300);
    assert_eq!(registered(&daemon).await.len(), 2);
}

#[tokio::test]
async fn a_mount_makes_its_keys_in_a_pool() {
    let rig = Rig::real_pool("", &["doc"]).await;
    let daemon = &rig.daemon;
    let told = daemon.refused("sys/mounts/own", json!({"type": "transit", "options": {"kms_library": "both"}})).await.1;
    assert!(told.contains("takes a token_label"), "{told}");
    let told = json!({"type": "transit", "options": {"kms_library": "both", "token_label": "one"}});
    let told = daemon.refused("sys/mounts/own", told).await.1;
    assert!(told.contains("is a kms_pool"), "{told}");
    daemon.write("sys/mounts/own", json!({"type": "transit", "options": {"kms_pool": "both"}})).await;
    daemon.write("own/keys/letters", json!({"type": "ecdsa-p256"})).await;
    let signed = daemon.write("own/sign/letters", json!({"input": ""})).await;
    let asked = json!({"input": "", "signature": signed["signature"]});
    assert_eq!(daemon.write("own/verify/letters", asked).await["valid"], true);
    // One that does several things is tried by the member that made it.
    daemon.write("own/keys/parcels", json!({"type": "rsa-2048"})).await;
    let sealed = daemon.write("own/encrypt/parcels", json!({"plaintext": "eA=="})).await;
    let read = daemon.write("own/decrypt/parcels", json!({"ciphertext": sealed["ciphertext"]})).await;
    assert_eq!(read["plaintext"], "eA==");
}
